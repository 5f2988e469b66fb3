// A granted page stays until the instruction that asked for it has had its turn: when, for how long, and not for ever.
#include <gtest/gtest.h>

#include <initializer_list>
#include <string>

#include "dsm/core/testing.hpp"

namespace {

using dsm::core::Protocol;
using dsm::core::explorer::Talk;
using dsm::core::testing::has;
using dsm::core::testing::none;
using dsm::core::testing::read;
using dsm::core::testing::write;

TEST(CoherenceHold, AGrantedPageStaysForAMoment) {
  for (const Protocol protocol : {Protocol::migrate, Protocol::msi}) {
    Talk talk(3, protocol, 100);
    talk.at(1000);
    has(talk, 1, 0, write);
    talk.fault(2, 0, write);
    talk.arrive(2, 0);
    (void)talk.text();
    talk.at(1040);
    talk.arrive(0, 1);
    EXPECT_EQ(talk.text(), "1: recall none p0 #2 from 0\n     timer 1100\n");
    talk.tick(1, 1100);
    EXPECT_EQ(talk.text(), "1: tick\n     protect p0 none\n     send recalled none p0 #2 +page -> 0 on 0\n");
  }
}

TEST(CoherenceHold, NobodyGivesUpAPageInItsMoment) {
  for (const auto node : std::initializer_list<dsm::core::Node>{0, 1}) {
    for (const Protocol protocol : {Protocol::migrate, Protocol::msi}) {
      Talk talk(2, protocol, 100);
      talk.at(1000);
      has(talk, node, 0, write);
      talk.drop(node, 0);
      talk.write_back(node, 0);
      EXPECT_EQ(talk.core(node).view(0).here, write);
      talk.at(1100);
      talk.drop(node, 0);  // of the home
      talk.write_back(node, 0);
      EXPECT_EQ(talk.core(node).view(0).here, none);
    }
  }
}

TEST(CoherenceHold, ALateRecallIsObeyedAtOnce) {
  Talk talk(3, Protocol::msi, 100);
  talk.at(1000);
  has(talk, 1, 0, write);
  talk.fault(2, 0, read);
  talk.arrive(2, 0);
  (void)talk.text();
  talk.at(1100);
  talk.arrive(0, 1);
  EXPECT_EQ(talk.text(),
            "1: recall read p0 #2 from 0\n     protect p0 read\n     send recalled read p0 #2 +page -> 0 on 0\n");
}

TEST(CoherenceHold, ACopyIsHeldToo) {
  Talk talk(3, Protocol::msi, 100);
  talk.at(1000);
  has(talk, 1, 0, read);
  talk.fault(2, 0, write);
  talk.arrive(2, 0);
  (void)talk.text();
  talk.arrive(0, 1);
  talk.tick(1, 1050);  // too early: does no harm
  talk.tick(1, 1100);
  talk.tick(1, 1200);  // one too many: neither
  EXPECT_EQ(talk.text(), R"(1: invalidate p0 #1 from 0
     timer 1100
1: tick
     timer 1100
1: tick
     protect p0 none
     send invalidated p0 #1 -> 0 on 0
1: tick
)");
}

TEST(CoherenceHold, TheHomeHoldsItsOwn) {
  for (const Protocol protocol : {Protocol::migrate, Protocol::msi}) {
    Talk talk(2, protocol, 100);
    talk.at(1000);
    has(talk, 0, 0, write);
    talk.fault(1, 0, write);
    (void)talk.text();
    talk.arrive(1, 0);
    EXPECT_EQ(talk.text(), "0: want write p0 from 1\n     timer 1100\n");
    talk.tick(0, 1100);
    talk.settle();
    EXPECT_EQ(talk.core(1).view(0).here, write);
    EXPECT_EQ(talk.core(0).view(0).here, none);
  }
}

TEST(CoherenceHold, WhatOvertookItsGrantIsHeldFromTheInstall) {
  Talk talk(3, Protocol::msi, 100);
  talk.at(1000);
  talk.fault(1, 0, write);
  talk.arrive(1, 0);
  talk.fault(2, 0, write);
  talk.arrive(2, 0);
  talk.arrive_on(0, 0, 1);
  (void)talk.text();
  talk.at(5000);
  talk.arrive_on(1, 0, 1);
  EXPECT_EQ(talk.text(), R"(1: grant write p0 #2 +page from 0
     install p0
     protect p0 write
     wake 0
     timer 5100
)");
}

// The woken thread may be preempted before it runs: the hold counts from when it says so.
TEST(CoherenceHold, AThreadThatIsLateHasItsMomentToo) {
  for (const Protocol protocol : {Protocol::migrate, Protocol::msi}) {
    Talk talk(3, protocol, 100, 4, 5000);
    talk.at(1000);
    has(talk, 1, 0, write);
    talk.fault(2, 0, write);
    talk.arrive(2, 0);
    (void)talk.text();
    talk.at(1040);
    talk.arrive(0, 1);
    EXPECT_EQ(talk.text(), "1: recall none p0 #2 from 0\n     timer 6000\n");
    talk.at(1500);
    talk.resume(1, 0);
    EXPECT_EQ(talk.text(), "1: runs on, to p0\n     timer 1600\n");
    talk.tick(1, 1600);
    EXPECT_EQ(talk.text(), "1: tick\n     protect p0 none\n     send recalled none p0 #2 +page -> 0 on 0\n");
  }
}

TEST(CoherenceHold, AThreadThatNeverRunsDoesNotKeepThePage) {
  Talk talk(3, Protocol::msi, 100, 4, 5000);
  talk.at(1000);
  has(talk, 1, 0, write);
  talk.fault(2, 0, write);
  talk.arrive(2, 0);
  talk.arrive(0, 1);
  talk.tick(1, 6000);
  talk.settle();
  EXPECT_EQ(talk.core(2).view(0).here, write);
}

TEST(CoherencePin, APinnedPageStaysUntilItIsUnpinned) {
  for (const auto node : std::initializer_list<dsm::core::Node>{0, 1}) {
    for (const Protocol protocol : {Protocol::migrate, Protocol::msi}) {
      Talk talk(3, protocol);
      talk.at(1000);
      has(talk, node, 0, write);
      talk.pin(node, 0, 1'000'000);
      talk.pin(node, 0, 500'000);  // by another thread
      talk.fault(2, 0, write);
      talk.settle();
      talk.drop(node, 0);
      talk.write_back(node, 0);
      talk.tick(node, 500'000);
      talk.unpin(node, 0);
      EXPECT_EQ(talk.core(node).view(0).here, write);
      (void)talk.text();
      talk.unpin(node, 0);
      EXPECT_EQ(talk.text(), std::to_string(node) + ": unpins p0\n     timer 500000\n") << "somebody waits: at once";
      talk.tick(node, 500'000);
      talk.settle();
      EXPECT_EQ(talk.core(2).view(0).here, write);
      talk.unpin(node, 0);  // one too many does no harm
      EXPECT_EQ(talk.core(node).view(0).pins, 0U);
    }
  }
}

TEST(CoherencePin, NotForEver) {
  Talk talk(2, Protocol::msi);
  talk.at(1000);
  has(talk, 1, 0, read);
  talk.pin(1, 0, 9000);
  talk.fault(0, 0, write);
  talk.settle();
  EXPECT_EQ(talk.core(1).view(0).here, read);
  talk.tick(1, 9000);
  talk.settle();
  EXPECT_EQ(talk.core(0).view(0).here, write);
}

TEST(CoherencePin, OnlyWhatIsHereAndAsManyAsThereIsRoomFor) {
  Talk talk(1, Protocol::msi);  // 4 pages, of which 2 may be pinned
  talk.pin(0, 0, 9000);
  EXPECT_EQ(talk.core(0).view(0).pins, 0U);
  for (dsm::core::Page page = 0; page < 3; ++page) {
    has(talk, 0, page, write);
    talk.pin(0, page, 9000);
    EXPECT_EQ(talk.core(0).view(page).pins, page < 2 ? 1U : 0U);
  }
}

// An instruction that touches two pages: the first is kept while the second is fetched.
TEST(CoherenceHold, APageIsKeptForAnInstructionThatNeedsTwo) {
  Talk talk(3, Protocol::msi, 100);
  talk.at(1000);
  has(talk, 1, 0, write);
  talk.fault(1, 2, write);  // the same thread and instruction, another page
  talk.fault(2, 0, write);
  talk.arrive(2, 0);
  talk.at(1150);
  talk.arrive(0, 1);
  EXPECT_EQ(talk.core(1).view(0).here, write);
  talk.tick(1, 1'000'000);  // but not for ever
  EXPECT_EQ(talk.core(1).view(0).here, none);
}

}  // namespace
