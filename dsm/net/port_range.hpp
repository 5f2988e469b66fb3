// dsm/net/port_range.hpp - the TCP ports at which a job may listen, for firewalls that let only some through.
//
// Not async-signal-safe. Thread-safety: functions without state.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "ipc/fd.hpp"

namespace dsm::net {

struct PortRange {
  std::uint16_t first = 0, last = 0;  // 0: whichever the kernel chooses
};

// What a rank finds its range in, as "first-last"; not set: any.
inline constexpr const char* ports_variable = "DSMEXEC_PORTS";

// "4000-4099": from 1 to 65535, the first not above the last. Empty for anything else.
[[nodiscard]] std::optional<PortRange> parse_ports(std::string_view text);
[[nodiscard]] std::string to_text(PortRange ports);

// Listens at the first port of the range that is free. Throws std::system_error: EADDRINUSE if none is; otherwise as
// ipc::listen_tcp.
[[nodiscard]] ipc::Fd listen_within(const std::string& address, PortRange ports, int backlog);

}  // namespace dsm::net
