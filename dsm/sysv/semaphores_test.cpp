// Semaphore sets, row by row of what semget(2), semop(2) and semctl(2) promise. differential_test asks the kernel itself.
#include "dsm/sysv/semaphores.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/ipc.h>
#include <sys/sem.h>

#include <cerrno>
#include <stdexcept>

namespace dsm::sysv {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr std::int16_t no_wait = IPC_NOWAIT, undo = SEM_UNDO;
const Caller ann{.pid = {1, 100}, .uid = 10, .gid = 20}, bob{.pid = {2, 100}, .uid = 11, .gid = 21},
    root{.pid = {1, 1}};
constexpr Owner anns{1, 1}, bobs{2, 1};

struct SemaphoresTest : ::testing::Test {
  std::int64_t now = 1000;
  SemaphoreSets sets{{.per_set = 4, .all = 10, .per_call = 3, .sets = 3}, [this] { return now; }};
  std::int32_t id = make(ann);
  Ticket last = 0;

  std::int32_t make(const Caller& who, std::int32_t key = IPC_PRIVATE, std::int32_t count = 2,
                    std::int32_t flags = 0600) {
    std::int32_t made = -1;
    EXPECT_EQ(sets.get(who, key, count, IPC_CREAT | flags, made), 0);
    return made;
  }
  int get(const Caller& who, std::int32_t key, std::int32_t count, std::int32_t flags) {
    std::int32_t found = -1;
    return sets.get(who, key, count, flags, found);
  }
  // As the next ticket, counted from 1.
  int op(std::vector<SemOp> ops, const Caller& who = ann, Owner owner = anns) {
    return sets.operate(who, owner, id, ops, ++last);
  }
  std::vector<std::uint16_t> values() {
    std::vector<std::uint16_t> out;
    EXPECT_EQ(sets.get_all(root, id, out), 0);
    return out;
  }
  std::pair<int, int> waiting(std::int32_t number = 0) {
    std::int32_t more = -1, zero = -1;
    EXPECT_EQ(sets.get_waiting(root, id, number, false, more), 0);
    EXPECT_EQ(sets.get_waiting(root, id, number, true, zero), 0);
    return {more, zero};
  }
  Pid pid(std::int32_t number = 0) {
    Pid out;
    EXPECT_EQ(sets.get_pid(root, id, number, out), 0);
    return out;
  }
  SetStat stat() {
    SetStat out;
    EXPECT_EQ(sets.stat(root, id, out), 0);
    return out;
  }
  static SemaphoreSets::Answer answer(Ticket ticket, int error = 0) { return {ticket, error}; }
};

TEST_F(SemaphoresTest, ANewOne) {
  EXPECT_THAT(values(), ElementsAre(0, 0));
  EXPECT_EQ(stat().perm.mode, 0600U);
  EXPECT_EQ(stat().perm.cuid, 10U);
  EXPECT_EQ(stat().otime, 0);
  EXPECT_EQ(stat().ctime, 1000);
  EXPECT_EQ(stat().count, 2U);
  EXPECT_EQ(pid(), Pid{});
}

TEST_F(SemaphoresTest, GetChecksInLinuxsOrder) {
  EXPECT_EQ(get(ann, 7, 5, IPC_CREAT), EINVAL) << "more than SEMMSL";
  EXPECT_EQ(get(ann, 7, -1, IPC_CREAT), EINVAL);
  EXPECT_EQ(get(ann, 7, 0, IPC_CREAT), EINVAL);
  EXPECT_EQ(get(ann, 7, 1, IPC_EXCL), ENOENT);
  make(ann, 7, 3);
  EXPECT_EQ(get(ann, 7, 0, 0), 0);
  EXPECT_EQ(get(ann, 7, 4, IPC_CREAT | IPC_EXCL), EEXIST);
  EXPECT_EQ(get(bob, 7, 4, 0600), EINVAL);
  EXPECT_EQ(get(bob, 7, 3, 0600), EACCES);
  EXPECT_EQ(get(bob, 7, 3, 0), 0);
  EXPECT_EQ(get(ann, 8, 4, 0), ENOENT);
}

TEST_F(SemaphoresTest, LimitsOfNumber) {
  make(ann, 1, 4);
  EXPECT_EQ(get(ann, 2, 4, IPC_CREAT), 0) << "ten in all";
  EXPECT_EQ(get(ann, 3, 1, IPC_CREAT), ENOSPC);
  EXPECT_EQ(sets.remove(ann, id), 0);
  EXPECT_EQ(get(ann, 3, 3, IPC_CREAT), ENOSPC);
  EXPECT_EQ(get(ann, 3, 1, IPC_CREAT), 0);
  EXPECT_EQ(get(ann, 4, 1, IPC_CREAT), ENOSPC) << "a fourth set";
  EXPECT_EQ(sets.totals().sets, 3U);
  EXPECT_EQ(sets.totals().semaphores, 9U);
}

TEST_F(SemaphoresTest, OperateChecksInLinuxsOrder) {
  EXPECT_EQ(op({}), EINVAL);
  EXPECT_EQ(op({{}, {}, {}, {}}), E2BIG);
  EXPECT_EQ(op({{2, 1, 0}}, bob), EFBIG) << "the number before the rights";
  EXPECT_EQ(op({{0, 0, 0}}, bob), EACCES);
  EXPECT_EQ(sets.operate(ann, anns, id + 1, std::vector<SemOp>{{}}, 1), EINVAL);
  EXPECT_EQ(sets.operate(ann, anns, -1, std::vector<SemOp>{{}}, 1), EINVAL);
  ASSERT_EQ(sets.set(ann, id, 10, 20, 0604), 0);
  EXPECT_EQ(op({{0, 0, 0}}, bob), 0) << "to wait for zero it needs to read only";
  EXPECT_EQ(op({{0, 1, 0}}, bob), EACCES);
  EXPECT_EQ(op({{1, 0, 0}, {0, 1, 0}}, bob), EACCES);
}

TEST_F(SemaphoresTest, AnArrayIsDoneAllOrNotAtAll) {
  EXPECT_EQ(op({{0, 1, 0}, {1, -1, no_wait}}), EAGAIN);
  EXPECT_THAT(values(), ElementsAre(0, 0));
  EXPECT_EQ(pid(), Pid{}) << "it has done nothing";
  EXPECT_EQ(stat().otime, 0);
  EXPECT_EQ(op({{0, 2, 0}, {0, -1, 0}, {1, 3, 0}}), 0);
  EXPECT_THAT(values(), ElementsAre(1, 3));
  EXPECT_EQ(pid(), ann.pid);
  EXPECT_EQ(op({{1, 1, 0}, {1, 0, no_wait}}), EAGAIN) << "each sees what those before it have done";
  EXPECT_EQ(op({{0, 1, 0}, {1, 32767, 0}}), ERANGE);
  EXPECT_THAT(values(), ElementsAre(1, 3));
}

TEST_F(SemaphoresTest, Times) {
  now = 1001;
  ASSERT_EQ(op({{0, 1, 0}}), 0);
  EXPECT_EQ(stat().otime, 1001);
  now = 1002;
  ASSERT_EQ(op({{1, 0, 0}}), 0);
  EXPECT_EQ(stat().otime, 1002) << "nothing was changed, but it was done";
  now = 1003;
  ASSERT_EQ(op({{1, -1, no_wait}}), EAGAIN);
  EXPECT_EQ(stat().otime, 1002);
  EXPECT_EQ(stat().ctime, 1000);
  ASSERT_EQ(sets.set_value(ann, id, 0, 0), 0);
  EXPECT_EQ(stat().ctime, 1003);
  EXPECT_EQ(stat().otime, 1002);
  now = 1004;
  ASSERT_EQ(sets.set_all(ann, id, std::vector<std::uint16_t>{0, 0}), 0);
  EXPECT_EQ(stat().ctime, 1004);
  now = 1005;
  ASSERT_EQ(sets.set(ann, id, 10, 20, 0600), 0);
  EXPECT_EQ(stat().ctime, 1005);
  ASSERT_EQ(op({{0, -1, 0}}), waits);
  now = 1006;
  ASSERT_EQ(sets.set_value(ann, id, 0, 1), 0);
  EXPECT_EQ(stat().otime, 1006) << "somebody's operation was done by it";
  now = 1001;
  ASSERT_EQ(op({{0, 0, 0}}), 0);
  EXPECT_EQ(stat().otime, 1006) << "a clock that was set back does not show";
}

TEST_F(SemaphoresTest, WhoWaitsIsAnsweredWhenItIsDone) {
  EXPECT_EQ(op({{0, -2, 0}}, bob, bobs), EACCES);
  EXPECT_EQ(op({{0, -2, 0}}, root, bobs), waits);
  EXPECT_EQ(waiting(), (std::pair{1, 0}));
  EXPECT_EQ(op({{0, 1, 0}}), 0);
  EXPECT_THAT(sets.take_answers(), IsEmpty());
  EXPECT_EQ(op({{0, 2, 0}}), 0);
  EXPECT_THAT(sets.take_answers(), ElementsAre(answer(2)));
  EXPECT_THAT(sets.take_answers(), IsEmpty());
  EXPECT_THAT(values(), ElementsAre(1, 0));
  EXPECT_EQ(pid(), root.pid) << "who waited has done it";
  EXPECT_EQ(waiting(), (std::pair{0, 0}));
}

TEST_F(SemaphoresTest, ACallCountsWhereItsFirstOperationThatCannotProceedIs) {
  ASSERT_EQ(op({{0, -1, 0}, {1, -1, 0}}), waits);
  EXPECT_EQ(waiting(0), (std::pair{1, 0}));
  EXPECT_EQ(waiting(1), (std::pair{0, 0}));
  ASSERT_EQ(op({{0, 1, 0}}), 0);
  EXPECT_EQ(waiting(0), (std::pair{0, 0}));
  EXPECT_EQ(waiting(1), (std::pair{1, 0}));
  ASSERT_EQ(op({{0, 0, 0}, {1, 0, 0}}), waits);
  EXPECT_EQ(waiting(0), (std::pair{0, 1}));
  ASSERT_EQ(op({{1, 1, 0}}), 0);
  EXPECT_THAT(sets.take_answers(), ElementsAre(answer(3), answer(1)));
}

TEST_F(SemaphoresTest, FirstComeFirstServedAmongThoseWhoCan) {
  ASSERT_EQ(op({{0, -2, 0}}), waits);
  ASSERT_EQ(op({{0, -1, 0}}), waits);
  ASSERT_EQ(op({{0, -1, 0}}), waits);
  ASSERT_EQ(op({{0, 1, 0}}), 0);
  EXPECT_THAT(sets.take_answers(), ElementsAre(answer(2)));
  ASSERT_EQ(op({{0, 3, 0}}), 0);
  EXPECT_THAT(sets.take_answers(), ElementsAre(answer(1), answer(3)));
}

TEST_F(SemaphoresTest, OneWhoProceedsMayLetAnEarlierOneProceed) {
  ASSERT_EQ(op({{1, -1, 0}}), waits);
  ASSERT_EQ(op({{0, -1, 0}, {1, 1, 0}}), waits);
  ASSERT_EQ(op({{0, 1, 0}}), 0);
  EXPECT_THAT(sets.take_answers(), ElementsAre(answer(2), answer(1)));
  EXPECT_THAT(values(), ElementsAre(0, 0));
}

TEST_F(SemaphoresTest, OneWhoBringsItToZeroLetsThoseGoWhoWaitForThat) {
  ASSERT_EQ(sets.set_value(ann, id, 0, 2), 0);
  ASSERT_EQ(op({{0, -3, 0}}), waits);
  ASSERT_EQ(op({{0, 0, 0}}), waits);
  ASSERT_EQ(op({{0, 0, 0}, {0, 5, 0}}), waits);
  EXPECT_EQ(waiting(), (std::pair{1, 2}));
  ASSERT_EQ(op({{0, 1, 0}}), 0);
  EXPECT_THAT(sets.take_answers(), ElementsAre(answer(2), answer(1), answer(3)));
  EXPECT_THAT(values(), ElementsAre(5, 0));
}

// The lines of the semaphores become one while somebody waits with several operations: the last semaphore's first.
TEST_F(SemaphoresTest, LinesAreMergedAsLinuxMergesThem) {
  ASSERT_EQ(op({{0, -1, 0}}), waits);
  ASSERT_EQ(op({{1, -1, 0}}), waits);
  ASSERT_EQ(op({{0, -1, 0}, {1, -1, 0}}), waits);
  ASSERT_EQ(op({{0, -1, 0}}), waits);
  ASSERT_EQ(sets.set_all(ann, id, std::vector<std::uint16_t>{4, 4}), 0);
  EXPECT_THAT(sets.take_answers(), ElementsAre(answer(2), answer(1), answer(3), answer(4)));
}

TEST_F(SemaphoresTest, LinesAreSplitWhenTheLastOfThemWaitsNoMore) {
  ASSERT_EQ(op({{0, -1, 0}}), waits);
  ASSERT_EQ(op({{0, -9, 0}, {1, -1, 0}}), waits);
  ASSERT_EQ(op({{1, -1, 0}}), waits);
  EXPECT_TRUE(sets.cancel(2));
  EXPECT_EQ(waiting(0), (std::pair{1, 0}));
  EXPECT_EQ(waiting(1), (std::pair{1, 0}));
  EXPECT_TRUE(sets.cancel(1)) << "it stands in another line now";
  ASSERT_EQ(op({{1, 1, 0}}), 0);
  EXPECT_THAT(sets.take_answers(), ElementsAre(answer(3)));
}

// Linux looks at those who wait for zero only when something has become zero: not even to find that one must not wait.
TEST_F(SemaphoresTest, WithoutAZeroNobodyIsAskedWhoWaitsForZero) {
  ASSERT_EQ(sets.set_value(ann, id, 1, 1), 0);
  ASSERT_EQ(op({{0, 0, no_wait}, {1, 0, 0}}), waits);
  ASSERT_EQ(sets.set_all(ann, id, std::vector<std::uint16_t>{1, 1}), 0);
  EXPECT_THAT(sets.take_answers(), IsEmpty());
  EXPECT_EQ(waiting(1), (std::pair{0, 1}));
  ASSERT_EQ(sets.set_value(ann, id, 1, 0), 0);
  EXPECT_THAT(sets.take_answers(), ElementsAre(answer(1, EAGAIN)));
}

TEST_F(SemaphoresTest, WhoFindsAZeroIsItsLastUser) {
  ASSERT_EQ(op({{1, 0, 0}}), 0);
  EXPECT_EQ(pid(1), ann.pid);
  EXPECT_EQ(pid(0), Pid{});
}

TEST_F(SemaphoresTest, AnArrayMayFailAfterItHasWaited) {
  ASSERT_EQ(op({{0, -1, 0}, {1, -1, no_wait}}), waits);
  ASSERT_EQ(op({{0, 1, 0}}), 0);
  EXPECT_THAT(sets.take_answers(), ElementsAre(answer(1, EAGAIN)));
  EXPECT_THAT(values(), ElementsAre(1, 0));
  ASSERT_EQ(sets.set_all(ann, id, std::vector<std::uint16_t>{0, 32767}), 0);
  ASSERT_EQ(op({{0, -1, 0}, {1, 1, 0}}), waits);
  ASSERT_EQ(op({{0, 1, 0}}), 0);
  EXPECT_THAT(sets.take_answers(), ElementsAre(answer(3, ERANGE)));
  EXPECT_THAT(values(), ElementsAre(1, 32767));
}

TEST_F(SemaphoresTest, CancelledItHasNoEffectAndNoAnswer) {
  ASSERT_EQ(op({{0, -1, undo}}), waits);
  EXPECT_TRUE(sets.cancel(1));
  EXPECT_FALSE(sets.cancel(1));
  ASSERT_EQ(op({{0, 1, 0}}), 0);
  EXPECT_THAT(sets.take_answers(), IsEmpty());
  EXPECT_THAT(values(), ElementsAre(1, 0));
}

TEST_F(SemaphoresTest, WhatIsDoneCannotBeCancelled) {
  ASSERT_EQ(op({{0, -1, 0}}), waits);
  ASSERT_EQ(op({{0, 1, 0}}), 0);
  EXPECT_FALSE(sets.cancel(1)) << "its answer is on its way";
  EXPECT_THAT(sets.take_answers(), ElementsAre(answer(1)));
  EXPECT_FALSE(sets.cancel(1));
}

TEST_F(SemaphoresTest, TwoCallsDoNotWaitUnderOneTicket) {
  ASSERT_EQ(op({{0, -1, 0}}), waits);
  last = 0;
  EXPECT_THROW(op({{0, -1, 0}}), std::logic_error);
}

TEST_F(SemaphoresTest, RemovedAllWhoWaitAreTold) {
  ASSERT_EQ(op({{0, -1, 0}}), waits);
  ASSERT_EQ(op({{0, -1, undo}, {1, -1, undo}}, root, bobs), waits);
  EXPECT_EQ(sets.remove(bob, id), EPERM);
  EXPECT_EQ(sets.remove(ann, id), 0);
  EXPECT_THAT(sets.take_answers(), ::testing::UnorderedElementsAre(answer(1, EIDRM), answer(2, EIDRM)));
  EXPECT_EQ(op({{0, 1, 0}}), EINVAL);
  SetStat out;
  EXPECT_EQ(sets.stat(ann, id, out), EINVAL);
  EXPECT_EQ(sets.remove(ann, id), EINVAL);
  sets.ended(bobs, bob.pid);
  EXPECT_THAT(sets.take_answers(), IsEmpty());
}

// ---- undo

TEST_F(SemaphoresTest, TheEndOfAProcessUndoes) {
  ASSERT_EQ(op({{0, 3, undo}, {1, 2, 0}}), 0);
  ASSERT_EQ(op({{0, -1, undo}}), 0);
  ASSERT_EQ(op({{1, -2, undo}}), 0);
  now = 1010;
  sets.ended(bobs, bob.pid);
  EXPECT_THAT(values(), ElementsAre(2, 0)) << "not this one";
  sets.ended(anns, Pid{1, 7});
  EXPECT_THAT(values(), ElementsAre(0, 2));
  EXPECT_EQ(pid(0), (Pid{1, 7}));
  EXPECT_EQ(stat().otime, 1010);
  sets.ended(anns, Pid{1, 7});
  EXPECT_THAT(values(), ElementsAre(0, 2)) << "once only";
}

TEST_F(SemaphoresTest, UndoStaysWithinTheRange) {
  ASSERT_EQ(op({{0, 3, undo}, {1, 5, 0}}), 0);
  ASSERT_EQ(op({{1, -5, undo}, {0, -2, 0}}), 0);
  ASSERT_EQ(op({{1, 32767, 0}}), 0);
  sets.ended(anns, ann.pid);
  EXPECT_THAT(values(), ElementsAre(0, 32767));
}

TEST_F(SemaphoresTest, SettingForgetsWhatIsOwed) {
  ASSERT_EQ(op({{0, 3, undo}, {1, 3, undo}}), 0);
  ASSERT_EQ(sets.set_value(ann, id, 0, 7), 0);
  sets.ended(anns, ann.pid);
  EXPECT_THAT(values(), ElementsAre(7, 0));
  ASSERT_EQ(op({{0, 3, undo}, {1, 3, undo}}, root, bobs), 0);
  ASSERT_EQ(sets.set_all(ann, id, std::vector<std::uint16_t>{7, 8}), 0);
  sets.ended(bobs, bob.pid);
  EXPECT_THAT(values(), ElementsAre(7, 8));
}

TEST_F(SemaphoresTest, WhatIsOwedHasARange) {
  ASSERT_EQ(op({{0, 32767, undo}, {0, -32767, 0}}), 0);
  ASSERT_EQ(op({{0, 1, undo}}), 0) << "-32768";
  EXPECT_EQ(op({{0, 1, undo}}), ERANGE);
  EXPECT_EQ(op({{1, 1, undo}, {0, 1, undo}}), ERANGE);
  EXPECT_THAT(values(), ElementsAre(1, 0));
  sets.ended(anns, ann.pid);
  EXPECT_THAT(values(), ElementsAre(0, 0));
}

TEST_F(SemaphoresTest, UndoLetsOthersGoAndItsOwnCallsWaitNoMore) {
  ASSERT_EQ(sets.set_value(ann, id, 0, 1), 0);
  ASSERT_EQ(op({{0, -1, undo}}), 0);
  ASSERT_EQ(op({{0, -1, 0}}), waits) << "another thread of the process";
  ASSERT_EQ(op({{0, -1, 0}}, root, bobs), waits);
  sets.ended(anns, ann.pid);
  EXPECT_THAT(sets.take_answers(), ElementsAre(answer(3)));
  EXPECT_EQ(waiting(), (std::pair{0, 0}));
}

TEST_F(SemaphoresTest, ARefusedCallWithUndoIsSeenAtTheEnd) {
  ASSERT_EQ(op({{9, 1, undo}}), EFBIG);
  EXPECT_EQ(stat().otime, 0);
  sets.ended(anns, ann.pid);
  EXPECT_EQ(stat().otime, 1000) << "as Linux has it";
}

// ---- semctl

TEST_F(SemaphoresTest, OneOfThem) {
  std::int32_t out = -1;
  Pid who;
  EXPECT_EQ(sets.set_value(ann, id, 1, 9), 0);
  EXPECT_EQ(sets.get_value(ann, id, 1, out), 0);
  EXPECT_EQ(out, 9);
  EXPECT_EQ(sets.get_pid(ann, id, 1, who), 0);
  EXPECT_EQ(who, ann.pid);
  for (const std::int32_t number : {-1, 2}) {
    EXPECT_EQ(sets.get_value(ann, id, number, out), EINVAL);
    EXPECT_EQ(sets.get_pid(ann, id, number, who), EINVAL);
    EXPECT_EQ(sets.get_waiting(ann, id, number, true, out), EINVAL);
    EXPECT_EQ(sets.set_value(ann, id, number, 1), EINVAL);
    EXPECT_EQ(sets.get_value(bob, id, number, out), EACCES) << "the rights first";
    EXPECT_EQ(sets.set_value(bob, id, number, 1), EINVAL) << "the number first";
  }
  EXPECT_EQ(sets.set_value(bob, id, 0, 1), EACCES);
}

TEST_F(SemaphoresTest, ValuesOutOfRange) {
  EXPECT_EQ(sets.set_value(bob, id + 1, 7, 32768), ERANGE) << "before all else,";
  EXPECT_EQ(sets.set_value(bob, id, 0, -1), ERANGE);
  EXPECT_EQ(sets.set_value(bob, -1, 0, 32768), EINVAL) << "but for an id that can be none";
  EXPECT_EQ(sets.set_all(ann, id, std::vector<std::uint16_t>{1, 32768}), ERANGE);
  EXPECT_EQ(sets.set_all(bob, id, std::vector<std::uint16_t>{1, 32768}), EACCES);
  EXPECT_EQ(sets.set_all(ann, id, std::vector<std::uint16_t>{1}), EINVAL);
  EXPECT_THAT(values(), ElementsAre(0, 0));
}

TEST_F(SemaphoresTest, SetAllSaysWho) {
  EXPECT_EQ(sets.set_all(root, id, std::vector<std::uint16_t>{4, 5}), 0);
  EXPECT_THAT(values(), ElementsAre(4, 5));
  EXPECT_EQ(pid(0), root.pid);
  EXPECT_EQ(pid(1), root.pid);
}

TEST_F(SemaphoresTest, SetGivesItAway) {
  EXPECT_EQ(sets.set(bob, id, 11, 21, 0600), EPERM);
  EXPECT_EQ(sets.set(ann, id, ~0U, 21, 0600), EINVAL);
  EXPECT_EQ(sets.set(ann, id, 11, 21, 07640), 0);
  EXPECT_EQ(stat().perm.uid, 11U);
  EXPECT_EQ(stat().perm.mode, 0640U);
  EXPECT_EQ(sets.remove(bob, id), 0);
}

TEST_F(SemaphoresTest, ByIndex) {
  SetStat out;
  EXPECT_EQ(sets.stat(bob, id, out), EACCES);
  EXPECT_EQ(sets.stat_index(bob, index_of(id), true, out), EACCES);
  EXPECT_EQ(sets.stat_index(bob, index_of(id), false, out), 0);
  EXPECT_EQ(out.id, id);
  EXPECT_EQ(sets.stat_index(bob, index_of(id) + 1, false, out), EINVAL);
  EXPECT_EQ(sets.stat_index(bob, -1, false, out), EINVAL);
}

TEST(Pids, AreThemselvesAtHomeAndNobodyElsesElsewhere) {
  EXPECT_EQ(shown_to(1, {1, 4711}), 4711);
  EXPECT_EQ(shown_to(1, {}), 0);
  EXPECT_GT(shown_to(1, {2, 4711}), 1 << 22);
  EXPECT_NE(shown_to(1, {2, 4711}), shown_to(1, {3, 4711}));
}

TEST_F(SemaphoresTest, ASemaphoreThatIsSetIsOwedNothingUntilItIsUsedAgain) {
  EXPECT_EQ(op({{0, 3, undo}, {1, 2, undo}}), 0);
  EXPECT_EQ(sets.set_value(ann, id, 0, 7), 0);
  EXPECT_EQ(op({{0, 1, undo}}), 0);
  sets.ended(anns, {1, 100});
  EXPECT_THAT(values(), ElementsAre(7, 0));
}

}  // namespace
}  // namespace dsm::sysv
