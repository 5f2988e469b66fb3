// Locks, word for word: how many messages, in which order who is served, and what a peer may not say about them.
#include <gtest/gtest.h>

#include <string>

#include "dsm/core/sync_talk.hpp"

namespace {

using namespace dsm::core;
using Kind = SyncMessage::Kind;
using Talk = dsm::core::testing::SyncTalk;
using dsm::core::testing::refuses;

TEST(SyncLock, CostsNothingAtItsHomeAndWhereItWasLast) {
  Talk talk(3);
  talk.want(0, 0);
  talk.free(0, 0);
  EXPECT_EQ(talk.settled(), "0.0 done\n");
  talk.want(1, 0, 2);
  EXPECT_EQ(talk.settled(), "1>0 lock_want\n0>1 lock_token\n1.2 done\n");
  for (int i = 0; i < 5; ++i) {
    talk.free(1, 0);
    talk.want(1, 0, 1);
  }
  EXPECT_EQ(talk.settled(), "1.1 done\n1.1 done\n1.1 done\n1.1 done\n1.1 done\n");
}

TEST(SyncLock, ComesFromItsLastHolderWith3MessagesAndWith2IfThatIsTheHomeOrTheHomeAsks) {
  Talk talk(3);
  talk.want(1, 0);
  EXPECT_EQ(talk.settled(), "1>0 lock_want\n0>1 lock_token\n1.0 done\n");
  talk.free(1, 0);
  talk.want(2, 0);
  EXPECT_EQ(talk.settled(), "2>0 lock_want\n0>1 lock_next 2\n1>2 lock_token\n2.0 done\n");
  talk.free(2, 0);
  talk.want(0, 0);
  EXPECT_EQ(talk.settled(), "0>2 lock_next 0\n2>0 lock_token\n0.0 done\n");
}

TEST(SyncLock, GoesFromHandToHandWith1Message) {
  Talk talk(4);
  talk.want(1, 0);
  talk.settle();
  talk.want(2, 0);
  talk.settle();
  talk.want(3, 0);
  (void)talk.settled();
  talk.free(1, 0);
  EXPECT_EQ(talk.settled(), "1>2 lock_token\n2.0 done\n");
  talk.free(2, 0);
  EXPECT_EQ(talk.settled(), "2>3 lock_token\n3.0 done\n");
}

// Those of the holder's own threads that came before the next node have it first; those that came after, later.
TEST(SyncLock, NeitherTheHoldersOwnThreadsNorTheOthersAreKeptOut) {
  Talk talk(2);
  talk.want(1, 1, 0);
  talk.want(1, 1, 1);
  talk.want(0, 1);
  talk.settle();
  talk.want(1, 1, 2);
  talk.want(1, 1, 3);
  (void)talk.settled();
  talk.free(1, 1);
  EXPECT_EQ(talk.settled(), "1.1 done\n");
  talk.free(1, 1);
  EXPECT_EQ(talk.settled(), "1>0 lock_token\n1>0 lock_next 1\n0.0 done\n");
  talk.free(0, 1);
  EXPECT_EQ(talk.settled(), "0>1 lock_token\n1.2 done\n");
  talk.free(1, 1);
  EXPECT_EQ(talk.settled(), "1.3 done\n");
}

TEST(SyncLock, TheHolderIsAThread) {
  Talk talk(2);
  EXPECT_EQ(talk.node(1).holder(0), 0U);
  talk.want(1, 0, 2);
  talk.settle();
  EXPECT_EQ(talk.node(1).holder(0), 3U);
  EXPECT_EQ(talk.node(0).holder(0), 0U);
  talk.free(1, 0);
  EXPECT_EQ(talk.node(1).holder(0), 0U);
}

TEST(SyncLock, IsForgottenWhereItIsNotAndFiftyThousandComeAndGo) {
  Talk talk(2, 8);
  for (Key lock = 0; lock < 50000; lock += 2) {
    talk.want(0, lock);
    talk.free(0, lock);
  }
  EXPECT_EQ(talk.node(0).locks_in_use(), 0U);
  talk.want(1, 0);
  talk.settle();
  talk.free(1, 0);
  EXPECT_EQ(talk.node(1).locks_in_use(), 1U) << "kept where it was last used";
  talk.want(0, 0);
  talk.settle();
  EXPECT_EQ(talk.node(1).locks_in_use(), 0U);
}

TEST(SyncLock, OneMoreThanThereIsRoomForIsRefusedHereAndAtItsHome) {
  Talk talk(2, 2);
  for (const Key lock : {0U, 2U}) talk.want(0, lock, static_cast<Waiter>(lock));
  (void)talk.settled();
  talk.want(0, 4, 1);
  EXPECT_EQ(talk.text(), "0.1 full\n");
  talk.want(1, 4);
  EXPECT_EQ(talk.settled(), "1>0 lock_want\n0>1 lock_refused\n1.0 full\n");
  talk.attempt(1, 4);
  EXPECT_EQ(talk.settled(), "1>0 lock_try\n0>1 lock_tried full\n1.0 full\n");
  talk.free(0, 2);
  talk.want(1, 4);
  EXPECT_EQ(talk.settled(), "1>0 lock_want\n0>1 lock_token\n1.0 done\n");
}

TEST(SyncTry, ATryOfAFreeLockSucceedsFromAnywhere) {
  Talk talk(3);
  talk.attempt(0, 0);
  EXPECT_EQ(talk.settled(), "0.0 done\n");
  talk.free(0, 0);
  talk.attempt(1, 0);
  EXPECT_EQ(talk.settled(), "1>0 lock_try\n0>1 lock_tried yes\n1.0 done\n");
  talk.free(1, 0);
  talk.attempt(2, 0);
  EXPECT_EQ(talk.settled(), "2>0 lock_try\n0>1 lock_ask\n1>0 lock_told yes\n0>2 lock_tried yes\n2.0 done\n");
  talk.free(2, 0);
  talk.attempt(2, 0);
  EXPECT_EQ(talk.settled(), "2.0 done\n");
  talk.free(2, 0);
  talk.attempt(0, 0);
  EXPECT_EQ(talk.settled(), "0>2 lock_ask\n2>0 lock_told yes\n0.0 done\n");
}

TEST(SyncTry, ATryOfAHeldLockFailsAndLeavesNothingBehind) {
  Talk talk(3);
  talk.want(1, 0);
  talk.settle();
  (void)talk.text();
  talk.attempt(1, 0, 1);
  talk.attempt(2, 0);
  talk.attempt(0, 0);
  EXPECT_EQ(talk.settled(),
            "1.1 busy\n2>0 lock_try\n0>1 lock_ask\n"
            "1>0 lock_told no\n0>1 lock_ask\n0.0 busy\n1>0 lock_told no\n0>2 lock_tried no\n2.0 busy\n");
  talk.free(1, 0);
  EXPECT_EQ(talk.settled(), "");
  EXPECT_EQ(talk.node(2).locks_in_use(), 0U);
}

TEST(SyncTry, WhoWantsMeanwhileIsServed) {
  Talk talk(4);
  talk.want(1, 0);
  talk.settle();
  (void)talk.text();
  talk.attempt(2, 0);
  talk.want(3, 0);
  EXPECT_EQ(talk.settled(),
            "2>0 lock_try\n3>0 lock_want\n0>1 lock_ask\n1>0 lock_told no\n0>1 lock_next 3\n"
            "0>2 lock_tried no\n2.0 busy\n");
  talk.free(1, 0);
  EXPECT_EQ(talk.settled(), "1>3 lock_token\n3.0 done\n");
}

// Two threads of the home try again and again while another node holds the lock: a third node has its answer all the same.
TEST(SyncTry, WhoTriesWithoutEndKeepsNobodyOut) {
  for (const bool wants : {false, true}) {
    Talk talk(3);
    talk.want(1, 0);
    talk.settle();
    (void)talk.text();
    talk.attempt(0, 0, 0);
    talk.attempt(0, 0, 1);
    if (wants) {
      talk.want(2, 0);
    } else {
      talk.attempt(2, 0);
    }
    std::string all;
    for (int round = 0; round < 20; ++round) {
      talk.deliver_one();
      const std::string said = talk.text();
      all += said;
      for (const Waiter waiter : {Waiter{0}, Waiter{1}}) {
        if (said.find("0." + std::to_string(waiter) + " busy") != std::string::npos) talk.attempt(0, 0, waiter);
      }
    }
    EXPECT_NE((all + talk.text()).find(wants ? "0>1 lock_next 2" : "2.0 busy"), std::string::npos) << all;
  }
}

// ---- what a peer may not say ----

TEST(SyncBad, Locks) {
  Talk talk(3);
  const SyncMessage want{.kind = Kind::lock_want}, token{.kind = Kind::lock_token},
      next{.kind = Kind::lock_next, .node = 2};
  talk.want(1, 0);
  EXPECT_FALSE(refuses(talk, 1, 0, token));
  EXPECT_TRUE(refuses(talk, 1, 0, {.kind = Kind::lock_token, .key = 3}));
  EXPECT_FALSE(refuses(talk, 1, 0, {.kind = Kind::lock_refused}));
  EXPECT_TRUE(refuses(talk, 1, 2, {.kind = Kind::lock_refused})) << "not from the home";
  EXPECT_FALSE(refuses(talk, 1, 0, next));
  EXPECT_TRUE(refuses(talk, 1, 2, next)) << "not from the home";
  EXPECT_TRUE(refuses(talk, 1, 0, {.kind = Kind::lock_next, .node = 1})) << "after itself";
  EXPECT_TRUE(refuses(talk, 1, 0, {.kind = Kind::lock_next, .node = 3})) << "nobody";
  talk.settle();
  EXPECT_TRUE(refuses(talk, 1, 0, token)) << "a second time";
  EXPECT_TRUE(refuses(talk, 1, 0, {.kind = Kind::lock_refused})) << "too late";
  EXPECT_TRUE(refuses(talk, 0, 1, want)) << "it has it";
  EXPECT_TRUE(refuses(talk, 0, 1, {.kind = Kind::lock_try})) << "it has it";
  EXPECT_TRUE(refuses(talk, 0, 1, {.kind = Kind::lock_told})) << "not asked";
  talk.want(2, 0);
  talk.settle();
  EXPECT_TRUE(refuses(talk, 1, 0, next)) << "told already";
  EXPECT_TRUE(refuses(talk, 1, 0, {.kind = Kind::lock_ask})) << "told already";
  EXPECT_TRUE(refuses(talk, 0, 2, want)) << "promised already";
}

}  // namespace
