// What only the SIGSEGV pager does. What both do: any_pager_test.cpp.
#include "dsm/pager/sigsegv.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "dsm/pager/test_region.hpp"

namespace dsm::pager {
namespace {

using core::Access;
using testing::End;
using testing::in_child;
using testing::OpeningSink;
using testing::Region;

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
  // Where kernel.core_pattern leads elsewhere nothing is found here; AnyPager.NeitherViewIsForkedOrDumped then vouches alone.
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
