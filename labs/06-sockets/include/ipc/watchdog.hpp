// ipc/watchdog.hpp - is it still alive? Heartbeats, and a child that is watched, killed, reaped and started again.
//
// A crash is easy to see: the child's end of a socket closes, SIGCHLD comes. A process that hangs does neither. So
// whoever is watched says "I am alive" once in every beat, from the loop that does its work, and who watches takes
// silence for death. Used by the watchdog of this lab. Heartbeat and HeartbeatMonitor serve peers on two hosts as well,
// where silence is all one hears: a cable that was pulled out closes no socket.
// Thread-safety: none, one thread for each object, and a program that watches needs no second one. async-signal-safe:
// no. Time is passed in where it decides something, so that a test needs no waiting.
// Sources: unix(7), socketpair(2), waitpid(2), prctl(2) (PR_SET_PDEATHSIG).
#pragma once
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "ipc/fd.hpp"
#include "ipc/spawn.hpp"

namespace ipc {

using BeatClock = std::chrono::steady_clock;  // does not jump when somebody sets the date
using Milliseconds = std::chrono::milliseconds;

// For poll(2): milliseconds from `now` until `then`, rounded up, so that nobody spins through the last one; 0 if it is
// past.
[[nodiscard]] int milliseconds_until(BeatClock::time_point then, BeatClock::time_point now) noexcept;

// The two timers of a heartbeat, as values: for beats that travel among other messages, as those between dsmexec and its
// agents do, and for the two classes below, which have a socket for them alone.
class BeatTimer {
 public:
  explicit BeatTimer(Milliseconds period) noexcept : period_(period) {}
  // True when a beat is due, at once the first time; the next one is then due a period later.
  [[nodiscard]] bool due(BeatClock::time_point now) noexcept {
    if (now < next_) return false;
    next_ = now + period_;
    return true;
  }
  [[nodiscard]] BeatClock::time_point next() const noexcept { return next_; }

 private:
  Milliseconds period_;
  BeatClock::time_point next_{};
};
class SilenceTimer {
 public:
  SilenceTimer(Milliseconds limit, BeatClock::time_point now) noexcept : limit_(limit), last_(now) {}
  void heard(BeatClock::time_point now) noexcept { last_ = now; }
  [[nodiscard]] bool silent(BeatClock::time_point now) const noexcept { return now >= deadline(); }
  [[nodiscard]] BeatClock::time_point deadline() const noexcept { return last_ + limit_; }  // silent from then on

 private:
  Milliseconds limit_;
  BeatClock::time_point last_;
};

// The watched side. REQUIRES: beat() is called from the loop that does the work, at least once in every period, and in
// the middle of long work too. From a helper thread it would say no more than that the helper thread is alive.
class Heartbeat {
 public:
  // `fd`: a connected socket, a record socket or a stream; it stays the caller's. The first beat is due at once.
  Heartbeat(int fd, Milliseconds period) noexcept : fd_(fd), timer_(period) {}
  // Sends a beat, one byte, if it is due. Never waits: if the watcher has not read for so long that no more goes in,
  // what it has not read yet says enough. False: the other end is gone.
  bool beat() noexcept;
  // Milliseconds until the next one is due.
  [[nodiscard]] int due_ms() const noexcept { return milliseconds_until(timer_.next(), BeatClock::now()); }

 private:
  int fd_;
  BeatTimer timer_;
};

// After this long without a beat a peer counts as dead. It may have stopped just after a beat, so two beats and a half
// leave half a beat to end it, reap it and start another: all of it within three.
[[nodiscard]] constexpr Milliseconds silence_limit(Milliseconds beat) noexcept { return beat * 5 / 2; }

// The watching side, one for each peer.
class HeartbeatMonitor {
 public:
  enum class Verdict { alive, silent, gone };  // gone: it has closed its end (or died: the kernel closed it)
  HeartbeatMonitor(int fd, Milliseconds limit, BeatClock::time_point now) noexcept : fd_(fd), silence_(limit, now) {}
  // Reads what has come, all of it, and only then judges: a watcher that was itself held up finds the beats waiting.
  // Never waits.
  [[nodiscard]] Verdict check(BeatClock::time_point now) noexcept;
  [[nodiscard]] std::uint64_t beats() const noexcept { return beats_; }  // read so far
  [[nodiscard]] BeatClock::time_point deadline() const noexcept { return silence_.deadline(); }

