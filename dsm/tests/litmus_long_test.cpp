// Litmus tests on real ranks, 10,000 rounds each: nothing forbidden comes out, and what is allowed comes out often
// enough for that to say something. A program for each protocol: litmus_msi_long_test, litmus_migrate_long_test.
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "dsm/tests/launch_bench.hpp"

extern const char* const litmus_protocol;  // litmus_long_msi.cpp, litmus_long_migrate.cpp

namespace {

using dsm::launch::testing::Ended;
using dsm::launch::testing::Order;

class LitmusLong : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Run, LitmusLong, ::testing::Values("sb", "mp", "iriw", "corr", "two-homes"),
                         [](const auto& p) {
                           std::string name = p.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST_P(LitmusLong, NothingForbiddenComesOutAndAllThatIsAllowedDoes) {
  const std::string test = GetParam(), ranks = test == "iriw" || test == "corr" ? "4" : "2";
  const std::string seed = std::to_string(::getpid());
  // With delays nearly all the time; without them ranks meet where delays keep them apart.
  for (const auto& [delays, rounds] : {std::pair{"on", "10000"}, std::pair{"off", "1000"}}) {
    Order order;
    order.arguments = {"-p", litmus_protocol, "-n", ranks, "--size", "16M", "@", "dsm_litmus", test};
    order.arguments.insert(order.arguments.end(), {"--rounds", rounds, "--delays", delays, "--seed", seed});
    const Ended r = run(std::move(order));
    EXPECT_EQ(r.code(), 0) << "seed " << seed << ", delays " << delays << "\n" << r.out << r.err;
  }
}

}  // namespace
