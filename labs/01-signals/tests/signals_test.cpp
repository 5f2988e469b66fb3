#include "ipc/signals.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <map>
#include <memory>
#include <thread>

#include "labs/common/testing.hpp"

namespace {

using ipc::testing::Child;
using ipc::testing::error_of;
using ipc::testing::has_ended;
using ipc::testing::has_signal;
using ipc::testing::wait_until;

volatile sig_atomic_t calls = 0;
volatile sig_atomic_t other_calls = 0;
volatile sig_atomic_t sender = 0;
volatile sig_atomic_t usr2_was_blocked = 0;

void count(int, siginfo_t* info, void*) {
  calls = calls + 1;
  sender = info->si_pid;
  sigset_t now;
  pthread_sigmask(SIG_BLOCK, nullptr, &now);
  usr2_was_blocked = sigismember(&now, SIGUSR2);
}

void count_other(int, siginfo_t*, void*) { other_calls = other_calls + 1; }

class Signals : public ::testing::Test {
 protected:
  void SetUp() override {
    calls = 0;
    other_calls = 0;
    sender = 0;
    usr2_was_blocked = 0;
  }
};

bool blocked(int signo) { return has_signal("thread-self", "SigBlk", signo); }
bool caught(int signo) { return has_signal("self", "SigCgt", signo); }

TEST_F(Signals, ActionCatchesAndGivesTheFormerDispositionBack) {
  ASSERT_FALSE(caught(SIGUSR1));
  {
    const ipc::ScopedAction action(SIGUSR1, count);
    EXPECT_TRUE(caught(SIGUSR1));
    EXPECT_EQ(action.previous().sa_handler, SIG_DFL);
    ::raise(SIGUSR1);
    EXPECT_EQ(calls, 1);
    EXPECT_EQ(sender, ::getpid());
  }
  EXPECT_FALSE(caught(SIGUSR1));
}

TEST_F(Signals, ActionsNest) {
  const ipc::ScopedAction outer(SIGUSR1, count);
  {
    const ipc::ScopedAction inner(SIGUSR1, count_other);
    EXPECT_EQ(inner.previous().sa_sigaction, &count);
    ::raise(SIGUSR1);
  }
  ::raise(SIGUSR1);
  EXPECT_EQ(other_calls, 1);
  EXPECT_EQ(calls, 1);
}

TEST_F(Signals, ActionGivesIgnoredBackAsIgnored) {
  struct sigaction ignore {};
  struct sigaction former {};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGUSR1, &ignore, &former);
  { const ipc::ScopedAction action(SIGUSR1, count); }
  EXPECT_TRUE(has_signal("self", "SigIgn", SIGUSR1));
  ::sigaction(SIGUSR1, &former, nullptr);
}

TEST_F(Signals, HandlerRunsWithTheMaskAskedFor) {
  {
    const ipc::ScopedAction action(SIGUSR1, count, 0);
    ::raise(SIGUSR1);
    EXPECT_FALSE(usr2_was_blocked);
  }
  const ipc::ScopedAction action(SIGUSR1, count, 0, ipc::signal_set({SIGUSR2}));
  ::raise(SIGUSR1);
  EXPECT_TRUE(usr2_was_blocked);
  EXPECT_FALSE(blocked(SIGUSR2));
}

TEST_F(Signals, RestartIsTheDefaultAndCanBeTakenOff) {
  struct sigaction now {};
  {
    const ipc::ScopedAction action(SIGUSR1, count);
    ::sigaction(SIGUSR1, nullptr, &now);
    EXPECT_EQ(now.sa_flags & (SA_RESTART | SA_SIGINFO), SA_RESTART | SA_SIGINFO);
  }
  const ipc::ScopedAction action(SIGUSR1, count, SA_NODEFER);
  ::sigaction(SIGUSR1, nullptr, &now);
  EXPECT_EQ(now.sa_flags & (SA_RESTART | SA_SIGINFO | SA_NODEFER), SA_SIGINFO | SA_NODEFER);
}

TEST_F(Signals, ActionOnWhatCannotBeCaughtThrows) {
  EXPECT_EQ(error_of([] { ipc::ScopedAction action(SIGKILL, count); }), EINVAL);
  EXPECT_EQ(error_of([] { ipc::ScopedAction action(9999, count); }), EINVAL);
}

TEST_F(Signals, SetsHoldWhatTheySay) {
  const sigset_t some = ipc::signal_set({SIGINT, SIGTERM});
  EXPECT_EQ(sigismember(&some, SIGINT), 1);
  EXPECT_EQ(sigismember(&some, SIGTERM), 1);
  EXPECT_EQ(sigismember(&some, SIGHUP), 0);
  const sigset_t all = ipc::all_signals();
  for (const int signo : {SIGHUP, SIGSEGV, SIGCHLD, SIGRTMIN, SIGRTMAX}) EXPECT_EQ(sigismember(&all, signo), 1);
}

TEST_F(Signals, MaskHoldsASignalBackUntilItGoes) {
  const ipc::ScopedAction action(SIGUSR1, count);
  {
    const ipc::ScopedMask mask(ipc::signal_set({SIGUSR1}));
    EXPECT_TRUE(blocked(SIGUSR1));
    EXPECT_EQ(sigismember(&mask.previous(), SIGUSR1), 0);
    ::raise(SIGUSR1);
    EXPECT_EQ(calls, 0);
    EXPECT_TRUE(has_signal("thread-self", "SigPnd", SIGUSR1));
  }
  EXPECT_EQ(calls, 1);
  EXPECT_FALSE(blocked(SIGUSR1));
}

