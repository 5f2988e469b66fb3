// Locks and barriers, word for word, and what a peer may not say about them.
#include "dsm/core/sync.hpp"

#include <gtest/gtest.h>

#include <deque>
#include <string>
#include <utility>
#include <vector>

namespace {

using dsm::core::Abort;
using dsm::core::BarrierArrive;
using dsm::core::Lane;
using dsm::core::LockFree;
using dsm::core::LockId;
using dsm::core::LockWant;
using dsm::core::Node;
using dsm::core::Sync;
using dsm::core::SyncActions;
using dsm::core::SyncConfig;
using dsm::core::SyncEvent;
using dsm::core::SyncMessage;
using dsm::core::SyncReceived;
using dsm::core::SyncSend;
using dsm::core::Waiter;
using dsm::core::Wake;
using Kind = SyncMessage::Kind;

std::string words(const SyncMessage& m) {
  static const char* const names[] = {"lock_want", "lock_grant", "lock_free", "barrier_arrive", "barrier_go"};
  const bool barrier = m.kind == Kind::barrier_arrive || m.kind == Kind::barrier_go;
  return std::string(names[static_cast<unsigned>(m.kind)]) +
         (barrier ? " round " + std::to_string(m.round) : " " + std::to_string(m.lock)) +
         (m.kind == Kind::lock_want || m.kind == Kind::lock_grant ? " of " + std::to_string(m.waiter) : "");
}

// A few nodes and the messages between them, delivered in the order in which they were sent.
class Talk {
 public:
  explicit Talk(std::uint8_t nodes) {
    for (Node n = 0; n < nodes; ++n)
      nodes_.emplace_back(SyncConfig{.self = n, .nodes = nodes, .locks = 8, .waiters = 4});
  }
  void want(Node at, LockId lock, Waiter waiter = 0) {
    step(at, LockWant{lock, waiter, static_cast<Lane>(waiter + 1)});
  }
  void free(Node at, LockId lock) { step(at, LockFree{lock}); }
  void arrive(Node at, Waiter waiter = 0) { step(at, BarrierArrive{waiter, static_cast<Lane>(waiter + 1)}); }
  void settle() {
    while (!flights_.empty()) {
      const auto [to, received] = flights_.front();
      flights_.pop_front();
      step(to, received);
    }
  }
  [[nodiscard]] std::string text() { return std::exchange(text_, {}); }
  [[nodiscard]] unsigned messages() { return std::exchange(messages_, 0U); }
  [[nodiscard]] const Sync& node(Node n) const { return nodes_[n]; }

 private:
  void step(Node at, const SyncEvent& event) {
    SyncActions out;
    nodes_[at].step(event, out);
    for (const auto& action : out) {
      text_ += std::to_string(at) + ": ";
      if (const auto* send = std::get_if<SyncSend>(&action)) {
        text_ += words(send->msg) + " -> " + std::to_string(send->to) + " on " + std::to_string(send->lane) + "\n";
        flights_.push_back({send->to, SyncReceived{at, send->lane, send->msg}});
        ++messages_;
      } else if (const auto* wake = std::get_if<Wake>(&action)) {
        text_ += "wake " + std::to_string(wake->who) + "\n";
      } else {
        text_ += "abort\n";
      }
    }
  }
  std::vector<Sync> nodes_;
  std::deque<std::pair<Node, SyncReceived>> flights_;
  std::string text_;
  unsigned messages_ = 0;
};

TEST(SyncLock, FreeOneTakesTwoMessagesAndOneToGiveBack) {
  Talk talk(3);
  talk.want(1, 0);
  talk.settle();
  EXPECT_EQ(talk.text(), "1: lock_want 0 of 0 -> 0 on 1\n0: lock_grant 0 of 0 -> 1 on 1\n1: wake 0\n");
  talk.free(1, 0);
  talk.settle();
  EXPECT_EQ(talk.text(), "1: lock_free 0 -> 0 on 0\n");
  EXPECT_EQ(talk.messages(), 3U);
}

TEST(SyncLock, AtItsHomeTakesNoMessage) {
  Talk talk(2);
  talk.want(1, 3, 2);
  talk.free(1, 3);
  EXPECT_EQ(talk.text(), "1: wake 2\n");
}

TEST(SyncLock, FirstComeFirstServed) {
  Talk talk(4);
  talk.want(2, 0);
  talk.want(0, 0, 1);
  talk.want(2, 0, 1);  // another thread of the holder
  talk.settle();
  talk.want(3, 0);
  talk.want(1, 0);
  talk.settle();
  (void)talk.text();
  talk.free(0, 0);
  talk.settle();
  EXPECT_EQ(talk.text(), "0: lock_grant 0 of 0 -> 2 on 1\n2: wake 0\n");
  talk.free(2, 0);
  talk.settle();
  EXPECT_EQ(talk.text(), "2: lock_free 0 -> 0 on 0\n0: lock_grant 0 of 1 -> 2 on 2\n2: wake 1\n");
  talk.free(2, 0);
  talk.settle();
  EXPECT_EQ(talk.text(), "2: lock_free 0 -> 0 on 0\n0: lock_grant 0 of 0 -> 3 on 1\n3: wake 0\n");
  talk.free(3, 0);
  talk.settle();
  EXPECT_EQ(talk.text(), "3: lock_free 0 -> 0 on 0\n0: lock_grant 0 of 0 -> 1 on 1\n1: wake 0\n");
}

TEST(SyncLock, LocksDoNotHinderOneAnother) {
  Talk talk(2);
  talk.want(1, 0);
  talk.want(1, 2, 1);
  talk.settle();
  EXPECT_EQ(talk.text(), R"(1: lock_want 0 of 0 -> 0 on 1
1: lock_want 2 of 1 -> 0 on 2
0: lock_grant 0 of 0 -> 1 on 1
0: lock_grant 2 of 1 -> 1 on 2
1: wake 0
1: wake 1
)");
}

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
  talk.settle();
  EXPECT_EQ(talk.text(), "1: barrier_arrive round 1 -> 0 on 4\n");
  talk.arrive(2);
  talk.settle();
  EXPECT_EQ(talk.text(), R"(2: barrier_arrive round 1 -> 0 on 1
0: barrier_go round 1 -> 1 on 4
0: barrier_go round 1 -> 2 on 1
0: wake 1
1: wake 3
2: wake 0
)");
}

