// dsm/net/session_address.hpp - where a session is, as users write it: "host:port/name:N", or "host:port/name" and N.
//
// Used by libdsm (DSM_SESSION, dsm_join). Thread-safety: functions without state. Not async-signal-safe.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace dsm::net {

struct SessionAddress {
  std::string host;  // of dsmd: a name, or a numeric address (without brackets)
  std::uint16_t port = 0;
  std::string session;
  int members = 0;
  [[nodiscard]] std::string daemon() const;  // "host:port", for messages
};

// Empty if it is no such text; `why` then says what is wrong with it, and what is needed, in one clause.
[[nodiscard]] std::optional<SessionAddress> parse_session(std::string_view text, std::string& why);
// Likewise; N comes beside the text.
[[nodiscard]] std::optional<SessionAddress> parse_session(std::string_view where, int members, std::string& why);

}  // namespace dsm::net
