// dsm/core/explorer_ladder.hpp - the way to a world, drawn for people: a column per node, an arrow per message.
//
// Only for the explorer. Thread-safety: none.
#pragma once
#include <string>
#include <vector>

#include "dsm/core/explorer_world.hpp"

namespace dsm::core::explorer {

// Walks `way` again from the initial world. A message is drawn when it arrives; when it was sent stands in the sender's column.
[[nodiscard]] std::string ladder(const Setup& setup, Rules& rules, const std::vector<Choice>& way);

}  // namespace dsm::core::explorer
