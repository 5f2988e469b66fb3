#include "dsm/tests/strangers.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <sstream>

#include "dsm/net/frame.hpp"
#include "dsm/net/handshake.hpp"
#include "ipc/error.hpp"

namespace dsm::launch::testing {
namespace {

constexpr std::chrono::milliseconds absence{250};
constexpr std::size_t first_message = 40;  // magic, nonce
constexpr std::size_t proof_size = 32;
constexpr std::size_t answer = first_message + proof_size;
constexpr std::size_t variants = 3;  // of most kinds

std::string magic() { return {net::handshake_magic.begin(), net::handshake_magic.end()}; }

// A client's first message. Its nonce is as good as any.
std::string hello() {
  const net::JobKey nonce = net::random_key();
  return magic() + std::string(nonce.begin(), nonce.end());
}

std::string random_bytes(std::size_t size) {
  std::string text;
  while (text.size() < size) text += hello().substr(magic().size());
  return text;
}

std::string huge_frame() {
  net::FrameHeader header{};
  header.kind = static_cast<std::uint8_t>(net::FrameKind::control);
  header.length = 0xffffffffu;
  return {reinterpret_cast<const char*>(&header), sizeof header};
}

// A line of /proc/net/tcp (proc(5)).
struct Socket {
  std::uint16_t port = 0, remote = 0;
  bool listens = false;
  std::string inode;  // "0": no process has it
};

std::uint16_t port_in(const std::string& address) {
  return static_cast<std::uint16_t>(std::stoul(address.substr(address.rfind(':') + 1), nullptr, 16));
}

void for_each_socket(const std::function<void(const Socket&)>& see) {
  std::ifstream file("/proc/self/net/tcp");
  std::string line, number, local, remote, state, skipped, inode;
  std::getline(file, line);
  while (std::getline(file, line)) {
    std::istringstream words(line);
    words >> number >> local >> remote >> state;
    for (int i = 0; i < 5; ++i) words >> skipped;
    if (words >> inode) see({port_in(local), port_in(remote), state == "0A", inode});
  }
}

}  // namespace

const char* name_of(Kind kind) {
  constexpr std::array<const char*, kinds> names = {"silent",    "garbage",  "endless",   "hasty",   "huge", "half",
                                                    "other job", "same job", "reflected", "crossed", "crowd"};
  return names.at(static_cast<std::size_t>(kind));
}

bool proves(Kind kind) {
  return kind == Kind::other_job || kind == Kind::same_job || kind == Kind::reflected || kind == Kind::crossed;
}

std::set<std::uint16_t> listening(const std::vector<pid_t>& pids) {
  std::set<std::string> inodes;
  for (const pid_t pid : pids) {
    std::error_code gone;  // so may be a process, or a descriptor, by now
    for (std::filesystem::directory_iterator fd("/proc/" + std::to_string(pid) + "/fd", gone), end; !gone && fd != end;
         fd.increment(gone)) {
      std::error_code closed;
      const std::string link = std::filesystem::read_symlink(fd->path(), closed).string();
      if (link.rfind("socket:[", 0) == 0) inodes.insert(link.substr(8, link.size() - 9));
    }
  }
  std::set<std::uint16_t> ports;
  for_each_socket([&](const Socket& one) {
    if (one.listens && inodes.count(one.inode) != 0) ports.insert(one.port);
  });
  return ports;
}

struct Strangers::Visitor {
  std::uint16_t port = 0;
  Kind kind{};
  std::size_t variant = 0;
  Visitor* partner = nullptr;
  ipc::Fd fd;
  std::uint16_t own_port = 0;
  bool connected = false, accepted = false;
  Time since{};       // when it was connected
  std::string heard;  // since it came
};

Strangers::Strangers(std::string other_job, std::size_t crowd)
    : other_job_(std::move(other_job)),
      crowd_(crowd),
      epoll_(ipc::check(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")),
      thread_([this](const std::stop_token& stop) { run(stop); }) {}

Strangers::~Strangers() = default;

Met& Strangers::of(const Visitor& one) { return doors_[one.port].met.at(static_cast<std::size_t>(one.kind)); }

void Strangers::visit(std::uint16_t port, const std::string& behind) {
  const std::lock_guard lock(mutex_);
  const auto [door, fresh] = doors_.try_emplace(port);
  if (!fresh) return;
  door->second.behind = behind;
  // The crowd last: the others shall be met among those whom the door takes first.
  for (const Kind kind :
       {Kind::silent, Kind::garbage, Kind::hasty, Kind::huge, Kind::half, Kind::other_job, Kind::reflected})
    for (std::size_t variant = 0; variant < variants; ++variant) add(port, kind, variant);
  add(port, Kind::endless, 0);
  for (std::size_t text = 0; text < same_job_.size(); ++text) add_replays(port, text);
  add(port, Kind::crossed, 0);
  add(port, Kind::crossed, 1, visitors_.back().get());
  for (std::size_t i = 0; i < crowd_; ++i) add(port, Kind::crowd, i);
}

void Strangers::add_same_job(std::string text) {
  const std::lock_guard lock(mutex_);
  same_job_.push_back(std::move(text));
  for (const auto& [port, door] : doors_) add_replays(port, same_job_.size() - 1);
}

const std::string& Strangers::said_by(const Visitor& one) const { return same_job_.at(one.variant / 2); }

// Odd variants say all at once.
void Strangers::add_replays(std::uint16_t port, std::size_t text) {
  for (const std::size_t way : {0, 1}) add(port, Kind::same_job, 2 * text + way);
}

void Strangers::add(std::uint16_t port, Kind kind, std::size_t variant, Visitor* partner) {
  visitors_.push_back(std::make_unique<Visitor>());
  Visitor& one = *visitors_.back();
  one.port = port;
  one.kind = kind;
  one.variant = variant;
  one.partner = partner;
  if (partner != nullptr) partner->partner = &one;
  away_.emplace(Time::min(), &one);
}

void Strangers::look() {
  const std::lock_guard lock(mutex_);
  std::map<std::pair<std::uint16_t, std::uint16_t>, Visitor*> here;
  for (const auto& one : visitors_)
    if (one->connected && !one->accepted) here[{one->port, one->own_port}] = one.get();
  for_each_socket([&](const Socket& socket) {
    const auto found = here.find({socket.port, socket.remote});
    if (found == here.end() || socket.listens || socket.inode == "0" || found->second->accepted) return;
    found->second->accepted = true;
    ++of(*found->second).accepted;
  });
}

Met Strangers::met(std::uint16_t port, Kind kind) {
  const std::lock_guard lock(mutex_);
  return doors_[port].met.at(static_cast<std::size_t>(kind));
}

bool Strangers::gone(std::uint16_t port) {
  const std::lock_guard lock(mutex_);
  return doors_[port].gone;
}

std::string Strangers::table() {
  const std::lock_guard lock(mutex_);
  std::string text = fmt::format("{:>5}  {:<10}{:>8}{:>10}{:>10}{:>8}{:>13}{:>8}{:>11}\n", "port", "kind", "came",
                                 "accepted", "answered", "proofs", "turned away", "let in", "longest/s");
  for (const auto& [port, door] : doors_) {
    for (std::size_t kind = 0; kind < kinds; ++kind) {
      const Met& met = door.met.at(kind);
      text += fmt::format("{:>5}  {:<10}{:>8}{:>10}{:>10}{:>8}{:>13}{:>8}{:>11.2f}\n", port,
                          name_of(static_cast<Kind>(kind)), met.came, met.accepted, met.answered, met.proofs,
                          met.turned_away, met.let_in, met.longest_s);
    }
  }
  return text;
}

// ---- the thread ----

void Strangers::run(const std::stop_token& stop) {
  std::array<epoll_event, 256> events{};
  while (!stop.stop_requested()) {
    const bool more = come_back();
    const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), more ? 0 : 20);
    const std::lock_guard lock(mutex_);
    for (int i = 0; i < count; ++i) {
      Visitor& one = *static_cast<Visitor*>(events.at(static_cast<std::size_t>(i)).data.ptr);
      if (!one.fd) continue;
      if (!one.connected) {
        begin(one);
      } else {
        if (one.kind == Kind::endless) say(one, std::string(65'536, 'x'));
        hear(one);
      }
    }
  }
}

// Some of those whose time it is; whether there are more. Who has come must get to say its part, however many there are.
bool Strangers::come_back() {
  const std::lock_guard lock(mutex_);
  const Time now = std::chrono::steady_clock::now();
  const auto due = [&] { return !away_.empty() && away_.begin()->first <= now; };
  for (int i = 0; i < 100 && due(); ++i) {
    Visitor& one = *away_.begin()->second;
    away_.erase(away_.begin());
    come(one);
  }
  return due();
}

void Strangers::come(Visitor& one) {
  if (doors_[one.port].gone) return;
  one.fd = ipc::Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  ipc::check(one.fd.get(), "socket (of a stranger)");
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(one.port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(one.fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0 && errno != EINPROGRESS)
    return leave(one, false);
  epoll_event event{};
  event.events = EPOLLOUT;
  event.data.ptr = &one;
  ipc::check(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, one.fd.get(), &event), "epoll_ctl");
}

void Strangers::begin(Visitor& one) {
  int error = 0;
  socklen_t size = sizeof error;
  ipc::check(::getsockopt(one.fd.get(), SOL_SOCKET, SO_ERROR, &error, &size), "getsockopt SO_ERROR");
  if (error != 0) {
    errno = error;
    return leave(one, false);
  }
  sockaddr_in own{};
  size = sizeof own;
  ipc::check(::getsockname(one.fd.get(), reinterpret_cast<sockaddr*>(&own), &size), "getsockname");
  one.own_port = ntohs(own.sin_port);
  one.connected = true;
  one.since = std::chrono::steady_clock::now();
  ++of(one).came;
  epoll_event event{};
  event.events = one.kind == Kind::endless ? EPOLLIN | EPOLLOUT : EPOLLIN;
  event.data.ptr = &one;
  ipc::check(::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, one.fd.get(), &event), "epoll_ctl");

  const bool hello_only = one.kind == Kind::reflected || (one.kind == Kind::crossed && one.variant == 0) ||
                          (one.kind == Kind::crowd && one.variant % 2 == 1);
  if (hello_only) return say(one, hello());
  if (one.kind == Kind::garbage)
    return say(one, std::array<std::string, variants>{"GET / HTTP/1.0\r\n\r\n", random_bytes(100'000),
                                                      magic() + std::string(200, '\xff')}[one.variant]);
  if (one.kind == Kind::hasty) {
    say(one, std::array<std::string, variants>{"", magic().substr(0, 3), hello()}[one.variant]);
    (void)::shutdown(one.fd.get(), SHUT_WR);  // to the door the same as close(), and what it does is seen
    return;
  }
  if (one.kind == Kind::endless) return say(one, hello());
  if (one.kind == Kind::huge) return say(one, huge_frame());
  if (one.kind == Kind::half)
    return say(one, std::array<std::string, variants>{magic().substr(0, 3), magic(), hello()}[one.variant]);
  if (one.kind == Kind::other_job) return say(one, other_job_.substr(0, first_message));
  if (one.kind != Kind::same_job) return;
  say(one, one.variant % 2 == 0 ? said_by(one).substr(0, first_message) : said_by(one));
}

void Strangers::say(Visitor& one, const std::string& words) {
  // What does not fit is not missed.
  (void)::send(one.fd.get(), words.data(), words.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

void Strangers::hear(Visitor& one) {
  std::array<char, 512> buffer;
  const ssize_t got = ::recv(one.fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (got < 0 && errno == EAGAIN) return;
  if (got <= 0) return leave(one, true);
  const std::size_t before = one.heard.size();
  one.heard.append(buffer.data(), static_cast<std::size_t>(got));
  if (before <= answer && one.heard.size() > answer) ++of(one).let_in;
  if (before < answer && one.heard.size() >= answer) {
    ++of(one).answered;
    react(one);
  }
}

// The door has said its part: the client's proof is due.
void Strangers::react(Visitor& one) {
  const auto prove = [this](Visitor& who, const std::string& proof) {
    const bool has_more = who.kind == Kind::same_job && proof.size() > proof_size;
    say(who, has_more ? proof : proof.substr(0, proof_size) + doors_[who.port].behind);
    ++of(who).proofs;
  };
  if (one.kind == Kind::other_job) return prove(one, other_job_.substr(first_message));
  if (one.kind == Kind::same_job && one.variant % 2 == 0) return prove(one, said_by(one).substr(first_message));
  // The door's own proof, or all that it has said.
  if (one.kind == Kind::reflected) return prove(one, one.heard.substr(one.variant == 0 ? first_message : 0));
  if (one.kind != Kind::crossed || !one.partner->connected) return;
  // The second one's first message is what the door has said to the first one; and then each has the other's proof.
  if (one.variant == 0) return say(*one.partner, one.heard.substr(0, first_message));
  if (one.partner->heard.size() < answer) return;
  prove(*one.partner, one.heard.substr(first_message));
  prove(one, one.partner->heard.substr(first_message));
}

void Strangers::leave(Visitor& one, bool turned_away) {
  const bool refused = !turned_away && errno == ECONNREFUSED;
  if (turned_away) {
    Met& met = of(one);
    ++met.turned_away;
    const std::chrono::duration<double> stayed = std::chrono::steady_clock::now() - one.since;
    met.longest_s = std::max(met.longest_s, stayed.count());
  }
  if (refused) doors_[one.port].gone = true;
  one.fd.reset();
  one.connected = one.accepted = false;
  one.heard.clear();
  if (!refused) away_.emplace(std::chrono::steady_clock::now() + absence, &one);
}

}  // namespace dsm::launch::testing
