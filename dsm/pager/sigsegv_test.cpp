#include "dsm/pager/sigsegv.hpp"

#include <errno.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>

#include <algorithm>
#include <barrier>
#include <cstdlib>
#include <filesystem>
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

TEST(SigsegvPager, StartsZeroInaccessibleAtItsAddress) {
  const Region region(4);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(region.pager.base()), region_base);
  EXPECT_EQ(region.pager.size(), 4 * ipc::page_size());
  EXPECT_EQ(*region.at(3, 17), 0);
  ASSERT_EQ(region.sink.seen().size(), 1U);
}

TEST(SigsegvPager, HasPagesOfItsOwnBehindTheApplications) {
  const std::size_t page = ipc::page_size();
  OpeningSink sink;
  SigsegvPager pager(2 * page, page, sink, 3 * page);
  sink.pager = &pager;
  EXPECT_EQ(pager.size(), 2 * page);
  EXPECT_EQ(pager.own(), pager.base() + 3 * page);
  *static_cast<volatile char*>(pager.own() + 3 * page - 1) = 7;
  EXPECT_EQ(pager.frame(5)[page - 1], 7);
  ASSERT_EQ(sink.seen().size(), 1U);
  EXPECT_EQ(sink.seen()[0].page, 5U);
}

TEST(SigsegvPager, WhoRunsOverTheEndDiesBeforeThePagersOwnPages) {
  const End end = in_child([] {
    const std::size_t page = ipc::page_size();
    OpeningSink sink;
    SigsegvPager pager(2 * page, page, sink, 3 * page);
    sink.pager = &pager;
    *static_cast<volatile char*>(pager.base() + 2 * page - 1) = 1;
    *static_cast<volatile char*>(pager.base() + 2 * page) = 1;
    return 0;
  });
  EXPECT_TRUE(end.died_of(SIGSEGV)) << end.status;
}

TEST(SigsegvPager, TellsReadsFromWrites) {
  const Region region(8);
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
  EXPECT_NE(seen[0].site, seen[1].site);
}

