#include "dsm/net/channel.hpp"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string_view>

#include "dsm/net/handshaking.hpp"
#include "ipc/error.hpp"
#include "ipc/socket.hpp"

#ifdef __SANITIZE_THREAD__
extern "C" {  // of ThreadSanitizer's run-time library
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
}
#endif

namespace dsm::net {
namespace {

constexpr int silence_ms = 4000;     // a host that says nothing for so long is lost
constexpr int keepalive_idle_s = 2;  // ... also when nothing is sent to it: the kernel asks after 2 s, then each second
constexpr int keepalive_interval_s = 1;
constexpr std::size_t frames_per_call = 8;  // gathered into one sendmsg; send_some takes 16 parts
constexpr std::size_t least_buffer = 4096;  // bytes; lets one read bring many small frames

// A broken invariant ends the program; no stdio, for it may happen in a signal handler.
void require(bool holds, std::string_view what) noexcept {
  if (holds) return;
  constexpr std::string_view prefix = "dsm: broken invariant in Channel: ";
  const iovec parts[] = {{const_cast<char*>(prefix.data()), prefix.size()},
                         {const_cast<char*>(what.data()), what.size()},
                         {const_cast<char*>("\n"), 1}};
  [[maybe_unused]] const ssize_t written = ::writev(STDERR_FILENO, parts, 3);
  std::abort();
}

void set_option(int fd, int level, int option, int value, const char* what) {
  ipc::check(::setsockopt(fd, level, option, &value, sizeof value), what);
}

// A job's channels are TCP; an agent on the same host may be reached over a socket pair, which has no such options.
void set_tcp_options(int fd) {
  int domain = 0;
  socklen_t size = sizeof domain;
  ipc::check(::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size), "getsockopt SO_DOMAIN");
  if (domain != AF_INET && domain != AF_INET6) return;
  ipc::set_nodelay(fd);
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1, "setsockopt SO_KEEPALIVE");
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, keepalive_idle_s, "setsockopt TCP_KEEPIDLE");
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, keepalive_interval_s, "setsockopt TCP_KEEPINTVL");
  set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, silence_ms, "setsockopt TCP_USER_TIMEOUT");
}

// What a failed transfer means for the connection; a host or a process that went away is no fault of the peer's.
Io verdict(int error) noexcept {
  switch (error) {
    case EAGAIN:
      return Io::again;
    case EPIPE:
    case ECONNRESET:
    case ECONNABORTED:
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case EHOSTDOWN:
    case ENETUNREACH:
    case ENETDOWN:
    case ENETRESET:
      return Io::closed;
    default:
      return Io::broken;
  }
}

Io verdict(const ipc::Transfer& transfer) noexcept {
  if (transfer.error != 0) return verdict(transfer.error);
  return transfer.end ? Io::closed : Io::done;
}

// poll(2) cannot fail here but by a signal or for want of kernel memory: in both cases looking again is right.
void wait_for(int fd, short events) noexcept {
  pollfd one{fd, events, 0};
  ::poll(&one, 1, -1);
}

std::uint64_t now_ns() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(now.tv_nsec);
}

void relax() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// As ipc::receive_some, but waits in the system call itself: one call instead of a look in vain, poll(2) and another look.
ipc::Transfer receive_asleep(int fd, std::span<const iovec> parts) noexcept {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(parts.data());  // recvmsg only reads the array
  message.msg_iovlen = parts.size();
  for (;;) {
    const ssize_t received = ::recvmsg(fd, &message, 0);
    if (received >= 0) return {static_cast<std::size_t>(received), 0, received == 0};
    if (errno != EINTR) return {0, errno, false};
  }
}

// One transfer of at least one byte, waited for as patience says; never `again`, for the socket blocks.
ipc::Transfer receive_patiently(int fd, std::span<const iovec> parts, Patience patience) noexcept {
  if (patience.spin_us != 0) {
    const std::uint64_t end = now_ns() + std::uint64_t{patience.spin_us} * 1000;
    do {
      const ipc::Transfer got = ipc::receive_some(fd, parts);
      if (got.error != EAGAIN) return got;
      for (int i = 0; i < 8; ++i) relax();
    } while (now_ns() < end);
  }
  return receive_asleep(fd, parts);
}

