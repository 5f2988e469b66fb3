// Litmus tests on real ranks, 10,000 rounds each: nothing forbidden comes out, and what is allowed comes out often
// enough for that to say something. A program for each protocol: litmus_msi_long_test, litmus_migrate_long_test.
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <tuple>
#include <utility>

#include "dsm/tests/job_bench.hpp"

extern const char* const litmus_protocol;  // litmus_long_msi.cpp, litmus_long_migrate.cpp

namespace {

using dsm::launch::testing::Ended;

class LitmusLong : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Run, LitmusLong,
                         ::testing::Values("sb", "mp", "iriw", "corr", "two-homes-sb", "two-homes-mp",
                                           "two-homes-2+2w"),
                         [](const auto& p) {
                           std::string name = p.param;
                           std::erase_if(name, [](char c) { return c == '-' || c == '+'; });
                           return name;
                         });

TEST_P(LitmusLong, NothingForbiddenComesOutAndAllThatIsAllowedDoes) {
  const std::string test = GetParam(), ranks = test == "iriw" || test == "corr" ? "4" : "2";
  const int seed = ::getpid();
  // With delays nearly all the time; without them ranks meet where delays keep them apart. In several jobs: each has
  // only so much time, and this machine may be busy.
  for (const auto& [delays, rounds, job] :
       {std::tuple{"on", "5000", 0}, std::tuple{"on", "5000", 1}, std::tuple{"off", "1000", 2}}) {
    const Ended r = run(dsm::launch::testing::job(
        {"-p", litmus_protocol, "-n", ranks, "--size", "16M"},
        {"dsm_litmus", test, "--rounds", rounds, "--delays", delays, "--seed", std::to_string(seed + job)}));
    EXPECT_EQ(r.code(), 0) << "seed " << seed + job << ", delays " << delays << "\n" << r.out << r.err;
  }
}

}  // namespace
