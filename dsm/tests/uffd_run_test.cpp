// Whole jobs under `dsmexec --pager uffd`: what dsm_run_test, examples_test and litmus_test show of the other pager, in
// short; and what only this one does.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "dsm/tests/job_bench.hpp"

namespace dsm {
namespace {

using launch::testing::count;
using launch::testing::Ended;
using launch::testing::runs;
using Line = std::vector<std::string>;

std::string text(const Line& line, const Ended& e) {
  std::string all;
  for (const std::string& word : line) all += word + " ";
  return all + "\n" + launch::testing::text(e);
}

Ended job(Line options, const Line& line) {
  options.insert(options.end(), {"--size", "32M"});
  return run(launch::testing::job(std::move(options), line));
}

std::string hello_path() { return std::filesystem::path(launch::testing::dsmexec_path()).parent_path() / "hello"; }

// What dsmexec says of such a job; empty if it can be had.
const std::string& why_not() {
  static const std::string reason = [] {
    const Ended r = job({"--pager", "uffd", "-n", "1"}, {"hello"});
    return r.code() == 0 ? std::string() : r.err;
  }();
  return reason;
}

TEST(Uffd, CanBeUsedHere) {
  if (!why_not().empty()) GTEST_SKIP() << why_not();
}

// The protocols, where the pager can be had; otherwise none.
class UffdJobs : public ::testing::TestWithParam<std::string> {
 protected:
  [[nodiscard]] Ended dsm(const std::string& ranks, const Line& line) const {
    return job({"--pager", "uffd", "-p", GetParam(), "-n", ranks}, line);
  }
  void expect_good(const std::string& ranks, const Line& line) const {
    const Ended r = dsm(ranks, line);
    EXPECT_EQ(r.code(), 0) << ranks << " ranks, " << text(line, r);
  }
};
INSTANTIATE_TEST_SUITE_P(Run, UffdJobs, ::testing::ValuesIn(why_not().empty() ? Line{"migrate", "msi"} : Line{}),
                         [](const auto& p) { return p.param; });

TEST_P(UffdJobs, StressComesOutRight) {
  for (int i = 0; i < runs(2); ++i) {
    expect_good("4", {"dsm_stress", "rmw", "--seed", std::to_string(i)});
    expect_good("4", {"dsm_stress", "straddle", "--rounds", "300"});
    expect_good("2", {"dsm_stress", "print", "--rounds", "10"});
  }
  expect_good("2", {"dsm_stress", "hammer", "--seconds", "1"});
  expect_good("3", {"dsm_stress", "sync", "--seconds", "1"});
}

TEST_P(UffdJobs, SystemCallsMayUsePagesOfOtherRanks) {
  for (const char* ranks : {"2", "3"}) expect_good(ranks, {"dsm_stress", "syscalls", "--rounds", "100"});
}

TEST_P(UffdJobs, PagesMayBeLarger) {
  for (const char* page_size : {"64K", "1M"}) {
    for (const Line& line :
         {Line{"dsm_stress", "rmw", "--rounds", "50"}, {"dsm_stress", "straddle", "--rounds", "20"}}) {
      const Ended r = job({"--pager", "uffd", "-p", GetParam(), "-n", "3", "--page-size", page_size}, line);
      EXPECT_EQ(r.code(), 0) << page_size << text(line, r);
    }
  }
}

TEST_P(UffdJobs, DoubleTouchFinds4Then12Or8Then12) {
  const Ended r = dsm("4", {"double_touch"});
  EXPECT_EQ(r.code(), 0) << r.out << r.err;
  EXPECT_EQ(count(r.out, "left 12\n"), 1U) << r.out << r.err;
}

TEST_P(UffdJobs, ExamplesHaveTheResultOfTheSerialRun) {
  for (const Line& line : {Line{"jacobi", "--size", "64", "--rounds", "20"},
                           {"lu", "--size", "64"},
                           {"tsp", "--cities", "9"},
                           {"quicksort", "--count", "20000", "--leaf", "1000"}}) {
    const Ended r = dsm("3", line);
    EXPECT_EQ(r.code(), 0) << text(line, r);
    EXPECT_EQ(count(r.out, line[0] + ": OK\n"), 1U) << text(line, r);
  }
}

TEST_P(UffdJobs, NothingForbiddenComesOutOfLitmusTests) {
  for (const auto& [test, ranks] : {std::pair("sb", "2"), {"mp", "2"}, {"iriw", "4"}}) {
    expect_good(ranks, {"dsm_litmus", test, "--rounds", "300", "--frequencies", "off"});
  }
}

// ---- what is said when it does not work ------------------------------------------------------------------------------

TEST(Pager, UnderSigsegvASystemCallFailsOnAPageOfAnotherRank) {
  const Line line{"dsm_stress", "syscalls", "--rounds", "10"};
  const Ended r = job({"--pager", "sigsegv", "-n", "2"}, line);
  EXPECT_EQ(r.code(), 1) << text(line, r);
  EXPECT_NE(r.err.find("Bad address"), std::string::npos) << text(line, r);
}

// A program that anybody may start, gone with it.
class Everybodys {
 public:
  Everybodys() {
    std::filesystem::create_directory(folder_);
    std::filesystem::copy_file(hello_path(), path());
    ::chmod(folder_.c_str(), 0755);
    ::chmod(path().c_str(), 0755);
  }
  ~Everybodys() { std::filesystem::remove_all(folder_); }
  Everybodys(const Everybodys&) = delete;
  [[nodiscard]] std::string path() const { return folder_ + "/hello"; }

 private:
  std::string folder_ = ::testing::TempDir() + "uffd_run_test_" + std::to_string(::getpid());
};

// Whether this machine lets any user do it.
bool open_to_all() {
  std::string allowed;
  std::getline(std::ifstream("/proc/sys/vm/unprivileged_userfaultfd"), allowed);
  struct stat device {};
  return allowed == "1" || (::stat("/dev/userfaultfd", &device) == 0 && (device.st_mode & S_IRWXO) != 0);
}

TEST(Pager, UffdIsRefusedToAnOrdinaryUserInOneLine) {
  if (open_to_all()) GTEST_SKIP() << "here any user may use userfaultfd";
  const Everybodys hello;
  Line line{hello.path()};
  if (::geteuid() == 0) line = {"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", hello.path()};
  const Ended r = job({"--pager", "uffd", "-n", "1"}, line);
  EXPECT_EQ(r.code(), 1) << text(line, r);
  EXPECT_EQ(count(r.err, "dsm: rank 0: --pager uffd needs "), 1U) << text(line, r);
  EXPECT_EQ(count(r.err, "use --pager sigsegv"), 1U) << text(line, r);
}

}  // namespace
}  // namespace dsm