// ThreadSanitizer notes what sendmsg(2) has read when the call is over. By then the peer may have had the page, and sent it
// back into the same frame, by another connection: that would look like a race. So under ThreadSanitizer the bytes are read
// before the call, where a thread that writes them meanwhile would be found, and the call's own reads are not noted.
class SendNotedBefore {
 public:
#ifdef __SANITIZE_THREAD__
  explicit SendNotedBefore(std::span<const iovec> parts) noexcept {
    for (const iovec& one : parts) {
      const auto* bytes = static_cast<const volatile char*>(one.iov_base);
      for (std::size_t i = 0; i < one.iov_len; ++i) static_cast<void>(bytes[i]);
    }
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
  }
  ~SendNotedBefore() { AnnotateIgnoreReadsEnd(__FILE__, __LINE__); }
  SendNotedBefore(const SendNotedBefore&) = delete;
  SendNotedBefore& operator=(const SendNotedBefore&) = delete;
#else
  explicit SendNotedBefore(std::span<const iovec>) noexcept {}
#endif
};

iovec part(const void* data, std::size_t size) noexcept { return {const_cast<void*>(data), size}; }

struct Queued {
  FrameHeader header;
  const void* body;
};

}  // namespace

struct Channel::Impl {
  Impl(ipc::Fd socket, std::size_t body_max, std::size_t queue_size)
      : fd(std::move(socket)),
        max_body(body_max),
        capacity(std::max(sizeof(FrameHeader) + body_max, least_buffer)),
        buffer(std::make_unique_for_overwrite<std::uint8_t[]>(capacity)),
        ring_size(std::max<std::size_t>(queue_size, 1)),
        ring(std::make_unique_for_overwrite<Queued[]>(ring_size)) {}

  // Both directions remember why they ended: half a frame may have gone, and nothing sensible can follow it.
  Io fail_out(Io why) noexcept { return out_state = why; }
  Io fail_in(Io why) noexcept { return in_state = why; }

  [[nodiscard]] std::size_t buffered() const noexcept { return end - begin; }
  void release_returned() noexcept;
  Io accept_header(const FrameHeader& header) noexcept;
  Io fill(std::uint8_t* to, std::size_t size, Patience patience) noexcept;
  Io flush_some() noexcept;

  ipc::Fd fd;
  Counters counters;

  // Receiver's. The buffer holds what was read and not yet taken: bytes [begin, end); the first `returned` of them are
  // the frame that receive() returned last.
  const std::size_t max_body;
  const std::size_t capacity;
  std::unique_ptr<std::uint8_t[]> buffer;
  std::size_t begin = 0, end = 0, returned = 0;
  std::size_t body_due = 0;  // announced by receive_header() or receive_into(), not yet taken
  bool drained = false;      // the last read of receive() found less than it had room for
  Patience patience;         // of the header, holds for its body too
  Io in_state = Io::done;

  // Sender's. A ring of frames, of which the first has been sent up to sent_of_first.
  const std::size_t ring_size;
  std::unique_ptr<Queued[]> ring;
  std::size_t first = 0, sent_of_first = 0;
  std::atomic<std::size_t> waiting{0};  // any thread may look; at 0 nothing that was queued will be read again
  Io out_state = Io::done;
};

Channel::Channel(ipc::Fd fd, std::size_t max_body, std::size_t queue)
    : impl_(std::make_unique<Impl>(std::move(fd), max_body, queue)) {
  ipc::set_nonblocking(impl_->fd.get(), false);
  ipc::check(::fcntl(impl_->fd.get(), F_SETFD, FD_CLOEXEC), "fcntl FD_CLOEXEC");
  set_tcp_options(impl_->fd.get());
}

Channel::Channel(Channel&&) noexcept = default;
Channel& Channel::operator=(Channel&&) noexcept = default;
Channel::~Channel() = default;

int Channel::fd() const noexcept { return impl_->fd.get(); }
const Channel::Counters& Channel::counters() const noexcept { return impl_->counters; }
std::size_t Channel::queued() const noexcept { return impl_->waiting.load(std::memory_order_acquire); }

// ---- sending ----

Io Channel::send(const FrameHeader& header, const void* body) noexcept {
  Impl& me = *impl_;
  while (queued() != 0) {
    const Io io = flush();
    if (io == Io::again) wait_for(fd(), POLLOUT);
    if (io == Io::closed || io == Io::broken) return io;
  }
  if (me.out_state != Io::done) return me.out_state;
  const std::array<iovec, 2> parts = {part(&header, sizeof header), part(body, header.length)};
  const std::span<const iovec> all(parts.data(), header.length != 0 ? 2u : 1u);
  const SendNotedBefore noted(all);
  const ipc::Transfer sent = ipc::send_all(fd(), all);
  if (sent.error != 0) return me.fail_out(verdict(sent.error));
  ++me.counters.frames_out;
  me.counters.bytes_out += sizeof header + header.length;
  return Io::done;
}

