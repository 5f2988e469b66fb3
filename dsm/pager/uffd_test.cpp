// What only the userfaultfd pager does. What both do: any_pager_test.cpp.
#include "dsm/pager/uffd.hpp"

#include <errno.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <thread>

#include "dsm/pager/test_region.hpp"

namespace dsm::pager {
namespace {

using core::Access;
using testing::End;
using testing::in_child;
using testing::OpeningSink;
using testing::Region;

TEST(Uffd, CanBeUsedHere) {
  const std::string reason = testing::why_not(Kind::uffd);
  if (!reason.empty()) GTEST_SKIP() << reason;
}

class UffdWhereItCan : public ::testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(Pager, UffdWhereItCan, ::testing::ValuesIn(testing::usable({Kind::uffd})),
                         [](const auto& kind) { return std::string(name(kind.param)); });

TEST_P(UffdWhereItCan, SystemCallsMayUsePagesThatAreElsewhere) {
  const Region region(GetParam(), 8);
  const std::size_t page = ipc::page_size();
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const ipc::Fd out(ends[0]), in(ends[1]);
  ASSERT_EQ(write(in.get(), "from a pipe", 11), 11);
  EXPECT_EQ(read(out.get(), region.pager.base() + page - 4, 11), 11);  // into two pages
  EXPECT_EQ(std::memcmp(region.pager.frame(0) + page - 4, "from a pipe", 11), 0);

  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  const ipc::Fd here(pair[0]), there(pair[1]);
  std::memcpy(region.pager.frame(2) + 100, "by a socket", 11);
  EXPECT_EQ(send(here.get(), region.pager.base() + 2 * page + 100, 11, 0), 11);
  EXPECT_EQ(recv(there.get(), region.pager.base() + 3 * page, 11, 0), 11);
  EXPECT_EQ(std::memcmp(region.pager.frame(3), "by a socket", 11), 0);

  const std::pair<core::Page, Access> expected[] = {
      {0, Access::write}, {1, Access::write}, {2, Access::read}, {3, Access::write}};
  const auto seen = region.sink.seen();
  ASSERT_EQ(seen.size(), std::size(expected));
  for (std::size_t i = 0; i < seen.size(); ++i) EXPECT_EQ(std::pair(seen[i].page, seen[i].want), expected[i]) << i;
}

// Nobody gets on until all are there.
class MeetingSink final : public FaultSink {
 public:
  explicit MeetingSink(int expected) : missing_(expected) {}
  void on_fault(core::Page page, Access want, core::Site) noexcept override {
    if (missing_.fetch_sub(1) == 1) missing_.notify_all();
    for (int now = 0; (now = missing_.load()) > 0;) missing_.wait(now);
    pager->protect(page, want);
  }
  Pager* pager = nullptr;

