// dsm/core/explorer_text.hpp - messages and actions in words, for ladders, golden conversations and failing tests.
//
// Thread-safety: pure functions. async-signal-safe: no (std::string).
#pragma once
#include <string>

#include "dsm/core/types.hpp"

namespace dsm::core::explorer {

[[nodiscard]] std::string text(Access access);         // "none", "read", "write"
[[nodiscard]] std::string text(const Message& msg);    // "grant write p0 #2 +page"
[[nodiscard]] std::string text(const Action& action);  // "send want read p0 -> 0 on 1", "protect p0 read", "wake 0"
[[nodiscard]] std::string text(const Actions& list);   // one action a line, without a last newline; "" if there is none

}  // namespace dsm::core::explorer
