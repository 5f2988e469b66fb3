// The whole of dshm_bench, small: all figures, in each regime that there is here; and nothing is left of its dsmd, hosts and
// agents.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "dsm/bench/testing.hpp"

namespace {

using bench::testing::Folder;
using bench::testing::run;

std::string program() { return bench::testing::program("dshm_bench"); }

// pidfds of the processes that have this in their environment.
std::vector<ipc::Fd> who_has(const std::string& variable) {
  std::vector<ipc::Fd> out;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::ifstream file(entry.path() / "environ", std::ios::binary);
    const std::string all{std::istreambuf_iterator<char>(file), {}};
    if (all.find(variable) == std::string::npos) continue;
    ipc::Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, std::stoi(entry.path().filename()), 0)));
    if (pidfd) out.push_back(std::move(pidfd));
  }
  return out;
}

bool ends(const ipc::Fd& pidfd) {
  pollfd one{pidfd.get(), POLLIN, 0};
  return ::poll(&one, 1, 10'000) == 1;
}

TEST(SysvBench, every_figure_stands_beside_its_limit_and_nothing_is_left) {
  const Folder folder, temporary;
  const std::string figures = folder / "figures.json", variable = "TMPDIR=" + temporary.path().string();
  ASSERT_EQ(run({program(), "--blocks", "2", "--block-size", "16", "-o", figures}, {variable}), 0);
  std::map<std::string, int> regimes;
  const auto all = nlohmann::json::parse(std::ifstream(figures));
  for (const auto& figure : all.at("figures")) {
    SCOPED_TRACE(figure.dump());
    ++regimes[figure.at("regime").get<std::string>()];
    EXPECT_EQ(figure.at("n").get<int>(), 32);
    EXPECT_GT(figure.at("limit").get<double>(), 0);
    // What moves a page, or asks dsmd, cannot be done without a round trip; the limit's own may have been a slow one.
    EXPECT_GT(figure.at("ratio").get<double>(), 0.25);
    EXPECT_LT(figure.at("value").get<double>(), 1'000'000);
  }
  EXPECT_EQ(regimes["sigsegv"], 3);
  if (regimes.contains("uffd")) {
    EXPECT_EQ(regimes["uffd"], 3);
  }
  EXPECT_TRUE(std::filesystem::is_empty(temporary.path()));
  // An agent goes when the last process has gone.
  for (const ipc::Fd& one : who_has(variable)) EXPECT_TRUE(ends(one));
  EXPECT_TRUE(who_has(variable).empty());
}

TEST(SysvBench, misuse_is_one_line_and_exit_2) {
  EXPECT_EQ(run({program(), "--figure", "sysv_fault"}), 2);
  EXPECT_EQ(run({program(), "--blocks", "0"}), 2);
}

}  // namespace
