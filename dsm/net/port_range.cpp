#include "dsm/net/port_range.hpp"

#include <cerrno>
#include <charconv>
#include <system_error>

#include "ipc/socket.hpp"

namespace dsm::net {
namespace {

// A port number and nothing else; 0 if it is none.
std::uint16_t port_in(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc() && end == text.data() + text.size() ? port : std::uint16_t{0};
}

// A port that is taken, or is for root (ip(7), ip_unprivileged_port_start).
bool next_may_do(const std::system_error& error) {
  return error.code() == std::errc::address_in_use || error.code() == std::errc::permission_denied;
}

}  // namespace

std::optional<PortRange> parse_ports(std::string_view text) {
  const auto dash = text.find('-');
  if (dash == std::string_view::npos) return std::nullopt;
  const PortRange ports{port_in(text.substr(0, dash)), port_in(text.substr(dash + 1))};
  if (ports.first == 0 || ports.last < ports.first) return std::nullopt;
  return ports;
}

std::string to_text(PortRange ports) { return std::to_string(ports.first) + '-' + std::to_string(ports.last); }

ipc::Fd listen_within(const std::string& address, PortRange ports, int backlog) {
  for (std::uint32_t port = ports.first; port < ports.last; ++port) {
    try {
      return ipc::listen_tcp(address, static_cast<std::uint16_t>(port), backlog);
    } catch (const std::system_error& error) {
      if (!next_may_do(error)) throw;
    }
  }
  try {
    return ipc::listen_tcp(address, ports.last, backlog);
  } catch (const std::system_error& error) {
    if (ports.first == 0 || !next_may_do(error)) throw;
    throw std::system_error(
        error.code(), "--port-range " + to_text(ports) +
                          ": none of these ports can be had (a machine needs one for each rank; dsmexec one more)");
  }
}

}  // namespace dsm::net
