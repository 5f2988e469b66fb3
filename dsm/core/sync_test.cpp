// Locks, semaphores, condition variables and barriers, word for word: how many messages, in which order who is served, and
// what a peer may not say about them.
#include "dsm/core/sync.hpp"

#include <gtest/gtest.h>

#include <deque>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace dsm::core;
using Kind = SyncMessage::Kind;

std::string words(const SyncMessage& m) {
  static const char* const names[] = {"barrier_arrive", "barrier_go",  "lock_try",  "lock_tried",   "sem_open",
                                      "sem_opened",     "sem_want",    "sem_grant", "sem_post",     "sem_posted",
                                      "cond_wait",      "cond_queued", "lock_want", "lock_refused", "lock_next",
                                      "lock_token",     "lock_ask",    "lock_told", "cond_signal",  "cond_wake"};
  std::string text = names[static_cast<unsigned>(m.kind)];
  if (m.kind == Kind::lock_next) text += " " + std::to_string(m.node);
  const bool told = m.kind == Kind::lock_tried || m.kind == Kind::lock_told || m.kind == Kind::sem_grant;
  if (told) text += m.yes ? " yes" : m.full ? " full" : " no";
  return text;
}

// A few nodes and the messages between them, delivered in the order in which they were sent.
class Talk {
 public:
  explicit Talk(std::uint8_t nodes, std::uint32_t locks = 16) {
    for (Node n = 0; n < nodes; ++n) {
      config_ = SyncConfig{.self = n, .nodes = nodes, .waiters = 4, .locks = locks, .semaphores = 2};
      nodes_.emplace_back(config_);
    }
  }
  void want(Node at, Key lock, Waiter waiter = 0) { step(at, LockWant{lock, waiter, waiter + 1U}); }
  void attempt(Node at, Key lock, Waiter waiter = 0) { step(at, LockTry{lock, waiter, waiter + 1U, lane(waiter)}); }
  void free(Node at, Key lock) { step(at, LockFree{lock}); }
  void arrive(Node at, Waiter waiter = 0) { step(at, BarrierArrive{waiter, lane(waiter)}); }
  void step(Node at, const SyncEvent& event) {
    SyncActions out(config_);
    nodes_[at].step(event, out);
    for (const auto& action : out) {
      if (const auto* send = std::get_if<SyncSend>(&action)) {
        text_ += std::to_string(at) + ">" + std::to_string(send->to) + " " + words(send->msg) + "\n";
        flights_.push_back({send->to, SyncReceived{at, send->lane, send->msg}});
        ++messages_;
      } else if (const auto* done = std::get_if<Done>(&action)) {
        static const char* const results[] = {"done", "busy", "full"};
        text_ += std::to_string(at) + "." + std::to_string(done->who) + " " +
                 results[static_cast<unsigned>(done->result)] + "\n";
      } else if (const auto* differ = std::get_if<Differ>(&action)) {
        text_ += std::to_string(differ->one) + " and " + std::to_string(differ->other) + " differ\n";
      } else {
        text_ += "abort\n";
      }
    }
  }
  void settle() {
    while (!flights_.empty()) deliver_one();
  }
  void deliver_one() {
    if (flights_.empty()) return;
    const auto [to, received] = flights_.front();
    flights_.pop_front();
    step(to, received);
  }
  [[nodiscard]] std::string settled() {
    settle();
    return text();
  }
  [[nodiscard]] std::string text() { return std::exchange(text_, {}); }
  [[nodiscard]] unsigned messages() { return std::exchange(messages_, 0U); }
  [[nodiscard]] const Sync& node(Node n) const { return nodes_[n]; }
  [[nodiscard]] const SyncConfig& config() const { return config_; }
  [[nodiscard]] static Lane lane(Waiter waiter) { return static_cast<Lane>(waiter + 1); }

 private:
  SyncConfig config_;
  std::vector<Sync> nodes_;
  std::deque<std::pair<Node, SyncReceived>> flights_;
  std::string text_;
  unsigned messages_ = 0;
};

// ---- locks ----

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

bool refuses(const Talk& talk, Node at, Node from, const SyncMessage& msg) {
  Sync copy = talk.node(at);
  SyncActions out(talk.config());
  copy.step(SyncReceived{from, 1, msg}, out);
  const auto* abort = out.size() == 0 ? nullptr : std::get_if<Abort>(&out[0]);
  if (abort == nullptr) return false;
  EXPECT_EQ(out.size(), 1U) << words(msg);
  EXPECT_EQ(abort->why, Abort::Why::bad_message) << words(msg);
  EXPECT_EQ(abort->who, from) << words(msg);
  EXPECT_EQ(copy.digest(), talk.node(at).digest()) << words(msg);
  return true;
}

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