bool Channel::queue(const FrameHeader& header, const void* body) noexcept {
  Impl& me = *impl_;
  const std::size_t waiting = queued();
  if (waiting == me.ring_size) return false;
  me.ring[(me.first + waiting) % me.ring_size] = {header, body};
  me.waiting.store(waiting + 1, std::memory_order_release);
  return true;
}

void Channel::withdraw(const void* body, const void* instead) noexcept {
  Impl& me = *impl_;
  for (std::size_t i = 0; i < queued(); ++i) {
    Queued& frame = me.ring[(me.first + i) % me.ring_size];
    if (frame.body == body) frame.body = instead;
  }
}

Io Channel::flush() noexcept {
  Impl& me = *impl_;
  if (me.out_state != Io::done) return me.out_state;
  while (queued() != 0) {
    const Io io = me.flush_some();
    if (io != Io::done) return io == Io::again ? io : me.fail_out(io);
  }
  return Io::done;
}

// One system call for the first few frames of the ring.
Io Channel::Impl::flush_some() noexcept {
  std::array<iovec, 2 * frames_per_call> parts;
  std::size_t count = 0;
  std::size_t left = waiting.load(std::memory_order_relaxed);
  for (std::size_t i = 0; i < std::min(left, frames_per_call); ++i) {
    const Queued& frame = ring[(first + i) % ring_size];
    std::size_t skip = i == 0 ? sent_of_first : 0;
    if (skip < sizeof frame.header) {
      parts[count++] = part(reinterpret_cast<const char*>(&frame.header) + skip, sizeof frame.header - skip);
      skip = 0;
    } else {
      skip -= sizeof frame.header;
    }
    if (skip < frame.header.length)
      parts[count++] = part(static_cast<const char*>(frame.body) + skip, frame.header.length - skip);
  }
  const std::span<const iovec> all(parts.data(), count);
  const SendNotedBefore noted(all);
  const ipc::Transfer sent = ipc::send_some(fd.get(), all);
  if (sent.error != 0) return verdict(sent.error);
  sent_of_first += sent.bytes;
  while (left != 0) {
    const std::size_t size = sizeof(FrameHeader) + ring[first].header.length;
    if (sent_of_first < size) break;
    sent_of_first -= size;
    first = (first + 1) % ring_size;
    --left;
    ++counters.frames_out;
    counters.bytes_out += size;
  }
  if (left == 0) first = 0;  // a ring that is mostly empty then uses little of its memory
  waiting.store(left, std::memory_order_release);
  return Io::done;
}

// ---- receiving ----

void Channel::Impl::release_returned() noexcept {
  begin += returned;
  returned = 0;
  if (begin == end) begin = end = 0;
}

Io Channel::Impl::accept_header(const FrameHeader& header) noexcept {
  if (header.length > max_body) return fail_in(Io::broken);
  ++counters.frames_in;
  counters.bytes_in += sizeof header + header.length;
  return Io::done;
}

// Exactly `size` bytes: what is buffered first, the rest from the socket without a copy.
Io Channel::Impl::fill(std::uint8_t* to, std::size_t size, Patience how_long) noexcept {
  const std::size_t ready = std::min(size, buffered());
  std::memcpy(to, buffer.get() + begin, ready);
  begin += ready;
  release_returned();
  for (std::size_t have = ready; have < size;) {
    const iovec rest = part(to + have, size - have);
    const ipc::Transfer got = receive_patiently(fd.get(), {&rest, 1}, how_long);
    if (const Io io = verdict(got); io != Io::done) return fail_in(io);
    have += got.bytes;
  }
  return Io::done;
}

Io Channel::receive_header(FrameHeader& out, Patience patience) noexcept {
  Impl& me = *impl_;
  if (me.in_state != Io::done) return me.in_state;
  require(me.body_due == 0, "a header is asked for before the body of the last frame was taken");
  me.release_returned();
  me.drained = false;
  me.patience = patience;
  if (const Io io = me.fill(reinterpret_cast<std::uint8_t*>(&out), sizeof out, patience); io != Io::done) return io;
  if (const Io io = me.accept_header(out); io != Io::done) return io;
  me.body_due = out.length;
  return Io::done;
}

