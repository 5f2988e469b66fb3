// Conversations of the migrate protocol: one copy of each page, which moves to whoever touches it.
#include <gtest/gtest.h>

#include "dsm/core/explorer_talk.hpp"

namespace {

using dsm::core::Access;
using dsm::core::Protocol;
using dsm::core::explorer::Talk;

constexpr Access none = Access::none, read = Access::read, write = Access::write;

void has(Talk& talk, dsm::core::Node node) {
  talk.fault(node, 0, read);
  talk.settle();
  ASSERT_EQ(talk.core(node).view(0).here, write);
  (void)talk.text();
  (void)talk.messages();
}

TEST(MigrateTalk, CleanMiss) {
  Talk talk(3, Protocol::migrate);
  has(talk, 0);
  talk.fault(1, 0, read);
  talk.settle();
  EXPECT_EQ(talk.messages(), 2U);
  EXPECT_EQ(talk.text(), R"(1: fault read p0
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

TEST(MigrateTalk, DirtyMiss) {
  Talk talk(3, Protocol::migrate);
  has(talk, 1);
  talk.fault(2, 0, read);
  talk.settle();
  EXPECT_EQ(talk.messages(), 4U);
  EXPECT_EQ(talk.text(), R"(2: fault read p0
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

TEST(MigrateTalk, HomeAloneSaysNothingAndRecallsOnItsOwnLane) {
  Talk talk(3, Protocol::migrate);
  talk.fault(0, 0, write);
  EXPECT_EQ(talk.text(), "0: fault write p0\n     protect p0 write\n     wake 0\n");
  has(talk, 1);
  talk.fault(0, 0, write, 1);
  talk.settle();
  EXPECT_EQ(talk.messages(), 2U);
  EXPECT_EQ(talk.text(), R"(0: fault write p0
     send recall none p0 #3 -> 1 on 2
1: recall none p0 #3 from 0
     protect p0 none
     send recalled none p0 #3 +page -> 0 on 2
0: recalled none p0 #3 +page from 1
     install p0
     protect p0 write
     wake 1
)");
}

TEST(MigrateTalk, RequestsAreServedInTheOrderTheyCame) {
  Talk talk(4, Protocol::migrate);
  has(talk, 1);
  talk.fault(3, 0, write);
  talk.fault(2, 0, write);
  talk.settle();
  EXPECT_EQ(talk.messages(), 2U + 2U + 4U);
  EXPECT_EQ(talk.core(0).view(0).owner, 2);
  EXPECT_EQ(talk.core(3).view(0).here, none);
}

TEST(MigrateTalk, RecallOvertakesItsGrant) {
  Talk talk(3, Protocol::migrate);
  talk.fault(1, 0, write);
  talk.arrive(1, 0);
  talk.fault(2, 0, write);
  talk.arrive(2, 0);
  (void)talk.text();
  talk.arrive_on(0, 0, 1);
  talk.arrive_on(1, 0, 1);
  EXPECT_EQ(talk.text(), R"(1: recall none p0 #2 from 0
1: grant write p0 #2 +page from 0
     install p0
     protect p0 write
     wake 0
     protect p0 none
     send recalled none p0 #2 +page -> 0 on 0
)");
}

TEST(MigrateTalk, NothingToPrefetchOrToDrop) {
  Talk talk(2, Protocol::migrate);
  talk.prefetch(1, 0);
  has(talk, 1);
  talk.drop(1, 0);
  EXPECT_EQ(talk.text(), "1: drop p0\n");
  EXPECT_EQ(talk.core(1).view(0).here, write);
}

}  // namespace
