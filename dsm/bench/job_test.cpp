// The whole of it, small: a job for each figure, and the number of messages that each of them must take.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "dsm/bench/testing.hpp"

namespace {

using bench::testing::Folder;
using bench::testing::run;

std::string program() { return bench::testing::program("dsm_bench"); }

TEST(Bench, every_sample_of_every_figure_takes_two_messages) {
  const Folder folder;
  const std::string machines = folder / "machines", figures = folder / "figures.json";
  std::ofstream(machines) << "localhost\nlocalhost\nlocalhost\n";
  ASSERT_EQ(run({program(), "--blocks", "2", "--block-size", "16", "--machine-file", machines, "-o", figures}), 0);
  const auto list = nlohmann::json::parse(std::ifstream(figures)).at("figures");
  const std::size_t regimes = list.size() / 3;
  ASSERT_EQ(list.size(), 3 * regimes);
  ASSERT_GE(regimes, 1U);
  for (const auto& figure : list) {
    SCOPED_TRACE(figure.dump());
    EXPECT_EQ(figure.at("messages").get<double>(), 2);
    EXPECT_EQ(figure.at("n").get<int>(), 32);
    EXPECT_GT(figure.at("limit").get<double>(), 0);
    // A message that waits for a delayed acknowledgement costs 40 ms.
    EXPECT_LT(figure.at("value").get<double>(), 20'000);
  }
}

TEST(Bench, misuse_is_one_line_and_exit_2) {
  EXPECT_EQ(run({program(), "--figure", "no_such_figure"}), 2);
  EXPECT_EQ(run({program(), "--blocks", "0"}), 2);
}

}  // namespace
