// Half a million schedules under migrate; the other half of the million, under msi, is a program of its own.
#include <gtest/gtest.h>

#include <cstdio>

#include "dsm/core/simulator.hpp"

namespace {

namespace sim = dsm::core::simulator;

TEST(SimulatorLong, HalfAMillionSchedulesOfMigrate) {
  const sim::Limits limits{.protocol = dsm::core::Protocol::migrate};
  const sim::Result result = sim::run(1'000'000, 500'000, limits);
  ASSERT_EQ(result.failed.violation, "") << sim::explain(result, limits);
  std::printf("%s\n", sim::text(result.counts).c_str());
  EXPECT_EQ(result.counts.schedules, 500'000U);
}

}  // namespace
