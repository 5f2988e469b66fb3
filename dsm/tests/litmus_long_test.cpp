// Litmus tests on real ranks, 10,000 rounds each: nothing forbidden comes out, and what is allowed comes out often enough
// for that to say something.
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <tuple>
#include <utility>

#include "dsm/tests/launch_bench.hpp"

namespace {

using dsm::launch::testing::Ended;
using dsm::launch::testing::Order;

class LitmusLong : public ::testing::TestWithParam<std::tuple<const char*, const char*>> {};
INSTANTIATE_TEST_SUITE_P(Run, LitmusLong,
                         ::testing::Combine(::testing::Values("migrate", "msi"),
                                            ::testing::Values("sb", "mp", "iriw", "corr", "two-homes")),
                         [](const auto& p) {
                           std::string name = std::get<1>(p.param);
                           std::erase(name, '-');
                           return name + "_" + std::get<0>(p.param);
                         });

TEST_P(LitmusLong, NothingForbiddenComesOutAndAllThatIsAllowedDoes) {
  const std::string protocol = std::get<0>(GetParam()), test = std::get<1>(GetParam());
  const std::string ranks = test == "iriw" || test == "corr" ? "4" : "2", seed = std::to_string(::getpid());
  // With delays nearly all the time; without them ranks meet where delays keep them apart.
  for (const auto& [delays, rounds] : {std::pair{"on", "10000"}, std::pair{"off", "1000"}}) {
    Order order;
    order.arguments = {"-p", protocol, "-n", ranks, "--size", "16M", "@", "dsm_litmus", test};
    order.arguments.insert(order.arguments.end(), {"--rounds", rounds, "--delays", delays, "--seed", seed});
    const Ended r = run(std::move(order));
    EXPECT_EQ(r.code(), 0) << "seed " << seed << ", delays " << delays << "\n" << r.out << r.err;
  }
}

}  // namespace
