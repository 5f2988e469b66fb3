#include "dsm/tests/strangers_proxy.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>

#include "dsm/tests/launch_bench.hpp"
#include "ipc/error.hpp"
#include "ipc/socket.hpp"

namespace dsm::launch::testing {
namespace {

constexpr std::size_t handshake = 72;  // bytes that each side says in it
constexpr int turn_ms = 10;            // what other threads have said is seen so soon

// What is there now, behind what came before. False at the end.
bool take(const ipc::Fd& fd, std::string& text) {
  std::array<char, 65536> buffer;
  const ssize_t got = ::recv(fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (got > 0) text.append(buffer.data(), static_cast<std::size_t>(got));
  return got > 0 || (got < 0 && errno == EAGAIN);
}

bool give(const ipc::Fd& fd, const std::string& text) {
  return ::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size());
}

}  // namespace

struct Proxy::Pair {
  ipc::Fd rank, coordinator;
  std::string up, down;  // all that was said
  std::size_t told = 0;  // bytes of `down` that the rank has
  bool first = false;    // to say more than its handshake
};

Proxy::Proxy()
    : listener_(ipc::listen_tcp("127.0.0.1", 0)),
      port_(ipc::local_port(listener_.get())),
      thread_([this](const std::stop_token& stop) { run(stop); }) {}

Proxy::~Proxy() = default;

std::vector<std::string> Proxy::line_through(const std::vector<std::string>& line) const {
  std::vector<std::string> words = {"sh", "-c", "DSMEXEC_PORTNUM=" + std::to_string(port_) + "; exec \"$0\" \"$@\""};
  words.insert(words.end(), line.begin(), line.end());
  words[3] = std::filesystem::path(dsmexec_path()).replace_filename(line[0]).string();  // sh does not look there
  return words;
}

std::string Proxy::recorded() {
  const std::lock_guard lock(mutex_);
  return recorded_;
}

std::size_t Proxy::joined() {
  const std::lock_guard lock(mutex_);
  return joined_;
}

void Proxy::run(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    const std::uint16_t to = to_;
    std::vector<pollfd> set;
    if (to != 0) set.push_back({listener_.get(), POLLIN, 0});
    for (const Pair& pair : pairs_) {
      set.push_back({pair.rank.get(), POLLIN, 0});
      set.push_back({pair.coordinator.get(), POLLIN, 0});
    }
    ::poll(set.data(), set.size(), turn_ms);
    if (to != 0 && (set[0].revents & POLLIN) != 0) {
      ipc::Fd rank(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      pairs_.push_back({std::move(rank), ipc::connect_tcp("127.0.0.1", to, 60'000), {}, {}, 0, false});
    }
    pairs_.remove_if([this](Pair& pair) { return !carry(pair); });
  }
}

bool Proxy::carry(Pair& pair) {
  const std::size_t said = pair.up.size();
  bool alive = take(pair.rank, pair.up) && give(pair.coordinator, pair.up.substr(said));
  if (said <= handshake && pair.up.size() > handshake) {
    const std::lock_guard lock(mutex_);
    pair.first = joined_++ == 0;
  }
  if (pair.first && pair.up.size() > said) {
    const std::lock_guard lock(mutex_);
    recorded_ = pair.up;
  }
  alive = take(pair.coordinator, pair.down) && alive;
  const std::size_t until = open_ ? pair.down.size() : std::min(pair.down.size(), handshake);
  const std::string news = pair.down.substr(pair.told, until - pair.told);
  pair.told = until;
  return give(pair.rank, news) && alive;
}

}  // namespace dsm::launch::testing
