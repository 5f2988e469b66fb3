// All interleavings of small worlds. These are the quick ones; explorer_long_test.cpp goes further.
#include "dsm/core/explorer.hpp"

#include <gtest/gtest.h>

#include <cstdio>
#include <stdexcept>
#include <string>
#include <tuple>

namespace {

using dsm::core::Protocol;
using dsm::core::explorer::explore;
using dsm::core::explorer::Result;
using Bounds = dsm::core::explorer::Setup;  // GoogleTest keeps the name Setup for itself

Result walk(const Bounds& bounds) {
  Result result = explore(bounds);
  std::printf("%s: %llu distinct states, %llu steps\n", dsm::core::explorer::text(bounds).c_str(),
              static_cast<unsigned long long>(result.states), static_cast<unsigned long long>(result.steps));
  EXPECT_EQ(result.violation, "") << result.ladder;
  return result;
}

class Explorer : public testing::TestWithParam<std::tuple<Protocol, dsm::core::Micros>> {
 protected:
  [[nodiscard]] static Bounds bounds() {
    const dsm::core::Micros hold = std::get<1>(GetParam());
    return {.protocol = std::get<0>(GetParam()), .hold = hold, .absence = 500 * hold};
  }
};

TEST_P(Explorer, ThreeNodesOnePageNineOperations) { walk(bounds()); }

TEST_P(Explorer, ThreeNodesTwoPages) {
  Bounds s = bounds();
  s.pages = 2;
  s.operations = s.hold == 0 ? 6 : 4;
  s.retries = 0;
  walk(s);
}

TEST_P(Explorer, TwoNodesTwoThreadsOnePageSixOperations) {
  Bounds s = bounds();
  s.nodes = 2;
  s.threads = 2;
  s.operations = 6;
  walk(s);
}

TEST_P(Explorer, WriteBacksOnAnyLane) {
  Bounds s = bounds();
  s.operations = 3;
  s.retries = 1;
  s.write_backs = 2;
  s.any_lane = true;
  walk(s);
}

TEST_P(Explorer, DropsWriteBacksAndPrefetches) {
  Bounds s = bounds();
  s.nodes = 2;
  s.threads = 2;
  s.operations = 3;
  s.retries = 1;
  s.drops = s.write_backs = s.prefetches = 1;
  walk(s);
}

TEST_P(Explorer, AtomicOperations) {
  Bounds s = bounds();
  s.operations = s.hold == 0 ? 4 : 3;
  s.retries = 1;
  s.atomics = 2;
  walk(s);
}

TEST_P(Explorer, AtomicOperationsOfTwoThreadsAndWriteBacks) {
  Bounds s = bounds();
  s.nodes = 2;
  s.threads = 2;
  s.operations = 2;
  s.retries = 0;
  s.write_backs = 1;
  s.atomics = 2;
  walk(s);
}

TEST_P(Explorer, FirstTouch) {
  Bounds s = bounds();
  s.placement = dsm::core::Placement::first_touch;
  s.operations = s.hold == 0 ? 6 : 4;
  s.retries = 1;
  walk(s);
}

TEST_P(Explorer, FirstTouchOfTwoThreadsWithWriteBacksAndAtomicOperations) {
  Bounds s = bounds();
  s.placement = dsm::core::Placement::first_touch;
  s.nodes = 2;
  s.threads = 2;
  s.operations = 2;
  s.retries = 1;
  s.write_backs = s.atomics = 1;
  s.any_lane = true;
  walk(s);
}

// Hosts that leave at any moment, in good order or lost, and come again (explorer.hpp).
class ExplorerDaemon : public testing::TestWithParam<dsm::core::Micros> {
 protected:
  [[nodiscard]] static Bounds bounds() {
    return {.placement = dsm::core::Placement::daemon, .hold = GetParam(), .absence = 500 * GetParam(), .retries = 1};
  }
};

TEST_P(ExplorerDaemon, TwoHostsLeaveAndComeAgain) {
  Bounds s = bounds();
  s.operations = s.hold == 0 ? 6 : 4;
  s.leaves = 2;
  walk(s);
}

TEST_P(ExplorerDaemon, OneOfThreeHostsLeaves) {
  Bounds s = bounds();
  s.nodes = 4;
  s.operations = 3;
  s.leaves = 1;
  walk(s);
}

TEST_P(ExplorerDaemon, ADaemonThatTouchesPages) {
  Bounds s = bounds();
  s.operations = 3;
  s.leaves = 1;
  s.daemon_touches = true;
  walk(s);
}

TEST_P(ExplorerDaemon, HostsWithDropsWriteBacksAndPrefetches) {
  Bounds s = bounds();
  s.operations = 2;
  s.drops = s.write_backs = s.prefetches = 1;
  s.any_lane = true;
  s.leaves = 1;
  walk(s);
}

INSTANTIATE_TEST_SUITE_P(Walk, ExplorerDaemon, testing::Values(0, 100),
                         [](const auto& param) { return std::string(param.param == 0 ? "msi" : "msiHeld"); });

std::string variant(const testing::TestParamInfo<Explorer::ParamType>& param) {
  const auto& [protocol, hold] = param.param;
  return std::string(dsm::core::name(protocol)) + (hold == 0 ? "" : "Held");
}

INSTANTIATE_TEST_SUITE_P(Walk, Explorer,
                         testing::Combine(testing::Values(Protocol::migrate, Protocol::msi), testing::Values(0, 100)),
                         variant);

TEST(ExplorerMsi, ThreeNodesWithDropsAndPrefetches) {
  walk({.operations = 3, .retries = 1, .drops = 2, .prefetches = 1});
}

TEST(ExplorerMsi, HeldFromTheGrantOn) { walk({.hold = 100, .operations = 6}); }

// What is left out as making no difference makes none: each node gets into the same states, and no others.
TEST(ExplorerReduction, ReachesTheSameNodeStates) {
  for (const Protocol protocol : {Protocol::migrate, Protocol::msi}) {
    Bounds s{.protocol = protocol, .operations = 4, .retries = 1};
    const Result reduced = walk(s);
    s.reduce = false;
    const Result full = walk(s);
    EXPECT_EQ(reduced.locals, full.locals);
    EXPECT_LT(reduced.states, full.states);
  }
}

TEST(ExplorerBounds, TooManyStatesAreAFailure) {
  const Result result = explore({.states_max = 1000});
  EXPECT_EQ(result.violation, "more states than this setup is allowed");
  EXPECT_NE(result.ladder.find("SIGSEGV"), std::string::npos);
}

TEST(ExplorerBounds, AWorldThatDoesNotFitIsRefused) {
  EXPECT_THROW((void)explore({.nodes = 3, .threads = 2}), std::invalid_argument);
  EXPECT_THROW((void)explore({.pages = 3}), std::invalid_argument);
}

}  // namespace