 private:
  std::atomic<int> missing_;
};

TEST_P(UffdWhereItCan, AFaultThatTakesLongDoesNotStopOthers) {
  const End end = in_child([] {  // which SIGALRM ends, should it hang
    constexpr int threads = 20;
    MeetingSink sink(threads);
    const std::size_t page = ipc::page_size();
    UffdPager pager(threads * page, page, sink);
    sink.pager = &pager;
    std::vector<std::jthread> crew;
    for (std::size_t i = 0; i < threads; ++i) {
      crew.emplace_back([&pager, i] { *static_cast<volatile char*>(pager.base() + i * ipc::page_size()) = 1; });
    }
    return 0;
  });
  EXPECT_TRUE(end.exited(0)) << end.status << end.errors;
}

// Opens the page, and holds the fault up until it is told to go on.
class LingeringSink final : public FaultSink {
 public:
  void on_fault(core::Page page, Access want, core::Site) noexcept override {
    pager->protect(page, want);
    entered = true;
    entered.notify_all();
    go_on.wait(false);
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(20);
    while (!early && std::chrono::steady_clock::now() < end) sched_yield();  // time for others to run too early
    was_early = early.load();
  }
  Pager* pager = nullptr;
  std::atomic<bool> entered = false, go_on = false;
  std::atomic<bool> early = false;  // what must not be before the fault has been seen through
  bool was_early = false;
};

TEST_P(UffdWhereItCan, AThreadSleepsUntilItsFaultHasBeenSeenThrough) {
  LingeringSink sink;
  {
    UffdPager pager(ipc::page_size(), ipc::page_size(), sink);
    sink.pager = &pager;
    const std::jthread thread([&] {
      *static_cast<volatile char*>(pager.base()) = 1;
      sink.early = true;
    });
    sink.entered.wait(false);
    sink.go_on = true;
    sink.go_on.notify_all();
  }
  EXPECT_FALSE(sink.was_early);
}

TEST_P(UffdWhereItCan, SettlesWhenAllFaultsHaveBeenSeenThrough) {
  LingeringSink sink;
  {
    UffdPager pager(ipc::page_size(), ipc::page_size(), sink);
    sink.pager = &pager;
    const std::jthread thread([&] { *static_cast<volatile char*>(pager.base()) = 1; });
    sink.entered.wait(false);
    sink.go_on = true;
    sink.go_on.notify_all();
    pager.settle();
    sink.early = true;
  }
  EXPECT_FALSE(sink.was_early);
}

// As reclaim does: the entry goes, the page stays as it was.
TEST_P(UffdWhereItCan, WhatTheKernelTakesAwayComesBackUnasked) {
  for (const std::size_t page_size : {ipc::page_size(), 4 * ipc::page_size()}) {
    const Region region(GetParam(), 2, page_size);
    const auto take_away = [&] { return madvise(region.pager.base(), 2 * page_size, MADV_DONTNEED); };
    *region.at(0, page_size - 1) = 7;
    ASSERT_EQ(*region.at(1), 0);
    ASSERT_EQ(region.sink.seen().size(), 2U);
    ASSERT_EQ(take_away(), 0);
    EXPECT_EQ(*region.at(0, page_size - 1), 7);
    *region.at(0) = 8;
    EXPECT_EQ(*region.at(1), 0);
    EXPECT_EQ(region.sink.seen().size(), 2U);
    *region.at(1) = 9;  // for reading it had come back, no more
    EXPECT_EQ(region.sink.seen().size(), 3U);
    ASSERT_EQ(take_away(), 0);
    region.pager.protect(0, Access::read);
    *region.at(0) = 10;
    EXPECT_EQ(region.sink.seen().size(), 4U);
  }
}

TEST_P(UffdWhereItCan, ACheckerboardOfProtectionsIsStillOneMapping) {
  const auto mappings = [] {
    std::ifstream maps("/proc/self/maps");
    std::size_t count = 0;
    for (std::string line; std::getline(maps, line);) count += line.find("memfd:") != std::string::npos ? 1 : 0;
    return count;
  };
  constexpr std::size_t pages = 1000;
  const Region region(GetParam(), pages);
  EXPECT_EQ(mappings(), 2U);  // a view each
  for (std::size_t page = 0; page < pages; page += 2) *region.at(page) = 1;
  EXPECT_EQ(mappings(), 2U);
}

TEST_P(UffdWhereItCan, ItsThreadsAreGoneWithIt) {
  const auto threads = [] {
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;) {
      if (word == "Threads:" && status >> word) return word;
    }
    return std::string();
  };
  const std::string before = threads();
  {
    const Region region(GetParam(), 1);
    *region.at(0) = 1;
    EXPECT_NE(threads(), before);
  }
  EXPECT_EQ(threads(), before);
}

// ---- refusals -------------------------------------------------------------------------------------------------------

// What a kernel or an administrator may have said to the system call `number`; to ioctl only if the second argument is
// this one. From here on, and as long as this process lives.
bool answer_with(int error, std::uint32_t number, std::uint32_t request = 0) {
  const auto load = [](std::size_t offset) {
    return sock_filter{BPF_LD | BPF_W | BPF_ABS, 0, 0, static_cast<std::uint32_t>(offset)};
  };
  const auto skip_unless = [](std::uint32_t value, std::uint8_t how_many) {
    return sock_filter{BPF_JMP | BPF_JEQ | BPF_K, 0, how_many, value};
  };
  const bool any = number != SYS_ioctl;
  std::array<sock_filter, 6> program = {
      load(offsetof(seccomp_data, nr)),
      skip_unless(number, 3),
      load(any ? offsetof(seccomp_data, nr) : offsetof(seccomp_data, args) + sizeof(std::uint64_t)),
      skip_unless(any ? number : request, 1),
      sock_filter{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(error)},
      sock_filter{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}};
  sock_fprog filter{};
  filter.len = program.size();
  filter.filter = program.data();
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

// What a child is told that tries, once it has done `first`; it is one line.
template <class First>
std::string told_after(const First& first) {
  const End end = in_child([&] {
    if (!first()) return 3;
    const std::string reason = testing::why_not(Kind::uffd);
    dprintf(STDERR_FILENO, "%s\n", reason.c_str());
    return reason.empty() ? 2 : 0;
  });
  EXPECT_TRUE(end.exited(0)) << end.status;
  EXPECT_EQ(std::count(end.errors.begin(), end.errors.end(), '\n'), 1) << end.errors;
  return end.errors;
}

TEST(Uffd, SaysThatTheKernelHasItNot) {
  const std::string told = told_after([] { return answer_with(ENOSYS, SYS_userfaultfd); });
  EXPECT_NE(told.find("needs Linux 6.4"), std::string::npos) << told;
  EXPECT_NE(told.find("--pager sigsegv"), std::string::npos) << told;
}

TEST(Uffd, SaysThatPrivilegeIsMissing) {
  static constexpr std::uint32_t new_from_device = _IO(0xAA, 0x00);  // USERFAULTFD_IOC_NEW
  const std::string told =
      told_after([] { return answer_with(EPERM, SYS_userfaultfd) && answer_with(EPERM, SYS_ioctl, new_from_device); });
  EXPECT_NE(told.find("needs privilege"), std::string::npos) << told;
  EXPECT_NE(told.find("--pager sigsegv"), std::string::npos) << told;
}

TEST_P(UffdWhereItCan, SaysThatTheKernelIsTooOld) {
  const std::string told =
      told_after([] { return answer_with(EINVAL, SYS_ioctl, static_cast<std::uint32_t>(UFFDIO_API)); });
  EXPECT_NE(told.find("needs Linux 6.4"), std::string::npos) << told;
}

}  // namespace
}  // namespace dsm::pager
