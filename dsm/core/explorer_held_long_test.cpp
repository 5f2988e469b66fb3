// Larger worlds than explorer_test.cpp walks, with the minimal hold: minutes of time, and up to 3 GB of memory.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include "dsm/core/explorer.hpp"

namespace {

using dsm::core::Protocol;
using dsm::core::explorer::explore;
using dsm::core::explorer::Result;
using Bounds = dsm::core::explorer::Setup;  // GoogleTest keeps the name Setup for itself

class ExplorerHeldLong : public testing::TestWithParam<Protocol> {
 protected:
  static void walk(Bounds bounds) {
    bounds.protocol = GetParam();
    const Result result = explore(bounds);
    std::printf("%s: %llu distinct states, %llu steps\n", dsm::core::explorer::text(bounds).c_str(),
                static_cast<unsigned long long>(result.states), static_cast<unsigned long long>(result.steps));
    EXPECT_EQ(result.violation, "") << result.ladder;
  }
};

TEST_P(ExplorerHeldLong, ThreeNodesTwoPagesFiveOperations) {
  walk({.pages = 2, .hold = 100, .absence = 50'000, .operations = 5, .retries = 0});
}
TEST_P(ExplorerHeldLong, TwoNodesTwoThreadsWithEverything) {
  walk({.nodes = 2,
        .threads = 2,
        .hold = 100,
        .absence = 50'000,
        .operations = 3,
        .retries = 1,
        .drops = 1,
        .write_backs = 1,
        .prefetches = 1});
}
std::string protocol_name(const testing::TestParamInfo<Protocol>& param) {
  return std::string(dsm::core::name(param.param));
}

INSTANTIATE_TEST_SUITE_P(Walk, ExplorerHeldLong, testing::Values(Protocol::migrate, Protocol::msi), protocol_name);

}  // namespace
