// Where pages live, and what it takes to know it.
#include "dsm/core/homes.hpp"

#include <gtest/gtest.h>

#include <array>
#include <set>
#include <string>
#include <vector>

#include "dsm/core/explorer_talk.hpp"

namespace {

using dsm::core::Access;
using dsm::core::Atomic;
using dsm::core::Homes;
using dsm::core::Message;
using dsm::core::Node;
using dsm::core::nowhere;
using dsm::core::Page;
using dsm::core::Placement;
using dsm::core::Protocol;
using dsm::core::explorer::Talk;
using Kind = Message::Kind;

constexpr Access none = Access::none, read = Access::read, write = Access::write;

std::vector<int> homes_of(const Homes& homes, Page pages) {
  std::vector<int> out;
  for (Page page = 0; page < pages; ++page) out.push_back(homes.of(page));
  return out;
}

TEST(Homes, CyclicGoesRound) {
  const Homes homes(1, 3, 7, Placement::cyclic);
  EXPECT_EQ(homes_of(homes, 7), (std::vector<int>{0, 1, 2, 0, 1, 2, 0}));
  EXPECT_TRUE(homes.here(4));
  EXPECT_FALSE(homes.here(5));
}

// Of the pages that live at a node each has an entry of its own, and there is no larger table than it takes.
TEST(Homes, CyclicTablesAreDense) {
  for (const std::uint8_t nodes : std::array<std::uint8_t, 4>{1, 2, 3, 64}) {
    for (const Page pages : {1U, 63U, 64U, 65U, 1000U}) {
      for (Node self = 0; self < nodes; ++self) {
        const Homes homes(self, nodes, pages, Placement::cyclic);
        std::set<Page> slots;
        Page here = 0;
        for (Page page = 0; page < pages; ++page) {
          if (!homes.here(page)) continue;
          ++here;
          slots.insert(homes.slot(page));
        }
        EXPECT_EQ(slots.size(), here);
        EXPECT_LE(homes.slots(), pages / nodes + 1);
        if (!slots.empty()) {
          EXPECT_LT(*slots.rbegin(), homes.slots());
        }
      }
    }
  }
}

TEST(Homes, BlockDealsEachAllocationInEqualParts) {
  Homes homes(0, 3, 20, Placement::block);
  EXPECT_EQ(homes_of(homes, 5), (std::vector<int>{0, 1, 2, 0, 1})) << "nothing is allocated yet";
  homes.deal(2, 6);
  homes.deal(8, 7);  // 3, 3 and 1
  homes.deal(17, 1);
  EXPECT_EQ(homes_of(homes, 20), (std::vector<int>{0, 1, 0, 0, 1, 1, 2, 2, 0, 0, 0, 1, 1, 1, 2, 0, 1, 0, 0, 1}));
}

TEST(Homes, BlockHasRoomForManyAllocationsAndTakesTheRestAsCyclic) {
  constexpr auto most = static_cast<Page>(Homes::spans_max);
  Homes homes(0, 2, 4 * most, Placement::block);
  for (Page i = 0; i < most; ++i) homes.deal(2 * i, 2);
  EXPECT_EQ(homes.of(2 * most - 1), 1);
  homes.deal(2 * most, 4);
  EXPECT_EQ(homes.of(2 * most + 1), 1) << "as cyclic has it";
  EXPECT_EQ(homes.of(2 * most + 2), 0) << "as cyclic has it";
}

TEST(Homes, NamesComeBack) {
  for (const Placement one : {Placement::cyclic, Placement::block, Placement::first_touch}) {
    Placement back{};
    EXPECT_TRUE(dsm::core::parse(dsm::core::name(one), back));
    EXPECT_EQ(back, one);
  }
  Placement out = Placement::block;
  EXPECT_FALSE(dsm::core::parse("first_touch", out));
  EXPECT_EQ(out, Placement::block);
}

// ---- first touch ----

class FirstTouch : public testing::TestWithParam<Protocol> {
 protected:
  Talk talk{3, GetParam(), 0, 4, 0, Placement::first_touch};
};
INSTANTIATE_TEST_SUITE_P(Both, FirstTouch, testing::Values(Protocol::migrate, Protocol::msi),
                         [](const auto& param) { return std::string(dsm::core::name(param.param)); });

TEST_P(FirstTouch, CostsTwoMessagesAndThePageThenLivesThere) {
  talk.fault(1, 0, write);
  talk.settle();
  EXPECT_EQ(talk.text(), R"(1: fault write p0
     send locate p0 -> 0 on 1
0: locate p0 from 1
     send located p0 #1 -> 1 on 1
1: located p0 #1 from 0
     protect p0 write
     wake 0
)");
  EXPECT_EQ(talk.core(0).home(0), 1);
  EXPECT_EQ(talk.core(1).home(0), 1);
  EXPECT_EQ(talk.core(2).home(0), nowhere);
}

TEST_P(FirstTouch, CostsTheManagerNothing) {
  talk.fault(0, 0, write);
  EXPECT_EQ(talk.text(), R"(0: fault write p0
     protect p0 write
     wake 0
)");
}

TEST_P(FirstTouch, IsAskedForOnceByEachNode) {
  talk.fault(1, 0, write);
  talk.settle();
  (void)talk.messages();
  talk.fault(2, 0, write);
  talk.settle();
  EXPECT_EQ(talk.core(2).view(0).here, write);
  EXPECT_EQ(talk.messages(), 4U);
  talk.fault(1, 0, write);
  talk.settle();
  (void)talk.messages();
  talk.fault(2, 0, write);
  talk.settle();
  EXPECT_EQ(talk.messages(), 2U) << "it knows now";
}

// The manager tells node 1 that it is the home, and node 2, too; what node 2 then asks comes first.
TEST_P(FirstTouch, AHomeMayLearnFromAQuestionThatItIsOne) {
  talk.fault(1, 0, write);
  talk.arrive(1, 0);  // locate
  talk.fault(2, 0, write);
  talk.arrive(2, 0);
  talk.arrive(0, 2);  // located: at node 1
  (void)talk.text();
  talk.arrive(2, 1);  // and so asks there
  EXPECT_EQ(talk.core(1).home(0), 1);
  talk.settle();
  EXPECT_EQ(talk.core(1).view(0).queued, 0U);
  EXPECT_EQ(talk.core(1).view(0).here, write) << "asked last";
  EXPECT_EQ(talk.core(2).view(0).here, none);
}

TEST_P(FirstTouch, ASecondThreadWaitsForTheFirstOnesAnswer) {
  talk.fault(1, 0, read, 0);
  talk.fault(1, 0, read, 1);
  talk.settle();
  EXPECT_EQ(talk.messages(), 2U);
  EXPECT_EQ(talk.core(1).view(0).waiting, 0U);
}

TEST_P(FirstTouch, ImpossibleMessagesEndTheJobAndChangeNothing) {
  talk.fault(1, 0, write);
  talk.settle();
  talk.fault(2, 0, write);  // its question is on the way
  (void)talk.text();
  const Message locate{.kind = Kind::locate, .page = 0}, located{.kind = Kind::located, .page = 0, .seq = 1};
  Message at_nobody = located, carries = locate, numbered = locate;
  at_nobody.seq = 3;
  carries.carries_page = true;
  numbered.seq = 1;
  const struct {
    Node from, to;
    Message msg;
    const char* why;
  } impossible[] = {
      {1, 0, locate, "it lives there, and was told so"}, {0, 1, locate, "not the manager"},
      {2, 0, numbered, "a field that it does not have"}, {2, 0, carries, "a field that it does not have"},
      {1, 2, located, "not from the manager"},           {0, 2, at_nobody, "there is no such node"},
      {0, 1, located, "nobody asks any more"},           {2, 0, located, "the manager does not ask"},
      {0, 2, {.kind = Kind::want, .access = write, .page = 1}, "nobody was told that it lives there"},
      {0, 2, {.kind = Kind::perform, .page = 1, .atomic = {.kind = Atomic::Kind::add}}, "the same"},
  };
  const auto before = std::array{talk.core(0).digest(), talk.core(1).digest(), talk.core(2).digest()};
  for (const auto& one : impossible) {
    talk.say(one.from, one.to, 0, one.msg);
    const std::string said = talk.text();
    EXPECT_NE(said.find("abort: bad message from " + std::to_string(one.from)), std::string::npos)
        << one.why << ": " << said;
  }
  EXPECT_EQ(before, (std::array{talk.core(0).digest(), talk.core(1).digest(), talk.core(2).digest()}));
}

// The home's own request is in the queue behind another node's: it is not put there twice.
TEST_P(FirstTouch, WhereAPageLivesIsToldOnce) {
  talk.fault(1, 0, write);
  talk.arrive(1, 0);
  talk.fault(2, 0, write);
  talk.arrive(2, 0);
  talk.arrive(0, 2);
  talk.arrive(2, 1);  // node 2 has the page, node 1 waits for what the manager says
  talk.arrive(0, 1);
  (void)talk.text();
  talk.say(0, 1, 1, {.kind = Kind::located, .page = 0, .seq = 1});
  EXPECT_NE(talk.text().find("abort: bad message from 0"), std::string::npos);
}

TEST_P(FirstTouch, NobodyAsksAManagerWherePagesAreCyclic) {
  Talk cyclic(3, GetParam());
  cyclic.say(1, 0, 0, {.kind = Kind::locate, .page = 0});
  EXPECT_NE(cyclic.text().find("abort: bad message from 1"), std::string::npos);
  cyclic.fault(1, 0, write);
  (void)cyclic.text();
  cyclic.say(0, 1, 0, {.kind = Kind::located, .page = 0, .seq = 1});
  EXPECT_NE(cyclic.text().find("abort: bad message from 0"), std::string::npos);
}

TEST(FirstTouchMsi, APrefetchOfAPageThatNobodyHasTouchedIsNone) {
  Talk talk(2, Protocol::msi, 0, 4, 0, Placement::first_touch);
  talk.prefetch(1, 0);
  EXPECT_EQ(talk.messages(), 0U);
}

}  // namespace
