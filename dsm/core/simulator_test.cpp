// Random programs over random schedules: ten thousand here, a million in
// simulator_long_test.cpp and simulator_migrate_long_test.cpp.
#include "dsm/core/simulator.hpp"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "dsm/core/simulator_scenario.hpp"

namespace {

namespace sim = dsm::core::simulator;
using dsm::core::Protocol;

// DSM_SIM_SEED=N begins with another one.
std::uint64_t first_seed() {
  const char* text = std::getenv("DSM_SIM_SEED");
  return text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
}

TEST(Simulator, TenThousandSchedules) {
  const sim::Result result = sim::run(first_seed(), 10'000);
  ASSERT_EQ(result.failed.violation, "") << sim::explain(result);
  std::printf("from seed %llu: %s\n", static_cast<unsigned long long>(first_seed()), sim::text(result.counts).c_str());
  EXPECT_EQ(result.counts.schedules, 10'000U);
}

// What never happens is not tested.
TEST(Simulator, EverythingHappens) {
  for (const Protocol protocol : {Protocol::migrate, Protocol::msi}) {
    const sim::Counts counts = sim::run(1, 1000, {.protocol = protocol}).counts;
    EXPECT_EQ(counts.schedules, 1000U);
    EXPECT_GT(counts.nodes_of_largest, 6U);
    EXPECT_GT(counts.retries, 100U);
    EXPECT_GT(counts.overtaken, 100U);
    EXPECT_GT(counts.atomics, 1000U);
    EXPECT_GT(counts.refused, 100U);
    EXPECT_GT(counts.missed, 10U);
    EXPECT_GT(counts.ticks, 100U);
    EXPECT_GT(counts.written_back, 10U);
    EXPECT_GT(counts.pinned, 100U);
    EXPECT_GT(counts.waited_for_pins, 10U);
    EXPECT_GT(counts.nodes_lost, 10U);
    EXPECT_GT(counts.dropped, 10U);
    EXPECT_EQ(counts.discarded > 10, protocol == Protocol::msi);
  }
}

TEST(Simulator, TheSameSeedIsTheSameWalk) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    std::string once, again;
    const sim::Walk walk = sim::walk(seed, {}, &once);
    (void)sim::walk(seed, {}, &again);
    EXPECT_EQ(once, again);
    EXPECT_EQ(sim::walk(seed).counts.steps, walk.counts.steps) << "being watched makes a difference";
  }
}

TEST(Simulator, TheResultDoesNotDependOnTheThreads) {
  EXPECT_EQ(sim::text(sim::run(1, 500, {}, 1).counts), sim::text(sim::run(1, 500, {}, 3).counts));
}

// Not taken from the standard library's distributions, which are free to differ.
TEST(SimulatorRandom, IsTheSameOnEveryMachine) {
  sim::Random random(1);
  std::string drawn;
  for (int i = 0; i < 10; ++i) drawn += std::to_string(random.below(1000)) + " ";
  EXPECT_EQ(drawn, "133 136 451 21 350 911 470 74 569 635 ");
}

TEST(SimulatorFailure, SaysHowToSeeItAgain) {
  sim::Result result;
  EXPECT_EQ(sim::explain(result), "");
  result.seed = 7;
  result.failed = sim::walk(7);
  result.failed.violation = "something";
  const std::string text = sim::explain(result);
  EXPECT_EQ(text.rfind("seed 7: something\n", 0), 0U) << text;
  EXPECT_NE(text.find("again: make sim SEED=7 COUNT=1, with all steps: dsm_sim --seed 7 --count 1 -v\n"),
            std::string::npos)
      << text;
  const std::string chosen = sim::explain(result, {.protocol = Protocol::msi});
  EXPECT_NE(chosen.find("make sim SEED=7 COUNT=1 PROTOCOL=msi,"), std::string::npos) << chosen;
  EXPECT_NE(sim::explain(result, {.quarrel = 9}).find("again: dsm_sim --seed 7 --count 1 -v --quarrel 9\n"),
            std::string::npos);
}

}  // namespace
