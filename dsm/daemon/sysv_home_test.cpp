// SysvHome as a value: who is let in, what objects there are, and what the report says of it.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "dsm/daemon/sysv_home_testing.hpp"

namespace dsm::daemon::testing {
namespace {

using Agent = Scene::Agent;

// ---- coming and going -------------------------------------------------------------------------------------------------

TEST(SysvHome, AHostIsKnownByItsName) {
  Scene s;
  EXPECT_EQ(s.come("lab1").host, 1);
  EXPECT_EQ(s.come("lab2").host, 2);
  EXPECT_EQ(s.come("lab1").host, 1) << "another agent of the same host";
  EXPECT_EQ(s.home.agents(), 3u);
  EXPECT_EQ(s.logged.front(), "host lab1 (10.0.0.1) has come");
}

TEST(SysvHome, AHostThatComesAgainHasItsNumberAgain) {
  Scene s;
  s.come("lab1").go();
  s.come("lab2");
  EXPECT_EQ(s.come("lab1").host, 1);
  EXPECT_EQ(s.logged.at(1), "host lab1 (10.0.0.1) has gone");
}

TEST(SysvHome, OfHostsThatComeAndGoInOrderOnlyTheLogSpeaks) {
  Scene s;
  s.come("lab1").go();
  s.come("lab2").go();
  EXPECT_EQ(s.said, std::vector<std::string>());
  EXPECT_EQ(s.logged.size(), 4u);
}

TEST(SysvHome, NumbersOfHostsAreUsedAgainWhenAllHaveBeenNeeded) {
  Scene s;
  for (int i = 1; i <= 511; ++i) {
    Agent& agent = s.come("lab" + std::to_string(i));
    ASSERT_EQ(agent.host, i);
    if (i == 7 || i == 5) agent.go();
  }
  EXPECT_EQ(s.come("new").host, 5) << "5 and 7 have gone, 5 before 7";
  EXPECT_EQ(s.come("lab7").host, 7);
  Agent& late = s.come("late");
  EXPECT_TRUE(late.ended);
  EXPECT_EQ(late.answers.begin()->second.error, EUSERS);
}

Question hello(const std::string& name, std::uint64_t version = sysv::wire_version) {
  Question q = Agent::question(Call::hello);
  q.text = name, q.size = version;
  return q;
}

TEST(SysvHome, AnotherVersionIsRefusedWithALine) {
  Scene s;
  Agent& agent = *s.agents.emplace(9, std::make_unique<Agent>(s, 9)).first->second;
  const Answer answer = agent.call(hello("lab1", 7));
  EXPECT_EQ(answer.error, EPROTONOSUPPORT);
  expect_part(answer.text, "speaks version 7 of the protocol, and this dsmd 1");
  EXPECT_TRUE(agent.ended);
  EXPECT_EQ(s.home.agents(), 0u);
}

TEST(SysvHome, AHostsNameCanBePrinted) {
  GuestId guest = 9;
  for (const std::string& name : {std::string(), std::string("a\nb"), std::string(256, 'x')}) {
    Scene s;
    Agent& agent = *s.agents.emplace(guest, std::make_unique<Agent>(s, guest)).first->second;
    EXPECT_EQ(agent.call(hello(name)).error, EINVAL);
    EXPECT_TRUE(agent.ended);
    ++guest;
  }
}

TEST(SysvHome, WhoSaysNoHelloIsEnded) {
  Scene s;
  Agent& agent = *s.agents.emplace(9, std::make_unique<Agent>(s, 9)).first->second;
  agent.ask(Agent::question(Call::get));
  EXPECT_TRUE(agent.ended);
  EXPECT_TRUE(agent.answers.empty());
  expect_part(s.logged.back(), "said no hello");
}

TEST(SysvHome, WhatNoAgentSaysEndsThatAgentAndNoOther) {
  Question local = Agent::question(Call::local_fault);
  for (const std::vector<std::uint8_t>& bytes :
       {std::vector<std::uint8_t>{}, std::vector<std::uint8_t>{9, 9, 9}, sysv::encode(Answer{}), sysv::encode(local),
        sysv::encode(hello("lab2"))}) {
    Scene s;
    Agent& good = s.come("lab1");
    Agent& bad = s.come("lab2");
    s.hear(bad.guest, bytes);
    EXPECT_TRUE(bad.ended);
    EXPECT_FALSE(good.ended);
    EXPECT_EQ(s.logged.back(), "host lab2 (10.0.0.1) has gone");
    EXPECT_GT(good.get(1), -1);
  }
}

TEST(SysvHome, ThereIsRoomForSoManyAgents) {
  Scene s({.agents = 2});
  s.come("lab1");
  Agent& second = s.come("lab1");
  EXPECT_TRUE(s.come("lab1").ended);
  second.go();
  EXPECT_FALSE(s.come("lab1").ended);
}

TEST(SysvHome, AHostThatSaysNothingIsLost) {
  Scene s;
  Agent& agent = s.come("lab1");
  EXPECT_EQ(s.home.next_deadline(), s.now + 5s);
  s.after(4999ms);
  EXPECT_FALSE(agent.ended);
  agent.beat();
  s.after(4999ms);
  EXPECT_FALSE(agent.ended);
  const std::int32_t id = agent.get(100);
  ASSERT_EQ(agent.attach(1, id), 0);
  s.after(5s);
  EXPECT_TRUE(agent.ended);
  EXPECT_EQ(s.last_said(),
            "host lab1 (10.0.0.1) has gone: it has said nothing for 5 s; that ends 1 attach of 1 process");
  EXPECT_EQ(s.home.agents(), 0u);
}

TEST(SysvHome, ABeatComesBack) {
  Scene s;
  Question q = Agent::question(Call::beat);
  q.size = 0x123456789abcdef0;
  EXPECT_EQ(s.come().call(q).value, 0x123456789abcdef0);
}

// ---- objects ----------------------------------------------------------------------------------------------------------

TEST(SysvHome, IdsAndKeysAreTheSameEverywhere) {
  Scene s;
  Agent& one = s.come("lab1");
  Agent& other = s.come("lab2");
  const std::int32_t id = one.get(5000, 77);
  EXPECT_GE(id, 0);
  EXPECT_EQ(other.get(5000, 77, 0), id);
  EXPECT_EQ(other.get(5001, 77, 0), -EINVAL);
  EXPECT_EQ(other.get(5000, 78, 0), -ENOENT);
  EXPECT_EQ(other.segment(id).size, 5000u);
}

TEST(SysvHome, ThePidOfAnotherHostIsNoPidHere) {
  Scene s;
  Agent& one = s.come("lab1");
  Agent& other = s.come("lab2");
  const std::int32_t id = one.get(1);
  ASSERT_EQ(other.attach(1, id, 200), 0);
  EXPECT_EQ(one.segment(id).cpid, (sysv::Pid{0, 100}));
  EXPECT_EQ(one.segment(id).lpid, (sysv::Pid{0, (2 << 22) | 200}));
  EXPECT_EQ(other.segment(id).cpid, (sysv::Pid{0, (1 << 22) | 100}));
  EXPECT_EQ(other.segment(id).lpid, (sysv::Pid{0, 200}));
}

TEST(SysvHome, WhatAnAgentSaysOfItsHostIsNotAskedFor) {
  Scene s;
  s.come("lab1");
  Agent& other = s.come("lab2");
  Question q = Agent::question(Call::get);
  q.caller.pid.host = 1;
  q.size = 1;
  const auto id = static_cast<std::int32_t>(other.call(q).value);
  EXPECT_EQ(other.segment(id).cpid, (sysv::Pid{0, 100}));
}

TEST(SysvHome, SegmentsAreListedByIndex) {
  Scene s;
  Agent& a = s.come();
  const std::int32_t id = a.get(1, 5, 01600);
  Question q = Agent::question(Call::stat_index, 1000);
  EXPECT_EQ(a.call(q).error, EACCES);
  q.flags = 1;
  EXPECT_EQ(a.call(q).error, 0);
  EXPECT_EQ(a.call(q).value, id);
  EXPECT_EQ(a.call(q).segment.value().perm.key, 5);
  q.number = 1;
  EXPECT_EQ(a.call(q).error, EINVAL);
  EXPECT_FALSE(a.call(q).segment);
}

TEST(SysvHome, SegmentsAreChangedLockedAndCounted) {
  Scene s;
  Agent& a = s.come();
  const std::int32_t id = a.get(4097);
  Question q = Agent::question(Call::set);
  q.id = id, q.uid = 7, q.gid = 8, q.mode = 0640;
  EXPECT_EQ(a.call(q).error, 0);
  EXPECT_EQ(a.segment(id).perm.uid, 7u);
  q.call = Call::lock;
  EXPECT_EQ(a.call(q).error, 0);
  EXPECT_EQ(a.segment(id).perm.mode, 02640u);
  q.call = Call::unlock;
  EXPECT_EQ(a.call(q).error, 0);
  EXPECT_EQ(a.segment(id).perm.mode, 0640u);
  EXPECT_EQ(a.stat(id, Object::segment, 9).error, EACCES);
  const auto totals = a.call(Agent::question(Call::info)).segment_totals.value();
  EXPECT_EQ(totals.used, 1u);
  EXPECT_EQ(totals.pages, 2u);
  EXPECT_EQ(a.remove(id, Object::segment, 9), EPERM);
  EXPECT_EQ(a.remove(id), 0);
  EXPECT_EQ(a.stat(id).error, EINVAL);
}

TEST(SysvHome, AMillionSegmentsAreRefused) {
  Scene s;
  Agent& a = s.come();
  int made = 0;
  std::int32_t last = 0;
  for (int i = 0; i < 10'000 && last >= 0; ++i) {
    if ((last = a.get(1)) >= 0) ++made;
  }
  EXPECT_EQ(last, -ENOSPC);
  EXPECT_EQ(made, 4096);
}

TEST(SysvHome, SemaphoresTakeNoMoreMemoryThanAHomeHas) {
  Scene s;
  Agent& a = s.come();
  for (int i = 0; i < 32; ++i) a.get_set(32000);
  Question q = Agent::question(Call::get);
  q.kind = Object::set, q.size = 1, q.flags = 01666;
  EXPECT_EQ(a.call(q).error, ENOSPC);
  q.call = Call::info;
  const auto totals = a.call(q).set_totals.value();
  EXPECT_EQ(totals.semaphores, 1'024'000u);
  EXPECT_EQ(totals.limits.all, 1'024'000u);
  EXPECT_EQ(totals.limits.per_set, 32000u);
}

TEST(SysvHome, ACallOfNoMeaningForTheObjectIsRefused) {
  Scene s;
  Agent& a = s.come();
  Question q = Agent::question(Call::get);
  q.kind = Object::set;
  q.size = std::uint64_t{1} << 32U;
  EXPECT_EQ(a.call(q).error, EINVAL);
}

// ---- the report -------------------------------------------------------------------------------------------------------

TEST(SysvHome, TheReportSaysWhoIsHere) {
  Scene s;
  Agent& a = s.come("lab1");
  Agent& b = s.come("lab2", "10.0.0.2");
  const std::int32_t id = a.get(5000, 0x1234);
  a.get_set(4);
  ASSERT_EQ(b.attach(1, id), 0);
  b.write(id, 1, 7);
  a.operate(1, a.get_set(1), -1);
  s.now += 1200ms;
  const std::string text = a.report();
  expect_part(text,
              "segments 1 (at most 4096), their pages 2; semaphore sets 2 (at most 32000), semaphores 5; agents 2; "
              "pages lost 0\n");
  expect_part(text,
              "host 1: lab1 (10.0.0.1), processes 1, attaches 0, segments open 0, pages held for writing 0, calls "
              "that wait 1, heard 0.0 s ago\n");
  expect_part(text,
              "host 2: lab2 (10.0.0.2), processes 1, attaches 1, segments open 1, pages held for writing 1, calls "
              "that wait 0, heard 1.2 s ago\n");
  expect_part(text, "segment " + std::to_string(id) + ": key 0x00001234, 5000 bytes, attaches 1, open at hosts 2\n");
}

TEST(SysvHome, AReportFitsIntoAFrame) {
  Scene s;
  Agent& a = s.come(std::string(255, 'x'));
  for (int i = 0; i < 4096; ++i) ASSERT_GE(a.get(1), 0);
  const std::string text = a.report();
  EXPECT_LE(text.size(), sysv::max_frame / 2 + 100);
  const auto lines = static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')) - 1;
  expect_part(text, fmt::format("{} lines more are left out here\n", 2 + 4096 - lines));
}

}  // namespace
}  // namespace dsm::daemon::testing
