// Litmus tests on real ranks, a few rounds each: that nothing forbidden comes out, under any load. How often what is
// allowed comes out is for litmus_long_test.cpp. And the tests are tested: with a bug in the core they fail.
#include "dsm/tests/litmus.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "dsm/tests/job_bench.hpp"

namespace {

using dsm::launch::testing::Ended;
using dsm::launch::testing::text;

struct Trial {
  const char* name;
  const char* ranks;
};

Ended litmus_job(const std::string& protocol, const Trial& test, const std::vector<std::string>& options,
                 const std::string& program = "dsm_litmus") {
  std::vector<std::string> line = {program, test.name};
  line.insert(line.end(), options.begin(), options.end());
  return run(dsm::launch::testing::job({"-p", protocol, "-n", test.ranks, "--size", "16M"}, line));
}

// A new seed each time, and printed when it matters.
std::string seed() {
  static const std::string drawn = std::to_string(::getpid());
  return drawn;
}

class Litmus : public ::testing::TestWithParam<std::tuple<const char*, Trial>> {};
INSTANTIATE_TEST_SUITE_P(Run, Litmus,
                         ::testing::Combine(::testing::Values("migrate", "msi"),
                                            ::testing::Values(Trial{"sb", "2"}, Trial{"mp", "2"}, Trial{"iriw", "4"},
                                                              Trial{"corr", "4"}, Trial{"two-homes", "2"})),
                         [](const auto& p) {
                           std::string name = std::get<1>(p.param).name;
                           std::erase(name, '-');
                           return name + "_" + std::get<0>(p.param);
                         });

TEST_P(Litmus, NothingForbiddenComesOut) {
  const auto& [protocol, test] = GetParam();
  const Ended r = litmus_job(protocol, test, {"--rounds", "1000", "--frequencies", "off", "--seed", seed()});
  EXPECT_EQ(r.code(), 0) << "seed " << seed() << ": " << text(r);
  for (const litmus::Shape& shape : litmus::shapes(test.name)) {
    EXPECT_NE(r.out.find(shape.name + ": 1000 rounds"), std::string::npos) << shape.name << ": " << text(r);
  }
}

// Runs the program over a core with a bug in it (dsm/core/mutants).
void expect_forbidden(const std::string& mutant, const std::vector<Trial>& tests) {
  const std::string self = dsm::launch::testing::own_path();
  const std::string program = self.substr(0, self.rfind("/tests/")) + "/mutants/" + mutant + "/dsm_litmus";
  for (const Trial& test : tests) {
    const Ended r = litmus_job("msi", test, {"--rounds", "1000", "--frequencies", "off", "--seed", seed()}, program);
    EXPECT_EQ(r.code(), 1) << test.name << ", seed " << seed() << ": " << text(r);
    EXPECT_NE(r.err.find(": forbidden, and seen "), std::string::npos) << test.name << ": " << text(r);
  }
}

TEST(LitmusMutants, AnInvalidationIsAnsweredAndTheCopyStays) {
  expect_forbidden("acknowledged-copy-kept", {{"sb", "2"}, {"mp", "2"}, {"iriw", "4"}, {"two-homes", "2"}});
}

TEST(LitmusMutants, TheHomeTakesARecalledPageForItsOldOne) {
  expect_forbidden("recalled-page-forgotten", {{"corr", "4"}});
}

// ---- what is allowed ------------------------------------------------------------------------------------------------

std::set<litmus::Outcome> allowed(const char* name, std::size_t which = 0) {
  return litmus::allowed(litmus::shapes(name).at(which));
}

TEST(LitmusShapes, StoreBufferingMayNotMissBothStores) {
  EXPECT_EQ(allowed("sb"), (std::set<litmus::Outcome>{"01", "10", "11"}));
}

TEST(LitmusShapes, AMessageMayNotBeMissedBehindItsFlag) {
  EXPECT_EQ(allowed("mp"), (std::set<litmus::Outcome>{"00", "01", "11"}));
}

TEST(LitmusShapes, OfSixteenOutcomesOfIriwOneIsForbidden) {
  const auto all = allowed("iriw");
  EXPECT_EQ(all.size(), 15U);
  EXPECT_FALSE(all.contains("1010")) << "the readers disagree";
}

TEST(LitmusShapes, ALocationNeverGoesBackAndEndsAsItsLastWrite) {
  const auto all = allowed("corr");
  for (const char* fine : {"00001", "01022", "02221", "12122"}) EXPECT_TRUE(all.contains(fine)) << fine;
  for (const char* wrong : {"10001", "12211", "12121", "00000"}) EXPECT_FALSE(all.contains(wrong)) << wrong;
}

TEST(LitmusShapes, TheFirstWritesCannotBothBeTheLast) {
  EXPECT_EQ(allowed("two-homes", 2), (std::set<litmus::Outcome>{"12", "21", "22"}));
}

}  // namespace
