// dsm/net/channel.hpp - one authenticated connection that carries frames.
//
// Made by connect() or by an Acceptor (acceptor.hpp), after the handshake. From then on nothing here allocates, throws or
// blocks where it does not say so: a thread inside its SIGSEGV handler may use it. In a job with --encrypt frames are
// sealed (seal.hpp) inside this class, where its users see nothing of it.
//
// The socket blocks: a thread that waits sleeps in one system call, and calls that must not wait say so (MSG_DONTWAIT). It
// is close-on-exec, TCP_NODELAY, with keep-alives and TCP_USER_TIMEOUT (tcp(7)): a host that falls silent ends the
// connection after 5 s; a process that is stopped does not, for its kernel answers. But a peer that leaves more data
// unread than the kernel's buffers hold, for 5 s, looks silent too: whoever receives must go on reading.
// Thread-safety: one sender and one receiver at a time. async-signal-safe: every noexcept member.
#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "dsm/net/frame.hpp"
#include "dsm/net/handshake.hpp"
#include "ipc/fd.hpp"

namespace dsm::net {

enum class Io : std::uint8_t {
  done,
  again,   // not now: wait for the descriptor
  closed,  // end of file or reset
  broken,  // the peer sent what no peer may send, or an impossible error: drop the connection
};

// How long the waiting thread looks again before it lets the kernel put it to sleep. A thread hand-over across cores costs
// 30-43 us, so looking pays when there is a core to spare, and never otherwise.
struct Patience {
  std::uint32_t spin_us = 0;
};

// Whether receive() may take more from the socket than the next frame. If it does, frames can wait in the channel where
// poll(2) does not see them: then call receive() until it returns again.
enum class Ahead : std::uint8_t { no, yes };

class Channel {
 public:
  // `fd`: a connected stream socket on which the handshake is over. `max_body`: longest body it will take, in bytes,
  // and, sealed, the longest that it sends; buffers of that size are allocated here. `queue`: frames that may wait to
  // be sent. `keys`: frames are sealed.
  Channel(ipc::Fd fd, std::size_t max_body, std::size_t queue = 64, const std::optional<SessionKeys>& keys = {});
  Channel(Channel&&) noexcept;
  Channel& operator=(Channel&&) noexcept;
  ~Channel();

  [[nodiscard]] int fd() const noexcept;

  // ---- blocking: a caller waiting for its answer ----
  // Sends one frame whole, behind those that are queued; header.length bytes of body. One system call if there is room.
  Io send(const FrameHeader& header, const void* body) noexcept;
  // The next header; then the body, all header.length bytes of it, straight to where it belongs. The length is checked
  // against max_body. A body that was announced must be taken before the next header.
  Io receive_header(FrameHeader& out, Patience patience = {}) noexcept;
  Io receive_body(void* to) noexcept;
  // Header and body in one system call (two if they are sealed), for a caller who knows where the body will go if it is
  // `length` bytes long. If out.length == length, the whole body is at `place`; if it is anything else and not 0,
  // receive_body() is still to be called. Either way `place` may have been written on, up to `length` bytes: it must be
  // a place that nobody else looks at until the frame has been judged. Nothing is lost: what is not this frame's is
  // kept for the next call, which poll(2) does not see; so this is for connections on which the peer speaks when asked.
  // REQUIRES: length <= max_body.
  Io receive_into(FrameHeader& out, void* place, std::size_t length, Patience patience = {}) noexcept;

  // ---- non-blocking: a service thread with many connections ----
  // Puts a frame behind those that wait. `body` is not copied: it must stay as it is until the frame is sent, or
  // withdrawn (for a page the protocol sees to that: nobody may change it before the receiver has answered). False if
  // the queue is full.
  [[nodiscard]] bool queue(const FrameHeader& header, const void* body) noexcept;
  // What has not been sent yet of frames whose body is `body` is taken from `instead`, which has as many bytes: they have
  // become worthless to the receiver, and `body` may change from now on. For the sender.
  void withdraw(const void* body, const void* instead) noexcept;
  // Sends what it can. done: the queue is empty. again: wait for POLLOUT.
  Io flush() noexcept;
  // Frames that have not been sent whole. Any thread may ask; one that sees 0 comes after the sending of all it had seen
  // queued.
  [[nodiscard]] std::size_t queued() const noexcept;
  // The next whole frame, if there is one; `body` points into this channel's buffer and lives until the next call. Call
  // it until it returns again, and then wait by a level-triggered poll(2): when the last read emptied the socket, `again`
  // is said without asking the kernel a second time.
  Io receive(FrameHeader& header, const std::uint8_t*& body, Ahead ahead = Ahead::yes) noexcept;

  // Counted here because here they are known. Not synchronized: read by the sender's, receiver's thread, or when quiet.
  struct Counters {
    std::uint64_t frames_out = 0, frames_in = 0, bytes_out = 0, bytes_in = 0;
  };
  [[nodiscard]] const Counters& counters() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

using Deadline = std::chrono::steady_clock::time_point;
// For poll(2): rounded up, so that nobody spins through the last millisecond; 0 when it has passed.
[[nodiscard]] int milliseconds_until(Deadline deadline) noexcept;

// Connects, proves the key, and returns the channel. `host` is a numeric address or a name. Throws std::system_error, or
// std::runtime_error with one clause that says why (refused, wrong key, another version, ETIMEDOUT at the deadline).
[[nodiscard]] Channel connect(const std::string& host, std::uint16_t port, const Credentials& credentials,
                              Deadline deadline, std::size_t max_body, std::size_t queue = 64);

}  // namespace dsm::net
