#include "dsm/net/acceptor.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <system_error>

#include "dsm/net/address.hpp"
#include "dsm/net/handshaking.hpp"
#include "ipc/error.hpp"
#include "ipc/socket.hpp"

namespace dsm::net {
namespace {

constexpr int backlog = 1024;                            // those who wait in the kernel while the door is full
constexpr std::size_t accepts_per_serve = 64;            // then those who are pending get their turn
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

}  // namespace

struct Acceptor::Pending {
  Time since;
  Address from;
  ipc::Fd fd;  // until the first bytes have come
  std::string first;
  std::optional<Handshaking> shaking;  // from then on
  [[nodiscard]] Time spared_until() const { return since + (shaking ? longer_grace : grace); }
};

Acceptor::Acceptor(const Credentials& credentials, Options options)
    : credentials_(credentials),
      options_(std::move(options)),
      listener_(listen_within(options_.address, options_.ports, backlog)) {
  options_.pending = std::max<std::size_t>(std::min(options_.pending, half_of_descriptors()), 1);
  ipc::set_nonblocking(listener_.get());
  port_ = ipc::local_port(listener_.get());
}

Acceptor::~Acceptor() = default;

std::uint16_t Acceptor::port() const noexcept { return port_; }

void Acceptor::set_max_body(std::size_t max_body) noexcept { options_.max_body = max_body; }

bool Acceptor::full() const { return pending_.size() >= options_.pending; }

// REQUIRES: somebody is pending.
std::vector<Acceptor::Pending>::const_iterator Acceptor::first_to_go() const {
  return std::min_element(pending_.begin(), pending_.end(),
                          [](const Pending& a, const Pending& b) { return a.spared_until() < b.spared_until(); });
}

// While nobody may be accepted, the listener is left out of the poll set: it would be ready all the time.
Acceptor::Time Acceptor::opens_at() const {
  return full() ? std::max(paused_until_, first_to_go()->spared_until()) : paused_until_;
}

void Acceptor::add_to(std::vector<pollfd>& set) const {
  if (std::chrono::steady_clock::now() >= opens_at()) set.push_back({listener_.get(), POLLIN, 0});
  for (const Pending& one : pending_) {
    if (one.shaking)
      set.push_back({one.shaking->fd(), one.shaking->events(), 0});
    else
      set.push_back({one.fd.get(), POLLIN, 0});
  }
}

Deadline Acceptor::next_deadline() const {
  Deadline next = Deadline::max();
  if (!pending_.empty()) next = pending_.front().since + options_.patience;
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
  std::vector<Pending> still;
  for (Pending& one : pending_)
    if (advance(one, now)) still.push_back(std::move(one));
  pending_ = std::move(still);
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
    Pending one{now, address_of(address, size), std::move(fd), {}, {}};
    if (advance(one, now)) pending_.push_back(std::move(one));
  }
}

void Acceptor::drop_first_to_go(const std::string& why) {
  const auto first = first_to_go();
  drop(*first, why);
  pending_.erase(first);
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

bool Acceptor::advance(Pending& one, Time now) {
  if (!one.shaking && !read_first_bytes(one)) return false;
  if (one.shaking) {
    const Handshake::State state = one.shaking->advance();
    if (state == Handshake::State::refused) return drop(one, one.shaking->why());
    if (state == Handshake::State::done) {
      const auto keys = one.shaking->session();
      proved_.push_back({one.shaking->take_fd(), one.from.host, keys});
      return false;
    }
  }
  if (now < one.since + options_.patience) return true;
  return drop(one, "no handshake within " + std::to_string(options_.patience.count()) + " ms");
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
