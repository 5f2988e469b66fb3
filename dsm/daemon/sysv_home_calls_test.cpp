// Processes that attach, fork and end, and semaphores: calls that wait, and how they end.
#include <cerrno>
#include <limits>

#include "dsm/daemon/sysv_home_testing.hpp"

namespace dsm::daemon::testing {
namespace {

using Agent = Scene::Agent;

// ---- processes --------------------------------------------------------------------------------------------------------

TEST(SysvHome, AttachesAreCounted) {
  Scene s;
  Agent& a = s.come();
  const std::int32_t id = a.get(5000);
  EXPECT_EQ(a.attach(1, id + 1), EINVAL);
  EXPECT_EQ(a.attach(0, id), ENOMEM) << "nobody's";
  ASSERT_EQ(a.attach(1, id), 0);
  ASSERT_EQ(a.attach(1, id), 0);
  ASSERT_EQ(a.attach(2, id), 0);
  EXPECT_EQ(a.segment(id).nattch, 3u);
  EXPECT_EQ(a.detach(2, id), 0);
  EXPECT_EQ(a.detach(2, id), EINVAL) << "it has none any more";
  EXPECT_EQ(a.detach(3, id), EINVAL) << "nobody knows it";
  EXPECT_EQ(a.process_call(Call::exec, 1, 0, 101), 0);
  EXPECT_EQ(a.segment(id).nattch, 0u);
  EXPECT_EQ(a.segment(id).lpid, (sysv::Pid{0, 101}));
}

TEST(SysvHome, AnAttachIsAnsweredWithSizeTenureAndSlot) {
  Scene s;
  Agent& a = s.come("lab1");
  Agent& b = s.come("lab2");
  const std::int32_t id = a.get(5000);
  Question q = Agent::question(Call::attach);
  q.process = 1, q.id = id;
  const Answer first = a.call(q), again = a.call(q), other = b.call(q);
  EXPECT_EQ(first.value, 5000);
  EXPECT_NE(first.tenure, 0u);
  EXPECT_EQ(again.tenure, first.tenure);
  EXPECT_EQ(again.slot, first.slot);
  EXPECT_NE(other.tenure, first.tenure);
  EXPECT_NE(other.slot, first.slot);
}

TEST(SysvHome, AChildInheritsEachAttach) {
  Scene s;
  Agent& a = s.come();
  const std::int32_t one = a.get(1), two = a.get(1);
  ASSERT_EQ(a.attach(1, one), 0);
  ASSERT_EQ(a.attach(1, one), 0);
  ASSERT_EQ(a.attach(1, two), 0);
  EXPECT_EQ(a.fork(2, 1), 0);
  EXPECT_EQ(a.segment(one).nattch, 4u);
  EXPECT_EQ(a.segment(two).nattch, 2u);
  EXPECT_EQ(a.fork(2, 1), EINVAL) << "it is there already";
  EXPECT_EQ(a.fork(0, 1), EINVAL);
  EXPECT_EQ(a.fork(4, 3), 0) << "a parent that has nothing";
  EXPECT_EQ(a.process_call(Call::exit, 1), 0);
  EXPECT_EQ(a.process_call(Call::exit, 2, 0, 202), 0);
  EXPECT_EQ(a.process_call(Call::exit, 4), 0);
  EXPECT_EQ(a.segment(one).nattch, 0u);
  EXPECT_EQ(a.segment(two).nattch, 0u);
  EXPECT_EQ(a.segment(two).lpid, (sysv::Pid{0, 202}));
}

TEST(SysvHome, WhatIsRemovedIsThereUntilTheLastDetach) {
  Scene s;
  Agent& a = s.come("lab1");
  Agent& b = s.come("lab2");
  const std::int32_t id = a.get(1, 33);
  ASSERT_EQ(a.attach(1, id), 0);
  EXPECT_EQ(b.remove(id), 0);
  EXPECT_EQ(b.get(1, 33, 0), -ENOENT) << "its key is free";
  ASSERT_EQ(b.attach(1, id), 0);
  EXPECT_EQ(a.process_call(Call::exit, 1), 0);
  EXPECT_EQ(b.segment(id).nattch, 1u);
  EXPECT_NE(s.home.pages(id), nullptr);
  b.go();
  EXPECT_EQ(a.stat(id).error, EINVAL);
  EXPECT_EQ(s.home.pages(id), nullptr);
}

TEST(SysvHome, AHostThatGoesDetachesAsItsProcessesWouldHave) {
  Scene s;
  Agent& a = s.come("lab1");
  Agent& b = s.come("lab2");
  const std::int32_t id = a.get(1);
  ASSERT_EQ(b.attach(1, id, 201), 0);
  ASSERT_EQ(b.attach(2, id, 202), 0);
  b.go("its connection ended");
  EXPECT_EQ(a.segment(id).nattch, 0u);
  EXPECT_EQ(a.segment(id).lpid, (sysv::Pid{0, (2 << 22) | 202}));
  expect_part(s.last_said(),
              "host lab2 (10.0.0.1) has gone: its connection ended; that ends 2 attaches of 2 processes");
}

TEST(SysvHome, AnAgentHasRoomForSoManyProcessesAttachesAndCalls) {
  Scene s({.processes = 2, .attaches = 3, .waiting = 1});
  Agent& a = s.come();
  const std::int32_t id = a.get(1), set = a.get_set(1);
  ASSERT_EQ(a.attach(1, id), 0);
  ASSERT_EQ(a.attach(2, id), 0);
  EXPECT_EQ(a.attach(3, id), ENOMEM);
  EXPECT_EQ(a.fork(3, 1), ENOMEM);
  ASSERT_EQ(a.attach(1, id), 0);
  EXPECT_EQ(a.attach(1, id), ENOMEM);
  EXPECT_EQ(a.over(a.operate(3, set, 1)), ENOMEM);
  EXPECT_EQ(a.over(a.operate(1, set, -1)), -1);
  EXPECT_EQ(a.over(a.operate(2, set, -1)), ENOMEM);
  EXPECT_EQ(a.segment(id).nattch, 3u);
  EXPECT_EQ(s.come().attach(1, id), 0) << "other agents have room of their own";
}

TEST(SysvHome, WhoLetsOthersGoIsNotRefusedBecauseSoManyWait) {
  Scene s({.waiting = 1});
  Agent& a = s.come();
  const std::int32_t set = a.get_set(1);
  const auto waiting = a.operate(1, set, -1);
  EXPECT_EQ(a.over(a.operate(2, set, -1)), ENOMEM);
  EXPECT_EQ(a.over(a.operate(2, set, 1)), 0);
  EXPECT_EQ(a.over(waiting), 0);
}

TEST(SysvHome, AllAgentsTogetherHaveRoomForSoManyToo) {
  Scene s({.all_processes = 2, .all_attaches = 3, .all_waiting = 1});
  Agent& a = s.come("lab1");
  Agent& b = s.come("lab2");
  const std::int32_t id = a.get(1), set = a.get_set(1);
  ASSERT_EQ(a.attach(1, id), 0);
  ASSERT_EQ(b.attach(1, id), 0);
  EXPECT_EQ(b.attach(2, id), ENOMEM) << "a third process";
  EXPECT_EQ(b.fork(2, 1), ENOMEM);
  ASSERT_EQ(a.attach(1, id), 0);
  EXPECT_EQ(b.attach(1, id), ENOMEM) << "a fourth attach";
  const auto waiting = a.operate(1, set, -1);
  EXPECT_EQ(b.over(b.operate(1, set, -1)), ENOMEM);
  EXPECT_EQ(a.process_call(Call::exit, 1), 0);
  EXPECT_EQ(a.over(waiting), EINTR);
  EXPECT_EQ(b.fork(2, 1), 0);
  EXPECT_EQ(b.fork(3, 1), ENOMEM);
  EXPECT_EQ(b.over(b.operate(2, set, -1)), -1);
  b.go();
  EXPECT_EQ(a.attach(1, id), 0);
  EXPECT_EQ(a.fork(2, 1), 0);
  EXPECT_EQ(a.over(a.operate(2, set, -1)), -1);
}

// ---- semaphores -------------------------------------------------------------------------------------------------------

constexpr std::int16_t undo = 0x1000, nowait = 04000;

TEST(SysvHome, SemaphoresCountAcrossHosts) {
  Scene s;
  Agent& a = s.come("lab1");
  Agent& b = s.come("lab2");
  const std::int32_t set = a.get_set(3, 9);
  EXPECT_EQ(b.get_set(3, 9), set);
  EXPECT_EQ(a.over(a.operate(1, set, 2)), 0);
  EXPECT_EQ(b.value(set), 2);
  EXPECT_EQ(b.value(set, Call::get_pid), (1 << 22) | 100);
  EXPECT_EQ(a.value(set, Call::get_pid), 100);
  EXPECT_EQ(b.over(b.operate(1, set, -3, nowait)), EAGAIN);
  EXPECT_EQ(b.stat(set, Object::set).set.value().count, 3u);
  EXPECT_EQ(b.stat(set + 1, Object::set).error, EINVAL);
}

TEST(SysvHome, AllValuesAreSetAndRead) {
  Scene s;
  Agent& a = s.come();
  const std::int32_t set = a.get_set(3);
  Question q = Agent::question(Call::set_all);
  q.id = set, q.values = {4, 5, 6};
  EXPECT_EQ(a.call(q).error, 0);
  q.values.pop_back();
  EXPECT_EQ(a.call(q).error, EINVAL);
  q.call = Call::get_all;
  EXPECT_EQ(a.call(q).values, (std::vector<std::uint16_t>{4, 5, 6}));
  q.call = Call::set_value, q.number = 1, q.key = 32768;
  EXPECT_EQ(a.call(q).error, ERANGE);
  q.key = 9;
  EXPECT_EQ(a.call(q).error, 0);
  q.call = Call::get_value;
  EXPECT_EQ(a.call(q).value, 9);
  q.call = Call::set, q.kind = Object::set, q.mode = 0400;
  EXPECT_EQ(a.call(q).error, 0);
  q.call = Call::stat_index, q.number = 0;
  EXPECT_EQ(a.call(q).value, set);
  EXPECT_EQ(a.call(q).set.value().perm.mode, 0400u);
  q.call = Call::info;
  EXPECT_EQ(a.call(q).set_totals.value().semaphores, 3u);
}

TEST(SysvHome, WhoWaitsIsAnsweredWhenItCanGoOn) {
  Scene s;
  Agent& a = s.come("lab1");
  Agent& b = s.come("lab2");
  const std::int32_t set = a.get_set(1);
  const auto waiting = a.operate(1, set, -1);
  EXPECT_EQ(a.over(waiting), -1);
  EXPECT_EQ(b.value(set, Call::get_ncnt), 1);
  EXPECT_EQ(b.over(b.operate(1, set, 1)), 0);
  EXPECT_EQ(a.over(waiting), 0);
  EXPECT_EQ(b.value(set), 0);
  EXPECT_EQ(b.over(b.operate(1, set, 1)), 0);
  const auto for_zero = a.operate(1, set, 0);
  EXPECT_EQ(b.value(set, Call::get_zcnt), 1);
  EXPECT_EQ(b.over(b.operate(1, set, -1)), 0);
  EXPECT_EQ(a.over(for_zero), 0);
}

TEST(SysvHome, WhoWaitsOnWhatIsRemovedHearsSo) {
  Scene s;
  Agent& a = s.come("lab1");
  Agent& b = s.come("lab2");
  const std::int32_t set = a.get_set(1);
  const auto waiting = a.operate(1, set, -1);
  EXPECT_EQ(b.remove(set, Object::set), 0);
  EXPECT_EQ(a.over(waiting), EIDRM);
  EXPECT_EQ(a.value(set), -EINVAL);
}

TEST(SysvHome, WhoWaitsLongEnoughHearsThatTheTimeIsOver) {
  Scene s;
  Agent& a = s.come();
  const std::int32_t set = a.get_set(1);
  const auto short_one = a.operate(1, set, -1, 0, 1'000'000'000), longer = a.operate(1, set, -1, 0, 2'000'000'000);
  EXPECT_EQ(a.over(a.operate(1, set, -1, 0, 0)), EAGAIN) << "no time at all";
  EXPECT_EQ(a.over(a.operate(1, set, -1, 0, -2)), EINVAL);
  const auto forever = a.operate(1, set, -1, 0, std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(s.home.next_deadline(), s.now + 1s);
  s.after(999ms);
  EXPECT_EQ(a.over(short_one), -1);
  s.after(1ms);
  EXPECT_EQ(a.over(short_one), EAGAIN);
  EXPECT_EQ(a.over(longer), -1);
  Agent& b = s.come();
  EXPECT_EQ(b.over(b.operate(1, set, 1)), 0);
  EXPECT_EQ(a.over(longer), 0) << "the first who still waits";
  s.after_with_beats(100s);
  EXPECT_EQ(a.over(forever), -1);
  EXPECT_EQ(a.value(set, Call::get_ncnt), 1);
}

TEST(SysvHome, AWaitIsGivenUp) {
  Scene s;
  Agent& a = s.come();
  const std::int32_t set = a.get_set(1);
  const auto waiting = a.operate(1, set, -1, 0, 1'000'000'000);
  Question q = Agent::question(Call::cancel);
  q.other = waiting;
  EXPECT_EQ(a.answer_to(a.ask(q)), nullptr) << "cancel has no answer of its own";
  EXPECT_EQ(a.over(waiting), EINTR);
  a.ask(q);  // too late, and nothing happens
  q.other = std::uint64_t{waiting} << 32U | waiting;
  a.ask(q);
  s.after(2s);
  EXPECT_FALSE(a.ended);
  EXPECT_EQ(a.value(set, Call::get_ncnt), 0);
}

TEST(SysvHome, TwoCallsWithOneNumberAreNoCalls) {
  Scene s;
  Agent& a = s.come();
  const std::int32_t set = a.get_set(1);
  Question q = Agent::question(Call::get);
  q.request = a.operate(1, set, -1);
  s.hear(a.guest, q);
  EXPECT_TRUE(a.ended);
}

TEST(SysvHome, TheEndOfAProcessUndoesAndGivesUp) {
  Scene s;
  Agent& a = s.come("lab1");
  Agent& b = s.come("lab2");
  const std::int32_t set = a.get_set(1);
  EXPECT_EQ(a.over(a.operate(1, set, 3, undo)), 0);
  const auto waiting = a.operate(1, set, -9), another = a.operate(2, set, -9);
  EXPECT_EQ(a.process_call(Call::exec, 1), 0);
  EXPECT_EQ(b.value(set), 3) << "exec keeps undo values";
  EXPECT_EQ(a.process_call(Call::exit, 1), 0);
  EXPECT_EQ(b.value(set), 0);
  EXPECT_EQ(a.over(waiting), EINTR);
  EXPECT_EQ(a.over(another), -1);
}

// As many calls of another host wait: once for each process that ended, all of them were looked at.
TEST(SysvHome, AHostThatGoesWithManyProcessesHoldsUpNobody) {
  constexpr std::uint32_t calls = 10'000;
  Scene s;
  Agent& a = s.come("lab1");
  Agent& b = s.come("lab2");
  const std::int32_t set = a.get_set(1);
  for (std::uint32_t process = 1; process <= calls; ++process) {
    a.operate(process, set, -1);
    b.operate(process, set, -1);
  }
  ASSERT_EQ(a.value(set, Call::get_ncnt), 2 * calls);
  const auto begun = std::chrono::steady_clock::now();
  b.go();
  EXPECT_LT(std::chrono::steady_clock::now() - begun, 1s);
  EXPECT_EQ(a.value(set, Call::get_ncnt), calls);
}

TEST(SysvHome, AHostThatGoesUndoesAndGivesUp) {
  Scene s;
  Agent& a = s.come("lab1");
  Agent& b = s.come("lab2");
  const std::int32_t set = a.get_set(1);
  EXPECT_EQ(a.over(a.operate(1, set, 3)), 0);
  EXPECT_EQ(b.over(b.operate(1, set, -2, undo)), 0);
  const auto waiting = a.operate(1, set, -3);
  b.operate(2, set, -5, 0, 1'000'000'000);
  b.go();
  EXPECT_EQ(a.over(waiting), 0) << "what was taken is back";
  s.after(2s);  // b's call would have been too late
  EXPECT_EQ(a.value(set, Call::get_ncnt), 0);
}

}  // namespace
}  // namespace dsm::daemon::testing
