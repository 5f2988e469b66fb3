// What the ranks print arrives whole, on the right stream, in bounded memory.
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "dsm/tests/launch_bench.hpp"

namespace dsm::launch::testing {
namespace {

// "VmRSS" and the like, in KiB; 0 if the process has gone.
long status_field(pid_t pid, const std::string& name) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(file, line);) {
    if (line.compare(0, name.size() + 1, name + ":") == 0) return std::stol(line.substr(name.size() + 1));
  }
  return 0;
}

TEST(LaunchOutput, LinesAreTaggedWholeAndInOrderOnTheirStream) {
  const Ended end = run_script(
      "i=0; while [ $i -lt 500 ]; do echo out-$i-abcdefghijklmnopqrstuvwxyz; echo err-$i-zyxwvu >&2; i=$((i+1)); done");
  ASSERT_EQ(end.code(), 0);
  for (const auto& [text, stream, line] : {std::tuple(end.out, "stdout", "out-%d-abcdefghijklmnopqrstuvwxyz"),
                                           std::tuple(end.err, "stderr", "err-%d-zyxwvu")}) {
    std::vector<int> next(4);
    std::istringstream lines(text);
    for (std::string got; std::getline(lines, got);) {
      int rank = -1;
      ASSERT_EQ(std::sscanf(got.c_str(), "[Proc %d", &rank), 1) << got;
      ASSERT_TRUE(rank >= 0 && rank < 4) << got;
      char want[100];
      const std::string format = std::string("[Proc %d : localhost : ") + stream + "] " + line;
      std::snprintf(want, sizeof want, format.c_str(), rank, next[static_cast<std::size_t>(rank)]++);
      ASSERT_EQ(got, want);
    }
    EXPECT_EQ(next, std::vector<int>(4, 500));
  }
}

TEST(LaunchOutput, ALastLineWithoutNewlineIsClosed) {
  const Ended end = run_script("printf a; printf b >&2");
  EXPECT_EQ(end.code(), 0);
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(count(end.out, "[Proc " + std::to_string(rank) + " : localhost : stdout] a\n"), 1u);
    EXPECT_EQ(count(end.err, "[Proc " + std::to_string(rank) + " : localhost : stderr] b\n"), 1u);
  }
}

TEST(LaunchOutput, OnAPipeAnUnfinishedLineWaitsForItsNewline) {
  const Ended end = run_script("printf 'a? '; sleep 1; echo b", {"-n", "2", "--output", "plain"});
  EXPECT_EQ(end.out, "a? b\na? b\n");
}

TEST(LaunchOutput, VeryLongLinesStayWhole) {
  const Ended end = run_script("head -c 3000000 /dev/zero | tr '\\0' $DSMEXEC_RANKID; echo", {"--output", "plain"});
  ASSERT_EQ(end.code(), 0);
  std::vector<std::size_t> seen(4);
  std::istringstream lines(end.out);
  for (std::string got; std::getline(lines, got);) {
    ASSERT_EQ(got.size(), 3'000'000u);
    ASSERT_EQ(got.find_first_not_of(got[0]), std::string::npos);
    ++seen[static_cast<std::size_t>(got[0] - '0')];
  }
  EXPECT_EQ(seen, std::vector<std::size_t>(4, 1));
}

