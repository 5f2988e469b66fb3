// Hosts that go and come while others wait for the pages, which live at a daemon.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <random>
#include <set>
#include <utility>
#include <variant>
#include <vector>

#include "dsm/core/state.hpp"
#include "dsm/core/testing.hpp"

namespace {

using dsm::core::Abort;
using dsm::core::Access;
using dsm::core::Actions;
using dsm::core::Coherence;
using dsm::core::Config;
using dsm::core::daemon_node;
using dsm::core::Fault;
using dsm::core::Left;
using dsm::core::Node;
using dsm::core::Page;
using dsm::core::PageSets;
using dsm::core::Placement;
using dsm::core::Protocol;
using dsm::core::Received;
using dsm::core::Send;
using dsm::core::Seq;
using dsm::core::Tick;
using dsm::core::Timer;
using dsm::core::testing::has;
using dsm::core::testing::Hosts;
using dsm::core::testing::none;
using dsm::core::testing::read;
using dsm::core::testing::write;
using Kind = dsm::core::Message::Kind;

TEST(HostLeft, EndsAJobWhosePagesLiveAtItsRanks) {
  for (const Protocol protocol : {Protocol::msi, Protocol::migrate}) {
    for (const Placement placement : {Placement::cyclic, Placement::daemon}) {
      if (protocol == Protocol::msi && placement == Placement::daemon) continue;
      Coherence core(Config{.self = placement == Placement::daemon ? daemon_node : Node{0},
                            .nodes = 3,
                            .pages = 4,
                            .protocol = protocol,
                            .placement = placement});
      Actions out;
      core.step(Left{.who = 1}, out);
      ASSERT_EQ(out.size(), 1U);
      const auto* abort = std::get_if<Abort>(&out[0]);
      ASSERT_NE(abort, nullptr);
      EXPECT_EQ(abort->why, Abort::Why::peer_lost);
      EXPECT_EQ(abort->who, 1);
    }
  }
}

TEST(HostLeft, ItsPageIsTheHomesAgain) {
  Hosts talk(2);
  has(talk, 0, 0, write);
  EXPECT_EQ(talk.core(daemon_node).view(0).owner, 0);
  talk.leave(0);
  EXPECT_EQ(talk.core(daemon_node).view(0).owner, daemon_node);
  (void)talk.text();
  talk.fault(1, 0, read);
  talk.settle();
  EXPECT_EQ(talk.text(), R"(1: fault read p0
     send want read p0 -> 64 on 1
64: want read p0 from 1
     send grant read p0 #2 +page -> 1 on 1
1: grant read p0 #2 +page from 64
     install p0
     protect p0 read
     wake 0
)");
}

TEST(HostLeft, WhileItsPageIsCalledBack) {
  Hosts talk(3);
  has(talk, 0, 0, write);
  talk.want(1, read);
  talk.want(2, write);
  talk.leave(0);
  EXPECT_EQ(talk.text(), R"(64: 0 has left
     send grant read p0 #2 +page -> 1 on 1
     send invalidate p0 #2 -> 1 on 0
)");
  talk.settle();
  EXPECT_EQ(talk.core(2).view(0).here, write);
  talk.expect_at_rest(3);
}

TEST(HostLeft, WhileItsCopyIsToBeForgotten) {
  Hosts talk(3);
  has(talk, 0, 0, read);
  has(talk, 2, 0, read);
  talk.want(1, write);
  talk.arrive(daemon_node, 2);
  talk.arrive(2, daemon_node);  // host 0 is the last to be waited for
  (void)talk.text();
  talk.leave(0);
  EXPECT_EQ(talk.text(), "64: 0 has left\n     send grant write p0 #2 +page -> 1 on 1\n");
  talk.settle();
  talk.expect_at_rest(3);
}

TEST(HostLeft, OneOfTwoThatWereAskedToForget) {
  Hosts talk(3);
  has(talk, 0, 0, read);
  has(talk, 2, 0, read);
  talk.want(1, write);
  talk.leave(0);
  EXPECT_EQ(talk.text(), "64: 0 has left\n");
  talk.settle();
  EXPECT_EQ(talk.core(1).view(0).here, write);
  EXPECT_EQ(talk.core(2).view(0).here, none);
  talk.expect_at_rest(3);
}

// What it has written back is on its way, and it wants the page again: neither will come.
TEST(HostLeft, WhileWhatItHasWrittenBackIsWaitedFor) {
  Hosts talk(2);
  has(talk, 0, 0, write);
  talk.write_back(0, 0);
  talk.fault(0, 0, read);
  talk.arrive_on(1, 0, daemon_node);
  talk.want(1, write);
  talk.leave(0);
  talk.settle();
  EXPECT_EQ(talk.core(1).view(0).here, write);
  talk.expect_at_rest(2);
}

TEST(HostLeft, WhoseRequestIsBeingServed) {
  Hosts talk(3);
  has(talk, 1, 0, write);
  talk.want(0, read);
  talk.want(2, write);
  talk.leave(0);
  EXPECT_EQ(talk.text(), "64: 0 has left\n");  // host 1 has been asked already, and keeps a copy
  talk.settle();
  EXPECT_EQ(talk.text(), R"(1: recall read p0 #2 from 64
     protect p0 read
     send recalled read p0 #2 +page -> 64 on 0
64: recalled read p0 #2 +page from 1
     install p0
     send invalidate p0 #2 -> 1 on 0
1: invalidate p0 #2 from 64
     protect p0 none
     send invalidated p0 #2 -> 64 on 0
64: invalidated p0 #2 from 1
     send grant write p0 #3 +page -> 2 on 1
2: grant write p0 #3 +page from 64
     install p0
     protect p0 write
     wake 0
)");
  talk.expect_at_rest(3);
}

TEST(HostLeft, WhoseRequestWasTheOnlyOne) {
  Hosts talk(3);
  has(talk, 1, 0, write);
  talk.want(0, write);
  talk.leave(0);
  talk.settle();
  talk.expect_at_rest(3);
  EXPECT_EQ(talk.core(daemon_node).view(0).owner, daemon_node);
  has(talk, 2, 0, write);
}

// Host 1 was asked to forget its copy for the sake of host 0, and now its own request is the next one. That it will be
// granted a copy does not take back the question: the answer is still due, and the grant comes after it.
TEST(HostLeft, WhoseInvalidationsAreUnderWay) {
  Hosts talk(3);
  has(talk, 1, 0, read);
  has(talk, 2, 0, read);
  talk.want(0, write);
  talk.want(1, write);
  talk.leave(0);
  EXPECT_EQ(talk.text(), "64: 0 has left\n");
  talk.settle();
  EXPECT_EQ(talk.core(1).view(0).here, write);
  EXPECT_EQ(talk.core(2).view(0).here, none);
  talk.expect_at_rest(3);
}

TEST(HostLeft, ThenTheOwnerWhoWasAskedInItsName) {
  Hosts talk(3);
  has(talk, 1, 0, write);
  talk.want(0, write);
  talk.leave(0);
  talk.want(2, write);
  talk.leave(1);
  EXPECT_EQ(talk.text(), "64: 1 has left\n     send grant write p0 #3 +page -> 2 on 1\n");
  talk.settle();
  talk.expect_at_rest(3);
}

TEST(HostLeft, AndTheNextInItsSlotIsServedAsAnyOther) {
  Hosts talk(3);
  has(talk, 1, 0, write);
  talk.want(0, write);
  talk.leave(0);
  talk.want(0, read);  // while host 1 is still being asked in the name of the former
  talk.settle();
  EXPECT_EQ(talk.core(0).view(0).here, read);
  has(talk, 1, 0, write);
  has(talk, 0, 0, write);
  talk.expect_at_rest(3);
}

TEST(HostLeft, WhoseRequestWaitsInTheQueue) {
  Hosts talk(4);
  has(talk, 1, 0, write);
  talk.want(2, write);
  talk.want(0, write);
  talk.want(3, read);
  talk.leave(0);
  EXPECT_EQ(talk.core(daemon_node).view(0).queued, 2U);
  talk.want(0, read);
  talk.settle();
  EXPECT_EQ(talk.core(0).view(0).here, read);
  EXPECT_EQ(talk.core(3).view(0).here, read);
  EXPECT_EQ(talk.core(2).view(0).here, read);
  talk.expect_at_rest(4);
}

// The daemon's own thread is in its moment when the one who waits for the end of it goes.
TEST(HostLeft, WhileTheDaemonHoldsThePageBack) {
  Hosts talk(2, 100);
  has(talk, daemon_node, 0, write);
  talk.want(0, write);
  talk.leave(0);
  talk.want(1, write);
  talk.tick(daemon_node, 2000);
  talk.settle();
  EXPECT_EQ(talk.core(1).view(0).here, write);
  talk.expect_at_rest(2);
}

// No room is lost by those who go: the queue has room for 8 requests of others (Talk), as long as the daemon stands.
TEST(HostLeft, OverAndOver) {
  Hosts talk(3);
  for (unsigned i = 0; i < 50; ++i) {
    has(talk, 1, 0, write);
    talk.want(0, i % 2 == 0 ? read : write);
    talk.want(2, i % 3 == 0 ? read : write);
    talk.leave(i % 5 == 0 ? 2 : 0);
    talk.leave(i % 7 == 0 ? 1 : 0);
    talk.settle();
    talk.expect_at_rest(3);
  }
}

// Others wait for more pages of the host that goes than one step can have actions for: the rest follows at once.
TEST(HostLeft, TheOwnerOfMorePagesThanFitIntoOneStep) {
  constexpr Page pages = 1000;
  Coherence home(
      Config{.self = daemon_node, .nodes = 3, .pages = pages, .placement = Placement::daemon, .waiters = 1, .hold = 0});
  Actions out;
  for (Page page = 0; page < pages; ++page) {
    for (const Node host : std::array<Node, 2>{0, 1}) {
      out.clear();
      home.step(Received{.from = host, .lane = 1, .msg = {.kind = Kind::want, .access = write, .page = page}}, out);
    }
  }
  std::set<Page> granted;
  unsigned steps = 0;
  out.clear();
  for (home.step(Left{.who = 0, .now = 7}, out);; home.step(Tick{7}, out)) {
    ++steps;
    bool more = false;
    for (const auto& action : out) {
      const auto* send = std::get_if<Send>(&action);
      if (send != nullptr && send->to == 1 && send->msg.kind == Kind::grant) granted.insert(send->msg.page);
      more = more || std::holds_alternative<Timer>(action);
    }
    out.clear();
    if (!more) break;
    // Asked for anew meanwhile, of a page whose turn has not come: it is served then and there, and not twice.
    home.step(Received{.from = 2, .lane = 1, .msg = {.kind = Kind::want, .access = read, .page = pages - steps}}, out);
  }
  EXPECT_EQ(granted.size(), pages);
  EXPECT_GT(steps, 3U);
}

// As many pages as 64 GiB have. To look at each of them takes a fifth of a second.
TEST(HostLeft, CostsWhatTheHostHadAndNotWhatThereIs) {
  constexpr Page pages = Page{1} << 24U;
  Coherence home(
      Config{.self = daemon_node, .nodes = 3, .pages = pages, .placement = Placement::daemon, .waiters = 1, .hold = 0});
  Actions out;
  const auto wants = [&](Node host, Access access) {
    home.step(Received{.from = host, .lane = 1, .msg = {.kind = Kind::want, .access = access, .page = pages - 1}}, out);
  };
  const auto begun = std::chrono::steady_clock::now();
  for (unsigned i = 0; i < 500; ++i) {
    out.clear();
    wants(0, write);
    wants(1, read);
    out.clear();
    home.step(Left{.who = 0}, out);
    ASSERT_EQ(out.size(), 1U) << "the grant that host 1 waits for";
    home.step(Left{.who = 1}, out);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(5));
}

TEST(PageSets, AreWalkedInOrder) {
  std::mt19937 random(1);
  for (const Page pages : {1U, 64U, 65U, 4096U, 4097U, 300'000U}) {
    PageSets sets(2, pages);
    std::array<std::set<Page>, 2> expected;
    for (unsigned i = 0; i < 2000; ++i) {
      const std::size_t set = random() % 2;
      const auto page = static_cast<Page>(random() % (random() % 3 == 0 ? pages : std::min(pages, 200U)));
      if (random() % 2 == 0) {
        sets.add(set, page);
        expected.at(set).insert(page);
      } else {
        sets.remove(set, page);
        expected.at(set).erase(page);
      }
      const auto from = static_cast<Page>(random() % (pages + 1));
      const auto next = expected.at(set).lower_bound(from);
      ASSERT_EQ(sets.next(set, from), next == expected.at(set).end() ? PageSets::none : *next) << pages;
      ASSERT_EQ(sets.size(set), expected.at(set).size());
    }
    std::set<Page> walked;
    for (Page page = 0; (page = sets.next(1, page)) != PageSets::none; ++page) walked.insert(page);
    EXPECT_EQ(walked, expected[1]);
  }
}

// ---- numbers --------------------------------------------------------------------------------------------------------

// A page that has been granted for writing as often as `epoch` says, and two hosts that have come just now.
struct Old {
  static Config config(Node self) {
    return Config{.self = self, .nodes = 2, .pages = 1, .placement = Placement::daemon, .waiters = 1, .hold = 0};
  }
  explicit Old(Seq epoch) { home.directory(0).epoch = epoch; }

  void step(dsm::core::State& at, const dsm::core::Event& event) {
    Actions out;
    dsm::core::msi_step(at, event, out);
    for (const auto& action : out) {
      ASSERT_FALSE(std::holds_alternative<Abort>(action));
      const auto* send = std::get_if<Send>(&action);
      if (send != nullptr) flights.push_back({at.config.self, *send});
    }
  }
  void settle() {
    while (!flights.empty()) {
      const auto [from, send] = flights.front();
      flights.erase(flights.begin());
      step(send.to == daemon_node ? home : host[send.to], Received{.from = from, .lane = send.lane, .msg = send.msg});
    }
  }
  void has(Node who, Access access) {
    step(host[who], Fault{.page = 0, .want = access, .waiter = 0, .lane = 1});
    settle();
    ASSERT_EQ(host[who].here(0), access);
  }
  void come_anew(Node who) {
    host[who] = dsm::core::State(config(who));
    step(home, Left{.who = who});
    settle();
  }

  dsm::core::State home{config(daemon_node)};
  std::array<dsm::core::State, 2> host{dsm::core::State(config(0)), dsm::core::State(config(1))};
  std::vector<std::pair<Node, Send>> flights;
};

// 2^31 is where serial numbers look older than 0, and 2^32 where they begin again, with 1: 2^32 - 1 is no epoch.
TEST(HostLeft, AHostThatComesTakesWhateverNumberThePageHas) {
  for (const Seq around : {Seq{0x80000000U}, ~Seq{0}}) {
    for (Seq before = 6; before > 0; --before) {
      Old world(around - before);
      for (unsigned i = 0; i < 6; ++i) {
        world.has(0, read);
        world.has(1, read);
        world.has(0, write);
        world.has(1, write);  // recalled from host 0
        world.has(0, read);
        world.has(1, write);  // an upgrade, and an invalidation
        ASSERT_NE(world.host[1].locals[0].seq, 0U);
        world.come_anew(static_cast<Node>(i % 2));
      }
    }
  }
}

// An invalidation or a recall that overtakes the first grant that a host gets of the page.
TEST(HostLeft, AHostThatComesIsRevokedBeforeItsFirstGrant) {
  for (const Seq epoch : {Seq{0x7fffffffU}, Seq{0x80000001U}, ~Seq{0} - 1, ~Seq{0} - 2}) {
    for (const Access access : {read, write}) {
      Old world(epoch);
      world.step(world.host[0], Fault{.page = 0, .want = access, .waiter = 0, .lane = 1});
      world.step(world.host[1], Fault{.page = 0, .want = write, .waiter = 0, .lane = 1});
      const auto wants = std::exchange(world.flights, {});
      for (const auto& [from, send] : wants) world.step(world.home, Received{.from = from, .lane = 1, .msg = send.msg});
      ASSERT_EQ(world.flights.size(), 2U);
      ASSERT_EQ(world.flights[0].second.msg.kind, Kind::grant);
      std::swap(world.flights[0], world.flights[1]);
      world.settle();
      EXPECT_EQ(world.host[0].here(0), none);
      EXPECT_EQ(world.host[1].here(0), write);
    }
  }
}

}  // namespace
