// hello_signals - a parent wakes its children by a signal, one at a time, drawn at random.
//
//     $ build/bin/hello_signals --children 3 --period-ms 200 --count 5 --seed 2
//     children: 29083 29084 29085
//     Hello from PID 29083
//     Hello from PID 29083
//     Hello from PID 29084
//     Hello from PID 29085
//     Hello from PID 29083
//
// Read: signal(7), sigaction(2), sigsuspend(2), signal-safety(7), kill(2), fork(2).
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <iostream>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "ipc/attentive.hpp"
#include "ipc/child.hpp"
#include "ipc/program.hpp"
#include "ipc/signals.hpp"

namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  int children = 5;
  int period_ms = 1000;
  int count = 30;
  std::uint64_t seed = 0;
};

// ---- a child ---------------------------------------------------------------------------------------------------------

// What the handler tells the rest of the child. Both signals are blocked but inside sigsuspend(), so the two sides never
// touch them at the same time.
volatile sig_atomic_t asked_to_greet = 0;
volatile sig_atomic_t told_to_end = 0;

void note(int signo, siginfo_t*, void*) {
  //@ solution 01.handler
  if (signo == SIGUSR1) {
    asked_to_greet = 1;
  } else {
    told_to_end = 1;
  }
  //@ starter
  // TODO 01.handler: note which signal came, and nothing else. Why may printf() not be called here? See signal-safety(7).
  //| static_cast<void>(signo);
  //@ end
}

bool is_pending(int signo) {
  sigset_t pending;
  ::sigpending(&pending);
  return sigismember(&pending, signo) == 1;
}

// Greets whenever SIGUSR1 comes, until SIGINT. REQUIRES: both are blocked, and have been since before the fork: a signal
// may be sent to a child that has not run one instruction yet.
int greet_until_told() {
  //@ solution 01.greet
  // While a handler runs the other signal waits: handlers that interrupt each other are hard to think about.
  const sigset_t both = ipc::signal_set({SIGUSR1, SIGINT});
  const ipc::ScopedAction on_usr1(SIGUSR1, note, SA_RESTART, both);
  const ipc::ScopedAction on_int(SIGINT, note, SA_RESTART, both);
  const std::string greeting = "Hello from PID " + std::to_string(::getpid());
  // sigsuspend() unblocks and sleeps in one step. What comes while we print stays pending, and makes the next
  // sigsuspend() return at once: nothing falls between looking and sleeping. When both signals are pending the kernel
  // delivers SIGINT first, because of its lower number; the greeting that was asked for before it is still owed.
  const sigset_t none = ipc::signal_set({});
  while (!told_to_end || is_pending(SIGUSR1)) {
    ::sigsuspend(&none);
    if (asked_to_greet) {
      asked_to_greet = 0;
      ipc::say(greeting);
    }
  }
  return 0;
  //@ starter
  // TODO 01.greet: install note() for both signals, then sleep until one comes and do what it asks. Which call unblocks
  // and sleeps in one step, and what is lost when pause() is used instead? What if both signals are pending?
  //| static_cast<void>(note), static_cast<void>(is_pending);
  //| return 0;
  //@ end
}

// ---- the parent ------------------------------------------------------------------------------------------------------

class Parent {
 public:
  explicit Parent(const Options& options) : options_(options), random_(options.seed) {}

  int run() {
    start_children();
    for (int tick = 0; tick < options_.count; ++tick) {
      wait_for_one_period();
      greet_one();
    }
    end_children();
    return a_child_failed_ ? 1 : 0;
  }

 private:
  void start_children() {
    //@ solution 01.start
    std::string line = "children:";
    for (int i = 0; i < options_.children; ++i) {
      children_.emplace_back(greet_until_told);
      line += " " + std::to_string(children_.back().pid());
    }
    signals_.emplace(watched_);  // not before the forks: the children have no use for it
    ipc::say_attentively(line, signals_->fd(), [this] { wait_for_signals(0); });  // a pipe may be full
    //@ starter
    // TODO 01.start: start all children, make the SignalFd, say who the children are. Why in this order?
    //| static_cast<void>(greet_until_told);
    //| ipc::say("children:");
    //@ end
  }

