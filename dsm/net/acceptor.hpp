// dsm/net/acceptor.hpp - the door: a listening socket that lets in only those who know the key.
//
// Strangers, scanners and slow clients are bounded in number, in time and in bytes, and never stall others: every
// handshake is a non-blocking value. When the door is full, the oldest is dropped for a new one, but nobody before a
// quarter of a second has passed, or a whole one if he began the handshake properly: else a crowd of strangers would push
// out those who have the key. Who comes to a full door has to wait for that, and a rank comes to others a dozen times,
// one after the other: so there is room for many. What it costs to serve() does not depend on how many are silent.
// For a poll loop: add_to() the poll set, wait until something happens or next_deadline(), then serve().
// Thread-safety: none.
#pragma once
#include <poll.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "dsm/net/channel.hpp"
#include "dsm/net/port_range.hpp"

namespace dsm::net {

class Acceptor {
 public:
  struct Options {
    std::string address = "127.0.0.1";
    PortRange ports{};                         // the first that is free
    std::size_t pending = 512;                 // handshakes at one time; at most half of all descriptors
    std::chrono::milliseconds patience{5000};  // for one handshake
    std::size_t max_body = 0;
    std::size_t queue = 64;
    // Called with one line for each connection that was dropped, e.g. "127.0.0.1:41234: wrong first bytes" (-v shows it).
    std::function<void(const std::string&)> log;
    // If set: a connection whose first 4 bytes are not the magic's, is handed over with those bytes already read
    // (the classroom handshake of --open-rendezvous) instead of being dropped.
    std::function<void(ipc::Fd, std::string first_bytes, std::string peer)> other;
  };
  struct Arrival {
    Channel channel;
    std::string peer_address;  // numeric, without port
  };

  // Listens from now on. Throws std::system_error (EADDRINUSE, EADDRNOTAVAIL ...).
  Acceptor(const Credentials& credentials, Options options);
  Acceptor(const Acceptor&) = delete;
  ~Acceptor();
  [[nodiscard]] std::uint16_t port() const noexcept;
  // Holds for those who arrive from now on.
  void set_max_body(std::size_t max_body) noexcept;
  void add_to(std::vector<pollfd>& set) const;
  // The earliest time at which serve() must be called even if nothing happens; max() if there is none.
  [[nodiscard]] Deadline next_deadline() const;
  // Goes on with everything that can, by asking the sockets again (non-blocking): the poll set need not be passed back.
  [[nodiscard]] std::vector<Arrival> serve();
  // The same, but those who are let in wait in here for the next serve(): for an owner who does not know yet what to do
  // with them, and keeps strangers from piling up meanwhile. Nothing announces those who wait: call serve() before the
  // next wait that is for them.
  void keep_door();

 private:
  struct Pending;
  struct Proved {
    ipc::Fd fd;
    std::string address;
    std::optional<SessionKeys> keys;  // if the job encrypts
  };
  using Time = std::chrono::steady_clock::time_point;

  using Number = std::uint64_t;  // of a pending connection, in the order of coming

  [[nodiscard]] bool full() const;
  [[nodiscard]] Time opens_at() const;
  void accept_new(Time now);
  void take_in(std::unique_ptr<Pending> one);
  void go_on(Number number);
  void drop_late(Time now);
  void drop_first_to_go(const std::string& why);
  void out_of_descriptors(Time now);
  void watch(Number number, Pending& one);
  void unwatch(Pending& one);
  // False when this connection is no longer pending: let in, handed over or dropped.
  bool advance(Pending& one);
  bool read_first_bytes(Pending& one);
  void forget(Number number);
  bool drop(const Pending& one, const std::string& why) const;
  void log(const std::string& peer, const std::string& why) const;

  Credentials credentials_;
  Options options_;
  ipc::Fd listener_;
  std::uint16_t port_ = 0;
  ipc::Fd epoll_;  // of those who are pending
  std::map<Number, std::unique_ptr<Pending>> pending_;
  std::set<std::pair<Time, Number>> spared_;  // until when each of them is
  Number next_ = 0;
  std::vector<Proved> proved_;  // have not been handed out
  Time paused_until_{};         // out of descriptors: accepts nobody until then
};

}  // namespace dsm::net
