// The application's own wishes for SIGSEGV, while a pager stands. Each test runs in a child: most of them end by the
// signal.
#include "dsm/pager/disposition.hpp"

#include <errno.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "dsm/pager/test_handlers.hpp"

extern "C" sighandler_t __sysv_signal(int signo, sighandler_t handler) noexcept;

namespace dsm::pager {
namespace {

using testing::action_of;
using testing::calls;
using testing::End;
using testing::forbidden_page;
using testing::in_child;
using testing::install;
using testing::note;
using testing::note_and_leave;
using testing::note_and_open;
using testing::Region;
using testing::seen_address;
using testing::seen_code;
using testing::seen_sender;
using testing::way_out;

TEST(Disposition, AWildPointerDiesBySigsegv) {
  const End end = in_child([] {
    const Region region;
    *region.at(3) = 1;
    *forbidden_page() = 1;
    return 0;
  });
  EXPECT_TRUE(end.died_of(SIGSEGV)) << end.status;
  EXPECT_EQ(end.errors, "");
}

TEST(Disposition, ANonCanonicalAddressDiesBySigsegv) {
  const End end = in_child([] {
    const Region region;
    volatile std::uintptr_t nowhere = 0x8000'0000'0000'0000;
    return static_cast<int>(*reinterpret_cast<volatile char*>(nowhere));
  });
  EXPECT_TRUE(end.died_of(SIGSEGV)) << end.status;
}

TEST(Disposition, AHandlerInstalledBeforeGetsForeignFaultsOnly) {
  const End end = in_child([] {
    REQUIRE(install(action_of(note_and_open)));
    const Region region;
    *region.at(1) = 1;
    REQUIRE(calls == 0);
    *(forbidden_page() + 5) = 1;
    REQUIRE(calls == 1);
    REQUIRE(seen_address == forbidden_page() + 5);
    REQUIRE(seen_code == SEGV_ACCERR);
    *region.at(2) = 1;
    REQUIRE(calls == 1 && region.sink.seen().size() == 2);
    return 0;
  });
  EXPECT_TRUE(end.exited(0)) << end.errors;
}

TEST(Disposition, AHandlerInstalledAfterGetsForeignFaultsOnly) {
  const End end = in_child([] {
    const Region region;
    struct sigaction old;
    REQUIRE(install(action_of(note), &old));
    REQUIRE(old.sa_handler == SIG_DFL);
    REQUIRE(install(action_of(note_and_open, SA_RESTART), &old));
    REQUIRE(old.sa_sigaction == note);
    REQUIRE(sigaction(SIGSEGV, nullptr, &old) == 0);
    REQUIRE(old.sa_sigaction == note_and_open && (old.sa_flags & SA_RESTART) != 0);
    *region.at(1) = 1;
    REQUIRE(calls == 0);
    *forbidden_page() = 1;
    REQUIRE(calls == 1);
    return 0;
  });
  EXPECT_TRUE(end.exited(0)) << end.errors;
}

TEST(Disposition, SignalIsRecordedToo) {
  const End end = in_child([] {
    const Region region;
    const auto plain = [](int) { _exit(7); };
    REQUIRE(signal(SIGSEGV, SIG_IGN) == SIG_DFL);
    REQUIRE(__sysv_signal(SIGSEGV, plain) == SIG_IGN);
    struct sigaction old;
    REQUIRE(sigaction(SIGSEGV, nullptr, &old) == 0);
    REQUIRE(old.sa_handler == plain && (old.sa_flags & static_cast<int>(SA_RESETHAND)) != 0);
    REQUIRE(signal(SIGSEGV, plain) == plain);
    *region.at(1) = 1;
    *forbidden_page() = 1;
    return 0;
  });
  EXPECT_TRUE(end.exited(7)) << end.errors;
}

TEST(Disposition, OtherSignalsAndErrorsAreTheLibrarys) {
  const End end = in_child([] {
    const Region region;
    REQUIRE(signal(SIGUSR1, SIG_IGN) == SIG_DFL);
    REQUIRE(signal(SIGUSR1, SIG_DFL) == SIG_IGN);
    REQUIRE(signal(SIGKILL, SIG_IGN) == SIG_ERR && errno == EINVAL);
    REQUIRE(sigaction(4711, nullptr, nullptr) == -1 && errno == EINVAL);
    return 0;
  });
  EXPECT_TRUE(end.exited(0)) << end.errors;
}

TEST(Disposition, AHandlerMayLeaveBySiglongjmp) {
  const End end = in_child([] {
    const Region region;
    REQUIRE(install(action_of(note_and_leave)));
    static int turn = 0;  // not in a register that siglongjmp would restore
    for (; turn < 3; ++turn) {
      if (sigsetjmp(way_out, 1) == 0) *forbidden_page() = 1;
      REQUIRE(calls == turn + 1);
      *region.at(static_cast<std::size_t>(turn)) = 1;
    }
    // Without the mask being saved: with SA_NODEFER it need not be.
    REQUIRE(install(action_of(note_and_leave, SA_NODEFER)));
    for (; turn < 6; ++turn) {
      if (sigsetjmp(way_out, 0) == 0) *forbidden_page() = 1;
      REQUIRE(calls == turn + 1);
      *region.at(static_cast<std::size_t>(turn)) = 1;
    }
    return 0;
  });
  EXPECT_TRUE(end.exited(0)) << end.status << end.errors;
}

TEST(Disposition, AHandlerWithNodeferMayTouchTheRegion) {
  static Region* shared = nullptr;
  const End end = in_child([] {
    Region region;
    shared = &region;
    REQUIRE(install(action_of(
        [](int signo, siginfo_t* info, void* context) {
          *shared->at(4) = 1;
          note_and_open(signo, info, context);
        },
        SA_NODEFER)));
    *forbidden_page() = 1;
    REQUIRE(calls == 1 && region.sink.seen().size() == 1);
    return 0;
  });
  EXPECT_TRUE(end.exited(0)) << end.status << end.errors;
}

TEST(Disposition, ResethandIsGoodForOneFault) {
  const End end = in_child([] {
    const Region region;
    REQUIRE(install(action_of(note_and_leave, static_cast<int>(SA_RESETHAND | SA_NODEFER))));
    if (sigsetjmp(way_out, 1) == 0) *forbidden_page() = 1;
    REQUIRE(calls == 1);
    struct sigaction old;
    REQUIRE(sigaction(SIGSEGV, nullptr, &old) == 0 && old.sa_handler == SIG_DFL);
    *region.at(1) = 1;
    if (sigsetjmp(way_out, 1) == 0) *forbidden_page() = 1;
    return 0;
  });
  EXPECT_TRUE(end.died_of(SIGSEGV)) << end.status << end.errors;
}

// More calls than any stack holds.
int deeper(volatile char* above, int levels) {
  if (levels == 0) return *above;
  volatile char here[4096];
  here[0] = static_cast<char>(*above + 1);
  return deeper(here, levels - 1) + here[0];
}

TEST(Disposition, AStackOverflowRunsTheHandlerThatAskedForAnotherStack) {
  const End end = in_child([] {
    static char other_stack[1 << 16];
    const stack_t stack{.ss_sp = other_stack, .ss_flags = 0, .ss_size = sizeof other_stack};
    REQUIRE(sigaltstack(&stack, nullptr) == 0);
    const Region region;
    REQUIRE(install(action_of([](int, siginfo_t*, void*) { _exit(7); }, SA_ONSTACK)));
    volatile char first = 0;
    return deeper(&first, 1 << 30);
  });
  EXPECT_TRUE(end.exited(7)) << end.status << end.errors;
}

TEST(Disposition, AnIgnoredFaultStillKills) {
  const End end = in_child([] {
    const Region region;
    signal(SIGSEGV, SIG_IGN);
    raise(SIGSEGV);  // this one is ignored
    *region.at(1) = 1;
    *forbidden_page() = 1;
    return 0;
  });
  EXPECT_TRUE(end.died_of(SIGSEGV)) << end.status;
}

TEST(Disposition, TheEndOfThePagerGivesTheSignalBack) {
  const End end = in_child([] {
    {
      const Region region;
      REQUIRE(install(action_of(note_and_open)));
      *region.at(1) = 1;
    }
    *forbidden_page() = 1;
    REQUIRE(calls == 1);
    REQUIRE(signal(SIGSEGV, SIG_DFL) != SIG_DFL);
    const Region again;
    *again.at(1) = 1;
    return 0;
  });
  EXPECT_TRUE(end.exited(0)) << end.status << end.errors;
}

// ---- sent by another process
// ------------------------------------------------------------------------------------------

// A byte from the child once it is ready for the signal.
class Ready {
 public:
  Ready() { ipc::check(::pipe(ends_), "pipe"); }
  ~Ready() {
    ::close(ends_[0]);
    ::close(ends_[1]);
  }
  void say() const { ipc::check(::write(ends_[1], "!", 1), "write"); }
  void wait() const {
    char byte;
    ipc::check(::read(ends_[0], &byte, 1), "read");
  }

