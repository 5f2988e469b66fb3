// The setup half of ipc/socket.hpp: names, listeners, connections. May allocate and throw; see transfer.cpp for the
// rest.
#include "ipc/socket.hpp"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <chrono>
#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <utility>

#include "ipc/error.hpp"

namespace ipc {
namespace {

// An address of any family with its true length.
struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;
  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

Address unix_address(const std::string& path) {
  if (path.size() > max_unix_path) {
    throw std::length_error("socket path " + path + ": has " + std::to_string(path.size()) + " bytes, at most " +
                            std::to_string(max_unix_path) + " are possible; choose a shorter one");
  }
  if (path.empty() || path.find('\0') != std::string::npos) {
    throw std::system_error(EINVAL, std::generic_category(), "socket path \"" + path + "\"");
  }
  Address result;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  std::memcpy(&result.storage, &address, sizeof address);
  result.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  return result;
}

Address abstract_address(const std::string& name) {
  if (name.size() > max_unix_path) throw std::length_error("abstract socket name " + name + ": over 107 bytes");
  Address result;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, name.data(), name.size());
  std::memcpy(&result.storage, &address, sizeof address);
  // Every byte counts in an abstract name, zeros too: the length says where it ends (unix(7)).
  result.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  return result;
}

Fd make_socket(int family, int type) { return Fd(check(::socket(family, type | SOCK_CLOEXEC, 0), "socket")); }

Fd connect_to(const Address& address, int type, const std::string& what) {
  Fd fd = make_socket(AF_UNIX, type);
  // An interrupted connect of a Unix socket has not begun (it was waiting for room in the backlog), so it may be
  // repeated.
  while (::connect(fd.get(), address.get(), address.length) == -1) {
    if (errno != EINTR) throw_errno("connect " + what);
  }
  return fd;
}

// Between bind() and listen() a live server looks as dead as a stale path, and two servers that both find a stale path
// may remove each other's new one. So whoever makes or replaces a path holds, until it listens, an abstract name
// derived from it: a lock that leaves no file and goes with its process.
Fd lock_path(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  struct stat where {};
  if (::stat(folder.c_str(), &where) == -1) throw_errno("bind " + path);
  const std::string name = "ipc-listen-" + std::to_string(where.st_dev) + "-" + std::to_string(where.st_ino) + "-" +
                           std::to_string(std::hash<std::string>{}(path.substr(slash + 1)));
  const Address address = abstract_address(name);
  Fd lock = make_socket(AF_UNIX, SOCK_STREAM);
  if (::bind(lock.get(), address.get(), address.length) == -1)
    throw_errno("bind " + path + " (another process is just starting there)");
  return lock;
}

// Removes a socket file on which nobody listens. False if it is live, or is no socket at all. REQUIRES: lock_path.
bool remove_if_stale(const std::string& path, const Address& address, int type) {
  //@ solution 06.stale
  struct stat found {};
  if (::lstat(path.c_str(), &found) == -1) return errno == ENOENT;
  if (!S_ISSOCK(found.st_mode)) return false;  // connect() to a plain file is refused just the same
  const Fd probe = make_socket(AF_UNIX, type | SOCK_NONBLOCK);
  if (::connect(probe.get(), address.get(), address.length) == 0) return false;
  // EAGAIN: its backlog is full. EPROTOTYPE: a socket of another type. Both are somebody's.
  if (errno != ECONNREFUSED) return false;
  return ::unlink(path.c_str()) == 0;
  //@ starter
  // TODO 06.stale: the path exists. Is anybody listening there? Ask by connecting: what does a path without a listener
  // answer? And a file that is no socket?
  //| static_cast<void>(path), static_cast<void>(address), static_cast<void>(type);
  //| return false;
  //@ end
}

class ResolverCategory : public std::error_category {
 public:
  [[nodiscard]] const char* name() const noexcept override { return "getaddrinfo"; }
  [[nodiscard]] std::string message(int code) const override { return ::gai_strerror(code); }
};

using AddressList = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

AddressList resolve(const std::string& address, std::uint16_t port, int flags) {
  static const ResolverCategory category;
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int code = ::getaddrinfo(address.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (code == EAI_SYSTEM) throw_errno("resolve " + address);
  if (code != 0) throw std::system_error(code, category, "resolve " + address);
  return {found, &::freeaddrinfo};
}

std::string tcp_name(const std::string& address, std::uint16_t port) {
  const bool v6 = address.find(':') != std::string::npos;
  return (v6 ? "[" + address + "]" : address) + ":" + std::to_string(port);
}

// A port without a listener in the kernel's own range can meet itself: the connection's two ends are then one socket.
bool is_connected_to_itself(int fd) {
  Address here, there;
  here.length = there.length = sizeof(sockaddr_storage);
  return ::getsockname(fd, reinterpret_cast<sockaddr*>(&here.storage), &here.length) == 0 &&
         ::getpeername(fd, reinterpret_cast<sockaddr*>(&there.storage), &there.length) == 0 &&
         here.length == there.length && std::memcmp(&here.storage, &there.storage, here.length) == 0;
}

using Clock = std::chrono::steady_clock;

// Milliseconds for poll(): -1 without a deadline, rounded up so that nobody spins through the last one.
int milliseconds_until(Clock::time_point deadline) {
  if (deadline == Clock::time_point::max()) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return left > 0 ? static_cast<int>(left) : 0;
}

// 0, or the errno with which one address was not reached.
int connect_one(int fd, const addrinfo& to, Clock::time_point deadline) {
  //@ solution 06.connect
  if (::connect(fd, to.ai_addr, to.ai_addrlen) == 0) return 0;
  // Interrupted or not, a non-blocking connect goes on by itself; asking again would only say EALREADY (connect(2)).
  if (errno != EINPROGRESS && errno != EINTR) return errno;
  for (;;) {
    pollfd wait{fd, POLLOUT, 0};
    const int ready = ::poll(&wait, 1, milliseconds_until(deadline));
    if (ready == 0) return ETIMEDOUT;
    if (ready == 1) break;
    if (errno != EINTR) return errno;
  }
  int error = 0;
  socklen_t length = sizeof error;
  check(::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length), "getsockopt SO_ERROR");
  return error;
  //@ starter
  // TODO 06.connect: the socket does not block, so connect() says EINPROGRESS. When is it through, and how do you learn
  // whether it was successful? connect(2) has the recipe.
  //| static_cast<void>(fd), static_cast<void>(to), static_cast<void>(deadline), static_cast<void>(milliseconds_until);
  //| return ENOSYS;
  //@ end
}

}  // namespace

