// What every pager does, by whatever means.
#include <errno.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/random.h>

#include <barrier>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <system_error>
#include <thread>

#include "dsm/pager/test_region.hpp"

// Sanitizers must not put their own SIGSEGV handler under the pager's: these tests watch processes die of the signal.
extern "C" const char* __asan_default_options() { return "handle_segv=0"; }
extern "C" const char* __tsan_default_options() { return "handle_segv=0"; }
extern "C" const char* __ubsan_default_options() { return "handle_segv=0"; }

namespace dsm::pager {
namespace {

using core::Access;
using testing::End;
using testing::in_child;
using testing::OpeningSink;
using testing::Region;

class AnyPager : public ::testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(Pager, AnyPager, ::testing::ValuesIn(testing::usable({Kind::sigsegv, Kind::uffd})),
                         [](const auto& kind) { return std::string(name(kind.param)); });

TEST_P(AnyPager, StartsZeroInaccessibleAtItsAddress) {
  const Region region(GetParam(), 4);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(region.pager.base()), region_base);
  EXPECT_EQ(region.pager.size(), 4 * ipc::page_size());
  EXPECT_EQ(*region.at(3, 17), 0);
  ASSERT_EQ(region.sink.seen().size(), 1U);
}

TEST_P(AnyPager, HasPagesOfItsOwnBehindTheApplications) {
  const std::size_t page = ipc::page_size();
  OpeningSink sink;
  const auto pager = make(GetParam(), 2 * page, page, sink, 3 * page);
  sink.pager = pager.get();
  EXPECT_EQ(pager->size(), 2 * page);
  EXPECT_EQ(pager->own(), pager->base() + 3 * page);
  *static_cast<volatile char*>(pager->own() + 3 * page - 1) = 7;
  EXPECT_EQ(pager->frame(5)[page - 1], 7);
  ASSERT_EQ(sink.seen().size(), 1U);
  EXPECT_EQ(sink.seen()[0].page, 5U);
}

TEST_P(AnyPager, WhoRunsOverTheEndDiesBeforeThePagersOwnPages) {
  const End end = in_child([] {
    const std::size_t page = ipc::page_size();
    OpeningSink sink;
    const auto pager = make(GetParam(), 2 * page, page, sink, 3 * page);
    sink.pager = pager.get();
    *static_cast<volatile char*>(pager->base() + 2 * page - 1) = 1;
    *static_cast<volatile char*>(pager->base() + 2 * page) = 1;
    return 0;
  });
  EXPECT_TRUE(end.died_of(SIGSEGV)) << end.status;
}

TEST_P(AnyPager, TellsReadsFromWrites) {
  const Region region(GetParam(), 8);
  EXPECT_EQ(*region.at(2, 100), 0);
  *region.at(5, 4095) = 1;
  std::atomic_ref<int>(*reinterpret_cast<int*>(region.pager.base() + 3 * ipc::page_size())).fetch_add(1);
  *region.at(2, 7) = 1;
  const auto seen = region.sink.seen();
  ASSERT_EQ(seen.size(), 4U);
  const std::pair<core::Page, Access> expected[] = {
      {2, Access::read}, {5, Access::write}, {3, Access::write}, {2, Access::write}};
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(std::pair(seen[i].page, seen[i].want), expected[i]) << i;
    EXPECT_NE(seen[i].site, 0U);
  }
  // Under uffd a site is a thread, whatever it does.
  EXPECT_EQ(seen[0].site == seen[1].site, GetParam() == Kind::uffd);
}

TEST_P(AnyPager, ServesManyThreadsAtOnce) {
  constexpr std::size_t threads = 8;
  constexpr std::size_t pages_each = 64;
  const Region region(GetParam(), threads * pages_each);
  std::barrier start(threads);
  {
    std::vector<std::jthread> crew;
    for (std::size_t t = 0; t < threads; ++t) {
      crew.emplace_back([&region, &start, t] {
        start.arrive_and_wait();
        for (std::size_t i = 0; i < pages_each; ++i) {
          volatile char* byte = region.at(i * threads + t, t);
          if (i % 2 == 0 && *byte != 0) std::abort();
          *byte = static_cast<char>(t + 1);
        }
      });
    }
  }
  // Even pages of a thread: first read, then written. Odd ones: written straight away.
  std::vector<std::vector<Access>> by_page(threads * pages_each);
  for (const auto& fault : region.sink.seen()) by_page[fault.page].push_back(fault.want);
  for (std::size_t page = 0; page < by_page.size(); ++page) {
    const bool read_first = page / threads % 2 == 0;
    EXPECT_EQ(by_page[page], read_first ? std::vector({Access::read, Access::write}) : std::vector({Access::write}))
        << page;
    EXPECT_EQ(region.pager.frame(static_cast<core::Page>(page))[page % threads], static_cast<char>(page % threads + 1));
  }
}

