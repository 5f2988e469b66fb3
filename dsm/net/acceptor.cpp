#include "dsm/net/acceptor.hpp"

#include <sys/epoll.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <system_error>
#include <utility>

#include "dsm/net/address.hpp"
#include "dsm/net/handshaking.hpp"
#include "ipc/error.hpp"
#include "ipc/socket.hpp"

namespace dsm::net {
namespace {

constexpr std::size_t accepts_per_serve = 64;            // then those who are pending get their turn
constexpr std::size_t events_per_serve = 256;            // then others of the loop; what is left is announced again
constexpr std::size_t first_size = 4;                    // bytes that tell a keyed connection from the classroom's
constexpr std::chrono::milliseconds grace{250};          // for those who have not begun the handshake ...
constexpr std::chrono::milliseconds longer_grace{1000};  // ... and for those who have
constexpr std::chrono::milliseconds descriptor_pause{100};

bool starts_with_magic(const std::string& first) {
  return std::memcmp(first.data(), handshake_magic.data(), first_size) == 0;
}

// A process that has none left cannot do its work.
std::size_t half_of_descriptors() {
  rlimit limit{};
  ipc::check(::getrlimit(RLIMIT_NOFILE, &limit), "getrlimit RLIMIT_NOFILE");
  return static_cast<std::size_t>(limit.rlim_cur / 2);
}

Acceptor::Options within_limits(Acceptor::Options options) {
  options.pending = std::max<std::size_t>(std::min(options.pending, half_of_descriptors()), 1);
  return options;
}

// Those who wait in the kernel while the door is full. More than the door can hear soon would only wait for longer.
int backlog(std::size_t pending) { return static_cast<int>(std::clamp<std::size_t>(2 * pending, 1024, 4096)); }

}  // namespace

struct Acceptor::Pending {
  Time since;
  Address from;
  ipc::Fd fd;  // until the first bytes have come
  std::string first;
  std::optional<Handshaking> shaking;  // from then on
  short watched = 0;                   // for which events; 0: not yet, or no more
  [[nodiscard]] Time spared_until() const { return since + (shaking ? longer_grace : grace); }
  [[nodiscard]] int number() const { return shaking ? shaking->fd() : fd.get(); }
  [[nodiscard]] short events() const { return shaking ? shaking->events() : static_cast<short>(POLLIN); }
};

Acceptor::Acceptor(const Credentials& credentials, Options options)
    : credentials_(credentials),
      options_(within_limits(std::move(options))),
      listener_(listen_within(options_.address, options_.ports, backlog(options_.pending))),
      epoll_(ipc::check(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")) {
  ipc::set_nonblocking(listener_.get());
  port_ = ipc::local_port(listener_.get());
}

Acceptor::~Acceptor() = default;

std::uint16_t Acceptor::port() const noexcept { return port_; }

void Acceptor::set_max_body(std::size_t max_body) noexcept { options_.max_body = max_body; }

bool Acceptor::full() const { return pending_.size() >= options_.pending; }

// While nobody may be accepted, the listener is left out of the poll set: it would be ready all the time.
Acceptor::Time Acceptor::opens_at() const {
  return full() ? std::max(paused_until_, spared_.begin()->first) : paused_until_;
}

void Acceptor::add_to(std::vector<pollfd>& set) const {
  if (std::chrono::steady_clock::now() >= opens_at()) set.push_back({listener_.get(), POLLIN, 0});
  if (!pending_.empty()) set.push_back({epoll_.get(), POLLIN, 0});
}

Deadline Acceptor::next_deadline() const {
  Deadline next = Deadline::max();
  if (!pending_.empty()) next = pending_.begin()->second->since + options_.patience;
  const Time opens = opens_at();
  if (opens > std::chrono::steady_clock::now()) next = std::min(next, opens);
  return next;
}

std::vector<Acceptor::Arrival> Acceptor::serve() {
  keep_door();
  std::vector<Arrival> arrived;
  for (Proved& one : proved_) {
    try {
      arrived.push_back({Channel(std::move(one.fd), options_.max_body, options_.queue, one.keys), one.address});
    } catch (const std::system_error& error) {
      log(one.address, error.what());
    }
  }
  proved_.clear();
  return arrived;
}

void Acceptor::keep_door() {
  const Time now = std::chrono::steady_clock::now();
  std::array<epoll_event, events_per_serve> events{};
  const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0);
  for (int i = 0; i < count; ++i) go_on(events.at(static_cast<std::size_t>(i)).data.u64);
  drop_late(now);
  accept_new(now);
}

void Acceptor::accept_new(Time now) {
  for (std::size_t count = 0; count < accepts_per_serve && now >= opens_at(); ++count) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    ipc::Fd fd(::accept4(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) {
      if (errno == EAGAIN || errno == EWOULDBLOCK) return;
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) return out_of_descriptors(now);
      if (errno == EBADF || errno == EINVAL || errno == ENOTSOCK || errno == EFAULT) ipc::throw_errno("accept4");
      continue;  // this connection failed before it was accepted (accept(2), "Error handling"): no matter of ours
    }
    if (full()) drop_first_to_go("made room for a newer connection");
    take_in(std::make_unique<Pending>(Pending{now, address_of(address, size), std::move(fd), {}, {}}));
  }
}

