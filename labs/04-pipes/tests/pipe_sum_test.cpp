// pipe_sum from outside: the sum, who has which end of the pipe, and how it ends when something is in the way.
#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "program_tests.hpp"

namespace {

// The line "sent: d d d": its digits; nothing if it is not of that form.
std::vector<int> digits_of(const std::string& line) {
  std::vector<int> digits;
  if (line.rfind("sent:", 0) != 0 || line.size() % 2 == 0) return {};
  for (std::size_t i = 5; i < line.size(); i += 2) {
    if (line[i] != ' ' || line[i + 1] < '0' || line[i + 1] > '9') return {};
    digits.push_back(line[i + 1] - '0');
  }
  return digits;
}

// Both lines are right; returns the digits.
std::vector<int> expect_right(const Outcome& outcome) {
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.err, Lines{});
  EXPECT_EQ(outcome.out.size(), 2U);
  if (outcome.out.size() != 2) return {};
  std::vector<int> digits = digits_of(outcome.out[0]);
  EXPECT_EQ(outcome.out[1], "sum: " + std::to_string(std::accumulate(digits.begin(), digits.end(), 0LL)));
  return digits;
}

// A pipe_sum that is held up: it has sent a million digits, and nobody reads its line. The child waits for more digits,
// or for end of file.
class HeldUp {
 public:
  HeldUp() {
    EXPECT_TRUE(wait_until([this] {
      const auto children = ipc::testing::children_of(program.pid());
      if (children.size() != 1) return false;
      child = children.front();
      // Each has closed what it closes at the beginning: the parent's only pipe is the one that the child reads.
      return ends_of(child).size() == 1 && ends_of(program.pid()).size() == 1 && state_of(child) == 'S' &&
             state_of(program.pid()) == 'S';
    }));
  }
  Started program{{"pipe_sum", "--count", "1000000"}};
  pid_t child = -1;
};