Io Channel::receive_body(void* to) noexcept {
  Impl& me = *impl_;
  if (me.in_state != Io::done) return me.in_state;
  const std::size_t size = std::exchange(me.body_due, 0);
  return size == 0 ? Io::done : me.fill(static_cast<std::uint8_t*>(to), size, me.patience);
}

Io Channel::receive_into(FrameHeader& out, void* place, std::size_t length, Patience patience) noexcept {
  Impl& me = *impl_;
  require(length <= me.max_body, "a place longer than the longest body");
  me.release_returned();
  if (me.in_state != Io::done || me.buffered() != 0 || length == 0) {
    const Io io = receive_header(out, patience);
    return io == Io::done && out.length == length ? receive_body(place) : io;
  }
  require(me.body_due == 0, "a header is asked for before the body of the last frame was taken");
  me.drained = false;
  me.patience = patience;
  auto* const header_bytes = reinterpret_cast<std::uint8_t*>(&out);
  std::size_t have = 0;  // of header and place together
  while (have < sizeof out) {
    const std::array<iovec, 2> parts = {part(header_bytes + have, sizeof out - have), part(place, length)};
    const ipc::Transfer got = receive_patiently(me.fd.get(), parts, patience);
    if (const Io io = verdict(got); io != Io::done) return me.fail_in(io);
    have += got.bytes;
  }
  have -= sizeof out;
  if (const Io io = me.accept_header(out); io != Io::done) return io;
  if (out.length == length) return me.fill(static_cast<std::uint8_t*>(place) + have, length - have, patience);
  std::memcpy(me.buffer.get(), place, have);  // it fits: have <= length <= max_body, and the buffer was empty
  me.end = have;
  me.body_due = out.length;
  return Io::done;
}

Io Channel::receive(FrameHeader& header, const std::uint8_t*& body, Ahead ahead) noexcept {
  Impl& me = *impl_;
  if (me.in_state != Io::done) return me.in_state;
  require(me.body_due == 0, "a frame is asked for before the body of the last frame was taken");
  me.release_returned();
  for (;;) {
    std::size_t need = sizeof header;
    if (me.buffered() >= need) {
      std::memcpy(&header, me.buffer.get() + me.begin, sizeof header);
      if (header.length > me.max_body) return me.fail_in(Io::broken);
      need += header.length;
    }
    if (me.buffered() >= need) {
      me.returned = need;
      body = me.buffer.get() + me.begin + sizeof header;
      return me.accept_header(header);
    }
    if (std::exchange(me.drained, false)) return Io::again;
    if (me.begin + need > me.capacity) {
      std::memmove(me.buffer.get(), me.buffer.get() + me.begin, me.buffered());
      me.end = me.buffered();
      me.begin = 0;
    }
    const std::size_t room = ahead == Ahead::yes ? me.capacity - me.end : need - me.buffered();
    const iovec to = part(me.buffer.get() + me.end, room);
    const ipc::Transfer got = ipc::receive_some(me.fd.get(), {&to, 1});
    if (const Io io = verdict(got); io != Io::done) return io == Io::again ? io : me.fail_in(io);
    me.end += got.bytes;
    me.drained = got.bytes < room;
  }
}

// ---- connecting ----

int milliseconds_until(Deadline deadline) noexcept {
  using std::chrono::milliseconds;
  const auto left = std::chrono::ceil<milliseconds>(deadline - std::chrono::steady_clock::now());
  return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 1 << 30));
}

namespace {

[[noreturn]] void throw_timeout(const char* what) { throw std::system_error(ETIMEDOUT, std::generic_category(), what); }

}  // namespace

Channel connect(const std::string& host, std::uint16_t port, const JobKey& key, Deadline deadline, std::size_t max_body,
                std::size_t queue) {
  const int connect_ms = milliseconds_until(deadline);
  if (connect_ms == 0) throw_timeout("connect");
  ipc::Fd fd = ipc::connect_tcp(host, port, connect_ms);
  ipc::set_nonblocking(fd.get());
  Handshaking shaking(std::move(fd), Handshake::Role::client, key);
  for (;;) {
    const Handshake::State state = shaking.advance();
    if (state == Handshake::State::done) return Channel(shaking.take_fd(), max_body, queue);
    if (state == Handshake::State::refused) throw std::runtime_error(shaking.why());
    const int left_ms = milliseconds_until(deadline);
    if (left_ms == 0) throw_timeout("handshake");
    pollfd one{shaking.fd(), shaking.events(), 0};
    if (::poll(&one, 1, left_ms) < 0 && errno != EINTR) ipc::throw_errno("poll");
  }
}

}  // namespace dsm::net
