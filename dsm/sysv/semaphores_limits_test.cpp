// What one agent may ask of semaphore sets at most, where Linux has only the memory there is.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/ipc.h>
#include <sys/sem.h>

#include <cerrno>

#include "dsm/sysv/semaphores.hpp"

namespace dsm::sysv {
namespace {

using ::testing::ElementsAre;
using Answer = SemaphoreSets::Answer;

constexpr std::int16_t no_wait = IPC_NOWAIT, undo = SEM_UNDO;
const Caller ann{.pid = {1, 100}, .uid = 10, .gid = 20};
constexpr Owner anns{1, 1}, bobs{2, 1};

TEST(SemaphoreLimits, OnlySoManyWaitWhereSomebodyWaitsWithSeveralOperations) {
  SemaphoreSets few{{.together = 5}, [] { return 1; }};
  std::int32_t id = -1;
  Ticket last = 0;
  ASSERT_EQ(few.get(ann, IPC_PRIVATE, 3, IPC_CREAT | 0600, id), 0);
  const auto operate = [&](std::vector<SemOp> ops) { return few.operate(ann, anns, id, ops, ++last); };
  for (int i = 0; i < 4; ++i) EXPECT_EQ(operate({{0, -1, 0}}), waits);
  EXPECT_EQ(operate({{0, -1, 0}, {1, -1, 0}}), ENOMEM) << "all would stand in one line";
  for (int i = 0; i < 4; ++i) EXPECT_EQ(operate({{0, -1, 0}}), waits) << "each semaphore has its own line";
  std::int32_t count = 0;
  EXPECT_EQ(few.get_waiting(ann, id, 0, false, count), 0);
  EXPECT_EQ(count, 8);
  EXPECT_EQ(few.set_value(ann, id, 0, 6), 0);
  EXPECT_THAT(few.take_answers(), ::testing::SizeIs(6));
  EXPECT_EQ(operate({{0, -1, 0}, {1, -1, 0}}), waits);
  EXPECT_EQ(operate({{2, -1, 0}}), waits);
  EXPECT_EQ(operate({{2, -1, 0}}), ENOMEM);
  EXPECT_EQ(operate({{2, -1, no_wait}}), EAGAIN) << "that does not wait";
  EXPECT_EQ(operate({{0, 3, 0}, {1, 1, 0}, {2, 1, 0}}), 0);
  EXPECT_THAT(few.take_answers(), ElementsAre(Answer{8, 0}, Answer{9, 0}, Answer{10, 0}, Answer{11, 0}));
}

TEST(SemaphoreLimits, AnAgentsProcessesOweOnlySoMuch) {
  SemaphoreSets few{{.undos = 5}, [] { return 1; }};
  std::int32_t id = -1;
  Ticket last = 0;
  ASSERT_EQ(few.get(ann, IPC_PRIVATE, 5, IPC_CREAT | 0600, id), 0);
  const auto operate = [&](std::uint16_t number, Owner owner) {
    return few.operate(ann, owner, id, std::vector<SemOp>{{number, 1, undo}}, ++last);
  };
  EXPECT_EQ(operate(0, anns), 0);
  EXPECT_EQ(operate(0, {1, 2}), 0);
  EXPECT_EQ(operate(1, {1, 2}), 0);
  for (int i = 0; i < 9; ++i) EXPECT_EQ(operate(0, {1, 2}), 0) << "what it has takes no more room";
  EXPECT_EQ(operate(2, anns), ENOMEM);
  EXPECT_EQ(operate(2, bobs), 0) << "another agent's";
  few.ended({1, 2}, {1, 100});
  EXPECT_EQ(operate(2, anns), 0);
  EXPECT_EQ(operate(3, anns), 0);
  EXPECT_EQ(operate(4, anns), 0);
  EXPECT_EQ(operate(1, anns), ENOMEM);
  EXPECT_EQ(operate(4, anns), 0) << "who holds a lock can give it back";
  EXPECT_EQ(few.remove(ann, id), 0);
  ASSERT_EQ(few.get(ann, IPC_PRIVATE, 5, IPC_CREAT | 0600, id), 0);
  EXPECT_EQ(operate(1, anns), 0);
}

TEST(SemaphoreLimits, AllProcessesOweOnlySoMuch) {
  SemaphoreSets few{{.all_undos = 5}, [] { return 1; }};
  std::int32_t id = -1;
  ASSERT_EQ(few.get(ann, IPC_PRIVATE, 5, IPC_CREAT | 0600, id), 0);
  const auto operate = [&](Owner owner, Ticket ticket) {
    return few.operate(ann, owner, id, std::vector<SemOp>{{0, 1, undo}}, ticket);
  };
  EXPECT_EQ(operate(anns, 1), 0);
  EXPECT_EQ(operate(bobs, 2), 0);
  EXPECT_EQ(operate({3, 1}, 3), ENOMEM);
  few.ended(anns, {1, 100});
  EXPECT_EQ(operate({3, 1}, 4), 0);
}

}  // namespace
}  // namespace dsm::sysv
