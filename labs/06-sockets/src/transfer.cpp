// The fault path of ipc/socket.hpp: bytes and frames. Nothing here allocates, throws or raises SIGPIPE.
#include <poll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>

#include "ipc/socket.hpp"

namespace ipc {
namespace {

constexpr std::size_t max_parts = 16;  // of one system call; more parts take more calls

using Prefix = std::array<std::byte, frame_prefix_size>;

std::size_t total_size(std::span<const iovec> parts) noexcept {
  std::size_t total = 0;
  for (const iovec& part : parts) total += part.iov_len;
  return total;
}

msghdr message_of(std::span<const iovec> parts) noexcept {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(parts.data());  // sendmsg and recvmsg only read the array
  message.msg_iovlen = std::min(parts.size(), max_parts);
  return message;
}

// What is left of a list of parts. The caller's array stays as it is: a part that was cut is copied here.
class Rest {
 public:
  explicit Rest(std::span<const iovec> parts) noexcept : parts_(parts) { skip(0); }
  [[nodiscard]] bool empty() const noexcept { return parts_.empty(); }

  // The next parts, at most max_parts of them. Valid until the next call.
  [[nodiscard]] std::span<const iovec> window() noexcept {
    const std::size_t count = std::min(parts_.size(), max_parts);
    std::copy_n(parts_.begin(), count, window_.begin());
    window_[0].iov_base = static_cast<char*>(window_[0].iov_base) + done_;
    window_[0].iov_len -= done_;
    return {window_.data(), count};
  }

  void skip(std::size_t bytes) noexcept {
    done_ += bytes;
    while (!parts_.empty() && done_ >= parts_.front().iov_len) {
      done_ -= parts_.front().iov_len;
      parts_ = parts_.subspan(1);
    }
  }

 private:
  std::span<const iovec> parts_;
  std::size_t done_ = 0;  // bytes of the first part that are behind us
  std::array<iovec, max_parts> window_;
};

using Some = Transfer (*)(int, std::span<const iovec>) noexcept;

// Repeats `some` until all parts are through, waiting for `event` (POLLIN, POLLOUT) whenever it would block.
Transfer transfer_all(int fd, std::span<const iovec> parts, short event, Some some) noexcept {
  Transfer result;
  //@ solution 06.send_all
  for (Rest rest(parts); !rest.empty();) {
    const Transfer step = some(fd, rest.window());
    result.bytes += step.bytes;
    rest.skip(step.bytes);
    if (step.error == EAGAIN) {
      pollfd wait{fd, event, 0};
      // An error or a hang-up ends the wait too; the next call then says which.
      if (::poll(&wait, 1, -1) == -1 && errno != EINTR) return {result.bytes, errno, false};
    } else if (step.error != 0 || step.end) {
      return {result.bytes, step.error, step.end};
    }
  }
  //@ starter
  // TODO 06.send_all: one call may move only some of the bytes. Go on with the rest (class Rest keeps the place) until
  // nothing is left, and wait by poll() for `event` when `some` says EAGAIN. When must you stop early?
  //| result = some(fd, parts);
  //| static_cast<void>(event);
  //@ end
  return result;
}

}  // namespace

Transfer send_some(int fd, std::span<const iovec> parts) noexcept {
  const msghdr message = message_of(parts);
  for (;;) {
    const ssize_t sent = ::sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) return {static_cast<std::size_t>(sent), 0, false};
    if (errno != EINTR) return {0, errno, false};
  }
}

Transfer receive_some(int fd, std::span<const iovec> parts) noexcept {
  // Asked for nothing the kernel answers 0 too, which would look like the end.
  if (total_size(parts.first(std::min(parts.size(), max_parts))) == 0) return {};
  //@ solution 06.receive_some
  msghdr message = message_of(parts);
  for (;;) {
    const ssize_t received = ::recvmsg(fd, &message, MSG_DONTWAIT);
    if (received > 0)
      return {static_cast<std::size_t>(received), (message.msg_flags & MSG_TRUNC) ? EMSGSIZE : 0, false};
    if (received == 0) return {0, 0, true};
    if (errno != EINTR) return {0, errno, false};
  }
  //@ starter
  // TODO 06.receive_some: one recvmsg() that does not wait. Three outcomes: bytes, end (what does 0 mean?), error.
  // Which error is none?
  //| static_cast<void>(fd);
  //| return {0, ENOSYS, false};
  //@ end
}

Transfer send_all(int fd, std::span<const iovec> parts) noexcept { return transfer_all(fd, parts, POLLOUT, send_some); }

Transfer receive_all(int fd, std::span<const iovec> parts) noexcept {
  return transfer_all(fd, parts, POLLIN, receive_some);
}

Transfer send_frame(int fd, std::span<const std::byte> body) noexcept {
  //@ solution 06.send_frame
  if (body.size() > std::numeric_limits<std::uint32_t>::max()) return {0, EMSGSIZE, false};
  Prefix prefix;
  for (std::size_t i = 0; i < prefix.size(); ++i) prefix[i] = static_cast<std::byte>(body.size() >> (8 * i));
  const std::array<iovec, 2> parts{iovec{prefix.data(), prefix.size()},
                                   iovec{const_cast<std::byte*>(body.data()), body.size()}};
  return send_all(fd, parts);
  //@ starter
  // TODO 06.send_frame: the length in four bytes, the lowest first, and the body, together in one send_all. Why is it
  // worth while not to send them one after the other?
  //| const iovec part{const_cast<std::byte*>(body.data()), body.size()};
  //| return send_all(fd, {&part, 1});
  //@ end
}

std::size_t frame_length(std::span<const std::byte, frame_prefix_size> prefix) noexcept {
  std::size_t length = 0;
  for (std::size_t i = 0; i < prefix.size(); ++i) length |= std::to_integer<std::size_t>(prefix[i]) << (8 * i);
  return length;
}

Transfer receive_frame(int fd, std::span<std::byte> buffer) noexcept {
  //@ solution 06.receive_frame
  Prefix prefix;
  const iovec head{prefix.data(), prefix.size()};
  const Transfer begun = receive_all(fd, {&head, 1});
  if (begun.error != 0) return {0, begun.error, false};
  if (begun.end) return {0, begun.bytes == 0 ? 0 : EPROTO, begun.bytes == 0};

  const std::size_t length = frame_length(prefix);
  if (length > buffer.size()) return {0, EMSGSIZE, false};  // checked before a single byte is stored

  const iovec body{buffer.data(), length};
  const Transfer rest = receive_all(fd, {&body, 1});
  if (rest.error == 0 && rest.end) return {rest.bytes, EPROTO, false};
  return {rest.bytes, rest.error, false};
  //@ starter
  // TODO 06.receive_frame: the length, then so many bytes. What if it is larger than the buffer? What if the peer
  // closes between two frames, and what if it closes inside one?
  //| const iovec part{buffer.data(), buffer.size()};
  //| return receive_some(fd, {&part, 1});
  //@ end
}

}  // namespace ipc