TEST(LaunchOutput, EightyMegabytesGetThroughToTheLastByte) {
  const Ended end =
      run_script("yes 0123456789012345678901234567890123456789012345678901234567890123456789012345678 | head -n 500000",
                 {"-n", "2", "--output", "plain"});
  EXPECT_EQ(end.code(), 0);
  EXPECT_EQ(end.out.size(), 2u * 500'000u * 80u);
}

TEST(LaunchOutput, BothStreamsIntoOnePipeDoNotCutEachOthersLines) {
  Order order;
  order.one_pipe = true;
  order.arguments = {"-n",
                     "2",
                     "--output",
                     "plain",
                     "@",
                     "sh",
                     "-c",
                     "yes ooooooooooooooooooooooooooooooooooooooo | head -n 50000 & yes EEEEEEEEEEEEEEEEEEEEEEEEE | "
                     "head -n 50000 >&2; wait"};
  const Ended end = run(order);
  ASSERT_EQ(end.code(), 0);
  std::istringstream lines(end.out);
  std::size_t number = 0;
  for (std::string got; std::getline(lines, got); ++number) {
    ASSERT_TRUE(got == std::string(39, 'o') || got == std::string(25, 'E')) << got;
  }
  EXPECT_EQ(number, 200'000u);
}

TEST(LaunchOutput, AReaderThatDoesNotReadHoldsTheRanksUpNotTheMemory) {
  Order order;
  order.read = false;
  order.arguments = {"-n", "1", "@", "sh", "-c", "yes 0123456789 | head -c 60000000; echo the-end"};
  Dsmexec one(order);
  ASSERT_TRUE(wait_until([&] { return one.agent() != 0; }));
  const pid_t agent = one.agent();
  // Until nothing moves any more: all pipes are full.
  long before = -1;
  ASSERT_TRUE(wait_until([&] {
    std::ostringstream io;
    io << std::ifstream("/proc/" + std::to_string(agent) + "/io").rdbuf();
    const long now = std::stol(io.str().substr(io.str().find("wchar:") + 6));
    const bool still = now == before && now > 0;
    before = now;
    ::poll(nullptr, 0, 200);
    return still;
  }));
  EXPECT_LT(status_field(one.pid(), "VmRSS"), 64 << 10);
  EXPECT_LT(status_field(agent, "VmRSS"), 64 << 10);
  one.start_reading();
  const Ended end = one.wait();
  EXPECT_EQ(end.code(), 0);
  EXPECT_EQ(count(end.out, "0123456789\n"), 60'000'000u / 11);
  EXPECT_EQ(count(end.out, "the-end\n"), 1u);
}

TEST(LaunchOutput, AReaderThatGoesAwayEndsTheJobWithOneLine) {
  Order order;
  order.arguments = {"@", "yes"};
  Dsmexec one(order);
  ASSERT_TRUE(one.shows("stdout] y\n"));
  one.close_output();
  const Ended end = one.wait();
  EXPECT_EQ(end.code(), 125);
  ASSERT_EQ(end.own_lines().size(), 1u) << end.err;
  EXPECT_EQ(count(end.err, "cannot write standard output: Broken pipe"), 1u);
  EXPECT_TRUE(wait_until([&] { return one.left().empty(); }));
}

TEST(LaunchOutput, ASignalEndsAJobWhoseOutputNobodyReads) {
  Order order;
  order.read = false;
  order.arguments = {"@", "yes"};
  Dsmexec one(order);
  ASSERT_TRUE(wait_until([&] { return one.left().size() >= 6; }));
  ASSERT_EQ(::kill(one.pid(), SIGTERM), 0);
  EXPECT_TRUE(wait_until([&] { return one.left().empty(); }));
  one.start_reading();
  EXPECT_EQ(one.wait().signal(), SIGTERM);
}

TEST(LaunchOutput, AFileForEachRankAndStream) {
  Dsmexec shelf({{"--version"}, "", "", {}, false, true});
  const std::string folder = shelf.folder() + "/new";
  const Ended end = run_script("echo out $DSMEXEC_RANKID; echo err $DSMEXEC_RANKID >&2", {"--output", folder});
  EXPECT_EQ(end.code(), 0);
  EXPECT_EQ(end.out + end.err, "");
  for (int rank = 0; rank < 4; ++rank) {
    for (const std::string stream : {"out", "err"}) {
      std::ostringstream text;
      text << std::ifstream(folder + "/rank-" + std::to_string(rank) + ".std" + stream).rdbuf();
      EXPECT_EQ(text.str(), stream + " " + std::to_string(rank) + "\n");
    }
  }
  shelf.wait();
}

// Nobody reads it: opening it for writing would wait for ever, deaf to --timeout and to signals.
TEST(LaunchOutput, AFifoInTheWayOfAnOutputFileIsOneLine) {
  Dsmexec shelf({{"--version"}, "", "", {}, false, true});
  ASSERT_EQ(::mkfifo((shelf.folder() + "/rank-0.stdout").c_str(), 0600), 0);
  const Ended end = run_script("echo started", {"-n", "1", "--output", shelf.folder()});
  EXPECT_EQ(end.code(), 125);
  EXPECT_EQ(end.err,
            "dsmexec: --output: " + shelf.folder() + "/rank-0.stdout is in the way, and no ordinary file: remove it\n");
  EXPECT_EQ(end.out, "");
  shelf.wait();
}

TEST(LaunchOutput, HelpThatCannotBeWrittenIsSaid) {
  const Said said = shell("'" + dsmexec_path() + "' --help 2>&1 >/dev/full");
  EXPECT_EQ(said.code, 125);
  EXPECT_EQ(said.text, "dsmexec: cannot write standard output: No space left on device\n");
}

TEST(LaunchTerminal, APromptIsShownAndTheAnswerReadAndTheLineGoesOn) {
  Order order;
  order.terminal = true;
  order.arguments = {"-n", "1",
                     "@",  "sh",
                     "-c", "test \"$DSMEXEC_TTY\" = 1 || exit 9; printf 'name? '; read x; printf 'hello %s\\n' $x"};
  Dsmexec one(order);
  ASSERT_TRUE(one.shows("[Proc 0 : localhost : stdout] name? "));
  one.type("bob\n");
  ASSERT_TRUE(one.shows("hello bob"));
  const Ended end = one.wait();
  EXPECT_EQ(end.code(), 0);
  EXPECT_EQ(count(end.out, "[Proc 0"), 1u) << end.out;
}

TEST(LaunchTerminal, ControlCIsPassedOnOnce) {
  Order order;
  order.terminal = true;
  order.arguments = {"-n", "2",  "@",
                     "sh", "-c", "trap 'echo int; exit 0' INT; echo ready; while :; do sleep 0.05; done"};
  Dsmexec one(order);
  ASSERT_TRUE(one.shows("[Proc 0 : localhost : stdout] ready") && one.shows("[Proc 1 : localhost : stdout] ready"));
  one.type("\x03");
  const Ended end = one.wait();
  EXPECT_EQ(end.signal(), SIGINT);
  EXPECT_EQ(count(end.out, "stdout] int"), 2u) << end.out;
}

}  // namespace
}  // namespace dsm::launch::testing
