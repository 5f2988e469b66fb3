// Threads and handlers that block SIGSEGV, while a pager stands. Each test runs in a child.
#include "dsm/pager/mask.hpp"

#include <errno.h>
#include <gtest/gtest.h>

#include <thread>

#include "dsm/pager/test_handlers.hpp"

namespace dsm::pager {
namespace {

using testing::action_of;
using testing::calls;
using testing::End;
using testing::forbidden_page;
using testing::in_child;
using testing::install;
using testing::note;
using testing::note_and_open;
using testing::Region;
using testing::seen_code;
using testing::seen_mask;
using testing::seen_sender;
using testing::way_out;

TEST(Mask, AHandlerHasTheMaskThatItAskedFor) {
  const End end = in_child([] {
    const Region region;
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &blocked, nullptr);  // by the interrupted thread
    struct sigaction action = action_of(note_and_open);
    sigaddset(&action.sa_mask, SIGTERM);
    REQUIRE(install(action));
    *forbidden_page() = 1;
    REQUIRE(sigismember(&seen_mask, SIGUSR2) == 1);
    REQUIRE(sigismember(&seen_mask, SIGTERM) == 1);
    REQUIRE(sigismember(&seen_mask, SIGSEGV) == 1);
    REQUIRE(sigismember(&seen_mask, SIGUSR1) == 0);
    sigset_t after;
    pthread_sigmask(SIG_SETMASK, nullptr, &after);
    REQUIRE(sigismember(&after, SIGUSR2) == 1 && sigismember(&after, SIGTERM) == 0 &&
            sigismember(&after, SIGSEGV) == 0);
    return 0;
  });
  EXPECT_TRUE(end.exited(0)) << end.errors;
}

bool blocks_faults() {
  sigset_t now;
  pthread_sigmask(SIG_SETMASK, nullptr, &now);
  return sigismember(&now, SIGSEGV) == 1;
}

TEST(Mask, AThreadThatBlocksAllSignalsMayTouchTheRegion) {
  const End end = in_child([] {
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    REQUIRE(pthread_sigmask(SIG_SETMASK, &all, &before) == 0 && blocks_faults());  // before there is a pager, too
    const Region region;
    *region.at(0) = 1;
    REQUIRE(pthread_sigmask(SIG_SETMASK, &before, nullptr) == 0 && !blocks_faults());
    REQUIRE(pthread_sigmask(SIG_BLOCK, &all, nullptr) == 0 && blocks_faults());
    *region.at(1) = 1;
    REQUIRE(sigprocmask(SIG_SETMASK, &all, nullptr) == 0 && blocks_faults());
    *region.at(2) = 1;
    std::jthread([&region] { *region.at(3) = 1; }).join();
    REQUIRE(sigprocmask(SIG_UNBLOCK, &all, nullptr) == 0 && !blocks_faults());
    REQUIRE(sigprocmask(4711, &all, nullptr) == -1 && errno == EINVAL);
    REQUIRE(pthread_sigmask(4711, &all, nullptr) == EINVAL);
    return 0;
  });
  EXPECT_TRUE(end.exited(0)) << end.status << end.errors;
}

TEST(Mask, ASignalFromOutsideWaitsWhileItIsBlocked) {
  const End end = in_child([] {
    const Region region;
    REQUIRE(install(action_of(note)));
    sigset_t all;
    sigset_t outer;
    sigset_t inner;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &outer);
    pthread_sigmask(SIG_BLOCK, &all, &inner);
    REQUIRE(kill(getpid(), SIGSEGV) == 0 && calls == 0);
    *region.at(1) = 1;
    pthread_sigmask(SIG_SETMASK, &inner, nullptr);
    REQUIRE(calls == 0);
    pthread_sigmask(SIG_SETMASK, &outer, nullptr);
    REQUIRE(calls == 1 && seen_code == SI_USER && seen_sender == getpid());
    return 0;
  });
  EXPECT_TRUE(end.exited(0)) << end.status << end.errors;
}

TEST(Mask, AMaskThatWasLeftByJumpingHoldsNothingBack) {
  const End end = in_child([] {
    const Region region;
    REQUIRE(install(action_of(note)));
    if (sigsetjmp(way_out, 1) == 0) {
      sigset_t all;
      sigfillset(&all);
      pthread_sigmask(SIG_BLOCK, &all, nullptr);
      siglongjmp(way_out, 1);
    }
    REQUIRE(!blocks_faults());
    REQUIRE(kill(getpid(), SIGSEGV) == 0 && calls == 1);
    return 0;
  });
  EXPECT_TRUE(end.exited(0)) << end.status << end.errors;
}

#if !defined(DSM_UNDER_TSAN)  // which runs handlers with every signal blocked, whatever they asked for
TEST(Mask, AHandlerThatBlocksAllSignalsMayTouchTheRegion) {
  static Region* shared = nullptr;
  const End end = in_child([] {
    struct sigaction action =
        action_of([](int signo, siginfo_t*, void*) { *shared->at(signo == SIGUSR1 ? 1 : 2) = 1; });
    sigfillset(&action.sa_mask);
    REQUIRE(sigaction(SIGUSR1, &action, nullptr) == 0);
    Region region;
    shared = &region;
    REQUIRE(sigaction(SIGUSR2, &action, nullptr) == 0);
    raise(SIGUSR1);
    raise(SIGUSR2);
    REQUIRE(region.sink.seen().size() == 2);
    return 0;
  });
  EXPECT_TRUE(end.exited(0)) << end.status << end.errors;
}
#endif

}  // namespace
}  // namespace dsm::pager
