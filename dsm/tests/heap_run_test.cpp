// The shared heap in whole jobs.
//
// The number of operations grows with the environment's DSM_TEST_RUNS (`make test-long` asks for 200: 400,000 of them).
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>

#include "dsm/tests/job_bench.hpp"

namespace dsm {
namespace {

using launch::testing::Ended;
using launch::testing::has_line;
using launch::testing::job;
using launch::testing::runs;
using launch::testing::text;

class SharedHeap : public ::testing::TestWithParam<const char*> {
 protected:
  [[nodiscard]] Ended dsm(const std::vector<std::string>& line) const {
    return run(job({"-p", GetParam(), "--size", "16M"}, line));
  }
};
INSTANTIATE_TEST_SUITE_P(Run, SharedHeap, ::testing::Values("migrate", "msi"),
                         [](const auto& p) { return std::string(p.param); });

TEST_P(SharedHeap, BlocksGoFromHandToHandAndNothingIsLost) {
  const std::string seed = std::to_string(::getpid());
  const Ended r =
      dsm({"dsm_stress", "heap", "--threads", "4", "--rounds", std::to_string(runs(1) * 2000), "--seed", seed});
  ASSERT_EQ(r.code(), 0) << "seed " << seed << ": " << text(r);
  EXPECT_TRUE(has_line(r.out, {"operations by 16 threads"})) << text(r);
}

TEST_P(SharedHeap, AMapIsReadAndChangedByAllRanks) {
  const Ended r = dsm({"dsm_stress", "heap-map", "--rounds", "3"});
  ASSERT_EQ(r.code(), 0) << text(r);
  EXPECT_TRUE(has_line(r.out, {"heap-map: 1288 entries"})) << text(r);
}

TEST_P(SharedHeap, OneThreadOfOneRankConstructsWhatHasAName) {
  for (int i = 0; i < runs(2); ++i) {
    const Ended r = dsm({"dsm_stress", "heap-named", "--threads", "4"});
    ASSERT_EQ(r.code(), 0) << text(r);
  }
}

TEST_P(SharedHeap, FullItSaysSoAndGoesOnAndDsmAllocIsTheSameInAllRanks) {
  const Ended r = dsm({"dsm_stress", "heap-full"});
  ASSERT_EQ(r.code(), 0) << text(r);
  EXPECT_TRUE(has_line(r.out, {"heap-full: it goes on"})) << text(r);
}

TEST(SharedHeap, PagesMayBeLarger) {
  for (const char* page_size : {"8K", "1M"}) {
    for (const char* what : {"heap", "heap-full"}) {
      const Ended r =
          run(job({"-n", "3", "--size", "32M", "--page-size", page_size}, {"dsm_stress", what, "--rounds", "480"}));
      ASSERT_EQ(r.code(), 0) << page_size << text(r);
    }
  }
}

// One line on stderr says what was wrong, and 134 is SIGABRT.
struct Misuse {
  const char *how, *says;
};
class HeapMisuse : public ::testing::TestWithParam<Misuse> {};
INSTANTIATE_TEST_SUITE_P(Run, HeapMisuse,
                         ::testing::Values(Misuse{"foreign", "dsm_free(0x7"},
                                           Misuse{"alloc", "dsm_free(0x550000000000): not a block"},
                                           Misuse{"inside", "not a block from dsm_malloc"},
                                           Misuse{"misaligned", "not a block from dsm_malloc"},
                                           Misuse{"twice", "freed before"},
                                           Misuse{"late-malloc", "dsm_malloc after dsm_finalize"},
                                           Misuse{"late-free", "dsm_free after dsm_finalize"},
                                           Misuse{"late-finalize", "dsm_finalize after dsm_finalize"},
                                           Misuse{"late-read", "the region was touched after dsm_finalize"},
                                           Misuse{"late-write", "the region was touched after dsm_finalize"}),
                         [](const auto& p) {
                           std::string name = p.param.how;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });
TEST_P(HeapMisuse, EndsTheRankAndIsNamed) {
  const Ended r = run(job({"-n", "2", "--size", "16M"}, {"dsm_stress", "heap-misuse", "--how", GetParam().how}));
  EXPECT_EQ(r.code(), 134) << text(r);
  EXPECT_TRUE(has_line(r.err, {"dsm: rank 1: ", GetParam().says})) << text(r);
  EXPECT_EQ(launch::testing::count(r.err, "[Proc "), 1U) << text(r);
}

TEST(HeapMisuse, FreeingNothingIsAllowed) {
  const Ended r = run(job({"-n", "2", "--size", "16M"}, {"dsm_stress", "heap-misuse", "--how", "nothing"}));
  EXPECT_EQ(r.code(), 0) << text(r);
}

}  // namespace
}  // namespace dsm