bool refuses(const Sync& node, Node from, const SyncMessage& msg) {
  Sync copy = node;
  SyncActions out;
  copy.step(SyncReceived{from, 1, msg}, out);
  const auto* abort = out.size() == 0 ? nullptr : std::get_if<Abort>(&out[0]);
  if (abort == nullptr) return false;
  EXPECT_EQ(out.size(), 1U) << words(msg);
  EXPECT_EQ(abort->why, Abort::Why::bad_message) << words(msg);
  EXPECT_EQ(abort->who, from) << words(msg);
  EXPECT_EQ(copy.digest(), node.digest()) << words(msg);
  return true;
}

TEST(SyncBad, Locks) {
  Talk talk(3);
  const SyncMessage want{.kind = Kind::lock_want, .lock = 0}, grant{.kind = Kind::lock_grant, .lock = 0},
      free{.kind = Kind::lock_free, .lock = 0};
  EXPECT_FALSE(refuses(talk.node(0), 1, want));
  EXPECT_TRUE(refuses(talk.node(1), 2, want));                                  // no home of it
  EXPECT_TRUE(refuses(talk.node(0), 0, want));                                  // from itself
  EXPECT_TRUE(refuses(talk.node(0), 3, want));                                  // from nobody
  EXPECT_TRUE(refuses(talk.node(0), 1, {.kind = Kind::lock_want, .lock = 9}));  // no such lock
  EXPECT_TRUE(refuses(talk.node(0), 1, {.kind = Kind::lock_want, .waiter = 4, .lock = 0}));
  EXPECT_TRUE(refuses(talk.node(0), 1, {.kind = static_cast<Kind>(5), .lock = 0}));
  EXPECT_TRUE(refuses(talk.node(0), 1, free));   // not the holder
  EXPECT_TRUE(refuses(talk.node(1), 0, grant));  // never wanted
  talk.want(1, 0);
  EXPECT_FALSE(refuses(talk.node(1), 0, grant));
  EXPECT_TRUE(refuses(talk.node(1), 2, grant));  // not from the home
  EXPECT_TRUE(refuses(talk.node(1), 0, {.kind = Kind::lock_grant, .waiter = 1, .lock = 0}));
  EXPECT_TRUE(refuses(talk.node(1), 0, {.kind = Kind::lock_grant, .lock = 3}));
  talk.settle();
  EXPECT_TRUE(refuses(talk.node(1), 0, grant));  // a second time
  EXPECT_TRUE(refuses(talk.node(0), 2, free));
  EXPECT_FALSE(refuses(talk.node(0), 1, free));
  talk.free(1, 0);
  talk.settle();
  EXPECT_TRUE(refuses(talk.node(0), 1, free));  // a second time
}

TEST(SyncBad, TheSameThreadTwiceInOneQueue) {
  Talk talk(2);
  talk.want(0, 0);
  talk.want(1, 0, 2);
  talk.settle();
  EXPECT_TRUE(refuses(talk.node(0), 1, {.kind = Kind::lock_want, .waiter = 2, .lock = 0}));
  EXPECT_TRUE(refuses(talk.node(0), 1, {.kind = Kind::lock_want, .waiter = 2, .lock = 2}));  // it waits already
}

TEST(SyncBad, Barriers) {
  Talk talk(3);
  const SyncMessage arrive{.kind = Kind::barrier_arrive, .round = 1}, go{.kind = Kind::barrier_go, .round = 1};
  EXPECT_FALSE(refuses(talk.node(0), 1, arrive));
  EXPECT_TRUE(refuses(talk.node(1), 2, arrive));
  EXPECT_TRUE(refuses(talk.node(0), 1, {.kind = Kind::barrier_arrive, .round = 2}));
  EXPECT_TRUE(refuses(talk.node(1), 0, go));  // has not arrived
  talk.arrive(1);
  talk.settle();
  EXPECT_TRUE(refuses(talk.node(0), 1, arrive));  // a second time
  EXPECT_FALSE(refuses(talk.node(1), 0, go));
  EXPECT_TRUE(refuses(talk.node(1), 2, go));
  EXPECT_TRUE(refuses(talk.node(1), 0, {.kind = Kind::barrier_go, .round = 2}));
}

}  // namespace
