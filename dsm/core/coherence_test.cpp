// What nodes say to one another: conversations of the msi protocol, word for word. The explorer (explorer_test.cpp) shows
// that no order of events breaks it; these show what it does in the orders that matter, and how many messages that costs.
#include <gtest/gtest.h>

#include "dsm/core/testing.hpp"

namespace {

using dsm::core::Access;
using dsm::core::Coherence;
using dsm::core::Protocol;
using dsm::core::View;
using dsm::core::explorer::Talk;
using dsm::core::testing::has;
using dsm::core::testing::read;
using dsm::core::testing::write;

TEST(CoherenceTalk, ReadMiss) {
  Talk talk(3, Protocol::msi);
  talk.fault(1, 0, read);
  talk.settle();
  EXPECT_EQ(talk.messages(), 2U);
  EXPECT_EQ(talk.text(), R"(1: fault read p0
     send want read p0 -> 0 on 1
0: want read p0 from 1
     send grant read p0 #1 +page -> 1 on 1
1: grant read p0 #1 +page from 0
     install p0
     protect p0 read
     wake 0
)");
}

TEST(CoherenceTalk, CleanWriteMiss) {
  Talk talk(3, Protocol::msi);
  has(talk, 0, 0, write);
  talk.fault(1, 0, write);
  talk.settle();
  EXPECT_EQ(talk.messages(), 2U);
  EXPECT_EQ(talk.text(), R"(1: fault write p0
     send want write p0 -> 0 on 1
0: want write p0 from 1
     protect p0 none
     send grant write p0 #3 +page -> 1 on 1
1: grant write p0 #3 +page from 0
     install p0
     protect p0 write
     wake 0
)");
}

TEST(CoherenceTalk, DirtyReadMiss) {
  Talk talk(3, Protocol::msi);
  has(talk, 1, 0, write);
  talk.fault(2, 0, read);
  talk.settle();
  EXPECT_EQ(talk.messages(), 4U);
  EXPECT_EQ(talk.text(), R"(2: fault read p0
     send want read p0 -> 0 on 1
0: want read p0 from 2
     send recall read p0 #2 -> 1 on 0
1: recall read p0 #2 from 0
     protect p0 read
     send recalled read p0 #2 +page -> 0 on 0
0: recalled read p0 #2 +page from 1
     install p0
     send grant read p0 #2 +page -> 2 on 1
2: grant read p0 #2 +page from 0
     install p0
     protect p0 read
     wake 0
)");
}

TEST(CoherenceTalk, DirtyWriteMiss) {
  Talk talk(3, Protocol::msi);
  has(talk, 1, 0, write);
  talk.fault(2, 0, write);
  talk.settle();
  EXPECT_EQ(talk.messages(), 4U);
  EXPECT_EQ(talk.text(), R"(2: fault write p0
     send want write p0 -> 0 on 1
0: want write p0 from 2
     send recall none p0 #2 -> 1 on 0
1: recall none p0 #2 from 0
     protect p0 none
     send recalled none p0 #2 +page -> 0 on 0
0: recalled none p0 #2 +page from 1
     install p0
     send grant write p0 #3 +page -> 2 on 1
2: grant write p0 #3 +page from 0
     install p0
     protect p0 write
     wake 0
)");
}

TEST(CoherenceTalk, UpgradeWithTwoOtherReaders) {
  Talk talk(4, Protocol::msi);
  for (dsm::core::Node n = 1; n < 4; ++n) has(talk, n, 0, read);
  talk.fault(1, 0, write);
  talk.settle();
  EXPECT_EQ(talk.messages(), 2U + 2U * 2U);
  EXPECT_EQ(talk.text(), R"(1: fault write p0
     send want write p0 have -> 0 on 1
0: want write p0 have from 1
     send invalidate p0 #1 -> 2 on 0
     send invalidate p0 #1 -> 3 on 0
2: invalidate p0 #1 from 0
     protect p0 none
     send invalidated p0 #1 -> 0 on 0
3: invalidate p0 #1 from 0
     protect p0 none
     send invalidated p0 #1 -> 0 on 0
0: invalidated p0 #1 from 2
0: invalidated p0 #1 from 3
     send grant write p0 #2 -> 1 on 1
1: grant write p0 #2 from 0
     protect p0 write
     wake 0
)");
}

TEST(CoherenceTalk, HomeAloneSaysNothing) {
  Talk talk(3, Protocol::msi);
  talk.fault(0, 0, read);
  talk.fault(0, 0, write);
  EXPECT_EQ(talk.messages(), 0U);
  EXPECT_EQ(talk.text(), R"(0: fault read p0
     protect p0 read
     wake 0
0: fault write p0
     protect p0 write
     wake 0
)");
}

TEST(CoherenceTalk, HomeRecallsOnItsOwnCallLane) {
  Talk talk(3, Protocol::msi);
  has(talk, 1, 0, write);
  talk.fault(0, 0, read);
  talk.settle();
  EXPECT_EQ(talk.messages(), 2U);
  EXPECT_EQ(talk.text(), R"(0: fault read p0
     send recall read p0 #2 -> 1 on 1
1: recall read p0 #2 from 0
     protect p0 read
     send recalled read p0 #2 +page -> 0 on 1
0: recalled read p0 #2 +page from 1
     install p0
     protect p0 read
     wake 0
)");
}

TEST(CoherenceTalk, HomeInvalidatesOnItsOwnCallLane) {
  Talk talk(3, Protocol::msi);
  has(talk, 1, 0, read);
  has(talk, 2, 0, read);
  talk.fault(0, 0, write, 2);
  talk.settle();
  EXPECT_EQ(talk.text(), R"(0: fault write p0
     send invalidate p0 #1 -> 1 on 3
     send invalidate p0 #1 -> 2 on 3
1: invalidate p0 #1 from 0
     protect p0 none
     send invalidated p0 #1 -> 0 on 3
2: invalidate p0 #1 from 0
     protect p0 none
     send invalidated p0 #1 -> 0 on 3
0: invalidated p0 #1 from 1
0: invalidated p0 #1 from 2
     protect p0 write
     wake 2
)");
}

TEST(CoherenceTalk, HomeLowersItselfBeforeItSends) {
  Talk talk(3, Protocol::msi);
  has(talk, 0, 0, write);
  talk.fault(1, 0, read);
  talk.arrive(1, 0);
  EXPECT_EQ(talk.text(), R"(1: fault read p0
     send want read p0 -> 0 on 1
0: want read p0 from 1
     protect p0 read
     send grant read p0 #2 +page -> 1 on 1
)");
}

TEST(CoherenceTalk, TwoThreadsOneRequestBothWoken) {
  Talk talk(2, Protocol::msi);
  talk.fault(1, 0, read, 0);
  talk.fault(1, 0, read, 1);
  talk.settle();
  EXPECT_EQ(talk.messages(), 2U);
  EXPECT_EQ(talk.text(), R"(1: fault read p0
     send want read p0 -> 0 on 1
1: fault read p0
0: want read p0 from 1
     send grant read p0 #1 +page -> 1 on 1
1: grant read p0 #1 +page from 0
     install p0
     protect p0 read
     wake 1
     wake 0
)");
}

TEST(CoherenceTalk, AnotherThreadWasQuicker) {
  Talk talk(2, Protocol::msi);
  has(talk, 1, 0, write);
  talk.fault(1, 0, read, 1);
  EXPECT_EQ(talk.text(), "1: fault read p0\n     wake 1\n");
}

TEST(CoherenceTalk, RequestsAreServedInTheOrderTheyCame) {
  Talk talk(4, Protocol::msi);
  has(talk, 1, 0, write);
  talk.fault(2, 0, write);
  talk.fault(3, 0, read);
  talk.arrive(2, 0);
  talk.arrive(3, 0);
  talk.fault(0, 0, read);
  EXPECT_EQ(talk.core(0).view(0).queued, 3U);
  (void)talk.text();
  talk.settle();
  EXPECT_EQ(talk.text(), R"(1: recall none p0 #2 from 0
     protect p0 none
     send recalled none p0 #2 +page -> 0 on 0
0: recalled none p0 #2 +page from 1
     install p0
     send grant write p0 #3 +page -> 2 on 1
     send recall read p0 #3 -> 2 on 0
2: grant write p0 #3 +page from 0
     install p0
     protect p0 write
     wake 0
2: recall read p0 #3 from 0
     protect p0 read
     send recalled read p0 #3 +page -> 0 on 0
0: recalled read p0 #3 +page from 2
     install p0
     send grant read p0 #3 +page -> 3 on 1
     protect p0 read
     wake 0
3: grant read p0 #3 +page from 0
     install p0
     protect p0 read
     wake 0
)");
  EXPECT_EQ(talk.core(0).view(0).queued, 0U);
}

// Both have a copy, both want to write. The second asked when it still had its copy; now it has none and needs the page.
TEST(CoherenceTalk, UpgradeRace) {
  Talk talk(3, Protocol::msi);
  has(talk, 1, 0, read);
  has(talk, 2, 0, read);
  talk.fault(1, 0, write);
  talk.fault(2, 0, write);
  talk.settle();
  EXPECT_EQ(talk.text(), R"(1: fault write p0
     send want write p0 have -> 0 on 1
2: fault write p0
     send want write p0 have -> 0 on 1
0: want write p0 have from 1
     send invalidate p0 #1 -> 2 on 0
0: want write p0 have from 2
2: invalidate p0 #1 from 0
     protect p0 none
     send invalidated p0 #1 -> 0 on 0
0: invalidated p0 #1 from 2
     send grant write p0 #2 -> 1 on 1
     send recall none p0 #2 -> 1 on 0
1: grant write p0 #2 from 0
     protect p0 write
     wake 0
1: recall none p0 #2 from 0
     protect p0 none
     send recalled none p0 #2 +page -> 0 on 0
0: recalled none p0 #2 +page from 1
     install p0
     send grant write p0 #3 +page -> 2 on 1
2: grant write p0 #3 +page from 0
     install p0
     protect p0 write
     wake 0
)");
}

TEST(CoherenceTalk, AllZeroPageIsUntouchedThenSharedThenExclusive) {
  Talk talk(3, Protocol::msi);
  EXPECT_EQ(talk.core(0).view(0).state, View::State::untouched);
  has(talk, 1, 0, read);
  EXPECT_EQ(talk.core(0).view(0).state, View::State::shared);
  EXPECT_EQ(talk.core(0).view(0).copies, 0b10U);
  has(talk, 2, 0, write);
  EXPECT_EQ(talk.core(0).view(0).state, View::State::exclusive);
  EXPECT_EQ(talk.core(0).view(0).owner, 2);
  talk.fault(1, 0, read);
  talk.arrive(1, 0);
  EXPECT_EQ(talk.core(0).view(0).state, View::State::moving);
  EXPECT_TRUE(talk.core(1).view(0).asked);
  EXPECT_EQ(talk.core(1).view(0).waiting, 1U);
}

TEST(CoherenceTalk, AJobOfOneNodeAsksNobody) {
  Talk talk(1, Protocol::msi);
  talk.fault(0, 0, read);
  talk.fault(0, 0, write);
  talk.fault(0, 0, read);  // another thread was quicker
  talk.perform(0, 1);
  EXPECT_EQ(talk.text(), R"(0: fault read p0
     protect p0 read
     wake 0
0: fault write p0
     protect p0 write
     wake 0
0: fault read p0
     wake 0
0: atomic on p1
     performed p1 now for 0
)");
  EXPECT_EQ(talk.core(0).view(0).state, View::State::exclusive);
  talk.drop(0, 0);
  EXPECT_EQ(talk.core(0).view(0).here, Access::none);
  EXPECT_EQ(talk.core(0).view(0).state, View::State::shared);  // the frame is the page
  Talk migrate(1, Protocol::migrate);
  migrate.fault(0, 0, read);
  EXPECT_EQ(migrate.text(), "0: fault read p0\n     protect p0 write\n     wake 0\n");
}

TEST(CoherenceTalk, LostPeerIsReported) {
  Talk talk(3, Protocol::msi);
  talk.lose(1, 2);
  EXPECT_EQ(talk.text(), "1: loses 2\n     abort: lost peer 2\n");
}

TEST(CoherenceTalk, ACopyIsACheckpoint) {
  Talk talk(3, Protocol::msi);
  has(talk, 1, 0, write);
  const Coherence before = talk.core(1);
  talk.write_back(1, 0);
  EXPECT_NE(talk.core(1).digest(), before.digest());
  EXPECT_EQ(before.view(0).here, write);
  talk.core(1) = before;
  EXPECT_EQ(talk.core(1).digest(), before.digest());
}

TEST(ProtocolName, ParsesWhatItPrints) {
  for (const Protocol protocol : {Protocol::migrate, Protocol::msi}) {
    Protocol parsed = protocol == Protocol::msi ? Protocol::migrate : Protocol::msi;
    EXPECT_TRUE(dsm::core::parse(dsm::core::name(protocol), parsed));
    EXPECT_EQ(parsed, protocol);
  }
  Protocol untouched = Protocol::migrate;
  EXPECT_FALSE(dsm::core::parse("mesi", untouched));
  EXPECT_EQ(untouched, Protocol::migrate);
}

}  // namespace
