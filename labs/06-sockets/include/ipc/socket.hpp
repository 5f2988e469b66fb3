// ipc/socket.hpp - listeners, connections, and messages with a beginning and an end.
//
// A stream of bytes has no messages in it: a frame is a length and then so many bytes, and the length is checked before
// anything is believed. Used by dsm/net (mesh, rendezvous), by telemetry (dsmtop's socket) and by dsmexec.
// Thread-safety: as for the descriptor itself; two threads that send frames on one socket need a lock.
// Fault path: what stands below that heading may be called from a SIGSEGV handler: it does not allocate, throw, lock,
// or raise SIGPIPE; it changes errno. Those signatures are frozen. All that stands above may allocate and throw.
// Sources: socket(7), unix(7), ip(7), tcp(7), connect(2), sendmsg(2), recvmsg(2), getaddrinfo(3).
#pragma once
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "ipc/fd.hpp"

namespace ipc {

// ---- setup: every descriptor is close-on-exec and blocking (see set_nonblocking) ----

inline constexpr std::size_t max_unix_path = 107;  // bytes, without the closing zero: sizeof sun_path - 1

// Listens on a Unix socket, for this user only (mode 0600). A stale path (nobody listens any more) is replaced, a live
// one is an error (EADDRINUSE), as is a path that is no socket. It is found out by connecting, so a live server may see
// a connection that closes at once. The path is unlinked when the listener goes, by the process that made it, if it
// still is the same file. Throws std::system_error; std::length_error over 107 bytes.
class UnixListener {
 public:
  UnixListener(std::string path, int type, int backlog = 16);  // type: SOCK_STREAM or SOCK_SEQPACKET
  UnixListener(UnixListener&&) = delete;
  ~UnixListener();
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  std::string path_;
  Fd fd_;
  pid_t maker_;
  dev_t device_ = 0;  // which file the path was when it was made
  ino_t inode_ = 0;
};
// Waits while the server's backlog is full. Throws std::system_error: ENOENT (no such path), ECONNREFUSED (nobody
// listens), EPROTOTYPE (another type) ...; std::length_error.
[[nodiscard]] Fd connect_unix(const std::string& path, int type);

// A name in the abstract namespace (no file, no permissions: check peer_uid; gone with its last descriptor); `name`
// without the leading zero byte, at most 107 bytes, any bytes. Throws as above.
[[nodiscard]] Fd listen_abstract(const std::string& name, int type, int backlog = 16);
[[nodiscard]] Fd connect_abstract(const std::string& name, int type);
// The peer's uid, as the kernel vouches for it (SO_PEERCRED): who connected, or who called listen. Unix sockets only.
[[nodiscard]] uid_t peer_uid(int fd);

// TCP, IPv4 or IPv6. `address`: numeric, or a name to be resolved; port 0: the kernel chooses (local_port tells). The
// first address of a name that works is taken. Throws std::system_error, of the category "getaddrinfo" if the name is
// not known.
[[nodiscard]] Fd listen_tcp(const std::string& address, std::uint16_t port, int backlog = 128);
[[nodiscard]] std::uint16_t local_port(int fd);
// Connects within `timeout_ms` (negative: no limit but the kernel's), all addresses of the name together, one attempt
// for each; resolving the name is not counted. TCP_NODELAY is set. Throws std::system_error: ETIMEDOUT, ECONNREFUSED
// ...
[[nodiscard]] Fd connect_tcp(const std::string& address, std::uint16_t port, int timeout_ms);
// Throw std::system_error. A socket from accept(2) has neither.
void set_nodelay(int fd);
void set_nonblocking(int fd, bool on = true);

// ---- fault path ----

// What a transfer came to: so many bytes; `error` 0, EAGAIN (would block), or another errno; `end`: the peer has closed
// (receiving only; who sends learns it as EPIPE or ECONNRESET). `bytes` counts in every case.
struct Transfer {
  std::size_t bytes = 0;
  int error = 0;
  bool end = false;
};
// One sendmsg(2) or recvmsg(2), MSG_DONTWAIT | MSG_NOSIGNAL; EINTR is retried. `fd` is a socket, else ENOTSOCK. At most
// the first 16 parts. A record (SOCK_SEQPACKET) that was longer than the parts is EMSGSIZE. async-signal-safe: yes.
[[nodiscard]] Transfer send_some(int fd, std::span<const iovec> parts) noexcept;
[[nodiscard]] Transfer receive_some(int fd, std::span<const iovec> parts) noexcept;
// All of it, waiting by poll(2) where needed, without a limit of time (shutdown(2) by another thread ends it). Any
// number of parts, empty ones too. For streams. async-signal-safe: yes.
[[nodiscard]] Transfer send_all(int fd, std::span<const iovec> parts) noexcept;
[[nodiscard]] Transfer receive_all(int fd, std::span<const iovec> parts) noexcept;

// ---- frames: a 4-byte little-endian length, then the body ----

// send_all of length and body in one call; `bytes` counts the length's four too. error: EMSGSIZE for a body of 4 GiB or
// more. async-signal-safe: yes.
[[nodiscard]] Transfer send_frame(int fd, std::span<const std::byte> body) noexcept;
// The next frame's body into `buffer`; `bytes` is its length, maybe 0. error: EMSGSIZE if the frame is longer than the
// buffer (the connection is then of no further use), EPROTO if the peer closed inside a frame; `end` if it closed
// between frames. async-signal-safe: yes.
[[nodiscard]] Transfer receive_frame(int fd, std::span<std::byte> buffer) noexcept;
// The body's length, as a frame's first bytes say it: for who collects a frame piece by piece, and must check it
// himself. async-signal-safe: yes.
inline constexpr std::size_t frame_prefix_size = 4;
[[nodiscard]] std::size_t frame_length(std::span<const std::byte, frame_prefix_size> prefix) noexcept;

}  // namespace ipc