 private:
  int fd_;
  SilenceTimer silence_;
  std::uint64_t beats_ = 0;
};

// When may something that died be started again? At once; but what dies before its first beat cannot be helped by
// haste: then the time from start to start doubles, 1, 2, 4, 8 ... beats, and after so many restarts in a row there is
// no other. Two starts are never less than one beat apart.
class RestartPolicy {
 public:
  RestartPolicy(Milliseconds beat, int max_restarts) noexcept : beat_(beat), max_restarts_(max_restarts) {}
  void started(BeatClock::time_point now) noexcept;
  void came_up() noexcept { in_a_row_ = 0; }  // its first beat
  // After a death; nothing: give up.
  [[nodiscard]] std::optional<BeatClock::time_point> next_start() const noexcept;

 private:
  Milliseconds beat_;
  int max_restarts_;
  int in_a_row_ = 0;  // starts since anything was heard
  BeatClock::time_point last_start_{};
};

// A child process that is watched. It is never left: neither running, nor a zombie.
//
// The program finds one end of a socketpair (SOCK_SEQPACKET) as descriptor `control_fd`: its beats go out there, what
// it is to be told comes in. Nobody but that child has that end, so end of file means: it is dead. It leads a process
// group of its own (Ctrl-C in a terminal reaches us only, and we end our children in order) and the kernel kills it
// when we die, however that happens.
class Supervised {
 public:
  static constexpr int control_fd = 3;
  static constexpr Milliseconds farewell{2000};  // at most so long does end() wait for it

  Supervised(std::string name, Milliseconds beat, int max_restarts) noexcept
      : name_(std::move(name)), beat_(beat), policy_(beat, max_restarts) {}
  Supervised(Supervised&&) = delete;
  ~Supervised() { end(); }

  // REQUIRES: it does not run; `options` gives away neither control_fd nor the process group nor the death signal.
  // Throws as spawn() does; std::system_error if socketpair failed. To the policy that is a start, and a death.
  // As spawn(), it waits until the child has done exec: who stops it (SIGSTOP) before, and only then, holds us until it
  // is continued or killed. So pick victims among those that were said to be started, not from /proc.
  void start(SpawnOptions options);
  // Looks after it. If it is dead, or counts as dead (then it is killed): reaps it and says how it ended, once, in the
  // words of how_it_ended() (ipc/child.hpp). Waits only for the kernel to finish off what has been killed.
  [[nodiscard]] std::optional<std::string> look(BeatClock::time_point now);
  // When look() or start() has something to do if nothing is heard before. Nothing: give up.
  [[nodiscard]] std::optional<BeatClock::time_point> next_step() const;
  // SIGTERM, and SIGKILL if it still runs after silence_limit or `farewell`, whichever is shorter (it hangs, or it is
  // stopped); then it is reaped. Does nothing if it does not run.
  void end() noexcept;

  [[nodiscard]] bool is_running() const noexcept { return pid_ > 0; }
  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  [[nodiscard]] int control() const noexcept { return control_.get(); }  // our end: poll it; -1 if it does not run
  [[nodiscard]] const std::string& name() const noexcept { return name_; }

 private:
  int reap(int flags) noexcept;
  void forget() noexcept;

  std::string name_;
  Milliseconds beat_;
  RestartPolicy policy_;
  pid_t pid_ = 0;
  int status_ = 0;
  Fd control_;
  std::optional<HeartbeatMonitor> monitor_;
};

// For the program that is started by Supervised: takes over an inherited socket, which from now on is close-on-exec.
// `type`: SOCK_SEQPACKET ... Throws std::runtime_error if the descriptor is no Unix socket of that type: then somebody
// has started the program by hand.
[[nodiscard]] Fd inherited_socket(int fd, int type);

}  // namespace ipc
