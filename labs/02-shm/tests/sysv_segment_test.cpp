#include "ipc/sysv_segment.hpp"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <new>
#include <random>
#include <sstream>
#include <string>
#include <thread>

#include "labs/common/testing.hpp"

namespace {

using ipc::Mailbox;
using ipc::SysvSegment;
using ipc::testing::Child;
using ipc::testing::error_of;
using ipc::testing::map_entry;

// As `ipcs` would ask: is there still a segment of this id?
bool exists(int id) {
  struct shmid_ds status {};
  return ::shmctl(id, IPC_STAT, &status) == 0;
}

// Removes the segment even if an assertion leaves the test early.
class Removed {
 public:
  explicit Removed(int id) : id_(id) {}
  Removed(const Removed&) = delete;
  Removed& operator=(const Removed&) = delete;
  ~Removed() { ::shmctl(id_, IPC_RMID, nullptr); }

 private:
  int id_;
};

// Segments in the system's table that this process has made.
int segments_made_by(pid_t pid) {
  std::istringstream table(ipc::testing::read_text("/proc/sysvipc/shm"));
  std::string line;
  std::getline(table, line);
  int found = 0;
  while (std::getline(table, line)) {
    std::istringstream fields(line);
    std::string key, id, mode, size, creator;
    fields >> key >> id >> mode >> size >> creator;
    if (creator == std::to_string(pid)) ++found;
  }
  return found;
}

TEST(SysvSegment, IsNewZeroAndWhatWasAskedFor) {
  const SysvSegment segment = SysvSegment::create(5000, 0640);
  const Removed removed(segment.id());
  const struct shmid_ds status = segment.stat();
  EXPECT_EQ(status.shm_segsz, 5000U);
  EXPECT_EQ(status.shm_perm.mode & 0777, 0640);
  EXPECT_EQ(status.shm_nattch, 1U);
  EXPECT_EQ(status.shm_cpid, ::getpid());
  EXPECT_EQ(segment.size(), 5000U);
  const std::string zeros(5000, '\0');
  EXPECT_EQ(std::memcmp(segment.data(), zeros.data(), zeros.size()), 0);
}

TEST(SysvSegment, IsSharedWithAChildAndByItsId) {
  const SysvSegment segment = SysvSegment::create(4096);
  const Removed removed(segment.id());
  Child child([&] {
    const SysvSegment mine = SysvSegment::attach(segment.id());
    std::strcpy(static_cast<char*>(mine.data()), "by id");
    return mine.data() != segment.data() && mine.size() == 4096 ? 0 : 1;
  });
  EXPECT_EQ(child.wait(), 0);
  EXPECT_STREQ(static_cast<const char*>(segment.data()), "by id");
  EXPECT_EQ(segment.stat().shm_nattch, 1U) << "the child's two attachments are gone";
}

TEST(SysvSegment, DetachesWhenItGoesButStays) {
  int id = -1;
  {
    const SysvSegment segment = SysvSegment::create(4096);
    id = segment.id();
  }
  const Removed removed(id);
  struct shmid_ds status {};
  ASSERT_EQ(::shmctl(id, IPC_STAT, &status), 0);
  EXPECT_EQ(status.shm_nattch, 0U);
}

TEST(SysvSegment, RemovedGoesWithTheLastAttachAndCanBeAttachedUntilThen) {
  int id = -1;
  {
    SysvSegment segment = SysvSegment::create(4096);
    id = segment.id();
    segment.remove();
    EXPECT_TRUE(segment.stat().shm_perm.mode & SHM_DEST);
    const SysvSegment late = SysvSegment::attach(id);
    static_cast<char*>(segment.data())[7] = 'x';
    EXPECT_EQ(static_cast<const char*>(late.data())[7], 'x');
    EXPECT_EQ(late.stat().shm_nattch, 2U);
  }
  EXPECT_FALSE(exists(id));
  EXPECT_EQ(error_of([&] { static_cast<void>(SysvSegment::attach(id)); }), EINVAL);
}

TEST(SysvSegment, ReadOnlyIsReadOnly) {
  SysvSegment segment = SysvSegment::create(4096);
  segment.remove();
  const SysvSegment reader = SysvSegment::attach(segment.id(), true);
  EXPECT_NE(map_entry(segment.data()).find(" rw-s "), std::string::npos);
  EXPECT_NE(map_entry(reader.data()).find(" r--s "), std::string::npos);
}

TEST(SysvSegment, AKeyMustBeNew) {
  std::random_device random;
  const key_t key = static_cast<key_t>(random() | 1U);  // never IPC_PRIVATE, which is 0
  SysvSegment first = SysvSegment::create(4096, 0600, key);
  EXPECT_EQ(::shmget(key, 0, 0), first.id());
  EXPECT_EQ(error_of([&] { static_cast<void>(SysvSegment::create(4096, 0600, key)); }), EEXIST);
  first.remove();
  EXPECT_EQ(::shmget(key, 0, 0), -1) << "a removed segment has lost its key";
}

TEST(SysvSegment, NoSizeIsAnError) {
  EXPECT_EQ(error_of([] { static_cast<void>(SysvSegment::create(0)); }), EINVAL);
}

TEST(SysvSegment, FlagsArePassedOn) {
  // Far more than the memory of most machines: possible only if nothing is reserved.
  SysvSegment segment = SysvSegment::create(std::size_t{64} << 30, 0600, IPC_PRIVATE, SHM_NORESERVE);
  segment.remove();
  EXPECT_EQ(segment.stat().shm_segsz, std::size_t{64} << 30);
  static_cast<char*>(segment.data())[segment.size() - 1] = 1;
}

TEST(SysvSegment, NothingIsLeftIfAttachingFails) {
  Child child([] {
    struct rlimit limit {};
    ::getrlimit(RLIMIT_AS, &limit);
    const std::string used = ipc::testing::status_field("self", "VmSize");
    limit.rlim_cur = (std::stoull(used) << 10) + (rlim_t{256} << 20);
    if (::setrlimit(RLIMIT_AS, &limit) == -1) return 1;
    const int error = error_of(
        [] { static_cast<void>(SysvSegment::create(std::size_t{1} << 30, 0600, IPC_PRIVATE, SHM_NORESERVE)); });
    if (error != ENOMEM) return 2;
    return segments_made_by(::getpid()) == 0 ? 0 : 3;
  });
  EXPECT_EQ(child.wait(), 0);
}

TEST(SysvSegment, MovingKeepsOneAttachment) {
  SysvSegment a = SysvSegment::create(4096);
  a.remove();
  const int id = a.id();
  void* const data = a.data();
  SysvSegment b = std::move(a);
  EXPECT_EQ(b.id(), id);
  EXPECT_EQ(b.data(), data);
  EXPECT_EQ(b.stat().shm_nattch, 1U);

  SysvSegment c = SysvSegment::create(8192);
  c.remove();
  const int other = c.id();
  c = std::move(b);
  EXPECT_FALSE(exists(other)) << "what it held before is detached at once";
  EXPECT_EQ(c.id(), id);
  EXPECT_EQ(c.size(), 4096U);
  EXPECT_EQ(c.stat().shm_nattch, 1U);
}

TEST(SysvSegment, RemovingWhatIsGoneThrows) {
  const SysvSegment segment = SysvSegment::create(4096);
  SysvSegment same = SysvSegment::attach(segment.id());
  same.remove();
  const int id = segment.id();
  ::shmdt(segment.data());
  ::shmdt(same.data());
  ASSERT_FALSE(exists(id));
  const int error = error_of([&] { same.remove(); });
  EXPECT_TRUE(error == EINVAL || error == EIDRM) << error;
}

TEST(Mailbox, LosesNothingAndGivesNothingTwice) {
  Mailbox box{};
  std::int64_t value = 0;
  EXPECT_FALSE(box.take(value));
  EXPECT_TRUE(box.put(42));
  EXPECT_FALSE(box.put(43)) << "42 has not been taken";
  EXPECT_EQ(box.written(), 1U);
  EXPECT_EQ(box.acknowledged(), 0U);
  ASSERT_TRUE(box.take(value));
  EXPECT_EQ(value, 42);
  EXPECT_FALSE(box.take(value));
  EXPECT_TRUE(box.put(-1));
  ASSERT_TRUE(box.take(value));
  EXPECT_EQ(value, -1);
  EXPECT_EQ(box.written(), 2U);
  EXPECT_EQ(box.acknowledged(), 2U);
}

TEST(Mailbox, ZeroFilledMemoryIsAnEmptyMailbox) {
  SysvSegment segment = SysvSegment::create(sizeof(Mailbox));
  segment.remove();
  auto* const box = static_cast<Mailbox*>(segment.data());
  std::int64_t value = 0;
  EXPECT_FALSE(box->take(value));
  EXPECT_TRUE(box->put(0)) << "0 is a value like any other";
  EXPECT_TRUE(box->take(value));
}

// Takes `count` values, which must be 0, 3, 6 ...; 0 if they were.
int take_all(Mailbox& box, std::int64_t count) {
  for (std::int64_t i = 0; i < count;) {
    std::int64_t value = -1;
    if (!box.take(value)) {
      ::sched_yield();
    } else if (value != 3 * i++) {
      return 1;
    }
  }
  return 0;
}

void put_all(Mailbox& box, std::int64_t count) {
  for (std::int64_t i = 0; i < count;) {
    if (box.put(3 * i)) {
      ++i;
    } else {
      ::sched_yield();
    }
  }
}

// Both sides wait by giving their processor away. Where others want it too, each value may cost some of their time
// slices: 50,000 took minutes there.
constexpr std::int64_t values = 5'000;

TEST(Mailbox, BetweenThreadsAtFullSpeed) {
  Mailbox box{};
  int result = -1;
  std::thread reader([&] { result = take_all(box, values); });
  put_all(box, values);
  reader.join();
  EXPECT_EQ(result, 0);
  EXPECT_EQ(box.acknowledged(), static_cast<std::uint64_t>(values));
}

TEST(Mailbox, BetweenProcessesAtFullSpeed) {
  SysvSegment segment = SysvSegment::create(sizeof(Mailbox));
  segment.remove();
  auto* const box = new (segment.data()) Mailbox{};
  Child child([&] { return take_all(*box, values); });
  put_all(*box, values);
  EXPECT_EQ(child.wait(), 0);
  EXPECT_EQ(box->acknowledged(), static_cast<std::uint64_t>(values));
}

}  // namespace