TEST(SigsegvPager, ServesManyThreadsAtOnce) {
  constexpr std::size_t threads = 8;
  constexpr std::size_t pages_each = 64;
  const Region region(threads * pages_each);
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

TEST(SigsegvPager, KeepsErrnoAndTheMask) {
  NosySink sink;
  SigsegvPager pager(ipc::page_size(), ipc::page_size(), sink);
  sink.pager = &pager;
  errno = ERANGE;
  *static_cast<volatile char*>(pager.base()) = 1;
  EXPECT_EQ(errno, ERANGE);
  EXPECT_TRUE(sink.all_blocked);
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  EXPECT_EQ(sigismember(&mask, SIGUSR1), 0);
  EXPECT_EQ(sigismember(&mask, SIGSEGV), 0);
}

TEST(SigsegvPager, TheAliasIsWritableWhileTheApplicationMayNothing) {
  const Region region(2);
  region.pager.frame(1)[5] = 'x';
  EXPECT_TRUE(region.sink.seen().empty());
  EXPECT_EQ(*region.at(1, 5), 'x');
  *region.at(1, 6) = 'y';
  EXPECT_EQ(region.pager.frame(1)[6], 'y');
}

TEST(SigsegvPager, ProtectTakesAccessAway) {
  Region region(2);
  *region.at(0) = 1;
  region.pager.protect(0, Access::read);
  EXPECT_EQ(*region.at(0), 1);
  EXPECT_EQ(region.sink.seen().size(), 1U);
  *region.at(0) = 2;
  region.pager.protect(0, Access::none);
  EXPECT_EQ(*region.at(0), 2);
  EXPECT_EQ(region.sink.seen().size(), 3U);
}

TEST(SigsegvPager, PagesMayBeLargerThanTheMachines) {
  const std::size_t large = 16 * ipc::page_size();
  const Region region(4, large);
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

TEST(SigsegvPager, ASignalHandlerMayTouchTheRegion) {
  Region region(2);
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

TEST(SigsegvPager, RefusesWhatIsNoRegionAndASecondOne) {
  OpeningSink sink;
  const std::size_t page = ipc::page_size();
  EXPECT_THROW(SigsegvPager(page + 1, page, sink), std::system_error);
  EXPECT_THROW(SigsegvPager(0, page, sink), std::system_error);
  EXPECT_THROW(SigsegvPager(page, page / 2, sink), std::system_error);
  Region region(1);
  EXPECT_THROW(SigsegvPager(page, page, sink), std::system_error);
  EXPECT_EQ(*region.at(0), 0);  // the first one still stands
}

// ---- children
// ---------------------------------------------------------------------------------------------------------

TEST(SigsegvPager, AForkedChildThatTouchesTheRegionIsToldAndDies) {
  const Region region(2);
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

TEST(SigsegvPager, ForkAndExecStaySilent) {
  const Region region(2);
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

TEST(SigsegvPager, AJumpIntoTheRegionDiesBySigsegv) {
  const End end = in_child([] {
    const Region region(2);
    *region.at(1) = static_cast<char>(0xc3);
    reinterpret_cast<void (*)()>(reinterpret_cast<std::uintptr_t>(region.at(1)))();
    return 0;
  });
  EXPECT_TRUE(end.died_of(SIGSEGV)) << end.status;
}

TEST(SigsegvPager, NamesTheLimitWhenTheKernelHasNoMoreMappings) {
  std::size_t limit = 0;
  std::ifstream("/proc/sys/vm/max_map_count") >> limit;
  ASSERT_GT(limit, 0U);
  const End end = in_child([limit] {
    OpeningSink sink;
    const std::size_t pages = 2 * limit + 2;
    SigsegvPager pager(pages * ipc::page_size(), ipc::page_size(), sink);
    for (std::size_t page = 0; page < pages; page += 2) pager.protect(static_cast<core::Page>(page), Access::read);
    return 0;
  });
  EXPECT_TRUE(end.died_of(SIGABRT)) << end.status;
  EXPECT_NE(end.errors.find("vm.max_map_count"), std::string::npos) << end.errors;
  EXPECT_EQ(std::count(end.errors.begin(), end.errors.end(), '\n'), 1);
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

TEST(SigsegvPager, NeitherViewIsForkedOrDumped) {
  const Region region(4);
  for (const char* view : {region.pager.base(), region.pager.frame(0)}) {
    const std::string flags = flags_of_mapping(view);
    EXPECT_NE(flags.find(" dd "), std::string::npos) << flags;  // MADV_DONTDUMP
    EXPECT_NE(flags.find(" dc "), std::string::npos) << flags;  // MADV_DONTFORK
  }
}

// How much of a file there really is: a core is itself sparse.
std::uintmax_t bytes_on_disk(const std::filesystem::path& file) {
  struct stat status {};
  ipc::check(::stat(file.c_str(), &status), "stat");
  return static_cast<std::uintmax_t>(status.st_blocks) * 512;
}

TEST(SigsegvPager, ACoreOfASparseGibibyteStaysSmall) {
  char folder[] = "/tmp/pager-core-XXXXXX";
  ASSERT_NE(mkdtemp(folder), nullptr);
  const End end = in_child([&folder] {
    if (chdir(folder) != 0) return 1;
    rlimit core{};
    getrlimit(RLIMIT_CORE, &core);
    core.rlim_cur = core.rlim_max;  // where the system forbids cores, there is none to measure
    setrlimit(RLIMIT_CORE, &core);
    const Region region(1 << 10, 1 << 20);
    for (std::size_t page = 0; page < 1 << 10; page += 100) *region.at(page) = 1;
    *testing::forbidden_page() = 1;
    return 0;
  });
  EXPECT_TRUE(end.died_of(SIGSEGV)) << end.status << end.errors;
  // Where kernel.core_pattern leads elsewhere nothing is found here; NeitherViewIsForkedOrDumped then vouches alone.
  std::string pattern;
  std::getline(std::ifstream("/proc/sys/kernel/core_pattern"), pattern);
  const bool dumped_here = WCOREDUMP(end.status) && pattern.find_first_of("|/%") == std::string::npos;
  EXPECT_EQ(std::filesystem::is_empty(folder), !dumped_here) << pattern;
  for (const auto& core : std::filesystem::directory_iterator(folder)) {
    EXPECT_LT(bytes_on_disk(core.path()), 64U << 20);
#if !defined(DSM_UNDER_TSAN)  // its shadow memory alone makes a core of gigabytes, all holes
    EXPECT_LT(std::filesystem::file_size(core.path()), 512U << 20);
#endif
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace dsm::pager
