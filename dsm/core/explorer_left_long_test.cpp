// Larger worlds in which hosts leave and come again than explorer_test.cpp walks: minutes of time, and up to 3 GB of
// memory.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include "dsm/core/explorer.hpp"

namespace {

using dsm::core::Micros;
using dsm::core::Placement;
using dsm::core::explorer::explore;
using dsm::core::explorer::Result;
using Bounds = dsm::core::explorer::Setup;  // GoogleTest keeps the name Setup for itself

class ExplorerLeftLong : public testing::TestWithParam<Micros> {
 protected:
  static void walk(Bounds bounds) {
    bounds.placement = Placement::daemon;
    bounds.hold = GetParam();
    bounds.absence = 500 * GetParam();
    const Result result = explore(bounds);
    std::printf("%s: %llu distinct states, %llu steps\n", dsm::core::explorer::text(bounds).c_str(),
                static_cast<unsigned long long>(result.states), static_cast<unsigned long long>(result.steps));
    EXPECT_EQ(result.violation, "") << result.ladder;
  }
};

TEST_P(ExplorerLeftLong, ThreeHostsLeaveTwice) {
  walk({.nodes = 4, .operations = GetParam() == 0 ? 5U : 4U, .retries = 1, .leaves = 2});
}
TEST_P(ExplorerLeftLong, TwoHostsTwoPages) { walk({.pages = 2, .operations = 4, .retries = 1, .leaves = 2}); }
TEST_P(ExplorerLeftLong, TwoHostsWithEverything) {
  walk({.operations = 3,
        .retries = 1,
        .drops = 1,
        .write_backs = 1,
        .prefetches = 1,
        .leaves = 2,
        .daemon_touches = true,
        .any_lane = true});
}
TEST_P(ExplorerLeftLong, OneHostOfTwoThreadsAndTheDaemonWithEverything) {
  walk({.nodes = 2,
        .threads = 2,
        .operations = GetParam() == 0 ? 4U : 3U,
        .retries = 1,
        .drops = 1,
        .write_backs = 1,
        .prefetches = 1,
        .leaves = 2,
        .daemon_touches = true,
        .any_lane = true});
}

INSTANTIATE_TEST_SUITE_P(Walk, ExplorerLeftLong, testing::Values(0, 100),
                         [](const auto& param) { return std::string(param.param == 0 ? "msi" : "msiHeld"); });

}  // namespace
