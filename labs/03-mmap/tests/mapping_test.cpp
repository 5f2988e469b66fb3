#include "ipc/mapping.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>

#include "ipc/signals.hpp"
#include "labs/common/testing.hpp"

namespace {

using ipc::Fd;
using ipc::Mapping;
using ipc::testing::Child;
using ipc::testing::error_of;
using ipc::testing::map_entry;
using ipc::testing::TempDir;

const std::size_t page = ipc::page_size();

bool is_mapped(void* address) {
  unsigned char resident = 0;
  return ::mincore(address, page, &resident) == 0 || errno != ENOMEM;
}

Mapping anonymous(std::size_t length, int protection = PROT_READ | PROT_WRITE) {
  return Mapping(nullptr, length, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

Fd file_of(const TempDir& folder, const std::string& content, int flags = O_RDWR) {
  const std::string path = folder.path("file");
  Fd made(::open(path.c_str(), O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600));
  EXPECT_EQ(::write(made.get(), content.data(), content.size()), static_cast<ssize_t>(content.size()));
  return Fd(::open(path.c_str(), flags | O_CLOEXEC));
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const std::exception& failure) {
    return failure.what();
  }
  return {};
}

TEST(Pages, RoundDownAndUp) {
  EXPECT_EQ(page, static_cast<std::size_t>(::getpagesize()));
  EXPECT_EQ(ipc::page_floor(0), 0U);
  EXPECT_EQ(ipc::page_ceil(0), 0U);
  EXPECT_EQ(ipc::page_floor(1), 0U);
  EXPECT_EQ(ipc::page_ceil(1), page);
  EXPECT_EQ(ipc::page_floor(page - 1), 0U);
  EXPECT_EQ(ipc::page_ceil(page - 1), page);
  EXPECT_EQ(ipc::page_floor(page), page);
  EXPECT_EQ(ipc::page_ceil(page), page);
  EXPECT_EQ(ipc::page_floor(7 * page + 3), 7 * page);
  EXPECT_EQ(ipc::page_ceil(7 * page + 3), 8 * page);
}

TEST(Mapping, UnmapsWhenItGoes) {
  char* address = nullptr;
  {
    const Mapping mapping = anonymous(3 * page);
    address = mapping.data();
    EXPECT_EQ(mapping.size(), 3 * page);
    EXPECT_TRUE(is_mapped(address));
  }
  EXPECT_FALSE(is_mapped(address));
}

TEST(Mapping, MovesAndFreesWhatItHeld) {
  Mapping a = anonymous(page);
  char* const first = a.data();
  first[0] = 'a';
  Mapping b = anonymous(page);
  char* const second = b.data();
  b = std::move(a);
  EXPECT_EQ(b.data(), first);
  EXPECT_EQ(b.data()[0], 'a');
  EXPECT_FALSE(is_mapped(second));
  const Mapping c = std::move(b);
  EXPECT_EQ(c.data(), first);
  EXPECT_TRUE(is_mapped(first));
}

TEST(Mapping, ContainsItsBytesAndNoOthers) {
  const Mapping mapping = anonymous(2 * page);
  EXPECT_TRUE(mapping.contains(mapping.data()));
  EXPECT_TRUE(mapping.contains(mapping.data() + 2 * page - 1));
  EXPECT_FALSE(mapping.contains(mapping.data() + 2 * page));
  EXPECT_FALSE(mapping.contains(mapping.data() - 1));
  EXPECT_FALSE(mapping.contains(nullptr));
  EXPECT_FALSE(Mapping().contains(nullptr));
}

TEST(Mapping, FailureNamesTheObject) {
  const auto wrong = [] { Mapping(nullptr, page, PROT_READ, MAP_SHARED, -1, 0, "mmap of the moon"); };
  EXPECT_EQ(error_of(wrong), EBADF);
  EXPECT_EQ(message_of(wrong).rfind("mmap of the moon", 0), 0U);
  EXPECT_EQ(error_of([] { anonymous(0); }), EINVAL);
}

TEST(Mapping, NoReplaceLeavesWhatIsThere) {
  const Mapping there = anonymous(page);
  std::strcpy(there.data(), "mine");
  const auto again = [&] {
    Mapping(there.data(), page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  };
  EXPECT_EQ(error_of(again), EEXIST);
  EXPECT_STREQ(there.data(), "mine");
}

TEST(MapFile, WritesReachTheFile) {
  const TempDir folder;
  const Fd file = file_of(folder, "0123456789");
  {
    const Mapping mapping = ipc::map_file(file, 10, true, "file");
    EXPECT_EQ(std::string(mapping.data(), 10), "0123456789");
    std::memcpy(mapping.data(), "abc", 3);
  }
  EXPECT_EQ(ipc::testing::read_text(folder.path("file")), "abc3456789");
}

TEST(MapFile, WritesOfOthersAreSeen) {
  const TempDir folder;
  const Fd file = file_of(folder, "0123456789");
  const Mapping mapping = ipc::map_file(file, 4, false, "file");
  EXPECT_NE(map_entry(mapping.data()).find(" r--s "), std::string::npos);
  ASSERT_EQ(::pwrite(file.get(), "zz", 2, 1), 2);
  EXPECT_EQ(std::string(mapping.data(), 4), "0zz3");
}

TEST(MapFile, AShortFileIsAnErrorAndNoSigbus) {
  const TempDir folder;
  const Fd file = file_of(folder, "0123456789");
  EXPECT_THROW(static_cast<void>(ipc::map_file(file, 11, false, "numbers")), std::runtime_error);
  const std::string text = message_of([&] { static_cast<void>(ipc::map_file(file, 11, false, "numbers")); });
  EXPECT_NE(text.find("numbers: too short, it has 10 bytes and 11 are needed"), std::string::npos) << text;
  const Fd empty = file_of(folder, "");
  EXPECT_THROW(static_cast<void>(ipc::map_file(empty, 1, false, "empty")), std::runtime_error);
}

TEST(MapFile, WhatIsNoFileIsAnError) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const Fd read_end(ends[0]), write_end(ends[1]), folder(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (const Fd* file : {&read_end, &folder}) {
    const std::string text = message_of([&] { static_cast<void>(ipc::map_file(*file, 1, false, "thing")); });
    EXPECT_NE(text.find("thing: not a regular file"), std::string::npos) << text;
  }
  EXPECT_EQ(error_of([] { static_cast<void>(ipc::map_file(Fd(), 1, false, "nothing")); }), EBADF);
}

TEST(MapFile, WritingNeedsADescriptorForWriting) {
  const TempDir folder;
  const Fd file = file_of(folder, "0123456789", O_RDONLY);
  EXPECT_EQ(error_of([&] { static_cast<void>(ipc::map_file(file, 10, true, "file")); }), EACCES);
  EXPECT_EQ(ipc::map_file(file, 10, false, "file").size(), 10U);
  EXPECT_EQ(error_of([&] { static_cast<void>(ipc::map_file(file, 0, false, "file")); }), EINVAL);
}

TEST(Memfd, IsAllHolesAndNotInherited) {
  const Fd memory = ipc::make_memfd("test", std::size_t{1} << 40);
  struct stat status {};
  ASSERT_EQ(::fstat(memory.get(), &status), 0);
  EXPECT_EQ(status.st_size, off_t{1} << 40);
  EXPECT_EQ(status.st_blocks, 0);
  EXPECT_TRUE(::fcntl(memory.get(), F_GETFD) & FD_CLOEXEC);
  EXPECT_EQ(error_of([] { static_cast<void>(ipc::make_memfd("t", std::numeric_limits<std::size_t>::max())); }), EFBIG);
}

TEST(TwoViews, AreOneMemoryWithTwoPermissions) {
  const ipc::TwoViews views = ipc::map_two_views(4 * page, nullptr);
  EXPECT_NE(map_entry(views.application.data()).find(" ---s "), std::string::npos);
  EXPECT_NE(map_entry(views.alias.data()).find(" rw-s "), std::string::npos);
  std::strcpy(views.alias.data() + page, "through the alias");
  ASSERT_EQ(ipc::protect(views.application.data() + page, page, PROT_READ), 0);
  EXPECT_STREQ(views.application.data() + page, "through the alias");
  EXPECT_NE(map_entry(views.application.data()).find(" ---s "), std::string::npos) << "the other pages stay closed";
  ASSERT_EQ(ipc::protect(views.application.data() + page, page, PROT_READ | PROT_WRITE), 0);
  views.application.data()[page] = 'T';
  EXPECT_STREQ(views.alias.data() + page, "Through the alias");
}

TEST(TwoViews, AreNeitherForkedNorDumped) {
  const ipc::TwoViews views = ipc::map_two_views(4 * page, nullptr);
  for (const Mapping* view : {&views.application, &views.alias}) {
    const std::string entry = map_entry(view->data(), "smaps");
    const std::string flags = entry.substr(entry.find("VmFlags:")) + " ";
    EXPECT_NE(flags.find(" dc "), std::string::npos) << "no copy on fork: " << flags;
    EXPECT_NE(flags.find(" dd "), std::string::npos) << "not dumped: " << flags;
  }
  Child child([&] { return is_mapped(views.application.data()) || is_mapped(views.alias.data()) ? 1 : 0; });
  EXPECT_EQ(child.wait(), 0);
}

TEST(TwoViews, StandWhereTheyAreAskedTo) {
  void* const where = reinterpret_cast<void*>(0x5500'0000'0000);
  const ipc::TwoViews views = ipc::map_two_views(std::size_t{1} << 30, where);
  EXPECT_EQ(views.application.data(), where);
  EXPECT_NE(views.alias.data(), where);
  // A second one finds the place taken, and leaves nothing behind.
  const auto before = ipc::testing::open_descriptors();
  EXPECT_EQ(error_of([&] { static_cast<void>(ipc::map_two_views(page, where)); }), EEXIST);
  EXPECT_EQ(ipc::testing::open_descriptors(), before);
  EXPECT_EQ(views.application.data(), where);
}

TEST(Protect, SaysWhatIsWrong) {
  const Mapping mapping = anonymous(2 * page);
  EXPECT_EQ(ipc::protect(mapping.data(), page, PROT_READ), 0);
  EXPECT_EQ(ipc::protect(mapping.data() + 1, page, PROT_READ), EINVAL);
  char* gone = nullptr;
  {
    const Mapping brief = anonymous(page);
    gone = brief.data();
  }
  EXPECT_EQ(ipc::protect(gone, page, PROT_READ), ENOMEM);
}

volatile sig_atomic_t faults = 0;
char* region = nullptr;

void open_page(int, siginfo_t* info, void*) {
  const auto offset = static_cast<std::size_t>(static_cast<char*>(info->si_addr) - region);
  if (ipc::protect(region + ipc::page_floor(offset), ipc::page_size(), PROT_READ | PROT_WRITE) != 0) ::_exit(3);
  faults = faults + 1;
}

TEST(Protect, ServesAFaultHandler) {
  const ipc::TwoViews views = ipc::map_two_views(8 * page, nullptr);
  region = views.application.data();
  faults = 0;
  const ipc::ScopedAction handler(SIGSEGV, open_page);
  for (std::size_t i = 0; i < 8; ++i) {
    for (int twice = 0; twice < 2; ++twice)
      const_cast<volatile char*>(region)[i * page + 5] = static_cast<char>('a' + i);
  }
  EXPECT_EQ(faults, 8);
  for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(views.alias.data()[i * page + 5], static_cast<char>('a' + i));
}

TEST(Protect, TheKernelGetsAnErrorWhereAProgramGetsASignal) {
  const ipc::TwoViews views = ipc::map_two_views(page, nullptr);
  region = views.application.data();
  faults = 0;
  const ipc::ScopedAction handler(SIGSEGV, open_page);
  const Fd zero(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
  char* const target = region;
  EXPECT_EQ(::read(zero.get(), target, 1), -1);
  EXPECT_EQ(errno, EFAULT);
  EXPECT_EQ(faults, 0);
}

TEST(FileSize, IsThatOfNowAndOfRegularFilesOnly) {
  const TempDir folder;
  const Fd file = file_of(folder, "12345");
  EXPECT_EQ(ipc::file_size(file, "f"), 5U);
  ASSERT_EQ(::ftruncate(file.get(), 3), 0);
  EXPECT_EQ(ipc::file_size(file, "f"), 3U);
  const Fd device(::open("/dev/null", O_RDWR | O_CLOEXEC));
  EXPECT_EQ(message_of([&] { static_cast<void>(ipc::file_size(device, "null")); }),
            "null: not a regular file, it cannot be mapped");
  EXPECT_EQ(error_of([] { static_cast<void>(ipc::file_size(Fd(), "none")); }), EBADF);
}

TEST(CopyGuarded, CopiesAnyLengthBothWays) {
  std::string bytes(3 * page + 17, '\0');
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7 + i / 251);
  const Mapping memory = anonymous(4 * page);
  for (const std::size_t length : {std::size_t{0}, std::size_t{1}, page, page + 1, bytes.size()}) {
    std::memset(memory.data(), 'x', memory.size());
    EXPECT_TRUE(ipc::copy_guarded(memory.data() + 5, bytes.data(), length));
    EXPECT_EQ(std::string(memory.data() + 5, length), bytes.substr(0, length));
    EXPECT_EQ(memory.data()[5 + length], 'x');
    std::string back(length, '-');
    EXPECT_TRUE(ipc::copy_guarded(back.data(), memory.data() + 5, length));
    EXPECT_EQ(back, bytes.substr(0, length));
  }
}

TEST(CopyGuarded, OfWhatIsGoneIsFalseAndNoSignal) {
  const TempDir folder;
  const Fd file = file_of(folder, std::string(2 * page, 'a'));
  const Mapping mapping = ipc::map_file(file, 2 * page, true, "f");
  std::string copy(2 * page, '-');
  EXPECT_TRUE(ipc::copy_guarded(copy.data(), mapping.data(), copy.size()));
  ASSERT_EQ(::ftruncate(file.get(), static_cast<off_t>(page)), 0);
  EXPECT_FALSE(ipc::copy_guarded(copy.data(), mapping.data(), copy.size()));
  EXPECT_FALSE(ipc::copy_guarded(mapping.data(), copy.data(), copy.size()));
  EXPECT_FALSE(ipc::copy_guarded(copy.data(), mapping.data() + page, 1));
  EXPECT_FALSE(ipc::copy_guarded(copy.data(), mapping.data() + page - 4, 8)) << "half of a piece is not enough";
  EXPECT_TRUE(ipc::copy_guarded(copy.data(), mapping.data(), page));
}

TEST(CopyGuarded, KeepsNoDescriptor) {
  const Mapping closed = anonymous(page, PROT_NONE);
  const auto before = ipc::testing::open_descriptors();
  char byte = 0;
  EXPECT_TRUE(ipc::copy_guarded(&byte, "x", 1));
  EXPECT_FALSE(ipc::copy_guarded(&byte, closed.data(), 1));
  EXPECT_FALSE(ipc::copy_guarded(closed.data(), &byte, 1));
  EXPECT_EQ(ipc::testing::open_descriptors(), before);
}

}  // namespace
