#include "dsm/net/address.hpp"

#include <netdb.h>

#include <array>
#include <charconv>
#include <cstring>

#include "ipc/error.hpp"

namespace dsm::net {

std::string Address::text() const {
  const bool six = host.find(':') != std::string::npos;
  return (six ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

Address address_of(const sockaddr_storage& storage, socklen_t size) {
  std::array<char, NI_MAXHOST> host{};
  std::array<char, NI_MAXSERV> service{};
  if (::getnameinfo(reinterpret_cast<const sockaddr*>(&storage), size, host.data(), host.size(), service.data(),
                    service.size(), NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return {"unknown", 0};
  }
  Address address{host.data(), 0};
  std::from_chars(service.data(), service.data() + std::strlen(service.data()), address.port);
  return address;
}

Address local_address(int fd) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  ipc::check(::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size), "getsockname");
  return address_of(storage, size);
}

}  // namespace dsm::net
