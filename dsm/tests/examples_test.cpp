// The examples, as a reader of the README starts them. Each compares its result with a serial run of its own; that this
// comparison notices a wrong number is seen with --spoil, which a reader can try, too.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "dsm/tests/job_bench.hpp"

namespace dsm {
namespace {

using launch::testing::Ended;
using launch::testing::text;
using Line = std::vector<std::string>;

// dsmexec OPTIONS... machine_file LINE...
Ended job(Line options, const Line& line) { return run(launch::testing::job(std::move(options), line)); }

// The line without dsmexec. Only what it prints on stderr, and how it ends.
struct Alone {
  int code;
  std::string err;
};
Alone alone(const Line& line) {
  std::string command = std::filesystem::path(launch::testing::dsmexec_path()).parent_path() / line[0];
  for (std::size_t i = 1; i < line.size(); ++i) command += " " + line[i];
  std::FILE* pipe = ::popen((command + " </dev/null 2>&1 >/dev/null").c_str(), "r");
  Alone result{-1, {}};
  if (pipe == nullptr) return result;
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) result.err += static_cast<char>(c);
  result.code = WEXITSTATUS(::pclose(pipe));
  return result;
}

// A file with these words, gone with it.
class TextFile {
 public:
  explicit TextFile(const std::string& words)
      : path_(::testing::TempDir() + "examples_test_" + std::to_string(::getpid())) {
    std::ofstream(path_) << words;
  }
  ~TextFile() { std::filesystem::remove(path_); }
  TextFile(const TextFile&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// 7 words, 4 of them different, again and again: some on the edge of two shares, whatever their number.
std::string some_text(int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += "The page, the FAULT; the handler's page.\n";
  return all;
}

// Small, but with pages that two ranks share.
std::vector<Line> small_examples(const std::string& file) {
  return {{"jacobi", "--size", "64", "--rounds", "20"},
          {"sor", "--size", "64", "--rounds", "10"},
          {"matmul", "--size", "64"},
          {"lu", "--size", "64"},
          {"tsp", "--cities", "9"},
          {"quicksort", "--count", "20000", "--leaf", "1000"},
          {"mandelbrot", "--width", "150", "--height", "100", "--steps", "100"},
          {"life", "--rows", "64", "--columns", "64", "--generations", "20"},
          {"word_count", file},
          {"pingpong", "--rounds", "20"},
          {"pi", "--strips", "10000"}};
}

// LeakSanitizer complains of a thread that ends while it looks at all threads; that is no word of ours.
std::string without_the_leak_checkers(const std::string& all) {
#if defined(__SANITIZE_ADDRESS__)
  std::istringstream lines(all);
  std::string ours;
  for (std::string line; std::getline(lines, line);) {
    if (line.find("Unable to get registers from thread") == std::string::npos) ours += line + "\n";
  }
  return ours;
#else
  return all;
#endif
}

void expect_ok(const Ended& r, const Line& line, int ranks) {
  const std::string from_0 = "[Proc 0 : localhost : stdout] " + line[0] + ": ";
  const std::string counters = from_0 + std::to_string(ranks) + (ranks == 1 ? " rank, " : " ranks, ");
  EXPECT_EQ(r.code(), 0) << line[0] << ", " << ranks << " ranks: " << text(r);
  EXPECT_EQ(launch::testing::count(r.out, from_0 + "OK\n"), 1U) << text(r);
  EXPECT_EQ(launch::testing::count(r.out, counters), 1U) << text(r);
  EXPECT_EQ(without_the_leak_checkers(r.err), "") << line[0];
}

class Examples : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Run, Examples, ::testing::Values("migrate", "msi"),
                         [](const auto& p) { return std::string(p.param); });

TEST_P(Examples, With1To4RanksTheResultIsThatOfTheSerialRun) {
  const TextFile file(some_text(500));
  for (const Line& line : small_examples(file.path())) {
    for (int ranks = 1; ranks <= 4; ++ranks) {
      expect_ok(job({"-p", GetParam(), "-n", std::to_string(ranks), "--size", "16M"}, line), line, ranks);
    }
  }
}

// Some of the four ranks have nothing to do.
TEST_P(Examples, LessWorkThanRanks) {
  const TextFile file("a");
  for (const Line& line : {Line{"jacobi", "--size", "3"},
                           {"sor", "--size", "3"},
                           {"matmul", "--size", "1"},
                           {"lu", "--size", "1"},
                           {"tsp", "--cities", "4"},
                           {"quicksort", "--count", "1"},
                           {"mandelbrot", "--width", "1", "--height", "1"},
                           {"life", "--rows", "3", "--columns", "3"},
                           {"word_count", file.path()}}) {
    expect_ok(job({"-p", GetParam(), "--size", "16M"}, line), line, 4);
  }
}

TEST(Example, AWrongNumberIsNoticed) {
  const TextFile file(some_text(10));
  for (Line line : small_examples(file.path())) {
    line.emplace_back("--spoil");
    const Ended r = job({"-n", "2", "--size", "16M"}, line);
    EXPECT_EQ(r.code(), 1) << text(r);
    EXPECT_EQ(launch::testing::count(r.out, line[0] + ": FAILED\n"), 1U) << text(r);
    EXPECT_EQ(launch::testing::count(r.out, ": OK\n"), 0U) << text(r);
    EXPECT_EQ(launch::testing::count(r.err, ", the serial run has "), 1U) << text(r);
  }
}

TEST(Example, RunWithoutDsmexec) {
  const TextFile file(some_text(10));
  for (const Line& line : small_examples(file.path())) {
    const Alone r = alone(line);
    EXPECT_EQ(r.code, 0) << line[0] << ": " << r.err;
    EXPECT_EQ(without_the_leak_checkers(r.err), "") << line[0];
  }
}

TEST(Example, WordCountCountsWhatATextHas) {
  const TextFile file(some_text(100));
  const Ended r = job({"--size", "16M"}, {"word_count", file.path(), file.path(), "/dev/null"});
  EXPECT_EQ(r.code(), 0) << text(r);
  EXPECT_NE(r.out.find("1600 words, 5 different; most often: the 600, page 400, s 200\n"), std::string::npos)
      << text(r);
}

TEST(Example, MisuseIsOneLineAndExit2) {
  for (const Line& line : {Line{"jacobi", "--size", "2"},
                           {"sor", "--size", "x"},
                           {"matmul", "--size", "-1"},
                           {"lu", "--size"},
                           {"tsp", "--cities", "21"},
                           {"quicksort", "--leaf", "0"},
                           {"mandelbrot", "--wide", "7"},
                           {"life", "rows"},
                           {"word_count"}}) {
    const Alone r = alone(line);
    EXPECT_EQ(r.code, 2) << line[0];
    EXPECT_EQ(r.err.rfind(line[0] + ": ", 0), 0U) << r.err;
    EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
  }
}

TEST(Example, TooLittleSharedMemoryIsOneLineThatSaysWhatToDo) {
  for (const Line& line : {Line{"jacobi"}, {"matmul"}, {"quicksort", "--count", "1000000000"}}) {
    const Ended r = job({"--size", "1M"}, line);
    EXPECT_EQ(r.code(), 1) << text(r);
    EXPECT_EQ(launch::testing::count(r.err, line[0] + ": "), 1U) << text(r);
    EXPECT_NE(r.err.find("dsmexec --size"), std::string::npos) << text(r);
  }
}

TEST(Example, WordCountNamesAFileThatItCannotRead) {
  for (const std::string file : {"/nonexistent", "/"}) {
    const Ended r = job({"--size", "16M"}, {"word_count", file});
    EXPECT_EQ(r.code(), 1) << text(r);
    EXPECT_EQ(launch::testing::count(r.err, "word_count: rank 0: " + file + ": "), 1U) << text(r);
  }
}

TEST(Example, With64Ranks) {
  const TextFile file(some_text(500));
  const Line line{"word_count", file.path()};
  expect_ok(job({"-n", "64", "--size", "16M"}, line), line, 64);
  const Ended greeted = job({"-n", "64", "--size", "16M"}, {"hello"});
  EXPECT_EQ(greeted.code(), 0) << text(greeted);
  for (int rank = 0; rank < 64; ++rank) {
    const std::string expected = "rank " + std::to_string(rank) + " of 64 was here";
    EXPECT_EQ(launch::testing::count(greeted.out, expected), 1U) << text(greeted);
  }
  const Ended passed = job({"-n", "64", "--size", "16M"}, {"dsm_stress", "barriers", "--rounds", "100"});
  EXPECT_EQ(passed.code(), 0) << text(passed);
  EXPECT_NE(passed.out.find("barriers: 100 passed"), std::string::npos) << text(passed);
}

}  // namespace
}  // namespace dsm
