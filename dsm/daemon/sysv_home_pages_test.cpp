// Pages that move between hosts, and what becomes of them when a host goes: in good order, without a word, in silence.
#include <cerrno>

#include "dsm/daemon/sysv_home_testing.hpp"

namespace dsm::daemon::testing {
namespace {

using Agent = Scene::Agent;
using core::Message;
using Kind = Message::Kind;

struct Two : Scene {
  explicit Two(std::uint64_t size = 3 * sysv::page_bytes) : id(a.get(size)) {
    EXPECT_EQ(a.attach(1, id), 0);
    EXPECT_EQ(b.attach(1, id), 0);
  }
  [[nodiscard]] int at_home(core::Page page) const { return *home.pages(id)->page(page); }
  Agent& a = come("4026531836 lab1");
  Agent& b = come("lab2", "10.0.0.2");
  const std::int32_t id;
};

TEST(SysvHomePages, AreZeroAtFirst) {
  Two s;
  EXPECT_EQ(s.a.read(s.id, 0), 0);
  EXPECT_EQ(s.b.read(s.id, 2), 0);
}

TEST(SysvHomePages, WhatOneHostWritesTheOtherReads) {
  Two s;
  for (std::uint8_t i = 1; i < 20; ++i) {
    s.a.write(s.id, 1, i);
    EXPECT_EQ(s.b.read(s.id, 1), i);
    s.b.write(s.id, 1, static_cast<std::uint8_t>(i + 100));
    EXPECT_EQ(s.a.read(s.id, 1), i + 100);
  }
}

TEST(SysvHomePages, OneWritesOrManyRead) {
  Two s;
  s.a.read(s.id, 0);
  s.b.read(s.id, 0);
  EXPECT_EQ(s.a.open.at(s.id).access.at(0), Access::read);
  s.b.write(s.id, 0, 5);
  EXPECT_EQ(s.a.open.at(s.id).access.at(0), Access::none);
  EXPECT_EQ(s.home.pages(s.id)->held_for_writing(s.b.open.at(s.id).slot), 1u);
  EXPECT_EQ(s.a.read(s.id, 0), 5);
  EXPECT_EQ(s.home.pages(s.id)->held_for_writing(s.b.open.at(s.id).slot), 0u);
}

TEST(SysvHomePages, StayWhenNobodyHasAttachedThem) {
  Two s;
  s.a.write(s.id, 2, 9);
  for (Agent* agent : {&s.a, &s.b}) {
    EXPECT_EQ(agent->detach(1, s.id), 0);
    EXPECT_EQ(agent->leave(s.id), 0);
  }
  EXPECT_EQ(s.a.segment(s.id).nattch, 0u);
  const auto before = s.said.size();
  ASSERT_EQ(s.b.attach(2, s.id), 0);
  EXPECT_EQ(s.b.read(s.id, 2), 9);
  EXPECT_EQ(s.said.size(), before);
}

TEST(SysvHomePages, WhoHasLeftHasATenureOfItsOwnWhenItComesAgain) {
  Two s;
  const std::uint32_t first = s.a.open.at(s.id).tenure;
  s.a.write(s.id, 0, 1);
  EXPECT_EQ(s.a.detach(1, s.id), 0);
  EXPECT_EQ(s.a.open.at(s.id).tenure, first) << "not before it has left";
  ASSERT_EQ(s.a.attach(1, s.id), 0);
  EXPECT_EQ(s.a.open.at(s.id).tenure, first);
  EXPECT_EQ(s.a.detach(1, s.id), 0);
  EXPECT_EQ(s.a.leave(s.id), 0);
  ASSERT_EQ(s.a.attach(1, s.id), 0);
  EXPECT_NE(s.a.open.at(s.id).tenure, first);
  s.b.write(s.id, 0, 2);
  sysv::PageFrame late{.tenure = first,
                       .message = {.kind = Kind::write_back, .carries_page = true, .page = 0, .seq = 2}};
  late.bytes.assign(sysv::page_bytes, 77);
  s.hear(s.a.guest, late);
  Question q = Agent::question(Call::leave);
  q.tenure = first;
  EXPECT_EQ(s.a.call(q).error, 0) << "that is over already";
  EXPECT_FALSE(s.a.ended);
  EXPECT_EQ(s.a.read(s.id, 0), 2);
}

// A process was killed: that it has left is said first, and then that its attaches have ended.
TEST(SysvHomePages, AttachesMayEndAfterTheTenure) {
  Two s;
  s.a.write(s.id, 0, 1);
  EXPECT_EQ(s.a.leave(s.id), 0);
  EXPECT_EQ(s.b.read(s.id, 0), 1);
  EXPECT_EQ(s.b.segment(s.id).nattch, 2u);
  EXPECT_EQ(s.a.process_call(Call::exit, 1), 0);
  EXPECT_EQ(s.b.segment(s.id).nattch, 1u);
  EXPECT_FALSE(s.a.ended);
}

// It wanted the page, its process was killed, it left; what was granted meanwhile it has never had.
TEST(SysvHomePages, AGrantThatMeetsNobodyIsNoLoss) {
  Two s;
  s.b.write(s.id, 0, 1);
  s.a.deaf = true;
  EXPECT_FALSE(s.a.touch(s.id, 0, Access::write));
  EXPECT_EQ(s.home.pages(s.id)->held_for_writing(s.a.open.at(s.id).slot), 1u);
  const auto before = s.said.size();
  s.a.detach(1, s.id);
  EXPECT_EQ(s.a.leave(s.id), 0);
  EXPECT_EQ(s.said.size(), before);
  EXPECT_EQ(s.b.read(s.id, 0), 1);
}

// ---- hosts that are lost ----------------------------------------------------------------------------------------------

TEST(SysvHomePages, OfALostHostAreGivenToOthersWhenItsLeaseHasEnded) {
  Two s;
  s.a.write(s.id, 0, 1);
  EXPECT_EQ(s.b.read(s.id, 0), 1);
  s.a.write(s.id, 0, 2);
  s.a.write(s.id, 1, 3);
  s.a.beat();
  s.after(1s);
  s.a.go();
  EXPECT_EQ(s.b.segment(s.id).nattch, 1u) << "attaches end at once";
  expect_part(s.last_said(), "; its pages wait 4.0 s for its lease to end");
  EXPECT_EQ(s.b.read(s.id, 0), -1);
  EXPECT_EQ(s.home.next_deadline(), s.now + 4s);
  expect_part(s.b.report(), "host lab1 (10.0.0.1): lost; its pages of segment 0 wait 4.0 s for its lease to end\n");
  s.after_with_beats(3999ms);
  EXPECT_EQ(s.b.open.at(s.id).access.at(0), Access::none);
  s.seconds += 7;
  s.after_with_beats(1ms);
  EXPECT_EQ(s.b.open.at(s.id).access.at(0), Access::read);
  EXPECT_EQ(s.b.read(s.id, 0), 1) << "what was here last";
  EXPECT_EQ(s.last_said(),
            "segment 0: what host lab1 (10.0.0.1) had written to 2 pages is lost; others read what was "
            "there before");
  s.seconds += 5;
  expect_part(s.b.report(), "segment 0: lost 5 s ago, pages to which host lab1 (10.0.0.1) had written: 2\n");
  expect_part(s.b.report(), "pages lost 2\n");
}

// Its processes may read their copies until their lease ends: nobody may write meanwhile.
TEST(SysvHomePages, ThatALostHostReadsAreNotWrittenBeforeItsLeaseHasEnded) {
  Two s;
  s.a.read(s.id, 0);
  s.a.go();
  EXPECT_FALSE(s.b.touch(s.id, 0, Access::write));
  EXPECT_EQ(s.b.read(s.id, 1), 0) << "other pages are free";
  s.after_with_beats(4999ms);
  EXPECT_EQ(s.b.open.at(s.id).access.at(0), Access::none);
  s.after_with_beats(1ms);
  EXPECT_EQ(s.b.open.at(s.id).access.at(0), Access::write);
  EXPECT_EQ(s.said.back().find("lost"), std::string::npos) << "nothing was lost";
}

TEST(SysvHomePages, ASilentHostsLeaseHasEnded) {
  Two s;
  s.a.write(s.id, 0, 1);
  for (int i = 0; i < 10; ++i) {
    s.b.beat();
    s.after(500ms);
  }
  EXPECT_TRUE(s.a.ended);
  EXPECT_FALSE(s.b.ended);
  EXPECT_EQ(s.b.read(s.id, 0), 0);
  expect_part(s.said.back(), "had written to 1 page is lost");
}

TEST(SysvHomePages, OfWhoHasLeftNobodyWaitsFor) {
  Two s;
  s.a.write(s.id, 0, 1);
  s.a.detach(1, s.id);
  s.a.leave(s.id);
  s.a.go();
  EXPECT_EQ(s.logged.back(), "host lab1 (10.0.0.1) has gone");
  EXPECT_EQ(s.b.read(s.id, 0), 1);
  s.b.write(s.id, 0, 2);
}

TEST(SysvHomePages, AHostThatComesAgainGetsThemLikeAnyOther) {
  Two s;
  s.a.write(s.id, 0, 1);
  s.a.go();
  Agent& again = s.come("4026531836 lab1");
  EXPECT_EQ(again.host, 1);
  ASSERT_EQ(again.attach(1, s.id), 0);
  EXPECT_EQ(again.read(s.id, 0), -1);
  s.after_with_beats(5s);
  EXPECT_EQ(again.read(s.id, 0), 0);
  again.write(s.id, 0, 4);
  EXPECT_EQ(s.b.read(s.id, 0), 4);
}

// a asked for the page, b was asked to give it up; then a goes, and b's answer comes.
TEST(SysvHomePages, ALostHostsWishIsForgotten) {
  Two s;
  s.b.write(s.id, 0, 1);
  s.b.deaf = true;
  EXPECT_FALSE(s.a.touch(s.id, 0, Access::write));
  s.a.go();
  Agent& c = s.come("lab3");
  ASSERT_EQ(c.attach(1, s.id), 0);
  EXPECT_FALSE(c.touch(s.id, 0, Access::read));
  s.after_with_beats(5s);
  EXPECT_EQ(c.open.at(s.id).access.at(0), Access::none);
  s.b.deaf = false;
  ASSERT_EQ(s.b.unheard.size(), 1u);
  s.b.receive(s.b.unheard.front());
  s.pump();
  EXPECT_EQ(c.read(s.id, 0), 1);
  EXPECT_FALSE(s.b.ended);
}

TEST(SysvHomePages, WhatALostHostHasIsNotAskedBack) {
  Two s;
  s.a.write(s.id, 0, 1);
  s.a.deaf = true;
  EXPECT_FALSE(s.b.touch(s.id, 0, Access::write));
  EXPECT_EQ(s.a.unheard.size(), 1u);
  s.a.go();
  s.after_with_beats(5s);
  EXPECT_EQ(s.b.open.at(s.id).access.at(0), Access::write);
}

TEST(SysvHomePages, OfADestroyedSegmentAreNobodys) {
  Two s;
  s.a.write(s.id, 0, 1);
  s.b.read(s.id, 1);
  EXPECT_EQ(s.b.detach(1, s.id), 0);
  EXPECT_EQ(s.a.remove(s.id), 0);
  s.a.go();
  EXPECT_EQ(s.b.stat(s.id).error, EINVAL);
  EXPECT_EQ(s.home.pages(s.id), nullptr);
  EXPECT_EQ(s.home.next_deadline(), s.now + 5s) << "no lease is waited for";
  s.b.say(s.id, {.kind = Kind::want, .access = Access::read, .page = 2});
  s.b.leave(s.id);
  EXPECT_FALSE(s.b.ended);
  EXPECT_GE(s.b.get(1), 0);
}

// ---- who may say what -------------------------------------------------------------------------------------------------

TEST(SysvHomePages, WhatNoAgentMaySayEndsThatAgentAndNoOther) {
  const Message wrong[] = {{.kind = Kind::grant, .access = Access::read, .carries_page = true, .page = 0, .seq = 1},
                           {.kind = Kind::want, .access = Access::read, .page = 3},
                           {.kind = Kind::want, .access = Access::none, .page = 0},
                           {.kind = Kind::recall, .page = 0, .seq = 1},
                           {.kind = Kind::recalled, .carries_page = true, .page = 0, .seq = 1},
                           {.kind = Kind::invalidated, .page = 0, .seq = 1},
                           {.kind = Kind::write_back, .carries_page = true, .page = 0, .seq = 1}};
  for (const Message& message : wrong) {
    Two s;
    s.b.write(s.id, 0, 8);
    sysv::PageFrame frame{.tenure = s.a.open.at(s.id).tenure, .message = message};
    if (message.carries_page) frame.bytes.assign(sysv::page_bytes, 66);
    s.hear(s.a.guest, frame);
    EXPECT_TRUE(s.a.ended);
    expect_part(s.said.back(),
                "it said of page " + std::to_string(message.page) + " of segment 0 what no agent may say");
    s.after_with_beats(5s);
    EXPECT_EQ(s.b.open.at(s.id).access.at(0), Access::write);
    Agent& c = s.come("lab3");
    ASSERT_EQ(c.attach(1, s.id), 0);
    EXPECT_EQ(c.read(s.id, 0), 8);
  }
}

TEST(SysvHomePages, ALastPageIsOneThatIsHeldForWriting) {
  Two s;
  s.a.write(s.id, 0, 1);
  EXPECT_EQ(s.b.read(s.id, 0), 1);
  sysv::PageFrame frame{.tenure = s.a.open.at(s.id).tenure, .last = true, .message = {.page = 0}};
  frame.bytes.assign(sysv::page_bytes, 66);
  s.hear(s.a.guest, frame);
  EXPECT_TRUE(s.a.ended);
  EXPECT_EQ(s.at_home(0), 1);
}

TEST(SysvHomePages, ATenureIsOneAgentsOwn) {
  Two s;
  s.a.write(s.id, 0, 1);
  sysv::PageFrame frame{.tenure = s.a.open.at(s.id).tenure, .last = true, .message = {.page = 0}};
  frame.bytes.assign(sysv::page_bytes, 66);
  s.hear(s.b.guest, frame);
  EXPECT_EQ(s.at_home(0), 0);
  EXPECT_EQ(s.b.read(s.id, 0), 1);
}

TEST(SysvHomePages, SixtyFourAgentsHaveASegmentOpenAtOneTime) {
  Scene s;
  Agent& first = s.come("lab0");
  const std::int32_t id = first.get(1);
  for (int i = 0; i < 64; ++i) ASSERT_EQ(s.come("lab" + std::to_string(i)).attach(1, id), 0);
  EXPECT_EQ(first.attach(1, id), ENOMEM);
  EXPECT_EQ(first.segment(id).nattch, 64u);
  Agent& last = *s.agents.rbegin()->second;
  last.detach(1, id);
  last.leave(id);
  EXPECT_EQ(first.attach(1, id), 0);
}

// More than the core has places for.
TEST(SysvHomePages, ManyWishesOfOneAgentWaitForTheirTurn) {
  constexpr core::Page count = 600;
  Two s(count * sysv::page_bytes);
  for (core::Page page = 0; page < count; ++page) s.b.write(s.id, page, 1);
  s.b.deaf = true;
  sysv::PageFrame want{.tenure = s.a.open.at(s.id).tenure, .message = {.kind = Kind::want, .access = Access::read}};
  s.a.deaf = true;
  for (want.message.page = 0; want.message.page < count; ++want.message.page) s.hear(s.a.guest, want);
  EXPECT_EQ(s.b.unheard.size(), SysvPages::asked_max);
  Agent& c = s.come("lab3");
  ASSERT_EQ(c.attach(1, s.id), 0);
  EXPECT_FALSE(c.touch(s.id, 0, Access::read));
  s.b.deaf = false;
  while (!s.b.unheard.empty()) {
    s.b.receive(s.b.unheard.front());
    s.b.unheard.pop_front();
    s.pump();
  }
  EXPECT_EQ(s.a.unheard.size(), count);
  EXPECT_EQ(c.read(s.id, 0), 1) << "others have places of their own";
  EXPECT_FALSE(s.a.ended);
}

TEST(SysvHomePages, AWishThatIsHeldBackAndWrongEndsItsAgentAndNoOther) {
  constexpr core::Page count = 300;
  Two s(count * sysv::page_bytes);
  for (core::Page page = 0; page < count; ++page) s.b.write(s.id, page, 1);
  s.b.deaf = true;
  s.a.deaf = true;
  sysv::PageFrame want{.tenure = s.a.open.at(s.id).tenure, .message = {.kind = Kind::want, .access = Access::read}};
  for (want.message.page = 0; want.message.page < SysvPages::asked_max; ++want.message.page) s.hear(s.a.guest, want);
  want.message.page = SysvPages::asked_max - 1;  // twice
  s.hear(s.a.guest, want);
  EXPECT_FALSE(s.a.ended) << "nobody has looked at it";
  s.b.deaf = false;
  s.b.receive(s.b.unheard.front());
  s.pump();
  EXPECT_FALSE(s.b.ended);
  want.message.page = 299;
  s.hear(s.a.guest, want);
  EXPECT_TRUE(s.a.ended);
  EXPECT_FALSE(s.b.ended);
}

TEST(SysvHomePages, WishesWithoutEndEndTheAgent) {
  Two s;
  s.b.write(s.id, 0, 1);
  s.b.deaf = true;
  sysv::PageFrame want{.tenure = s.a.open.at(s.id).tenure, .message = {.kind = Kind::want, .access = Access::read}};
  std::size_t said = 0;
  for (; !s.a.ended && said < 1'000'000; ++said) s.hear(s.a.guest, want);
  EXPECT_EQ(said, 2u) << "the second one for the same page";
}

// To look at each page of 64 GiB takes a fifth of a second, in which dsmd hears nobody else.
TEST(SysvHomePages, ToLeaveALargeSegmentCostsWhatWasTouched) {
  Scene s;
  Agent& a = s.come();
  const std::int32_t id = a.get(std::uint64_t{1} << 36U);
  const auto begun = std::chrono::steady_clock::now();
  for (int i = 0; i < 500; ++i) {
    Question q = Agent::question(Call::attach);
    q.process = 1, q.id = id;
    q.tenure = a.call(q).tenure;
    sysv::PageFrame want{.tenure = q.tenure,
                         .message = {.kind = Kind::want, .access = Access::write, .page = (1u << 24U) - 1}};
    s.hear(a.guest, want);
    ASSERT_EQ(s.home.pages(id)->held_for_writing(0), 1u);
    q.call = Call::leave;
    ASSERT_EQ(a.call(q).error, 0);
    ASSERT_EQ(s.home.pages(id)->held_for_writing(0), 0u);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begun, 5s);
}

// 64 GiB that nobody touches cost nothing.
TEST(SysvHomePages, OfALargeSegmentCostWhatIsTouched) {
  Scene s;
  Agent& a = s.come();
  const std::int32_t id = a.get(std::uint64_t{1} << 36U);
  ASSERT_GE(id, 0);
  Question q = Agent::question(Call::attach);
  q.process = 1, q.id = id;
  const Answer answer = a.call(q);
  ASSERT_EQ(answer.error, 0);
  EXPECT_EQ(answer.value, std::int64_t{1} << 36U);
  sysv::PageFrame want{.tenure = answer.tenure,
                       .message = {.kind = Kind::want, .access = Access::read, .page = (1u << 24U) - 1}};
  s.hear(a.guest, want);
  EXPECT_EQ(a.page_frames, 1u);
  EXPECT_EQ(a.remove(id), 0);
  EXPECT_EQ(a.process_call(Call::exit, 1), 0);
  EXPECT_EQ(s.home.pages(id), nullptr);
}

}  // namespace
}  // namespace dsm::daemon::testing