class NosySink final : public OpeningSink {
 public:
  void on_fault(core::Page page, Access want, core::Site site) noexcept override {
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    all_blocked =
        sigismember(&mask, SIGUSR1) == 1 && sigismember(&mask, SIGTERM) == 1 && sigismember(&mask, SIGSEGV) == 1;
    OpeningSink::on_fault(page, want, site);
    errno = EDOM;
  }
  bool all_blocked = false;
};

TEST_P(AnyPager, KeepsErrnoAndTheMask) {
  NosySink sink;
  const auto pager = make(GetParam(), ipc::page_size(), ipc::page_size(), sink);
  sink.pager = pager.get();
  errno = ERANGE;
  *static_cast<volatile char*>(pager->base()) = 1;
  EXPECT_EQ(errno, ERANGE);
  EXPECT_TRUE(sink.all_blocked);
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  EXPECT_EQ(sigismember(&mask, SIGUSR1), 0);
  EXPECT_EQ(sigismember(&mask, SIGSEGV), 0);
}

TEST_P(AnyPager, TheAliasIsWritableWhileTheApplicationMayNothing) {
  const Region region(GetParam(), 2);
  region.pager.frame(1)[5] = 'x';
  EXPECT_TRUE(region.sink.seen().empty());
  EXPECT_EQ(*region.at(1, 5), 'x');
  *region.at(1, 6) = 'y';
  EXPECT_EQ(region.pager.frame(1)[6], 'y');
}

TEST_P(AnyPager, ProtectTakesAccessAway) {
  Region region(GetParam(), 2);
  *region.at(0) = 1;
  region.pager.protect(0, Access::read);
  EXPECT_EQ(*region.at(0), 1);
  EXPECT_EQ(region.sink.seen().size(), 1U);
  *region.at(0) = 2;
  region.pager.protect(0, Access::none);
  EXPECT_EQ(*region.at(0), 2);
  EXPECT_EQ(region.sink.seen().size(), 3U);
}

TEST_P(AnyPager, PagesMayBeLargerThanTheMachines) {
  const std::size_t large = 16 * ipc::page_size();
  const Region region(GetParam(), 4, large);
  *region.at(2, 5 * ipc::page_size() + 9) = 1;
  *region.at(2, 0) = 2;
  *region.at(2, large - 1) = 3;
  const auto seen = region.sink.seen();
  ASSERT_EQ(seen.size(), 1U);
  EXPECT_EQ(seen[0].page, 2U);
  EXPECT_EQ(region.pager.frame(2)[large - 1], 3);
}

#if !defined(DSM_UNDER_TSAN)  // which runs handlers with every signal blocked, whatever they asked for
Region* handlers_region = nullptr;

TEST_P(AnyPager, ASignalHandlerMayTouchTheRegion) {
  Region region(GetParam(), 2);
  handlers_region = &region;
  struct sigaction action = {};
  action.sa_handler = [](int) { *handlers_region->at(1) = static_cast<char>(*handlers_region->at(0) + 1); };
  struct sigaction before;
  ASSERT_EQ(sigaction(SIGUSR1, &action, &before), 0);
  region.pager.frame(0)[0] = 41;
  raise(SIGUSR1);
  EXPECT_EQ(region.pager.frame(1)[0], 42);
  sigaction(SIGUSR1, &before, nullptr);
}

#endif

TEST_P(AnyPager, RefusesWhatIsNoRegionAndASecondOne) {
  OpeningSink sink;
  const std::size_t page = ipc::page_size();
  EXPECT_THROW((void)make(GetParam(), page + 1, page, sink), std::system_error);
  EXPECT_THROW((void)make(GetParam(), 0, page, sink), std::system_error);
  EXPECT_THROW((void)make(GetParam(), page, page / 2, sink), std::system_error);
  Region region(GetParam(), 1);
  EXPECT_THROW((void)make(GetParam(), page, page, sink), std::system_error);
  EXPECT_EQ(*region.at(0), 0);  // the first one still stands
}

// ---- what is taken away stays away ----------------------------------------------------------------------------------

// Opens a page for what is wanted, but not while somebody has closed it.
class GatedSink final : public FaultSink {
 public:
  void on_fault(core::Page page, Access want, core::Site) noexcept override {
    while (closed.test_and_set(std::memory_order_acquire)) sched_yield();
    pager->protect(page, want);
    closed.clear(std::memory_order_release);
  }
  Pager* pager = nullptr;
  std::atomic_flag closed = ATOMIC_FLAG_INIT;
};

// Ten times as often as the environment's DSM_TEST_RUNS says (`make test-long`: 200).
int rounds() {
  const char* asked = std::getenv("DSM_TEST_RUNS");
  return 10 * (asked == nullptr ? 20 : std::atoi(asked));
}