TEST(PipeSum, AddsUpWhatIsSent) {
  std::set<int> digits;
  std::set<std::size_t> counts;
  for (int seed = 0; seed < 150; ++seed) {
    const std::vector<int> sent = expect_right(run({"pipe_sum", "--seed", std::to_string(seed)}));
    counts.insert(sent.size());
    digits.insert(sent.begin(), sent.end());
  }
  EXPECT_EQ(*counts.begin(), 5U);
  EXPECT_EQ(*counts.rbegin(), 20U);
  EXPECT_EQ(counts.size(), 16U) << "every number of digits from 5 to 20";
  EXPECT_EQ(digits, (std::set<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
}

TEST(PipeSum, SendsAsManyAsItIsTold) {
  for (const std::size_t count : {1U, 2U, 4095U, 4096U, 4097U, 65536U, 65537U, 200000U}) {
    EXPECT_EQ(expect_right(run({"pipe_sum", "--count", std::to_string(count)})).size(), count);
  }
}

TEST(PipeSum, OfAMillionDigitsIsRight) {
  EXPECT_EQ(expect_right(run({"pipe_sum", "--count", "1000000"})).size(), 1000000U);
}

TEST(PipeSum, DrawsTheSameForTheSameSeedOnly) {
  EXPECT_EQ(run({"pipe_sum", "--seed", "7"}).out, run({"pipe_sum", "--seed", "7"}).out);
  EXPECT_NE(run({"pipe_sum", "--seed", "7"}).out, run({"pipe_sum", "--seed", "8"}).out);
  EXPECT_NE(run({"pipe_sum", "--count", "40"}).out, run({"pipe_sum", "--count", "40"}).out);
}

TEST(PipeSum, HasBothUnusedEndsClosed) {
  const HeldUp held;
  const auto in_parent = ends_of(held.program.pid()), in_child = ends_of(held.child);
  ASSERT_EQ(in_parent.size(), 1U);
  ASSERT_EQ(in_child.size(), 1U);
  EXPECT_EQ(in_parent.front().pipe, in_child.front().pipe);
  EXPECT_TRUE(in_parent.front().writes);
  EXPECT_FALSE(in_child.front().writes);
}

TEST(PipeSum, EndsAfterItsChildAndReapsIt) {
  HeldUp held;
  ASSERT_EQ(ipc::testing::kill_child(held.program.pid(), 0), 0);
  ::kill(held.child, SIGSTOP);  // it cannot end now
  ASSERT_TRUE(wait_until([&] { return state_of(held.child) == 'T'; }));
  ASSERT_TRUE(held.program.line());  // all is read; what it waits for now is the child
  ASSERT_TRUE(wait_until([&] { return ends_of(held.program.pid()).empty(); }));
  EXPECT_FALSE(held.program.ended());
  ::kill(held.child, SIGCONT);
  EXPECT_EQ(held.program.wait(), 0);
  EXPECT_FALSE(ipc::testing::exists(held.child)) << "neither there nor a zombie";
  EXPECT_TRUE(held.program.left_processes().empty());
}

TEST(PipeSum, ReportsAChildThatIsKilledBeforeTheEnd) {
  for (const int signo : {SIGKILL, SIGTERM}) {
    HeldUp held;
    ::kill(held.child, signo);
    EXPECT_EQ(held.program.wait(), 1);
    EXPECT_EQ(held.program.error_lines(), Lines{"pipe_sum: child " + std::to_string(held.child) + " was killed by " +
                                                (signo == SIGKILL ? "SIGKILL" : "SIGTERM") + " before it was done"});
    EXPECT_TRUE(held.program.left_processes().empty());
  }
}

// Stopped and then killed while the pipe is full, or while it waits for the last digits: wherever it happens to be.
TEST(PipeSum, ReportsAChildThatIsKilledWhileThePipeIsFull) {
  Started program({"pipe_sum", "--count", "10000000"});
  pid_t child = -1;
  ASSERT_TRUE(wait_until([&] {
    const auto children = ipc::testing::children_of(program.pid());
    if (!children.empty()) child = children.front();
    return child > 0;
  }));
  ::kill(child, SIGSTOP);
  ASSERT_TRUE(wait_until([&] { return state_of(child) == 'T' && state_of(program.pid()) == 'S'; }));
  ::kill(child, SIGKILL);
  EXPECT_EQ(program.wait(), 1);
  const Lines errors = program.error_lines();
  ASSERT_EQ(errors.size(), 1U);
  EXPECT_NE(errors.front().find("was killed by SIGKILL"), std::string::npos) << errors.front();
}

TEST(PipeSum, ThatIsKilledItselfLeavesNoChild) {
  const HeldUp held;
  held.program.signal(SIGKILL);
  EXPECT_TRUE(wait_until([&] { return !ipc::testing::is_alive(held.child); }));
}

TEST(PipeSum, ThatIsStoppedWhileNobodyReadsLeavesNoChild) {
  for (const int signo : {SIGTERM, SIGINT, SIGHUP}) {
    HeldUp held;
    held.program.signal(signo);
    EXPECT_TRUE(wait_until([&] { return held.program.ended(); })) << "it must not wait for a reader";
    EXPECT_FALSE(ipc::testing::exists(held.child));
    EXPECT_EQ(held.program.wait(), 128 + signo);
    EXPECT_EQ(held.program.error_lines(), Lines{});
  }
}

TEST(PipeSum, ThatIsStoppedAtAnyMomentLeavesNothing) {
  for (const auto& moment : ipc::testing::random_moments({SIGTERM, SIGINT}, std::chrono::milliseconds(40))) {
    Started program({"pipe_sum", "--count", "1000000"});
    std::this_thread::sleep_for(moment.delay);
    program.signal(moment.signo);
    const int code = program.wait();
    EXPECT_TRUE(code == 0 || code == 128 + moment.signo) << code;
    EXPECT_EQ(program.error_lines(), Lines{});
    EXPECT_TRUE(program.left_processes().empty());
  }
}

TEST(PipeSum, SaysWhenNobodyTakesItsLines) {
  expect_error(run({"/bin/sh", "-c", "exec \"$1\" > /dev/full", "sh", program_path("pipe_sum")}),
               "pipe_sum: standard output: No space left on device");
  expect_error(run({"/bin/sh", "-c", "exec \"$1\" >&-", "sh", program_path("pipe_sum")}),
               "pipe_sum: standard output: ");
  HeldUp held;
  held.program.close_output();
  EXPECT_EQ(held.program.wait(), 1);
  EXPECT_EQ(held.program.error_lines(), Lines{"pipe_sum: standard output: Broken pipe"});
  EXPECT_TRUE(held.program.left_processes().empty());
}

TEST(PipeSum, WorksWhateverItInherits) {
  const auto after = [](const std::string& preparation) {
    return run({"/bin/bash", "-c", preparation + "; exec \"$1\"", "bash", program_path("pipe_sum")});
  };
  expect_right(after("trap '' INT"));   // as in the background of a script
  expect_right(after("trap '' CHLD"));  // else the kernel would reap the child, and its status would be lost
  expect_right(after("trap '' PIPE"));
  expect_right(after("exec <&-"));
}

TEST(PipeSum, SaysWhatIsWrongWithTheCommandLine) {
  for (const std::string count : {"0", "-1", "x", "1.5", "10000001", "99999999999999999999"}) {
    expect_error(run({"pipe_sum", "--count", count}), "--count", 2);
  }
  expect_error(run({"pipe_sum", "5"}), "pipe_sum: it takes options only", 2);
  expect_error(run({"pipe_sum", "--seed"}), "--seed", 2);
  EXPECT_EQ(run({"pipe_sum", "--help"}).code, 0);
}

TEST(PipeSum, LeaksNothingUnderValgrind) {
  if (!ipc::testing::sanitizer().empty()) GTEST_SKIP() << "a sanitizer and valgrind do not go together";
  const auto checked = ipc::testing::run_under_valgrind({"pipe_sum", "--count", "100000"});
  expect_right(checked.outcome);
  EXPECT_EQ(checked.complaints, Lines{});
  // Nobody reads its long line meanwhile, so it waits in the middle of it.
  const auto stopped = ipc::testing::stop_under_valgrind({"pipe_sum", "--count", "100000"}, [](const Started& program) {
    return !ipc::testing::children_of(program.pid()).empty();
  });
  EXPECT_EQ(stopped.complaints, Lines{});
}

}  // namespace
