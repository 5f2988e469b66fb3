// Semaphores, condition variables and barriers, word for word: how many messages, in which order who is served, and
// what a peer may not say about them. Locks: sync_lock_test.cpp.
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "dsm/core/sync_talk.hpp"

namespace {

using namespace dsm::core;
using Kind = SyncMessage::Kind;
using Talk = dsm::core::testing::SyncTalk;
using dsm::core::testing::refuses;
using dsm::core::testing::words;

// ---- semaphores ----

TEST(SyncSemaphore, TwoMessagesToWaitAndTwoToPost) {
  Talk talk(2);
  talk.step(1, SemOpen{.key = 4, .value = 1, .waiter = 0, .lane = 1});
  talk.step(1, SemOpen{.key = 4, .value = 9, .waiter = 1, .lane = 2});  // it is there: its value stays
  EXPECT_EQ(talk.settled(), "1>0 sem_open\n1>0 sem_open\n0>1 sem_opened\n0>1 sem_opened\n1.0 done\n1.1 done\n");
  talk.step(1, SemWait{.key = 4, .waiter = 0, .lane = 1});
  EXPECT_EQ(talk.settled(), "1>0 sem_want\n0>1 sem_grant yes\n1.0 done\n");
  talk.step(1, SemWait{.key = 4, .waiter = 0, .lane = 1, .attempt = true});
  EXPECT_EQ(talk.settled(), "1>0 sem_want\n0>1 sem_grant no\n1.0 busy\n");
  talk.step(1, SemWait{.key = 4, .waiter = 2, .lane = 3});
  talk.step(0, SemWait{.key = 4, .waiter = 3});
  EXPECT_EQ(talk.settled(), "1>0 sem_want\n");
  talk.step(1, SemPost{.key = 4, .waiter = 0, .lane = 1});
  EXPECT_EQ(talk.settled(), "1>0 sem_post\n0.3 done\n0>1 sem_posted\n1.0 done\n") << "first come, first served";
  talk.step(0, SemPost{.key = 4, .waiter = 0});
  EXPECT_EQ(talk.settled(), "0>1 sem_grant yes\n0.0 done\n1.2 done\n");
}

TEST(SyncSemaphore, OneMoreThanThereIsRoomForIsRefused) {
  Talk talk(1);
  for (const Key key : {1U, 2U, 3U}) talk.step(0, SemOpen{.key = key, .value = 0, .waiter = 0});
  EXPECT_EQ(talk.text(), "0.0 done\n0.0 done\n0.0 full\n");
}

// ---- condition variables ----

TEST(SyncCondition, AThreadIsQueuedBeforeItLetsGoOfItsLock) {
  Talk talk(2);
  talk.want(1, 0);
  talk.settle();
  (void)talk.text();
  talk.step(1, CondWait{.key = 6, .waiter = 0, .lane = 1});
  EXPECT_EQ(talk.settled(), "1>0 cond_wait\n0>1 cond_queued\n1.0 done\n");
  talk.step(1, CondSleep{0});
  talk.free(1, 0);
  EXPECT_EQ(talk.settled(), "");
  talk.step(0, CondSignal{.key = 6});
  EXPECT_EQ(talk.settled(), "0>1 cond_wake\n1.0 done\n");
  talk.step(0, CondSignal{.key = 6});
  EXPECT_EQ(talk.settled(), "") << "nobody waits";
}

TEST(SyncCondition, ASignalBeforeItSleepsIsNotLost) {
  Talk talk(2);
  talk.step(1, CondWait{.key = 6, .waiter = 0, .lane = 1});
  (void)talk.settled();
  talk.step(0, CondSignal{.key = 6});
  EXPECT_EQ(talk.settled(), "0>1 cond_wake\n");
  talk.step(1, CondSleep{0});
  EXPECT_EQ(talk.settled(), "1.0 done\n");
}

TEST(SyncCondition, ASignalWakesTheOneWhoHasWaitedLongestAndABroadcastAll) {
  Talk talk(3);
  for (const auto& [node, waiter] : std::vector<std::pair<Node, Waiter>>{{2, 1}, {0, 0}, {1, 3}, {2, 0}}) {
    talk.step(node, CondWait{.key = 3, .waiter = waiter, .lane = Talk::lane(waiter)});
    talk.settle();
    talk.step(node, CondSleep{waiter});
  }
  (void)talk.text();
  talk.step(1, CondSignal{.key = 3});
  EXPECT_EQ(talk.settled(), "1>0 cond_signal\n0>2 cond_wake\n2.1 done\n");
  talk.step(1, CondSignal{.key = 3, .all = true});
  EXPECT_EQ(talk.settled(), "1>0 cond_signal\n0.0 done\n0>1 cond_wake\n0>2 cond_wake\n1.3 done\n2.0 done\n");
}

// ---- the barrier ----

TEST(SyncBarrier, TwiceOneLessThanTheNodes) {
  for (std::uint8_t nodes = 1; nodes <= 5; ++nodes) {
    Talk talk(nodes);
    for (unsigned round = 0; round < 3; ++round) {
      for (Node n = nodes; n-- > 0;) talk.arrive(n);
      talk.settle();
      EXPECT_EQ(talk.messages(), 2U * (nodes - 1U));
    }
  }
}

TEST(SyncBarrier, NobodyGoesBeforeTheLastHasCome) {
  Talk talk(3);
  talk.arrive(1, 3);
  talk.arrive(0, 1);
  EXPECT_EQ(talk.settled(), "1>0 barrier_arrive\n");
  talk.arrive(2);
  EXPECT_EQ(talk.settled(), "2>0 barrier_arrive\n0>1 barrier_go\n0>2 barrier_go\n0.1 done\n1.3 done\n2.0 done\n");
}

TEST(SyncBarrier, NobodyGetsPastItWithDifferentMarks) {
  Talk talk(3);
  talk.step(2, BarrierArrive{.waiter = 0, .lane = 1, .mark = 7});
  talk.step(0, BarrierArrive{.waiter = 0, .lane = 1, .mark = 7});
  talk.step(1, BarrierArrive{.waiter = 0, .lane = 1, .mark = 8});
  EXPECT_EQ(talk.settled(), "2>0 barrier_arrive\n1>0 barrier_arrive\n0 and 1 differ\n");
}

// ---- what a peer may not say ----

TEST(SyncBad, NothingWasAsked) {
  Talk talk(3);
  for (unsigned kind = 0; kind <= static_cast<unsigned>(Kind::cond_wake); ++kind) {
    const auto k = static_cast<Kind>(kind);
    const bool begins = k == Kind::lock_want || k == Kind::lock_try || k == Kind::sem_open || k == Kind::cond_wait ||
                        k == Kind::cond_signal;
    EXPECT_EQ(refuses(talk, 0, 1, {.kind = k, .key = 0}), !begins) << words({.kind = k});
    EXPECT_TRUE(refuses(talk, 1, 2, {.kind = k, .key = 0})) << "no home of it: " << words({.kind = k});
    EXPECT_TRUE(refuses(talk, 0, 0, {.kind = k, .key = 0})) << "from itself: " << words({.kind = k});
    EXPECT_TRUE(refuses(talk, 0, 3, {.kind = k, .key = 0})) << "from nobody: " << words({.kind = k});
    const bool names_a_waiter = k != Kind::cond_signal;
    EXPECT_EQ(refuses(talk, 0, 1, {.kind = k, .waiter = 4, .key = 0}), names_a_waiter) << words({.kind = k});
  }
  EXPECT_TRUE(refuses(talk, 0, 1, {.kind = static_cast<Kind>(static_cast<unsigned>(Kind::cond_wake) + 1)}));
}

TEST(SyncBad, Answers) {
  Talk talk(2);
  talk.attempt(1, 0);
  EXPECT_FALSE(refuses(talk, 1, 0, {.kind = Kind::lock_tried}));
  EXPECT_TRUE(refuses(talk, 1, 0, {.kind = Kind::lock_tried, .waiter = 1}));
  EXPECT_TRUE(refuses(talk, 1, 0, {.kind = Kind::lock_tried, .key = 2}));
  EXPECT_TRUE(refuses(talk, 1, 0, {.kind = Kind::sem_grant}));
  talk.settle();
  EXPECT_TRUE(refuses(talk, 1, 0, {.kind = Kind::lock_tried})) << "a second time";
  EXPECT_TRUE(refuses(talk, 0, 1, {.kind = Kind::sem_want})) << "never opened";
  EXPECT_TRUE(refuses(talk, 0, 1, {.kind = Kind::sem_post})) << "never opened";
}

TEST(SyncBad, AThreadThatWaitsTwice) {
  Talk talk(2);
  talk.step(1, CondWait{.key = 0, .waiter = 2, .lane = 1});
  talk.settle();
  EXPECT_TRUE(refuses(talk, 0, 1, {.kind = Kind::cond_wait, .waiter = 2}));
  EXPECT_TRUE(refuses(talk, 0, 1, {.kind = Kind::lock_want, .waiter = 2}));
  EXPECT_FALSE(refuses(talk, 0, 1, {.kind = Kind::lock_want, .waiter = 1}));
  EXPECT_FALSE(refuses(talk, 1, 0, {.kind = Kind::cond_wake, .waiter = 2}));
  EXPECT_TRUE(refuses(talk, 1, 0, {.kind = Kind::cond_wake, .waiter = 1}));
  EXPECT_TRUE(refuses(talk, 1, 0, {.kind = Kind::cond_wake, .waiter = 2, .key = 2}));
}

TEST(SyncBad, Barriers) {
  Talk talk(3);
  const SyncMessage arrive{.kind = Kind::barrier_arrive, .number = 1}, go{.kind = Kind::barrier_go, .number = 1};
  EXPECT_FALSE(refuses(talk, 0, 1, arrive));
  EXPECT_TRUE(refuses(talk, 1, 2, arrive));
  EXPECT_TRUE(refuses(talk, 0, 1, {.kind = Kind::barrier_arrive, .number = 2}));
  EXPECT_TRUE(refuses(talk, 1, 0, go));  // has not arrived
  talk.arrive(1);
  talk.settle();
  EXPECT_TRUE(refuses(talk, 0, 1, arrive));  // a second time
  EXPECT_FALSE(refuses(talk, 1, 0, go));
  EXPECT_TRUE(refuses(talk, 1, 2, go));
  EXPECT_TRUE(refuses(talk, 1, 0, {.kind = Kind::barrier_go, .number = 2}));
}

}  // namespace
