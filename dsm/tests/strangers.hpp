// dsm/tests/strangers.hpp - those who are at ports of a job, or of dsmd, and do not have its key.
//
// One thread plays them all. Each comes, says its part, and stays until it is turned away; a quarter of a second later it
// is back. What a door did with each kind is counted. Thread-safety: every member but the destructor may be called by
// any thread.
#pragma once
#include <sys/types.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "ipc/fd.hpp"

namespace dsm::launch::testing {

enum class Kind : std::uint8_t {
  silent,     // says nothing
  garbage,    // another protocol, a long line of nonsense, or bytes that mean nothing
  endless,    // nonsense that never ends
  hasty,      // has left before it could be answered
  huge,       // a frame that says it is 4 GiB long
  half,       // a part of the handshake, or all of the client's first message
  other_job,  // replays a handshake of another job
  same_job,   // ... of this job, step by step, or all that was said at once
  reflected,  // says to the door what the door has said
  crossed,    // ... on another connection to the same door
  crowd,      // many at once: silent ones, and first messages that nothing follows
};
inline constexpr std::size_t kinds = 11;
inline constexpr std::size_t crowd_size = 500;
[[nodiscard]] const char* name_of(Kind kind);
[[nodiscard]] bool proves(Kind kind);  // it goes on to a proof, a false one

// What became of one kind at one door.
struct Met {
  std::size_t came = 0;         // connections the kernel made
  std::size_t accepted = 0;     // ... that a process of the job then took (as look() saw it)
  std::size_t answered = 0;     // ... to which it said its part of the handshake
  std::size_t proofs = 0;       // ... that went on to a false proof
  std::size_t turned_away = 0;  // ... that the door closed
  std::size_t let_in = 0;       // ... that heard more than strangers may
  double longest_s = 0;         // that one stayed which the door closed
};

// Ports at which these processes listen (TCP, over IPv4).
[[nodiscard]] std::set<std::uint16_t> listening(const std::vector<pid_t>& pids);

class Strangers {
 public:
  // `other_job`: what a client has said in a handshake of another job. `crowd`: how many are Kind::crowd.
  explicit Strangers(std::string other_job, std::size_t crowd = crowd_size);
  Strangers(const Strangers&) = delete;
  ~Strangers();

  // All kinds are at this port of 127.0.0.1 from now on; nothing if they are already. `behind`: what they send behind a
  // false proof, which would do harm to a job that believed it.
  void visit(std::uint16_t port, const std::string& behind);
  // One more that Kind::same_job replays; it does not come before. What follows the handshake in it is replayed, too,
  // instead of `behind`.
  void add_same_job(std::string text);
  // Asks the kernel which connections have been accepted.
  void look();
  [[nodiscard]] Met met(std::uint16_t port, Kind kind);
  [[nodiscard]] bool gone(std::uint16_t port);  // nobody listens there any more
  [[nodiscard]] std::string table();            // all there is to know, for people

 private:
  using Time = std::chrono::steady_clock::time_point;
  struct Visitor;
  struct Door {
    std::string behind;
    bool gone = false;
    std::array<Met, kinds> met{};
  };

  void run(const std::stop_token& stop);
  void add(std::uint16_t port, Kind kind, std::size_t variant, Visitor* partner = nullptr);
  void add_replays(std::uint16_t port, std::size_t text);
  bool come_back();
  void come(Visitor& one);
  void say(Visitor& one, const std::string& words);
  void begin(Visitor& one);
  void hear(Visitor& one);
  void react(Visitor& one);
  void leave(Visitor& one, bool turned_away);
  Met& of(const Visitor& one);
  [[nodiscard]] const std::string& said_by(const Visitor& one) const;  // REQUIRES: Kind::same_job

  const std::string other_job_;
  const std::size_t crowd_;
  std::vector<std::string> same_job_;
  std::mutex mutex_;
  ipc::Fd epoll_;
  std::map<std::uint16_t, Door> doors_;
  std::vector<std::unique_ptr<Visitor>> visitors_;
  std::multimap<Time, Visitor*> away_;  // by when they come back
  std::jthread thread_;
};

}  // namespace dsm::launch::testing
