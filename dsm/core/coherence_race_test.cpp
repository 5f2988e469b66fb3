// Conversations in which messages overtake one another, or pages are given up unasked.
#include <gtest/gtest.h>

#include "dsm/core/testing.hpp"

namespace {

using dsm::core::Protocol;
using dsm::core::explorer::Talk;
using dsm::core::testing::has;
using dsm::core::testing::none;
using dsm::core::testing::read;
using dsm::core::testing::write;

// The grant is on lane 1, the invalidation on lane 0. Answered at once, the grant would later install a copy that nobody
// knows of; the thread that waits would read a page that somebody else is writing.
TEST(CoherenceRace, InvalidationOvertakesItsGrant) {
  Talk talk(3, Protocol::msi);
  talk.fault(1, 0, read);
  talk.arrive(1, 0);
  talk.fault(2, 0, write);
  talk.arrive(2, 0);
  (void)talk.text();
  talk.arrive_on(0, 0, 1);
  talk.arrive_on(1, 0, 1);
  EXPECT_EQ(talk.text(), R"(1: invalidate p0 #1 from 0
1: grant read p0 #1 +page from 0
     install p0
     protect p0 read
     wake 0
     protect p0 none
     send invalidated p0 #1 -> 0 on 0
)");
  talk.settle();
  EXPECT_EQ(talk.core(2).view(0).here, write);
}

TEST(CoherenceRace, RecallOvertakesItsGrant) {
  Talk talk(3, Protocol::msi);
  talk.fault(1, 0, write);
  talk.arrive(1, 0);
  talk.fault(2, 0, read);
  talk.arrive(2, 0);
  (void)talk.text();
  talk.arrive_on(0, 0, 1);
  talk.arrive_on(1, 0, 1);
  EXPECT_EQ(talk.text(), R"(1: recall read p0 #2 from 0
1: grant write p0 #2 +page from 0
     install p0
     protect p0 write
     wake 0
     protect p0 read
     send recalled read p0 #2 +page -> 0 on 0
)");
}

// The home still believes in the copy that was dropped: it must not grant an upgrade without the page.
TEST(CoherenceRace, StaleCopysetAfterADrop) {
  Talk talk(3, Protocol::msi);
  has(talk, 1, 0, read);
  talk.drop(1, 0);
  EXPECT_EQ(talk.text(), "1: drop p0\n     protect p0 none\n");
  EXPECT_EQ(talk.core(0).view(0).copies, 0b10U);
  talk.fault(1, 0, write);
  talk.settle();
  EXPECT_EQ(talk.text(), R"(1: fault write p0
     send want write p0 -> 0 on 1
0: want write p0 from 1
     send grant write p0 #2 +page -> 1 on 1
1: grant write p0 #2 +page from 0
     install p0
     protect p0 write
     wake 0
)");
}

TEST(CoherenceRace, AnInvalidationOfADroppedCopyIsAnswered) {
  Talk talk(3, Protocol::msi);
  has(talk, 1, 0, read);
  talk.drop(1, 0);
  (void)talk.text();
  talk.fault(2, 0, write);
  talk.settle();
  EXPECT_EQ(talk.text(), R"(2: fault write p0
     send want write p0 -> 0 on 1
0: want write p0 from 2
     send invalidate p0 #1 -> 1 on 0
1: invalidate p0 #1 from 0
     send invalidated p0 #1 -> 0 on 0
0: invalidated p0 #1 from 1
     send grant write p0 #2 +page -> 2 on 1
2: grant write p0 #2 +page from 0
     install p0
     protect p0 write
     wake 0
)");
}

// Dropped, and wanted again: does the invalidation mean the old copy, or the grant under way? Either way it is answered at
// once, and the grant, should it have the number that was invalidated, is thrown away and asked for again.
TEST(CoherenceRace, AGrantRevokedBeforeItCameIsThrownAway) {
  Talk talk(3, Protocol::msi);
  has(talk, 1, 0, read);
  talk.drop(1, 0);
  talk.fault(1, 0, read);
  talk.arrive(1, 0);
  talk.fault(2, 0, write);
  talk.arrive(2, 0);
  (void)talk.text();
  talk.arrive_on(0, 0, 1);
  talk.arrive_on(1, 0, 1);
  EXPECT_EQ(talk.text(), R"(1: invalidate p0 #1 from 0
     send invalidated p0 #1 -> 0 on 0
1: grant read p0 #1 +page from 0
     send want read p0 -> 0 on 1
)");
  talk.settle();
  EXPECT_EQ(talk.core(1).view(0).here, read);
  EXPECT_EQ(talk.core(2).view(0).here, read);
}

TEST(CoherenceRace, ANewerGrantIsKeptAfterAnAmbiguousInvalidation) {
  Talk talk(3, Protocol::msi);
  has(talk, 1, 0, read);
  talk.drop(1, 0);
  talk.fault(2, 0, write);
  talk.arrive(2, 0);  // the invalidation of the old copy is under way
  talk.fault(1, 0, read);
  talk.arrive_on(0, 0, 1);
  talk.arrive(1, 0);  // the want: queued behind node 2
  (void)talk.text();
  talk.settle();
  EXPECT_EQ(talk.core(1).view(0).here, read);
  EXPECT_EQ(talk.core(1).view(0).seq, 2U);
}

TEST(CoherenceRace, PrefetchFetchesACopyForNobody) {
  Talk talk(2, Protocol::msi);
  talk.prefetch(1, 0);
  talk.settle();
  EXPECT_EQ(talk.text(), R"(1: prefetch p0
     send want read p0 prefetch -> 0 on 0
0: want read p0 prefetch from 1
     send grant read p0 #1 +page -> 1 on 0
1: grant read p0 #1 +page from 0
     install p0
     protect p0 read
)");
}

TEST(CoherenceRace, PrefetchRace) {
  Talk talk(3, Protocol::msi);
  talk.prefetch(1, 0);
  talk.arrive(1, 0);
  talk.fault(0, 0, write);  // invalidates on its call lane
  (void)talk.text();
  talk.arrive_on(1, 0, 1);
  talk.arrive(1, 0);
  talk.arrive_on(0, 0, 1);
  EXPECT_EQ(talk.text(), R"(1: invalidate p0 #1 from 0
     send invalidated p0 #1 -> 0 on 1
0: invalidated p0 #1 from 1
     protect p0 write
     wake 0
1: grant read p0 #1 +page from 0
)");
  EXPECT_EQ(talk.core(1).view(0).here, none);
  EXPECT_FALSE(talk.core(1).view(0).asked);
}

TEST(CoherenceRace, AThreadThatCameAfterThePrefetchWasRevokedIsServedAll) {
  Talk talk(3, Protocol::msi);
  talk.prefetch(1, 0);
  talk.arrive(1, 0);
  talk.fault(0, 0, write);
  talk.arrive_on(1, 0, 1);
  talk.fault(1, 0, read);
  (void)talk.text();
  talk.arrive_on(0, 0, 1);
  EXPECT_EQ(talk.text(), "1: grant read p0 #1 +page from 0\n     send want read p0 -> 0 on 0\n");
  talk.settle();
  EXPECT_EQ(talk.core(1).view(0).here, read);
  EXPECT_EQ(talk.core(1).view(0).waiting, 0U);
}

TEST(CoherenceRace, WriteBackGivesThePageHome) {
  Talk talk(2, Protocol::msi);
  has(talk, 1, 0, write);
  talk.write_back(1, 0);
  talk.settle();
  EXPECT_EQ(talk.text(), R"(1: write back p0
     protect p0 none
     send write_back p0 #2 +page -> 0 on 0
0: write_back p0 #2 +page from 1
     install p0
)");
}

TEST(CoherenceRace, WriteBackAndDropOfWhatIsNotHeldSoAreIgnored) {
  Talk talk(2, Protocol::msi);
  talk.drop(1, 0);
  talk.write_back(1, 0);
  has(talk, 0, 0, write);  // a page that lives here
  talk.write_back(0, 0);
  EXPECT_EQ(talk.text(), "0: write back p0\n");
  has(talk, 1, 0, write);
  talk.drop(1, 0);
  EXPECT_EQ(talk.text(), "1: drop p0\n");
}

// Its frame is the page: nothing has to be sent, and what was written is there when somebody asks.
TEST(CoherenceRace, TheHomeGivesUpItsOwnAccessInSilence) {
  for (const Protocol protocol : {Protocol::migrate, Protocol::msi}) {
    Talk talk(2, protocol);
    has(talk, 0, 0, write);
    talk.drop(0, 0);
    EXPECT_EQ(talk.text(), "0: drop p0\n     protect p0 none\n");
    has(talk, 0, 0, write);  // which costs no message
    EXPECT_EQ(talk.core(0).view(0).state, dsm::core::View::State::exclusive);
    talk.drop(0, 0);
    talk.fault(1, 0, write);
    EXPECT_EQ((talk.arrive(1, 0), talk.messages()), 2U);
    talk.settle();
    EXPECT_EQ(talk.core(1).view(0).here, write);
  }
}

// The write-back is the answer to the recall that it crosses.
TEST(CoherenceRace, WriteBackAgainstRecall) {
  for (const Protocol protocol : {Protocol::migrate, Protocol::msi}) {
    Talk talk(3, protocol);
    has(talk, 1, 0, write);
    talk.write_back(1, 0);
    talk.fault(2, 0, write);
    talk.arrive(2, 0);
    (void)talk.text();
    talk.settle();
    EXPECT_EQ(talk.text(), R"(0: write_back p0 #2 +page from 1
     install p0
     send grant write p0 #3 +page -> 2 on 1
1: recall none p0 #2 from 0
     send recalled none p0 #2 -> 0 on 0
2: grant write p0 #3 +page from 0
     install p0
     protect p0 write
     wake 0
0: recalled none p0 #2 from 1
)");
  }
}

// The home's thread waits for an answer on its call lane; the page comes on the service lane instead. The answer must still
// come, even when the page has long been elsewhere and is being recalled again.
TEST(CoherenceRace, ARecallThatComesLongAfterTheWriteBackIsAnswered) {
  for (const Protocol protocol : {Protocol::migrate, Protocol::msi}) {
    Talk talk(2, protocol);
    has(talk, 1, 0, write);
    talk.write_back(1, 0);
    talk.fault(0, 0, write);  // recall on lane 1
    talk.arrive_on(0, 1, 0);  // crosses the write-back, which serves the thread
    talk.fault(1, 0, write);
    talk.arrive(1, 0);                 // the home passes the page on ...
    talk.fault_on(2, 0, 0, write, 1);  // ... and wants it back, on another lane
    talk.arrive_on(2, 0, 1);           // that recall overtakes the grant,
    (void)talk.text();
    talk.arrive_on(1, 0, 1);  // and now comes the old one
    EXPECT_EQ(talk.text(), "1: recall none p0 #2 from 0\n     send recalled none p0 #2 -> 0 on 1\n");
    talk.settle();
    EXPECT_EQ(talk.core(0).view(0).here, write);
    EXPECT_EQ(talk.core(1).view(0).here, none);
  }
}

TEST(CoherenceRace, WhoWantsAgainWhatItHasWrittenBackWaitsForIt) {
  for (const Protocol protocol : {Protocol::migrate, Protocol::msi}) {
    Talk talk(2, protocol);
    has(talk, 1, 0, write);
    talk.write_back(1, 0);    // on lane 0
    talk.fault(1, 0, write);  // on lane 1
    (void)talk.text();
    talk.arrive_on(1, 1, 0);
    talk.settle();
    EXPECT_EQ(talk.text(), R"(0: want write p0 from 1
0: write_back p0 #2 +page from 1
     install p0
     send grant write p0 #3 +page -> 1 on 1
1: grant write p0 #3 +page from 0
     install p0
     protect p0 write
     wake 0
)");
  }
}

}  // namespace
