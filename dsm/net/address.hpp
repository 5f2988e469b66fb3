// dsm/net/address.hpp - the numeric address of a socket's ends, as others may dial it.
//
// Thread-safety: plain functions. Not async-signal-safe.
#pragma once
#include <sys/socket.h>

#include <cstdint>
#include <string>

namespace dsm::net {

struct Address {
  std::string host;  // numeric: "127.0.0.1", "::1"
  std::uint16_t port = 0;
  [[nodiscard]] std::string text() const;  // "127.0.0.1:80", "[::1]:80"
};

[[nodiscard]] Address address_of(const sockaddr_storage& storage, socklen_t size);
// This end of a connected socket: for the other side, the way to this host. Throws std::system_error.
[[nodiscard]] Address local_address(int fd);

}  // namespace dsm::net
