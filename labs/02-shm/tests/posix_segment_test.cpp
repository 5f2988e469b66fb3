#include "ipc/posix_segment.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>

#include "labs/common/testing.hpp"

namespace {

using ipc::PosixSegment;
using ipc::testing::error_of;

const std::string folder = "/dev/shm";

PosixSegment create(std::size_t size = 100) { return PosixSegment::create("ipc02_test", size); }

// Objects of this process's that have a name.
int named() {
  const std::string own = "ipc02_test-" + std::to_string(::getpid()) + "-";
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().filename().string().rfind(own, 0) == 0) ++count;
  }
  return count;
}

TEST(PosixSegment, IsNewZeroAndForOurUserOnly) {
  PosixSegment segment = create();
  EXPECT_EQ(segment.size(), 100U);
  EXPECT_EQ(std::string(static_cast<char*>(segment.data()), 100), std::string(100, '\0'));
  struct stat status {};
  ASSERT_EQ(::stat((folder + segment.name()).c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0600U);
  EXPECT_EQ(status.st_size, 100);
  segment.remove();
}

TEST(PosixSegment, IsSharedWithAForkedChildAlsoAfterItsNameIsGone) {
  PosixSegment segment = create();
  segment.remove();
  EXPECT_EQ(named(), 0);
  ipc::testing::Child child([&] {
    std::strcpy(static_cast<char*>(segment.data()), "hello");
    return 0;
  });
  EXPECT_EQ(child.wait(), 0);
  EXPECT_STREQ(static_cast<char*>(segment.data()), "hello");
}

TEST(PosixSegment, KeepsItsNameUntilRemoved) {
  std::string name;
  {
    const PosixSegment segment = create();
    name = segment.name();
  }
  EXPECT_EQ(named(), 1);
  EXPECT_EQ(std::filesystem::remove(folder + name), true);
}

TEST(PosixSegment, LeavesNoDescriptorOpen) {
  const auto before = ipc::testing::open_descriptors();
  PosixSegment segment = create();
  EXPECT_EQ(ipc::testing::open_descriptors(), before);
  segment.remove();
}

TEST(PosixSegment, EachHasANameOfItsOwn) {
  PosixSegment first = create(), second = create();
  EXPECT_NE(first.name(), second.name());
  first.remove();
  second.remove();
  EXPECT_EQ(error_of([&] { second.remove(); }), ENOENT);
}

TEST(PosixSegment, LeavesNothingWhenItCannotBeMade) {
  EXPECT_EQ(error_of([] { (void)create(0); }), EINVAL);
  EXPECT_NE(error_of([] { (void)create(std::size_t{1} << 62); }), 0);
  EXPECT_NE(error_of([] { (void)PosixSegment::create(std::string(300, 'x'), 1); }), 0);
  EXPECT_EQ(named(), 0);
}

TEST(PosixSegment, CanBeMovedAndUnmapsWhatItHeld) {
  PosixSegment first = create(), second = create();
  first.remove();
  second.remove();
  void* const kept = second.data();
  const void* const replaced = first.data();
  first = std::move(second);
  EXPECT_EQ(first.data(), kept);
  EXPECT_EQ(ipc::testing::map_entry(replaced), "");
  const PosixSegment third(std::move(first));
  EXPECT_NE(ipc::testing::map_entry(third.data()), "");
}

}  // namespace
