// What strangers at all its ports cost a job: pairs of runs with and without them, in turns.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "dsm/tests/strangers_job.hpp"

namespace dsm::launch::testing {
namespace {

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
}

class StrangersCost : public ::testing::TestWithParam<std::vector<std::string>> {};

// The environment's DSM_STRANGERS_PAIRS.
int pairs() {
  const char* asked = std::getenv("DSM_STRANGERS_PAIRS");
  return asked == nullptr ? 7 : std::atoi(asked);
}

TEST_P(StrangersCost, ThroughputStaysWithinAFifth) {
  make_room_for_strangers();
  const std::string other_job = handshake_of_another_job();
  std::vector<double> ratios, alone, among, start_alone, start_among;
  for (int i = 0; i < pairs(); ++i) {
    const auto one = [&](Strangers* strangers) {
      const Besieged job = run_besieged(GetParam(), strangers);
      EXPECT_EQ(job.end.code(), 0) << text(job.end).substr(0, 2000);
      (strangers != nullptr ? among : alone).push_back(job.work_s);
      (strangers != nullptr ? start_among : start_alone).push_back(job.start_s);
    };
    // Not always the same one first: the machine may be busier from one minute to the next.
    if (i % 2 == 0) one(nullptr);
    {
      Strangers strangers(other_job);
      one(&strangers);
    }
    if (i % 2 != 0) one(nullptr);
    ratios.push_back(alone.back() / among.back());
    std::printf("  alone %.2f s, among strangers %.2f s: %.3f of the throughput; started in %.2f s and %.2f s\n",
                alone.back(), among.back(), ratios.back(), start_alone.back(), start_among.back());
  }
  std::printf("%s: medians of %zu pairs: alone %.2f s, among strangers %.2f s, throughput %.3f; start %.2f s, %.2f s\n",
              GetParam()[0].c_str(), ratios.size(), median(alone), median(among), median(ratios), median(start_alone),
              median(start_among));
  std::fflush(stdout);
  EXPECT_GE(median(ratios), 0.8);
}

INSTANTIATE_TEST_SUITE_P(Jobs, StrangersCost,
                         ::testing::Values(std::vector<std::string>{"dsm_stress", "rmw", "--rounds", "5000"},
                                           std::vector<std::string>{"jacobi", "--size", "1024", "--rounds", "300"}));

}  // namespace
}  // namespace dsm::launch::testing
