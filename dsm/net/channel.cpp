#include "dsm/net/channel.hpp"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <span>
#include <stdexcept>

#include "dsm/net/channel_impl.hpp"
#include "dsm/net/handshaking.hpp"
#include "ipc/error.hpp"

#ifdef __SANITIZE_THREAD__
extern "C" {  // of ThreadSanitizer's run-time library
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
}
#endif

namespace dsm::net {
namespace {

constexpr int silence_ms = 3500;     // a host that says nothing for so long is lost
constexpr int keepalive_idle_s = 2;  // ... also when nothing is sent to it: the kernel asks after 2 s, then each second
constexpr int keepalive_interval_s = 1;
constexpr std::size_t frames_per_call = 8;  // gathered into one sendmsg; send_some takes 16 parts

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

// poll(2) cannot fail here but by a signal or for want of kernel memory: in both cases looking again is right.
void wait_for(int fd, short events) noexcept {
  pollfd one{fd, events, 0};
  ::poll(&one, 1, -1);
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

}  // namespace

void require(bool holds, std::string_view what) noexcept {
  if (holds) return;
  constexpr std::string_view prefix = "dsm: broken invariant in Channel: ";
  const iovec parts[] = {{const_cast<char*>(prefix.data()), prefix.size()},
                         {const_cast<char*>(what.data()), what.size()},
                         {const_cast<char*>("\n"), 1}};
  [[maybe_unused]] const ssize_t written = ::writev(STDERR_FILENO, parts, 3);
  std::abort();
}

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

Channel::Channel(ipc::Fd fd, std::size_t max_body, std::size_t queue, const std::optional<SessionKeys>& keys)
    : impl_(std::make_unique<Impl>(std::move(fd), max_body, queue, keys)) {
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
  if (me.seal) {
    require(queue(header, body), "there is no room for one frame");
    for (Io io;;) {
      if ((io = flush()) != Io::again) return io;
      wait_for(fd(), POLLOUT);
    }
  }
  const std::array<iovec, 2> parts = {part(&header, sizeof header), part(body, header.length)};
  const std::span<const iovec> all(parts.data(), header.length != 0 ? 2u : 1u);
  const SendNotedBefore noted(all);
  const ipc::Transfer sent = ipc::send_all(fd(), all);
  if (sent.error != 0) return me.fail_out(verdict(sent.error));
  me.count_out(header);
  return Io::done;
}

bool Channel::queue(const FrameHeader& header, const void* body) noexcept {
  Impl& me = *impl_;
  require(!me.seal || header.length <= me.max_body, "a body too long to be sealed");
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
    const Io io = me.seal ? me.flush_sealed() : me.flush_some();
    if (io != Io::done) return io == Io::again ? io : me.fail_out(io);
  }
  return Io::done;
}

void Channel::Impl::count_out(const FrameHeader& header) noexcept {
  ++counters.frames_out;
  counters.bytes_out += sizeof header + header.length;
}

// The first frame of the ring, whole: it is sealed once, and stays the first until all of it is sent.
Io Channel::Impl::flush_sealed() noexcept {
  const Queued& frame = ring[first];
  if (!std::exchange(sealing, true)) seal->seal(frame.header, frame.body);
  while (!seal->unsent().empty()) {
    const iovec rest = part(seal->unsent().data(), seal->unsent().size());
    const ipc::Transfer sent = ipc::send_some(fd.get(), {&rest, 1});
    if (sent.error != 0) return verdict(sent.error);
    seal->sent(sent.bytes);
  }
  sealing = false;
  count_out(frame.header);
  const std::size_t left = waiting.load(std::memory_order_relaxed) - 1;
  first = left == 0 ? 0 : (first + 1) % ring_size;  // at 0: see flush_some
  waiting.store(left, std::memory_order_release);
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
    counters.bytes_out += size;
    ++counters.frames_out;
  }
  if (left == 0) first = 0;  // a ring that is mostly empty then uses little of its memory
  waiting.store(left, std::memory_order_release);
  return Io::done;
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

Channel connect(const std::string& host, std::uint16_t port, const Credentials& credentials, Deadline deadline,
                std::size_t max_body, std::size_t queue) {
  const int connect_ms = milliseconds_until(deadline);
  if (connect_ms == 0) throw_timeout("connect");
  ipc::Fd fd = ipc::connect_tcp(host, port, connect_ms);
  ipc::set_nonblocking(fd.get());
  Handshaking shaking(std::move(fd), Handshake::Role::client, credentials);
  for (;;) {
    const Handshake::State state = shaking.advance();
    if (state == Handshake::State::done) return Channel(shaking.take_fd(), max_body, queue, shaking.session());
    if (state == Handshake::State::refused) throw std::runtime_error(shaking.why());
    const int left_ms = milliseconds_until(deadline);
    if (left_ms == 0) throw_timeout("handshake");
    pollfd one{shaking.fd(), shaking.events(), 0};
    if (::poll(&one, 1, left_ms) < 0 && errno != EINTR) ipc::throw_errno("poll");
  }
}

}  // namespace dsm::net
