// shm_random - a parent hands random values to its child, through shared memory.
//
//     $ build/bin/shm_random --count 2 --seed 1
//     parent 29082 wrote 11
//     child 29083 read 11
//     parent 29082 wrote 61
//     child 29083 read 61
//
// The value travels in the segment; a signal only says "look". Signals coalesce, so the parent writes the next value only
// when the child has answered, and the mailbox says that the last one was taken.
//
// Read: shmget(2), shmat(2), shmctl(2), shm_overview(7), signal(7), sigsuspend(2).
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <new>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>

#include "ipc/child.hpp"
#include "ipc/posix_segment.hpp"
#include "ipc/program.hpp"
#include "ipc/signals.hpp"
#include "ipc/sysv_segment.hpp"

namespace {

struct Options {
  int count = 5;
  int period_ms = 0;
  bool posix = false;
  std::uint64_t seed = 0;
};

// ---- the child -------------------------------------------------------------------------------------------------------

volatile sig_atomic_t told_to_end = 0;

// SIGUSR1 need not be noted: it has done its work when it has ended the child's sleep.
void note(int signo, siginfo_t*, void*) {
  if (signo == SIGTERM) told_to_end = 1;
}

// Prints what it finds in the mailbox, until SIGTERM. REQUIRES: SIGUSR1 and SIGTERM have been blocked since before the
// fork.
//
// Why no value is lost: the parent puts first and signals then. The signal is blocked but inside sigsuspend(), so it
// either ends that sleep, or comes while we look into the mailbox, stays pending, and makes the next sigsuspend() return
// at once: we always look once more after the last signal. The parent does not put again before we have taken.
int read_values(ipc::Mailbox& mailbox, pid_t parent) {
  //@ solution 02.read
  const sigset_t both = ipc::signal_set({SIGUSR1, SIGTERM});
  const ipc::ScopedAction on_value(SIGUSR1, note, SA_RESTART, both);
  const ipc::ScopedAction on_end(SIGTERM, note, SA_RESTART, both);
  const std::string line = "child " + std::to_string(::getpid()) + " read ";
  const sigset_t none = ipc::signal_set({});
  while (!told_to_end) {
    ::sigsuspend(&none);
    std::int64_t value = 0;
    if (!mailbox.take(value)) continue;  // a signal of somebody else's
    ipc::say(line + std::to_string(value));
    ::kill(parent, SIGUSR1);
  }
  return 0;
  //@ starter
  // TODO 02.read: sleep until SIGUSR1 comes, take the value, print it, tell the parent by SIGUSR1; end after SIGTERM. What
  // if the signal comes while you print? What if somebody else sends one?
  //| static_cast<void>(mailbox), static_cast<void>(parent), static_cast<void>(note);
  //| return 0;
  //@ end
}

// ---- the parent ------------------------------------------------------------------------------------------------------

class Parent {
 public:
  // REQUIRES: the signals in `watched` are blocked.
  Parent(const Options& options, ipc::Mailbox& mailbox, ipc::Child child, const sigset_t& watched)
      : options_(options), random_(options.seed), mailbox_(mailbox), child_(std::move(child)), signals_(watched) {}

  int run() {
    for (int i = 0; i < options_.count; ++i) {
      if (i > 0 && options_.period_ms > 0) wait_for_one_period();
      hand_over(draw());
    }
    end_child();
    return 0;
  }

 private:
  // 0 to 100, the ends included. (2^64 is no multiple of 101: what that makes of it nobody will live to see.)
  int draw() {
    //@ solution 02.draw
    return static_cast<int>(random_() % 101);
    //@ starter
    // TODO 02.draw: a number from 0 to 100, both included. How many numbers is that?
    //| return 50;
    //@ end
  }

  void hand_over(int value) {
    wait_for_room();
    ipc::say("parent " + std::to_string(::getpid()) + " wrote " + std::to_string(value));
    //@ solution 02.write
    answered_ = false;
    if (!mailbox_.put(value)) throw std::logic_error("the last value was not taken");
    child_.signal(SIGUSR1);
    // The mailbox says that the value was taken, the signal that it was printed, too. A signal alone proves nothing:
    // anybody may send one.
    while (!answered_ || mailbox_.acknowledged() != mailbox_.written()) wait(-1, -1);
    //@ starter
    // TODO 02.write: put the value, wake the child, wait until it has taken the value. Why is it not enough to send the
    // signal and go on?
    //| static_cast<void>(mailbox_);
    //@ end
  }

