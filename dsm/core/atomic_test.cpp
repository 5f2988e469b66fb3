// Atomic operations where the page is: who does them, with how many messages, and what may overtake what.
#include <gtest/gtest.h>

#include <array>
#include <string>

#include "dsm/core/testing.hpp"

namespace {

using dsm::core::Atomic;
using dsm::core::Message;
using dsm::core::Protocol;
using dsm::core::explorer::Talk;
using dsm::core::testing::has;
using dsm::core::testing::none;
using dsm::core::testing::read;
using dsm::core::testing::write;

class AtomicOperation : public testing::TestWithParam<Protocol> {};
INSTANTIATE_TEST_SUITE_P(Both, AtomicOperation, testing::Values(Protocol::migrate, Protocol::msi),
                         [](const auto& param) { return std::string(dsm::core::name(param.param)); });

TEST_P(AtomicOperation, CostsNoMessageWhereThePageMayBeWritten) {
  Talk talk(2, GetParam());
  has(talk, 1, 0, write);
  talk.perform(1, 0);
  EXPECT_EQ(talk.text(), R"(1: atomic on p0
     performed p0 now for 0
)");
}

TEST_P(AtomicOperation, CostsNoMessageAtAHomeThatHasThePage) {
  Talk talk(2, GetParam());
  talk.perform(0, 0);
  EXPECT_EQ(talk.text(), R"(0: atomic on p0
     performed p0 now for 0
)");
}

TEST_P(AtomicOperation, IsDoneByTheHomeThatHasThePage) {
  Talk talk(2, GetParam());
  talk.perform(1, 0);
  talk.settle();
  EXPECT_EQ(talk.text(), R"(1: atomic on p0
     send perform p0 #0 -> 0 on 1
0: perform p0 #0 from 1
     send performed p0 #0 now -> 1 on 1
1: performed p0 #0 done from 0
     performed p0 done for 0
)");
  EXPECT_EQ(talk.core(1).view(0).here, none);
}

TEST_P(AtomicOperation, IsDoneByTheOwnerWhoKeepsThePage) {
  Talk talk(3, GetParam());
  has(talk, 2, 0, write);
  talk.perform(1, 0, 3);
  talk.settle();
  EXPECT_EQ(talk.text(), R"(1: atomic on p0
     send perform p0 #3 -> 0 on 4
0: perform p0 #3 from 1
     send perform p0 #2 -> 2 on 0
2: perform p0 #2 from 0
     send performed p0 #2 now -> 0 on 0
0: performed p0 #2 done from 2
     send performed p0 #3 done -> 1 on 4
1: performed p0 #3 done from 0
     performed p0 done for 3
)");
  EXPECT_EQ(talk.core(2).view(0).here, write);
}

TEST_P(AtomicOperation, OfTheHomesThreadAsksTheOwnerOnItsLane) {
  Talk talk(2, GetParam());
  has(talk, 1, 0, write);
  talk.perform(0, 0);
  talk.settle();
  EXPECT_EQ(talk.messages(), 2U);
  EXPECT_EQ(talk.core(1).view(0).here, write);
}

TEST_P(AtomicOperation, WaitsForTheGrantThatItHasOvertaken) {
  Talk talk(3, GetParam());
  talk.fault(2, 0, write);
  talk.arrive(2, 0);
  talk.perform(1, 0);
  talk.arrive(1, 0);
  (void)talk.text();
  talk.arrive_on(0, 0, 2);
  talk.arrive_on(1, 0, 2);
  EXPECT_EQ(talk.text(), R"(2: perform p0 #2 from 0
2: grant write p0 #2 +page from 0
     install p0
     protect p0 write
     wake 0
     send performed p0 #2 now -> 0 on 0
)");
  talk.settle();
  EXPECT_NE(talk.text().find("performed p0 done for 0"), std::string::npos);
}

TEST_P(AtomicOperation, MissesAPageThatIsOnItsWayHomeAndIsDoneThere) {
  Talk talk(3, GetParam());
  has(talk, 2, 0, write);
  talk.perform(1, 0);
  talk.arrive(1, 0);
  talk.write_back(2, 0);
  (void)talk.text();
  talk.arrive(0, 2);
  EXPECT_EQ(talk.text(), R"(2: perform p0 #2 from 0
     send performed p0 #2 missed -> 0 on 0
)");
  talk.settle();
  EXPECT_NE(talk.text().find("performed p0 done for 0"), std::string::npos);
  EXPECT_EQ(talk.core(0).view(0).queued, 0U);
}

TEST_P(AtomicOperation, OnePerThreadMayBeUnderWayAtOneTime) {
  Talk talk(2, GetParam());
  for (unsigned w = 0; w < 4; ++w) talk.perform(1, 0, static_cast<dsm::core::Waiter>(w));
  talk.settle();
  EXPECT_EQ(talk.messages(), 8U);
}

// ---- what no peer may say ----

Message of(Message::Kind kind, Atomic::State state, dsm::core::Seq seq) {
  return {.kind = kind, .seq = seq, .atomic = {.kind = Atomic::Kind::add, .state = state, .value = 1}};
}

TEST_P(AtomicOperation, ImpossibleMessagesEndTheJobAndChangeNothing) {
  using Kind = Message::Kind;
  using State = Atomic::State;
  Talk talk(3, GetParam());
  has(talk, 2, 0, write);
  Message without = of(Kind::perform, State::asked, 0);
  without.atomic = {};
  const struct {
    dsm::core::Node from, to;
    Message msg;
  } impossible[] = {
      {1, 0, of(Kind::perform, State::done, 0)},      // asks with an answer
      {1, 0, of(Kind::perform, State::asked, 4)},     // a waiter that there is not
      {1, 2, of(Kind::perform, State::asked, 2)},     // not from the home
      {0, 2, of(Kind::perform, State::asked, 3)},     // about a grant that it does not wait for
      {2, 0, of(Kind::performed, State::done, 2)},    // nobody has asked
      {0, 1, of(Kind::performed, State::done, 0)},    // nobody has asked
      {0, 1, of(Kind::performed, State::missed, 0)},  // the home misses nothing
      {2, 0, of(Kind::performed, State::missed, 3)},  // about a grant that there was not
      {1, 0, without},
      {1, 0, {.kind = Kind::want, .access = write, .atomic = {.kind = Atomic::Kind::add}}},
  };
  const auto before = std::array{talk.core(0).digest(), talk.core(1).digest(), talk.core(2).digest()};
  for (const auto& one : impossible) {
    talk.say(one.from, one.to, 0, one.msg);
    const std::string said = talk.text();
    EXPECT_NE(said.find("abort: bad message from " + std::to_string(one.from)), std::string::npos) << said;
  }
  EXPECT_EQ(before, (std::array{talk.core(0).digest(), talk.core(1).digest(), talk.core(2).digest()}));
}

TEST(AtomicOperationMsi, TakesAllCopiesFirstTheAskersToo) {
  Talk talk(3, Protocol::msi);
  has(talk, 1, 0, read);
  has(talk, 2, 0, read);
  talk.perform(1, 0);
  talk.arrive(1, 0);
  EXPECT_EQ(talk.text(), R"(1: atomic on p0
     send perform p0 #0 -> 0 on 1
0: perform p0 #0 from 1
     send invalidate p0 #1 -> 1 on 0
     send invalidate p0 #1 -> 2 on 0
)");
  talk.settle();
  EXPECT_NE(talk.text().find("performed p0 done for 0"), std::string::npos);
  EXPECT_EQ(talk.core(1).view(0).here, none);
  EXPECT_EQ(talk.core(2).view(0).here, none);
}

}  // namespace