TEST_F(Signals, MasksAddUp) {
  const ipc::ScopedMask outer(ipc::signal_set({SIGUSR1}));
  {
    const ipc::ScopedMask inner(ipc::signal_set({SIGUSR2}));
    EXPECT_TRUE(blocked(SIGUSR1));
    EXPECT_TRUE(blocked(SIGUSR2));
  }
  EXPECT_TRUE(blocked(SIGUSR1));
  EXPECT_FALSE(blocked(SIGUSR2));
}

TEST_F(Signals, MaskIsOfTheCallingThreadOnly) {
  const ipc::ScopedMask here(ipc::signal_set({SIGUSR1}));
  bool seen = true;
  std::thread other([&] {
    const ipc::ScopedMask there(ipc::signal_set({SIGUSR2}));
    seen = blocked(SIGUSR2);
  });
  other.join();
  EXPECT_TRUE(seen);
  EXPECT_FALSE(blocked(SIGUSR2));
}

TEST_F(Signals, DescriptorGivesPendingSignalsOneByOne) {
  const sigset_t set = ipc::signal_set({SIGUSR1, SIGRTMIN});
  const ipc::ScopedMask mask(set);
  ipc::SignalFd signals(set);
  signalfd_siginfo info{};
  EXPECT_FALSE(signals.read(info));

  // An ordinary signal is a bit: twice is once. Real-time signals queue.
  ::raise(SIGUSR1);
  ::raise(SIGUSR1);
  for (int value : {7, 8}) ::sigqueue(::getpid(), SIGRTMIN, sigval{.sival_int = value});
  pollfd ready{signals.fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&ready, 1, 0), 1);

  ASSERT_TRUE(signals.read(info));
  EXPECT_EQ(info.ssi_signo, static_cast<unsigned>(SIGUSR1));
  EXPECT_EQ(info.ssi_pid, static_cast<unsigned>(::getpid()));
  for (int value : {7, 8}) {
    ASSERT_TRUE(signals.read(info));
    EXPECT_EQ(info.ssi_signo, static_cast<unsigned>(SIGRTMIN));
    EXPECT_EQ(info.ssi_int, value);
  }
  EXPECT_FALSE(signals.read(info));
}

TEST_F(Signals, DescriptorIsNotInheritedAndDoesNotBlock) {
  const ipc::SignalFd signals(ipc::signal_set({SIGUSR1}));
  EXPECT_TRUE(::fcntl(signals.fd(), F_GETFD) & FD_CLOEXEC);
  EXPECT_TRUE(::fcntl(signals.fd(), F_GETFL) & O_NONBLOCK);
}

TEST_F(Signals, FiveExitsAreOneSignalAndFiveChildren) {
  const sigset_t set = ipc::signal_set({SIGCHLD});
  const ipc::ScopedMask mask(set);
  ipc::SignalFd signals(set);
  std::array<int, 2> gate{};
  ASSERT_EQ(::pipe2(gate.data(), O_CLOEXEC), 0);
  std::map<pid_t, int> expected;
  std::array<std::unique_ptr<Child>, 5> children;
  for (int i = 0; i < 5; ++i) {
    children[static_cast<std::size_t>(i)] = std::make_unique<Child>([&] {
      ::close(gate[1]);
      char byte;
      while (::read(gate[0], &byte, 1) > 0) continue;
      return 10 + i;
    });
    expected[children[static_cast<std::size_t>(i)]->pid()] = 10 + i;
  }
  EXPECT_TRUE(ipc::reap_children().empty()) << "they all still run";
  ::close(gate[0]);
  ::close(gate[1]);
  for (const auto& child : children) ASSERT_TRUE(wait_until([&] { return has_ended(child->pid()); }));

  signalfd_siginfo info{};
  EXPECT_TRUE(signals.read(info));
  EXPECT_FALSE(signals.read(info)) << "SIGCHLD does not queue";

  std::map<pid_t, int> seen;
  for (const ipc::ChildExit& child : ipc::reap_children()) {
    EXPECT_TRUE(WIFEXITED(child.status));
    seen[child.pid] = WEXITSTATUS(child.status);
  }
  EXPECT_EQ(seen, expected);
  for (const auto& child : children) child->forget();
  EXPECT_TRUE(ipc::reap_children().empty());
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD) << "no zombie is left";
}

TEST_F(Signals, ReapingTellsASignalFromAnExit) {
  Child child([] {
    for (;;) ::pause();
    return 0;
  });
  ipc::testing::kill_child(child.pid(), SIGKILL);
  ASSERT_TRUE(wait_until([&] { return has_ended(child.pid()); }));
  const auto exits = ipc::reap_children();
  child.forget();
  ASSERT_EQ(exits.size(), 1U);
  EXPECT_TRUE(WIFSIGNALED(exits[0].status));
  EXPECT_EQ(WTERMSIG(exits[0].status), SIGKILL);
}

TEST_F(Signals, AStoppedChildHasNotEnded) {
  Child child([] {
    for (;;) ::pause();
    return 0;
  });
  ipc::testing::kill_child(child.pid(), SIGSTOP);
  ASSERT_TRUE(wait_until([&] { return ipc::testing::status_field(std::to_string(child.pid()), "State")[0] == 'T'; }));
  EXPECT_TRUE(ipc::reap_children().empty());
}

}  // namespace