 private:
  int ends_[2]{};
};

TEST(Disposition, AKillFromOutsideKills) {
  const Ready ready;
  const End end = in_child(
      [&ready] {
        const Region region;
        *region.at(1) = 1;
        ready.say();
        for (;;) pause();
        return 0;
      },
      [&ready](pid_t child) {
        ready.wait();
        ::kill(child, SIGSEGV);
      });
  EXPECT_TRUE(end.died_of(SIGSEGV)) << end.status;
}

TEST(Disposition, AKillFromOutsideReachesTheHandler) {
  const Ready ready;
  const pid_t parent = getpid();
  const End end = in_child(
      [&ready, parent] {
        const Region region;
        REQUIRE(install(action_of(note)));
        ready.say();
        while (calls == 0) *region.at(1) = 1;
        REQUIRE(seen_code == SI_USER && seen_sender == parent);
        return 0;
      },
      [&ready](pid_t child) {
        ready.wait();
        ::kill(child, SIGSEGV);
      });
  EXPECT_TRUE(end.exited(0)) << end.status << end.errors;
}

TEST(Disposition, AWaitIsInterruptedUnlessTheHandlerAskedForRestart) {
  const Ready ready;
  const End end = in_child(
      [&ready] {
        const Region region;
        REQUIRE(install(action_of(note)));
        int never[2];
        REQUIRE(pipe(never) == 0);
        ready.say();
        char byte;
        REQUIRE(read(never[0], &byte, 1) == -1 && errno == EINTR);
        return 0;
      },
      [&ready](pid_t child) {
        // The child may not be in its wait yet; so again and again until it has ended (it stays a zombie until reaped).
        ready.wait();
        siginfo_t ended{};
        while (::waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT | WNOHANG) == 0 &&
               ended.si_pid == 0) {
          ::kill(child, SIGSEGV);
          std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
      });
  EXPECT_TRUE(end.exited(0)) << end.status << end.errors;
}

// The two records are read and written by many threads while others fault.
TEST(Disposition, ThreadsMayInstallHandlersWhileOthersFault) {
  const End end = in_child([] {
    const Region region(512);
    std::vector<std::jthread> crew;
    for (int t = 0; t < 2; ++t) {
      crew.emplace_back([] {
        for (int i = 0; i < 5000; ++i) {
          struct sigaction old;
          if (!install(action_of(i % 2 == 0 ? note : note_and_open, i % 2 == 0 ? 0 : SA_RESTART), &old)) _exit(2);
          const bool restarts = (old.sa_flags & SA_RESTART) != 0;
          if (old.sa_handler != SIG_DFL && restarts != (old.sa_sigaction == note_and_open)) _exit(3);  // torn
        }
      });
      crew.emplace_back([&region, t] {
        for (std::size_t page = static_cast<std::size_t>(t); page < 512; page += 2) *region.at(page) = 1;
      });
    }
    crew.clear();
    REQUIRE(region.sink.seen().size() == 512);
    return 0;
  });
  EXPECT_TRUE(end.exited(0)) << end.status << end.errors;
}

}  // namespace
}  // namespace dsm::pager
