// Segments, row by row of what shmget(2), shmat(2) and shmctl(2) promise. differential_test asks the kernel itself.
#include "dsm/sysv/segments.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/ipc.h>
#include <sys/shm.h>

#include <cerrno>
#include <stdexcept>

namespace dsm::sysv {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const Caller ann{.pid = {1, 100}, .uid = 10, .gid = 20}, bob{.pid = {2, 100}, .uid = 11, .gid = 21},
    root{.pid = {1, 1}};

struct SegmentsTest : ::testing::Test {
  std::int64_t now = 1000;
  std::vector<std::int32_t> gone{};
  Segments segments{{.max_size = 10'000, .max_pages = 5, .max_count = 3},
                    [this] { return now; },
                    [this](std::int32_t id) { gone.push_back(id); }};

  std::int32_t make(const Caller& who, std::int32_t key = IPC_PRIVATE, std::uint64_t size = 100,
                    std::int32_t flags = 0600) {
    std::int32_t id = -1;
    EXPECT_EQ(segments.get(who, key, size, IPC_CREAT | flags, id), 0);
    return id;
  }
  int get(const Caller& who, std::int32_t key, std::uint64_t size, std::int32_t flags) {
    std::int32_t id = -1;
    return segments.get(who, key, size, flags, id);
  }
  SegmentStat stat(std::int32_t id) {
    SegmentStat out;
    EXPECT_EQ(segments.stat(root, id, out), 0);
    return out;
  }
};

TEST_F(SegmentsTest, ANewOneHasTheCallersIdsNineBitsAndTheExactSize) {
  const SegmentStat made = stat(make(ann, 7, 4097, 07654 & ~SHM_HUGETLB));
  EXPECT_EQ(made.perm.key, 7);
  EXPECT_EQ(made.perm.uid, 10U);
  EXPECT_EQ(made.perm.cuid, 10U);
  EXPECT_EQ(made.perm.gid, 20U);
  EXPECT_EQ(made.perm.cgid, 20U);
  EXPECT_EQ(made.perm.mode, 0654U);
  EXPECT_EQ(made.size, 4097U);
  EXPECT_EQ(made.cpid, ann.pid);
  EXPECT_EQ(made.lpid, Pid{});
  EXPECT_EQ(made.ctime, 1000);
  EXPECT_EQ(made.atime + made.dtime, 0);
  EXPECT_EQ(made.nattch, 0U);
  EXPECT_EQ(segments.totals().pages, 2U);
}

TEST_F(SegmentsTest, GetFindsByKey) {
  EXPECT_EQ(get(ann, 7, 100, 0600), ENOENT);
  EXPECT_EQ(get(ann, 7, 100, IPC_EXCL | 0600), ENOENT);
  const std::int32_t id = make(ann, 7);
  for (const std::uint64_t size : {0, 1, 100}) {
    std::int32_t again = -1;
    EXPECT_EQ(segments.get(ann, 7, size, IPC_CREAT | 0600, again), 0);
    EXPECT_EQ(again, id);
  }
  EXPECT_EQ(get(ann, 7, 101, 0600), EINVAL) << "its exact size counts, not its pages";
  EXPECT_EQ(get(ann, 7, 100, IPC_EXCL | 0600), 0) << "IPC_EXCL alone says nothing";
  EXPECT_EQ(get(ann, 7, 101, IPC_CREAT | IPC_EXCL | 0600), EEXIST) << "before the size is looked at";
}

TEST_F(SegmentsTest, GetAsksForTheRightsInItsFlags) {
  make(ann, 7, 100, 0640);
  EXPECT_EQ(get(bob, 7, 100, 0), 0);
  EXPECT_EQ(get(bob, 7, 100, 0400), EACCES);
  EXPECT_EQ(get(bob, 7, 101, 0400), EINVAL) << "the size first";
  EXPECT_EQ(get(ann, 7, 100, 0600), 0);
  EXPECT_EQ(get(ann, 7, 100, 0700), EACCES);
  EXPECT_EQ(get(root, 7, 100, 0777), 0);
}

TEST_F(SegmentsTest, PrivateIsAlwaysNew) {
  const std::int32_t one = make(ann), two = make(ann);
  EXPECT_NE(one, two);
  EXPECT_EQ(stat(two).perm.key, 0);
  std::int32_t three = -1;
  EXPECT_EQ(segments.get(ann, IPC_PRIVATE, 100, 0600, three), 0) << "IPC_CREAT is not needed";
}

TEST_F(SegmentsTest, LimitsOfSizeNumberAndPages) {
  EXPECT_EQ(get(ann, 1, 0, IPC_CREAT), EINVAL);
  EXPECT_EQ(get(ann, 1, 10'001, IPC_CREAT), EINVAL);
  EXPECT_EQ(get(ann, 1, ~std::uint64_t{0}, IPC_CREAT), EINVAL);
  make(ann, 1, 10'000);
  EXPECT_EQ(get(ann, 2, 8193, IPC_CREAT), ENOSPC) << "3 + 3 pages";
  make(ann, 2, 1);
  make(ann, 3, 1);
  EXPECT_EQ(get(ann, 4, 1, IPC_CREAT), ENOSPC) << "a fourth";
  EXPECT_EQ(get(ann, 4, 10'001, IPC_CREAT), EINVAL);
  EXPECT_EQ(segments.totals().used, 3U);
  EXPECT_EQ(segments.totals().pages, 5U);
}

TEST_F(SegmentsTest, PagesOfTheLargestSizeDoNotOverflow) {
  Segments all(
      {.max_size = ~std::uint64_t{0}, .max_pages = ~std::uint64_t{0}, .max_count = 2}, [] { return 0; },
      [](std::int32_t) {});
  std::int32_t id = -1;
  EXPECT_EQ(all.get(root, 1, ~std::uint64_t{0}, IPC_CREAT, id), 0);
  EXPECT_EQ(all.totals().pages, std::uint64_t{1} << 52U);
}

TEST_F(SegmentsTest, NoHugePagesAreSetAside) { EXPECT_EQ(get(root, 1, 100, IPC_CREAT | SHM_HUGETLB | 0600), ENOMEM); }

TEST_F(SegmentsTest, AttachDetachAndForkAreCounted) {
  const std::int32_t id = make(ann);
  now = 1001;
  EXPECT_EQ(segments.attach(bob, id, 0), EACCES);
  EXPECT_EQ(segments.attach(ann, id, 0), 0);
  EXPECT_EQ(stat(id).atime, 1001);
  EXPECT_EQ(stat(id).lpid, ann.pid);
  EXPECT_EQ(stat(id).dtime, 0);
  now = 1002;
  segments.inherit(id, Pid{3, 5});
  EXPECT_EQ(stat(id).nattch, 2U);
  EXPECT_EQ(stat(id).atime, 1002) << "the kernel's shm_open() takes it for an attach";
  EXPECT_EQ(stat(id).lpid, (Pid{3, 5}));
  now = 1003;
  segments.detach(id, Pid{3, 6});
  EXPECT_EQ(stat(id).nattch, 1U);
  EXPECT_EQ(stat(id).atime, 1002);
  EXPECT_EQ(stat(id).dtime, 1003);
  EXPECT_EQ(stat(id).lpid, (Pid{3, 6}));
  EXPECT_EQ(stat(id).ctime, 1000);
}

TEST_F(SegmentsTest, WhatAnAttachNeeds) {
  const std::int32_t id = make(ann, 7, 100, 0645);
  EXPECT_EQ(segments.attach(bob, id, 0), EACCES);
  EXPECT_EQ(segments.attach(bob, id, SHM_RDONLY), 0);
  EXPECT_EQ(segments.attach(bob, id, SHM_RDONLY | SHM_EXEC), 0);
  EXPECT_EQ(segments.attach(ann, id, SHM_EXEC), EACCES) << "the owner's class has no x";
  EXPECT_EQ(segments.attach(ann, id + ids_per_sequence, 0), EINVAL);
  EXPECT_EQ(segments.attach(ann, id + 1, 0), EINVAL);
  EXPECT_EQ(segments.attach(ann, -1, 0), EINVAL);
}

TEST_F(SegmentsTest, RemovedWhileNobodyHasItItIsGone) {
  const std::int32_t id = make(ann, 7);
  EXPECT_EQ(segments.remove(bob, id), EPERM);
  EXPECT_EQ(segments.remove(ann, id), 0);
  EXPECT_THAT(gone, ElementsAre(id));
  EXPECT_EQ(segments.find(id), nullptr);
  SegmentStat out;
  EXPECT_EQ(segments.stat(ann, id, out), EINVAL);
  EXPECT_EQ(segments.remove(ann, id), EINVAL);
  EXPECT_EQ(segments.attach(ann, id, 0), EINVAL);
  EXPECT_EQ(segments.set(ann, id, 10, 20, 0600), EINVAL);
  EXPECT_EQ(segments.lock(ann, id, true), EINVAL);
  EXPECT_EQ(get(ann, 7, 0, 0), ENOENT);
  EXPECT_EQ(segments.totals().pages, 0U);
}

TEST_F(SegmentsTest, RemovedWhileAttachedItGoesWithTheLast) {
  const std::int32_t id = make(ann, 7);
  ASSERT_EQ(segments.attach(ann, id, 0), 0);
  EXPECT_EQ(segments.remove(ann, id), 0);
  EXPECT_EQ(stat(id).perm.mode, 0600U | SHM_DEST);
  EXPECT_EQ(stat(id).perm.key, 0);
  EXPECT_EQ(get(ann, 7, 0, 0), ENOENT);
  const std::int32_t other = make(ann, 7);
  EXPECT_NE(other, id) << "the key is free";
  EXPECT_EQ(segments.attach(ann, id, 0), 0) << "by its id it can still be attached";
  EXPECT_EQ(segments.remove(ann, id), 0) << "again";
  EXPECT_EQ(segments.set(ann, id, 10, 20, 0640), 0);
  EXPECT_EQ(stat(id).perm.mode, 0640U | SHM_DEST);
  segments.detach(id, ann.pid);
  EXPECT_THAT(gone, IsEmpty());
  segments.detach(id, ann.pid);
  EXPECT_THAT(gone, ElementsAre(id));
  EXPECT_EQ(segments.find(id), nullptr);
  EXPECT_EQ(get(ann, 7, 0, 0), 0) << "the other one has the key";
}

TEST_F(SegmentsTest, SetGivesItAwayAndTheCreatorKeepsControl) {
  const std::int32_t id = make(ann);
  now = 1005;
  EXPECT_EQ(segments.set(bob, id, 11, 21, 0600), EPERM);
  EXPECT_EQ(segments.set(ann, id, 11, 21, 07066), 0);
  const SegmentStat after = stat(id);
  EXPECT_EQ(after.perm.uid, 11U);
  EXPECT_EQ(after.perm.gid, 21U);
  EXPECT_EQ(after.perm.cuid, 10U);
  EXPECT_EQ(after.perm.mode, 0066U);
  EXPECT_EQ(after.ctime, 1005);
  EXPECT_EQ(segments.attach(bob, id, 0), EACCES) << "the owner's bits, though others have more";
  EXPECT_EQ(segments.set(ann, id, ~0U, 21, 0600), EINVAL);
  EXPECT_EQ(segments.set(ann, id, 11, ~0U, 0600), EINVAL);
  EXPECT_EQ(segments.remove(bob, id), 0) << "a new owner may";
}

TEST_F(SegmentsTest, LockIsNotedInTheMode) {
  const std::int32_t id = make(ann);
  EXPECT_EQ(segments.lock(bob, id, true), EPERM);
  EXPECT_EQ(segments.lock(bob, id, false), EPERM);
  EXPECT_EQ(segments.lock(ann, id, true), 0);
  EXPECT_EQ(stat(id).perm.mode, 0600U | SHM_LOCKED);
  EXPECT_EQ(segments.lock(ann, id, false), 0);
  EXPECT_EQ(segments.lock(ann, id, false), 0);
  EXPECT_EQ(stat(id).perm.mode, 0600U);
  EXPECT_EQ(stat(id).ctime, 1000);
}

TEST_F(SegmentsTest, ByIndex) {
  const std::int32_t id = make(ann, 7);
  SegmentStat out;
  EXPECT_EQ(segments.stat(bob, id, out), EACCES);
  EXPECT_EQ(segments.stat_index(bob, index_of(id), true, out), EACCES);
  EXPECT_EQ(segments.stat_index(bob, index_of(id), false, out), 0);
  EXPECT_EQ(out.id, id);
  EXPECT_EQ(segments.stat_index(ann, index_of(id) + 1, false, out), EINVAL);
  EXPECT_EQ(segments.stat_index(ann, -1, false, out), EINVAL);
  EXPECT_EQ(segments.totals().highest_index, index_of(id));
}

TEST_F(SegmentsTest, AnIdThatIsGoneComesBackLate) {
  std::vector<std::int32_t> ids;
  for (int i = 0; i < 200; ++i) {
    ids.push_back(make(ann));
    ASSERT_EQ(segments.remove(ann, ids.back()), 0);
  }
  // 64 indices in turn, then the next sequence number.
  EXPECT_EQ(ids[0], 0);
  EXPECT_EQ(ids[63], 63);
  EXPECT_EQ(ids[64], ids_per_sequence);
  EXPECT_EQ(ids[199], 3 * ids_per_sequence + 7);
  EXPECT_EQ(sequence_of(ids[199]), 3);
}

TEST_F(SegmentsTest, WhatWasNotAttachedIsNotDetached) {
  const std::int32_t id = make(ann);
  EXPECT_THROW(segments.detach(id, ann.pid), std::logic_error);
  EXPECT_THROW(segments.inherit(id, ann.pid), std::logic_error);
  EXPECT_THROW(segments.detach(99, ann.pid), std::logic_error);
}

TEST(Ids, SequenceNumbersStayBelowTheSign) {
  Ids ids;
  std::map<std::int32_t, int> used;
  std::int32_t last = 0, highest = 0;
  for (int i = 0; i < 64 * 65535 + 1; ++i) highest = std::max(highest, last = ids.next(used));
  EXPECT_EQ(highest, 65534 * ids_per_sequence + 63);
  EXPECT_EQ(last, 0);
}

TEST(Ids, AFullRoundGrowsWithTheirNumber) {
  Ids ids;
  std::map<std::int32_t, int> used;
  for (int i = 0; i < ids_per_sequence; ++i) {
    const std::int32_t id = ids.next(used);
    ASSERT_GE(id, 0);
    ASSERT_TRUE(used.emplace(index_of(id), i).second) << id;
  }
  EXPECT_EQ(used.rbegin()->first, ids_per_sequence - 1);
}

}  // namespace
}  // namespace dsm::sysv