// While `write` runs in two threads, again and again, the page's protection is lowered: from then on its frame stays.
template <class Write>
void expect_no_late_writes(Kind kind, const Write& write) {
  constexpr std::size_t size = 4096;
  GatedSink sink;
  const auto pager = make(kind, ipc::page_size(), ipc::page_size(), sink);
  sink.pager = pager.get();
  std::atomic<bool> stop{false};
  std::vector<std::jthread> writers;
  for (char* place : {pager->base(), pager->base() + size / 2}) {
    writers.emplace_back([&, place] {
      while (!stop) write(place, size / 2);
    });
  }
  std::vector<char> before(size), last(size);
  int changes = 0;
  bool late = false;
  for (int round = 0; round < rounds() && !late; ++round) {
    while (sink.closed.test_and_set(std::memory_order_acquire)) sched_yield();
    pager->protect(0, round % 2 == 0 ? Access::none : Access::read);
    std::memcpy(before.data(), pager->frame(0), size);
    for (int again = 0; again < 3; ++again) {
      sched_yield();
      late = late || std::memcmp(before.data(), pager->frame(0), size) != 0;
    }
    sink.closed.clear(std::memory_order_release);
    if (before != last) ++changes;
    last = before;
    while (round % 8 == 0 && std::memcmp(before.data(), pager->frame(0), size) == 0) sched_yield();
  }
  stop = true;
  EXPECT_FALSE(late);
  EXPECT_GT(changes, rounds() / 10);  // the writers were at work between the rounds
}

TEST_P(AnyPager, NoInstructionWritesAPageThatHasBeenTakenAway) {
  expect_no_late_writes(GetParam(), [](char* place, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) {
      volatile char& byte = place[i];
      byte = static_cast<char>(byte + 1);
    }
  });
}

TEST_P(AnyPager, NoSystemCallWritesAPageThatHasBeenTakenAway) {
  expect_no_late_writes(GetParam(), [kind = GetParam()](char* place, std::size_t size) {
    const ssize_t written = ::getrandom(place, size, 0);  // by the kernel
    if (kind == Kind::uffd && written != static_cast<ssize_t>(size)) std::abort();
    if (written < 0) *static_cast<volatile char*>(place) = 1;  // EFAULT: so have the page opened
  });
}

// ---- children -------------------------------------------------------------------------------------------------------

TEST_P(AnyPager, AForkedChildThatTouchesTheRegionIsToldAndDies) {
  const Region region(GetParam(), 2);
  *region.at(0) = 1;
  const End end = in_child([&] {
    // Its crash handler would only hide what went wrong.
    signal(SIGSEGV, [](int) { _exit(3); });
    return *region.at(0) + 0;
  });
  EXPECT_TRUE(end.died_of(SIGSEGV)) << end.status;
  EXPECT_EQ(end.errors,
            "dsm: the shared region does not exist in a forked child; touch it in the parent only (to exec another "
            "program is "
            "fine)\n");
  EXPECT_EQ(*region.at(0), 1);
}

TEST_P(AnyPager, ForkAndExecStaySilent) {
  const Region region(GetParam(), 2);
  *region.at(0) = 1;
  const End end = in_child([] {
    // The exec'ed program has the default disposition: bit 10 of neither set is SIGSEGV's.
    execl("/bin/sh", "sh", "-c",
          "for mask in $(sed -n 's/^Sig[CI][ag][tn]:[[:space:]]*//p' /proc/self/status); do"
          " test $((0x$mask & 0x400)) = 0 || exit 8; done; exit 7",
          static_cast<char*>(nullptr));
    return 1;
  });
  EXPECT_TRUE(end.exited(7)) << end.status;
  EXPECT_EQ(end.errors, "");
  EXPECT_EQ(std::system("exit 0"), 0);
}

TEST_P(AnyPager, AJumpIntoTheRegionDiesBySigsegv) {
  const End end = in_child([] {
    const Region region(GetParam(), 2);
    *region.at(1) = static_cast<char>(0xc3);
    reinterpret_cast<void (*)()>(reinterpret_cast<std::uintptr_t>(region.at(1)))();
    return 0;
  });
  EXPECT_TRUE(end.died_of(SIGSEGV)) << end.status;
}

// The flags of the mapping that starts at `address`, as /proc/self/smaps names them.
std::string flags_of_mapping(const void* address) {
  std::ostringstream start;
  start << std::hex << reinterpret_cast<std::uintptr_t>(address) << '-';
  std::ifstream smaps("/proc/self/smaps");
  std::string line;
  bool inside = false;
  while (std::getline(smaps, line)) {
    if (line.rfind(start.str(), 0) == 0) inside = true;
    if (inside && line.rfind("VmFlags:", 0) == 0) return line + ' ';
  }
  return {};
}

TEST_P(AnyPager, NeitherViewIsForkedOrDumped) {
  const Region region(GetParam(), 4);
  for (const char* view : {region.pager.base(), region.pager.frame(0)}) {
    const std::string flags = flags_of_mapping(view);
    EXPECT_NE(flags.find(" dd "), std::string::npos) << flags;  // MADV_DONTDUMP
    EXPECT_NE(flags.find(" dc "), std::string::npos) << flags;  // MADV_DONTFORK
  }
}

}  // namespace
}  // namespace dsm::pager