UnixListener::UnixListener(std::string path, int type, int backlog) : path_(std::move(path)), maker_(::getpid()) {
  const Address address = unix_address(path_);
  const Fd lock = lock_path(path_);
  Fd fd = make_socket(AF_UNIX, type);
  check(::fchmod(fd.get(), 0600), "fchmod");  // before bind(): the path never exists with wider permissions
  //@ solution 06.listen
  int bound = ::bind(fd.get(), address.get(), address.length);
  if (bound == -1 && errno == EADDRINUSE) {
    if (!remove_if_stale(path_, address, type)) {
      throw std::system_error(EADDRINUSE, std::generic_category(), "bind " + path_);
    }
    bound = ::bind(fd.get(), address.get(), address.length);
  }
  if (bound == -1) throw_errno("bind " + path_);
  //@ starter
  // TODO 06.listen: bind the socket to the address. If the path is taken, it may be stale: see remove_if_stale.
  //| static_cast<void>(address), static_cast<void>(remove_if_stale);
  //@ end
  struct stat made {};
  if (::lstat(path_.c_str(), &made) == -1) throw_errno("stat " + path_);
  device_ = made.st_dev;
  inode_ = made.st_ino;
  if (::listen(fd.get(), backlog) == -1) {
    const int error = errno;
    ::unlink(path_.c_str());
    throw std::system_error(error, std::generic_category(), "listen " + path_);
  }
  fd_ = std::move(fd);
}

UnixListener::~UnixListener() {
  struct stat now {};
  if (maker_ != ::getpid() || ::lstat(path_.c_str(), &now) == -1) return;
  // Somebody may have removed our path and put another thing there.
  if (now.st_dev == device_ && now.st_ino == inode_) ::unlink(path_.c_str());
}

Fd connect_unix(const std::string& path, int type) { return connect_to(unix_address(path), type, path); }

Fd listen_abstract(const std::string& name, int type, int backlog) {
  const Address address = abstract_address(name);
  Fd fd = make_socket(AF_UNIX, type);
  if (::bind(fd.get(), address.get(), address.length) == -1) throw_errno("bind @" + name);
  if (::listen(fd.get(), backlog) == -1) throw_errno("listen @" + name);
  return fd;
}

Fd connect_abstract(const std::string& name, int type) { return connect_to(abstract_address(name), type, "@" + name); }

uid_t peer_uid(int fd) {
  ucred peer{};
  socklen_t length = sizeof peer;
  check(::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length), "getsockopt SO_PEERCRED");
  return peer.uid;
}

Fd listen_tcp(const std::string& address, std::uint16_t port, int backlog) {
  const AddressList list = resolve(address, port, AI_PASSIVE);
  int error = 0;
  for (const addrinfo* to = list.get(); to != nullptr; to = to->ai_next) {
    Fd fd(::socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int on = 1;
    // SO_REUSEADDR: connections of a predecessor that still linger do not keep the port from us (ip(7), socket(7)).
    if (fd && ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        ::bind(fd.get(), to->ai_addr, to->ai_addrlen) == 0 && ::listen(fd.get(), backlog) == 0) {
      return fd;
    }
    error = errno;
  }
  throw std::system_error(error, std::generic_category(), "listen " + tcp_name(address, port));
}

std::uint16_t local_port(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  check(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length), "getsockname");
  if (address.ss_family == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
  if (address.ss_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
  throw std::system_error(EAFNOSUPPORT, std::generic_category(), "local_port");
}

Fd connect_tcp(const std::string& address, std::uint16_t port, int timeout_ms) {
  const auto deadline =
      timeout_ms < 0 ? Clock::time_point::max() : Clock::now() + std::chrono::milliseconds(timeout_ms);
  const AddressList list = resolve(address, port, 0);
  int error = 0;
  for (const addrinfo* to = list.get(); to != nullptr; to = to->ai_next) {
    Fd fd(::socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    error = fd ? connect_one(fd.get(), *to, deadline) : errno;
    if (error == 0 && is_connected_to_itself(fd.get())) error = ECONNREFUSED;
    if (error == 0) {
      set_nonblocking(fd.get(), false);
      set_nodelay(fd.get());
      return fd;
    }
  }
  throw std::system_error(error, std::generic_category(), "connect " + tcp_name(address, port));
}

void set_nodelay(int fd) {
  const int on = 1;
  check(::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), "setsockopt TCP_NODELAY");
}

void set_nonblocking(int fd, bool on) {
  const int flags = check(::fcntl(fd, F_GETFL), "fcntl F_GETFL");
  check(::fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK), "fcntl F_SETFL");
}

}  // namespace ipc
