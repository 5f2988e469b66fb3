// CountedPages in this very process: which faults it answers, and that all others end it as they would without it.
#include "labs/03-mmap/src/counted_pages.hpp"

#include <gtest/gtest.h>

#include <cerrno>

#include "labs/common/testing.hpp"

namespace {

using ipc::testing::Child;

// The signal that ends a child which does this; 0 if none does.
int signal_that_ends(const std::function<void()>& deed) {
  Child child([&] {
    deed();
    return 0;
  });
  const int status = child.wait();
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

TEST(CountedPages, CountsEachPageOnce) {
  const CountedPages pages(5);
  EXPECT_EQ(pages.faults(), 0);
  for (const std::size_t touched : {3U, 0U, 3U, 4U, 0U}) *pages.page(touched) = 'x';
  EXPECT_EQ(pages.faults(), 3);
  EXPECT_EQ(*pages.page(3), 'x');
  EXPECT_EQ(pages.faults(), 3);
}

TEST(CountedPages, OpenWhereverTheyAreTouched) {
  const CountedPages pages(3);
  *(pages.page(1) - 1) = 'a';  // the last byte of page 0
  *(pages.page(1) + 7) = 'b';
  EXPECT_EQ(pages.faults(), 2);
  EXPECT_EQ(ipc::testing::map_entry(const_cast<char*>(pages.page(2))).find("---p") != std::string::npos, true);
}

TEST(CountedPages, LeaveErrnoAlone) {
  const CountedPages pages(1);
  errno = EXDEV;
  *pages.page(0) = 'x';
  EXPECT_EQ(errno, EXDEV);
}

TEST(CountedPages, GiveTheSignalBack) {
  struct sigaction before {};
  struct sigaction after {};
  ::sigaction(SIGSEGV, nullptr, &before);
  { const CountedPages pages(1); }
  ::sigaction(SIGSEGV, nullptr, &after);
  EXPECT_EQ(before.sa_handler, after.sa_handler);
}

TEST(WildPointer, ToMemoryOfOthersEndsTheProgram) {
  EXPECT_EQ(signal_that_ends([] {
              const ipc::Mapping closed(nullptr, ipc::page_size(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
              const CountedPages pages(2);
              *pages.page(0) = 'x';
              *static_cast<volatile char*>(closed.data()) = 'x';
            }),
            SIGSEGV);
}

TEST(WildPointer, ToNoMemoryEndsTheProgram) {
  EXPECT_EQ(signal_that_ends([] {
              const CountedPages pages(2);
              *pages.page(0) = 'x';
              *reinterpret_cast<volatile char*>(ipc::page_size() / 2) = 'x';  // the first page is never mapped
            }),
            SIGSEGV);
}

TEST(WildPointer, ThatIsJumpedToEndsTheProgramAndDoesNotLoop) {
  EXPECT_EQ(signal_that_ends([] {
              const CountedPages pages(2);
              reinterpret_cast<void (*)()>(reinterpret_cast<std::uintptr_t>(pages.page(1)))();
            }),
            SIGSEGV);
}

TEST(WildPointer, IsWhatASignalFromOutsideIsTakenFor) {
  EXPECT_EQ(signal_that_ends([] {
              const CountedPages pages(2);
              ::kill(::getpid(), SIGSEGV);
            }),
            SIGSEGV);
}

}  // namespace