  void wait_for_one_period() {
    const auto end = Clock::now() + std::chrono::milliseconds(options_.period_ms);
    for (;;) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now());
      if (left.count() <= 0) return;
      wait_for_signals(static_cast<int>(left.count()));
    }
  }

  // Sleeps until a signal comes or the time is over, and does what the signals ask for. REQUIRES: start_children().
  void wait_for_signals(int timeout_ms) {
    pollfd readable{signals_ ? signals_->fd() : -1, POLLIN, 0};
    ::poll(&readable, 1, timeout_ms);
    signalfd_siginfo signal{};
    while (signals_ && signals_->read(signal)) {
      if (signal.ssi_signo == SIGCHLD) {
        forget_the_dead();
      } else if (signal.ssi_signo != SIGUSR1) {  // means nothing here, see harmless_
        throw ipc::Stopped{static_cast<int>(signal.ssi_signo)};
      }
    }
  }

  // A child that is reaped leaves the list in the same breath: the kernel may give its number to somebody else from now
  // on. One that has ended and is not reaped yet keeps its number, so a signal to it does no harm.
  void forget_the_dead() {
    for (const ipc::ChildExit& gone : ipc::reap_children()) {
      //@ solution 01.gone
      std::erase_if(children_, [&gone](ipc::Child& child) {
        if (child.pid() != gone.pid) return false;
        child.forget();
        return true;
      });
      if (ending_ && gone.status == 0) continue;
      if (WIFEXITED(gone.status) && gone.status != 0) a_child_failed_ = true;  // it has said why
      std::cerr << "hello_signals: child " + std::to_string(gone.pid) + ": " + ipc::how_it_ended(gone.status) + "\n";
      //@ starter
      // TODO 01.gone: take the child off the list, and say so unless it was told to end. What could happen if its number
      // stayed on the list?
      //| static_cast<void>(gone), static_cast<void>(a_child_failed_);
      //@ end
    }
    if (children_.empty() && !ending_) throw std::runtime_error("all children are gone");
  }

  void greet_one() {
    //@ solution 01.tick
    children_[random_() % children_.size()].signal(SIGUSR1);
    //@ starter
    // TODO 01.tick: draw one of the children that are alive, by random_, and send it SIGUSR1.
    //@ end
  }

  void end_children() {
    ending_ = true;
    //@ solution 01.end
    for (const ipc::Child& child : children_) child.signal(SIGINT);
    while (!children_.empty()) wait_for_signals(-1);
    //@ starter
    // TODO 01.end: send SIGINT to all children, then wait until all are reaped. Five may end at once: how many SIGCHLD is
    // that?
    //@ end
  }

  const Options options_;
  std::mt19937_64 random_;
  const sigset_t watched_ = ipc::stop_signals_and({SIGCHLD, SIGUSR1});
  // Sent to us SIGUSR1 means nothing; one that is pending when the mask goes must find a handler, not its deadly default.
  const ipc::ScopedAction harmless_{SIGUSR1, note};
  // From before the first fork. The children inherit it, and so lose no signal before they have their handlers.
  const ipc::ScopedMask mask_{ipc::stop_signals_and({SIGCHLD, SIGUSR1, SIGINT})};
  std::vector<ipc::Child> children_;
  std::optional<ipc::SignalFd> signals_;
  bool ending_ = false;
  bool a_child_failed_ = false;
};

}  // namespace

int main(int argc, char** argv) {
  Options options;
  ipc::Program about;
  about.usage = "hello_signals [options]\nStarts children and greets one at random, each period, by SIGUSR1.";
  ipc::add_number(about.options, "children", options.children, 1, 1000, "how many children");
  ipc::add_number(about.options, "period-ms", options.period_ms, 1, 3600000, "time between two greetings");
  ipc::add_number(about.options, "count", options.count, 1, 1000000000, "how many greetings");
  ipc::add_seed(about.options, options.seed);
  return ipc::run_program(argc, argv, about, [&](const auto&) { return Parent(options).run(); });
}