  void end_child() {
    ending_ = true;
    //@ solution 02.end
    child_.signal(SIGTERM);
    while (child_.pid() > 0) wait(-1, -1);
    //@ starter
    // TODO 02.end: send SIGTERM to the child, then wait until it is reaped.
    //@ end
  }

  void wait_for_one_period() {
    const auto end = Clock::now() + std::chrono::milliseconds(options_.period_ms);
    for (;;) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now());
      if (left.count() <= 0) return;
      wait(-1, static_cast<int>(left.count()));
    }
  }

  // Whoever sleeps in write(), because nobody reads, cannot be told to stop; here one can. Between two values only the
  // parent writes, so what is free stays free.
  void wait_for_room() {
    while (!wait(STDOUT_FILENO, -1)) continue;
  }

  // Sleeps until a signal comes, or `output` can be written to (-1: no matter), or the time is over (-1: never). Does
  // what the signals ask for. Returns whether `output` is ready, or broken: who writes finds out.
  bool wait(int output, int timeout_ms) {
    pollfd wanted[] = {{signals_.fd(), POLLIN, 0}, {output, POLLOUT, 0}};
    ::poll(wanted, 2, timeout_ms);
    signalfd_siginfo signal{};
    while (signals_.read(signal)) {
      if (signal.ssi_signo == SIGCHLD) {
        look_after_child();
      } else if (signal.ssi_signo == SIGUSR1) {
        answered_ = true;
      } else {
        throw ipc::Stopped{static_cast<int>(signal.ssi_signo)};
      }
    }
    return wanted[1].revents != 0;
  }

  void look_after_child() {
    for (const ipc::ChildExit& gone : ipc::reap_children()) {
      child_.forget();
      if (ending_ && gone.status == 0) continue;
      throw std::runtime_error("child " + std::to_string(gone.pid) + ": " + ipc::how_it_ended(gone.status));
    }
  }

  using Clock = std::chrono::steady_clock;

  const Options options_;
  std::mt19937_64 random_;
  ipc::Mailbox& mailbox_;
  ipc::Child child_;
  ipc::SignalFd signals_;
  bool answered_ = false;
  bool ending_ = false;
};

// REQUIRES: the signals in `watched` are blocked, and were before the segment was made: nothing but SIGKILL ends us before
// it is removed. From then on the kernel frees it with the last of us two, however we end.
template <class Segment>
int run(const Options& options, Segment segment, const sigset_t& watched) {
  auto* const mailbox = new (segment.data()) ipc::Mailbox{};
  std::optional<ipc::Child> child;
  try {
    child.emplace([mailbox, parent = ::getpid()] { return read_values(*mailbox, parent); });
  } catch (...) {
    segment.remove();
    throw;
  }
  segment.remove();  // both have attached: the child has inherited it
  return Parent(options, *mailbox, std::move(*child), watched).run();
}

int start(const Options& options) {
  const sigset_t watched = ipc::stop_signals_and({SIGUSR1, SIGCHLD});
  // SIGTERM for the child, also when we were started to ignore it.
  const sigset_t blocked = ipc::stop_signals_and({SIGUSR1, SIGCHLD, SIGTERM});
  // An answer that comes when we do not wait for it any more finds a handler when the mask goes, and does not end us.
  const ipc::ScopedAction harmless(SIGUSR1, note);
  const ipc::ScopedMask mask(blocked);
  const std::size_t size = sizeof(ipc::Mailbox);
  if (options.posix) return run(options, ipc::PosixSegment::create("shm_random", size), watched);
  return run(options, ipc::SysvSegment::create(size), watched);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  ipc::Program about;
  about.usage = "shm_random [options]\nA parent hands random values from 0 to 100 to its child, in shared memory.";
  ipc::add_number(about.options, "count", options.count, 1, 1000000000, "how many values");
  ipc::add_number(about.options, "period-ms", options.period_ms, 0, 3600000, "time between two values");
  about.options.add_options()("posix", ipc::po::bool_switch(&options.posix), "shm_open(3) instead of shmget(2)");
  ipc::add_seed(about.options, options.seed);
  return ipc::run_program(argc, argv, about, [&](const auto&) { return start(options); });
}
