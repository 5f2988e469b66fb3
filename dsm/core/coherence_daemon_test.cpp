// Pages that live at a daemon, which is no rank (Placement::daemon).
#include <gtest/gtest.h>

#include <array>
#include <set>
#include <utility>
#include <variant>

#include "dsm/core/testing.hpp"

namespace {

using dsm::core::Abort;
using dsm::core::daemon_node;
using dsm::core::Homes;
using dsm::core::Message;
using dsm::core::Node;
using dsm::core::Page;
using dsm::core::Placement;
using dsm::core::testing::has;
using dsm::core::testing::Hosts;
using dsm::core::testing::none;
using dsm::core::testing::read;
using dsm::core::testing::write;
using Kind = Message::Kind;

TEST(DaemonHome, HasTheOnlyTable) {
  const Homes daemon(daemon_node, 64, 1000, Placement::daemon), host(5, 64, 1000, Placement::daemon);
  std::set<Page> slots;
  for (Page page = 0; page < 1000; ++page) {
    EXPECT_TRUE(daemon.here(page));
    EXPECT_FALSE(host.here(page));
    EXPECT_EQ(host.of(page), daemon_node);
    slots.insert(daemon.slot(page));
  }
  EXPECT_EQ(slots.size(), 1000U);
  EXPECT_EQ(*slots.rbegin() + 1, daemon.slots());
  EXPECT_EQ(host.slots(), 0U);
}

TEST(DaemonHome, IsNotForJobs) {
  Placement out = Placement::block;
  EXPECT_FALSE(dsm::core::parse("daemon", out));
  EXPECT_EQ(out, Placement::block);
  EXPECT_EQ(dsm::core::name(Placement::daemon), "daemon");
}

TEST(DaemonHome, DirtyReadMiss) {
  Hosts talk(2);
  has(talk, 0, 0, write);
  talk.fault(1, 0, read);
  talk.settle();
  EXPECT_EQ(talk.text(), R"(1: fault read p0
     send want read p0 -> 64 on 1
64: want read p0 from 1
     send recall read p0 #2 -> 0 on 0
0: recall read p0 #2 from 64
     protect p0 read
     send recalled read p0 #2 +page -> 64 on 0
64: recalled read p0 #2 +page from 0
     install p0
     send grant read p0 #2 +page -> 1 on 1
1: grant read p0 #2 +page from 64
     install p0
     protect p0 read
     wake 0
)");
}

TEST(DaemonHome, ServesSixtyFourHosts) {
  Hosts talk(64);
  for (Node n = 0; n < 64; ++n) has(talk, n, 0, read);
  EXPECT_EQ(talk.core(daemon_node).view(0).copies, ~std::uint64_t{0});
  has(talk, 63, 0, write);
  EXPECT_EQ(talk.core(daemon_node).view(0).owner, 63);
  for (Node n = 0; n < 63; ++n) EXPECT_EQ(talk.core(n).view(0).here, none);
  has(talk, 0, 0, write);
  EXPECT_EQ(talk.core(63).view(0).here, none);
}

// A job of one rank needs no protocol; a single host does.
TEST(DaemonHome, ServesASingleHost) {
  Hosts talk(1);
  talk.fault(0, 0, write);
  EXPECT_EQ(talk.messages(), 1U);
  talk.settle();
  EXPECT_EQ(talk.core(0).view(0).here, write);
  EXPECT_EQ(talk.core(daemon_node).view(0).owner, 0);
}

TEST(DaemonHome, ReadsAPageItself) {
  Hosts talk(2);
  has(talk, 1, 0, write);
  has(talk, daemon_node, 0, read);
  EXPECT_EQ(talk.core(1).view(0).here, read);
  has(talk, 0, 0, write);
  EXPECT_EQ(talk.core(daemon_node).view(0).here, none);
  EXPECT_EQ(talk.core(1).view(0).here, none);
}

// The daemon is in no copyset: its bit would be that of host 0.
TEST(DaemonHome, WritesAPageItself) {
  Hosts talk(2);
  has(talk, 0, 0, read);
  has(talk, daemon_node, 0, write);
  EXPECT_EQ(talk.core(0).view(0).here, none);
  EXPECT_EQ(talk.core(daemon_node).view(0).copies, 0U);
  has(talk, 0, 0, read);
  EXPECT_EQ(talk.core(daemon_node).view(0).here, read);
}

TEST(DaemonHome, HearsItsHostsOnlyAndIsHeardByThemOnly) {
  Hosts talk(2);
  const Message want{.kind = Kind::want, .access = read};
  for (const auto& [from, to] : std::array<std::pair<Node, Node>, 5>{
           {{2, daemon_node}, {daemon_node, daemon_node}, {0, 1}, {1, 1}, {daemon_node, 0}}}) {
    talk.say(from, to, 1, want);
    ASSERT_EQ(talk.last().size(), 1U);
    ASSERT_TRUE(std::holds_alternative<Abort>(talk.last()[0])) << talk.text();
  }
}

TEST(DaemonHome, PerformsNoAtomicOperations) {
  Hosts talk(2);
  talk.perform(0, 0);
  talk.arrive(0, daemon_node);
  ASSERT_EQ(talk.last().size(), 1U);
  EXPECT_TRUE(std::holds_alternative<Abort>(talk.last()[0]));
}

}  // namespace
