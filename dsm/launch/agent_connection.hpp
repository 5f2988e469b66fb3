// dsm/launch/agent_connection.hpp - one agent as dsmexec sees it: a process of ours (the agent itself, or the ssh or
// srun that reaches it), its control connection, and how far it has come.
//
//   waiting -> starting -> open -> done        `start` has been called; it has said Hello; everything has ended
//                  \-> failed     \-> lost     it never spoke; it went away, or nothing is heard of it
//
// A starting one that is turned away by a busy server goes back to waiting, a few times. Time is passed in. For a poll
// loop; nothing here blocks. Made and used by the Runner. Thread-safety: none. Not async-signal-safe.
#pragma once
#include <poll.h>
#include <sys/types.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "dsm/launch/control.hpp"
#include "dsm/launch/remote.hpp"
#include "dsm/launch/site.hpp"
#include "dsm/telemetry/snapshot.hpp"
#include "ipc/fd.hpp"
#include "ipc/watchdog.hpp"

namespace dsm::launch {

// dsmexec's own file, as it may have to be sent.
struct OwnFile {
  std::string path, hash;
  std::uint64_t size = 0;
};

class AgentConnection {
 public:
  using Time = std::chrono::steady_clock::time_point;
  enum class State : std::uint8_t { waiting, starting, open, done, failed, lost };

  // `remote`, `own`: for a site that is not local. Both must outlive this.
  AgentConnection(Site site, const Remote* remote, const OwnFile& own);
  AgentConnection(AgentConnection&&) = delete;

  [[nodiscard]] const Site& site() const { return site_; }
  [[nodiscard]] const std::string& host() const { return site_.machine.host; }
  [[nodiscard]] State state() const { return state_; }
  [[nodiscard]] bool is_open() const { return state_ == State::open; }
  [[nodiscard]] bool has_spoken() const { return greeting_ != Greeting::none; }
  [[nodiscard]] bool is_over() const { return state_ >= State::done; }
  [[nodiscard]] pid_t pid() const { return pid_; }  // 0: none runs
  [[nodiscard]] Link* link() { return link_ && is_open() && !ended_at_ ? &*link_ : nullptr; }
  [[nodiscard]] bool has(int rank) const;
  [[nodiscard]] bool has_crashed() const { return !is_over() && status_ && *status_ != 0; }  // its process

  // Whether start() is due. REQUIRES for start: state() is waiting. Throws std::system_error.
  [[nodiscard]] bool start_due(Time now) const { return state_ == State::waiting && now >= start_at_; }
  void start(Time now);
  // Its process has been reaped.
  void ended(int wait_status) { status_ = wait_status; }
  // It has said Hello, or Done.
  void set_open() { state_ = State::open; }
  void set_done() { state_ = State::done; }
  // No more is said or heard.
  void close() { let_go(); }
  [[nodiscard]] bool has_ended() const { return pid_ == 0 || status_.has_value(); }  // its process has been reaped
  // Ends it, at once: it has started nothing, and is not needed.
  void give_up();
  // The program's file, piece by piece, as the connection takes it. Throws std::system_error if it cannot be read.
  void send_program(const std::string& path);

  void add_to(std::vector<pollfd>& set, bool want_input) const;
  // Sends what waits, and a beat if one is due.
  void flush(Time now);
  // Reads what is there and hands over whole frames. `why` for the log if it is not understood; then it is killed.
  void hear(Time now, const Link::Sink& sink, const std::function<void(const std::string&)>& log);
  // Nobody listened to it: silence does not count.
  void not_heard(Time now) { silence_.heard(now); }
  // Takes the steps that are due: failed and lost are found out here. True if one of both has just come true: how()
  // says why, in one clause or line.
  [[nodiscard]] bool check(Time now);
  [[nodiscard]] const std::string& how() const { return how_; }
  [[nodiscard]] Time next_deadline(Time now) const;

  // ---- what it has told ----
  int cores = 1;
  std::string caller;                 // the address by which its machine sees ours; empty: not known
  telemetry::Snapshot seen;           // its last sample
  std::uint64_t answered = 0;         // the id of what it answered
  bool ordered = false;               // Start has been sent
  bool reads_input = false;           // its ranks, or some of them
  std::uint64_t input_under_way = 0;  // bytes that they have not taken

 private:
  enum class Greeting : std::uint8_t { none, sending, heard };
  void read_greeting();
  void send_own_file();
  void read_errors();
  bool try_again(Time now);
  void start_here();
  void start_there();
  void kill();
  void let_go();

  Site site_;
  const Remote* remote_;
  const OwnFile& own_;
  State state_ = State::waiting;
  Greeting greeting_ = Greeting::none;
  pid_t pid_ = 0;
  std::optional<int> status_;  // of the process, as wait(2) has it
  ipc::Fd in_, out_, errors_;  // until there is a Link; what ssh or srun complains of
  std::optional<Link> link_;
  std::string received_, said_, how_;
  ipc::Fd file_;       // what is being sent
  std::string piece_;  // of dsmexec's own file
  bool sending_program_ = false;
  int tries_ = 0;
  Time start_at_{};
  ipc::BeatTimer beats_{beat_period};
  ipc::SilenceTimer silence_{silence, {}};
  std::optional<Time> ended_at_;  // its connection has ended, too early
};

}  // namespace dsm::launch