void Acceptor::take_in(std::unique_ptr<Pending> one) {
  const Number number = next_++;
  spared_.emplace(one->spared_until(), number);
  pending_.emplace(number, std::move(one));
  go_on(number);
}

void Acceptor::go_on(Number number) {
  const auto found = pending_.find(number);
  if (found == pending_.end()) return;
  Pending& one = *found->second;
  const Time before = one.spared_until();
  const bool stays = advance(one);
  if (one.spared_until() != before) {
    spared_.erase({before, number});
    spared_.emplace(one.spared_until(), number);
  }
  if (!stays) return forget(number);
  watch(number, one);
}

void Acceptor::drop_late(Time now) {
  while (!pending_.empty() && now >= pending_.begin()->second->since + options_.patience) {
    drop(*pending_.begin()->second, "no handshake within " + std::to_string(options_.patience.count()) + " ms");
    forget(pending_.begin()->first);
  }
}

void Acceptor::drop_first_to_go(const std::string& why) {
  const Number number = spared_.begin()->second;
  drop(*pending_.at(number), why);
  forget(number);
}

void Acceptor::forget(Number number) {
  const auto found = pending_.find(number);
  unwatch(*found->second);
  spared_.erase({found->second->spared_until(), number});
  pending_.erase(found);
}

void Acceptor::watch(Number number, Pending& one) {
  const short wanted = one.events();
  if (wanted == one.watched) return;
  epoll_event event{};
  event.events = wanted == POLLOUT ? EPOLLOUT : EPOLLIN;
  event.data.u64 = number;
  const int how = one.watched == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
  if (::epoll_ctl(epoll_.get(), how, one.number(), &event) == 0) {
    one.watched = wanted;
    return;
  }
  drop(one, std::generic_category().message(errno));
  forget(number);
}

// To close it would not do: a forked process may have it, too, and then it would be announced for ever.
void Acceptor::unwatch(Pending& one) {
  if (std::exchange(one.watched, short{0}) != 0) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, one.number(), nullptr);
}

// The connection stays in the kernel's queue and would be announced by every poll. So nobody is accepted for a moment,
// and the oldest stranger gives up its descriptor.
void Acceptor::out_of_descriptors(Time now) {
  const std::string why = std::generic_category().message(errno);
  paused_until_ = now + descriptor_pause;
  if (!pending_.empty()) {
    drop_first_to_go(why);
  } else if (options_.log) {
    options_.log("cannot accept a connection: " + why);
  }
}

bool Acceptor::advance(Pending& one) {
  if (!one.shaking && !read_first_bytes(one)) return false;
  if (!one.shaking) return true;
  const Handshake::State state = one.shaking->advance();
  if (state == Handshake::State::refused) return drop(one, one.shaking->why());
  if (state != Handshake::State::done) return true;
  unwatch(one);
  const auto keys = one.shaking->session();
  proved_.push_back({one.shaking->take_fd(), one.from.host, keys});
  return false;
}

// True unless the connection is no longer pending.
bool Acceptor::read_first_bytes(Pending& one) {
  std::array<char, first_size> buffer;
  while (one.first.size() < first_size) {
    const iovec rest{buffer.data(), first_size - one.first.size()};
    const ipc::Transfer got = ipc::receive_some(one.fd.get(), {&rest, 1});
    if (got.error == EAGAIN) return true;
    if (got.error != 0) return drop(one, std::generic_category().message(got.error));
    if (got.end) return drop(one, "closed before the handshake");
    one.first.append(buffer.data(), got.bytes);
  }
  if (starts_with_magic(one.first)) {
    one.shaking.emplace(std::move(one.fd), Handshake::Role::server, credentials_, one.first);
    return true;
  }
  if (!options_.other) return drop(one, "wrong first bytes");
  unwatch(one);
  options_.other(std::move(one.fd), std::move(one.first), one.from.text());
  return false;
}

bool Acceptor::drop(const Pending& one, const std::string& why) const {
  log(one.from.text(), why);
  return false;
}

void Acceptor::log(const std::string& peer, const std::string& why) const {
  if (options_.log) options_.log(peer + ": " + why);
}

}  // namespace dsm::net
