// Larger worlds than explorer_test.cpp walks: minutes of time, and up to 3 GB of memory.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include "dsm/core/explorer.hpp"

namespace {

using dsm::core::Protocol;
using dsm::core::explorer::explore;
using dsm::core::explorer::Result;
using Bounds = dsm::core::explorer::Setup;  // GoogleTest keeps the name Setup for itself

class ExplorerLong : public testing::TestWithParam<Protocol> {
 protected:
  static void walk(Bounds bounds) {
    bounds.protocol = GetParam();
    const Result result = explore(bounds);
    std::printf("%s: %llu distinct states, %llu steps\n", dsm::core::explorer::text(bounds).c_str(),
                static_cast<unsigned long long>(result.states), static_cast<unsigned long long>(result.steps));
    EXPECT_EQ(result.violation, "") << result.ladder;
  }
};

TEST_P(ExplorerLong, ThreeNodesTwoPagesSixOperations) { walk({.pages = 2, .operations = 6, .retries = 1}); }
TEST_P(ExplorerLong, ThreeNodesWithEverything) {
  walk({.operations = 4, .retries = 1, .drops = 1, .write_backs = 1, .prefetches = 1, .any_lane = true});
}
TEST_P(ExplorerLong, TwoNodesTwoThreadsWithEverything) {
  walk({.nodes = 2,
        .threads = 2,
        .operations = 5,
        .retries = 1,
        .drops = 1,
        .write_backs = 1,
        .prefetches = 1,
        .any_lane = true});
}
TEST_P(ExplorerLong, TwoNodesTwoThreadsWithAtomics) {
  walk({.nodes = 2,
        .threads = 2,
        .operations = 3,
        .retries = 1,
        .drops = 1,
        .write_backs = 1,
        .atomics = 2,
        .any_lane = true});
}
TEST_P(ExplorerLong, FourNodesOnePage) { walk({.nodes = 4, .operations = 5, .retries = 0}); }

std::string protocol_name(const testing::TestParamInfo<Protocol>& param) {
  return std::string(dsm::core::name(param.param));
}

INSTANTIATE_TEST_SUITE_P(Walk, ExplorerLong, testing::Values(Protocol::migrate, Protocol::msi), protocol_name);

}  // namespace
