#include <netinet/in.h>
#include <poll.h>

#include <cstring>
#include <future>
#include <optional>
#include <utility>
#include <vector>

#include "dsm/net/acceptor.hpp"
#include "dsm/tests/fuzz/harness.hpp"
#include "dsm/tests/fuzz/peer.hpp"
#include "dsm/tests/fuzz/stream.hpp"
#include "ipc/error.hpp"
#include "ipc/socket.hpp"

namespace dsm::fuzz {
namespace {

using Role = net::Handshake::Role;

// Closing resets the connection: thousands of them, each remembered by the kernel for a minute, would leave no ports.
void reset_when_closed(const ipc::Fd& fd) {
  const linger reset{1, 0};
  ipc::check(::setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset), "setsockopt SO_LINGER");
}

class Door {
 public:
  explicit Door(bool open) : acceptor_(key, options(open)) {}
  [[nodiscard]] std::uint16_t port() const { return acceptor_.port(); }
  // Waits until there is something to do, or something comes over `wire`, and does it. False: there was nothing.
  bool serve(int wire, int patience_ms) {
    std::vector<pollfd> set;
    acceptor_.add_to(set);
    if (wire >= 0) set.push_back({wire, POLLIN, 0});
    const bool ready = ::poll(set.data(), set.size(), patience_ms) > 0;
    for (auto& one : acceptor_.serve()) arrived.push_back(std::move(one));
    return ready;
  }
  [[nodiscard]] std::size_t decided() const { return arrived.size() + log.size() + others.size(); }

  std::vector<net::Acceptor::Arrival> arrived;
  std::vector<std::string> log, others;

 private:
  net::Acceptor::Options options(bool open) {
    net::Acceptor::Options out;
    out.patience = std::chrono::hours(1);
    out.max_body = max_body;
    out.log = [this](const std::string& line) { log.push_back(line); };
    if (open)
      out.other = [this](const ipc::Fd&, const std::string& first, const std::string&) { others.push_back(first); };
    return out;
  }
  net::Acceptor acceptor_;
};

}  // namespace

void by_door(Script& script) {
  Door door(script.below(2) == 0);
  ipc::Fd wire = ipc::connect_tcp("127.0.0.1", door.port(), wait_ms);
  reset_when_closed(wire);
  Peer peer(script, Role::client);
  const std::string more = behind(script);
  bool has_more = true;
  for (bool goes_on = true; (goes_on || has_more) && door.decided() == 0;) {
    std::string text = peer.answer(take(wire.get()));
    if (has_more && (peer.has_said_all() || !goes_on)) {
      has_more = false;
      peer.say_besides(more);
      text += more;
    }
    put(wire.get(), text);
    // Who is honest will be answered. Whether anybody else will is for the door to say.
    goes_on = door.serve(wire.get(), peer.was_honest() ? wait_ms : 0);
  }
  if (door.decided() == 0) wire.reset();
  while (door.decided() == 0 && door.serve(-1, wait_ms)) continue;
  check(door.decided() == 1, "a connection has not one fate");
  peer.check_verdict(!door.arrived.empty());
  for (const std::string& line : door.log) check_line(line, "why a connection was dropped is not one line");
  for (const std::string& first : door.others) {
    check(first == peer.said().substr(0, 4) && std::memcmp(first.data(), net::handshake_magic.data(), 4) != 0,
          "who speaks as those who have the key do is taken for another");
  }
  if (!door.arrived.empty()) check_channel(std::move(door.arrived[0].channel), std::move(wire), peer.behind());
}

namespace {

// What became of a connect(): a channel, or why not.
struct Outcome {
  std::optional<net::Channel> channel;
  std::string why;
};

Outcome connect_to(std::uint16_t port, std::chrono::milliseconds patience) {
  try {
    return {net::connect("127.0.0.1", port, key, std::chrono::steady_clock::now() + patience, max_body), {}};
  } catch (const std::runtime_error& error) {  // std::system_error is one
    return {std::nullopt, error.what()};
  }
}

}  // namespace

// The client that every rank is, in a thread of its own, for it waits; the peer is what it takes for the coordinator.
void by_connect(Script& script) {
  const ipc::Fd listener = ipc::listen_tcp("127.0.0.1", 0);
  const std::uint16_t port = ipc::local_port(listener.get());
  if (script.below(16) == 15) {
    return check_line(connect_to(port, std::chrono::milliseconds(0)).why, "a connection without time is not refused");
  }
  Peer peer(script, Role::server);  // before the thread: both take nonces
  std::string more = behind(script);
  std::future<Outcome> client =
      std::async(std::launch::async, [port] { return connect_to(port, std::chrono::milliseconds(wait_ms)); });
  ipc::Fd wire(ipc::check(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC), "accept4"));
  reset_when_closed(wire);
  // It speaks first, 40 bytes; then it is the peer's turn; then it proves its key, or goes.
  bool has_answered = false;
  for (;;) {
    pollfd ready{wire.get(), POLLIN, 0};
    if (::poll(&ready, 1, has_answered && !peer.was_honest() ? 0 : wait_ms) != 1) break;
    const std::string heard = take(wire.get());
    if (heard.empty()) break;
    std::string text = peer.answer(heard);
    has_answered = has_answered || peer.has_said_all();
    if (has_answered) {
      peer.say_besides(more);
      text += std::exchange(more, {});
    }
    put(wire.get(), text);
    if (peer.is_done()) break;
  }
  if (!peer.was_honest()) wire.reset();
  Outcome outcome = client.get();
  peer.check_verdict(outcome.channel.has_value());
  if (!outcome.channel) return check_line(outcome.why, "why a connection was refused is not one line");
  check_channel(std::move(*outcome.channel), std::move(wire), peer.behind());
}

}  // namespace dsm::fuzz
