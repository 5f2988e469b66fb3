// Ranks under a debugger, and what is said of those that take too long.
#include <gtest/gtest.h>
#include <signal.h>

#include "dsm/tests/job_bench.hpp"
#include "labs/common/observing.hpp"

namespace dsm::launch::testing {
namespace {

// Where each rank stands is told before it is stopped: an agent's children are looked at by another of its children.
TEST(LaunchDebug, ATimeoutTellsWhereEachRankStands) {
  const Ended end = run(job({"-n", "2", "--timeout", "1"}, {"sleep", "600"}));
  EXPECT_EQ(end.code(), 124) << text(end);
  for (const char* rank : {"rank 0 ", "rank 1 "}) {
    EXPECT_TRUE(has_line(end.err, {"dsmexec: ", rank, "(localhost): #0 ", "nanosleep"})) << text(end);
  }
  EXPECT_EQ(end.own_lines().back(), "timeout after 1 s; dsmexec stopped ranks 0-1");
  EXPECT_EQ(end.out, "");
}

TEST(LaunchDebug, UnderStraceEachPageFaultIsSeen) {
  if (!ipc::testing::sanitizer().empty()) GTEST_SKIP() << "strace and a sanitizer";
  const Ended end = run(job({"-n", "2", "--size", "16M", "--debug", "strace", "--debug-rank", "1"}, {"hello"}));
  EXPECT_EQ(end.code(), 0) << text(end);
  EXPECT_EQ(count(end.out, "of 2 was here"), 2U) << text(end);
  EXPECT_TRUE(has_line(end.err, {"[Proc 1 : localhost : stderr] ", "SIGSEGV"})) << text(end);
  EXPECT_EQ(count(end.err, "[Proc 0 "), 0U) << "the other runs without it";
}

// The faulting instruction is started again after the handler, in valgrind's own processor, too.
TEST(LaunchDebug, UnderValgrindPagesMove) {
  if (!ipc::testing::sanitizer().empty()) GTEST_SKIP() << "valgrind and a sanitizer";
  const Ended end = run(job({"-n", "2", "--size", "16M", "--debug", "valgrind"}, {"double_touch"}));
  EXPECT_EQ(end.code(), 0) << text(end);
  EXPECT_NE(end.out.find("left 12"), std::string::npos) << text(end);
}

TEST(LaunchDebug, GdbReadsItsCommandsFromStandardInput) {
  Order order = job({"-n", "2", "--size", "16M", "--debug", "gdb", "--debug-rank", "1"}, {"hello"});
  order.input = "run\nprint 6 * 7\nquit\n";
  const Ended end = run(order);
  EXPECT_EQ(end.code(), 0) << text(end);
  EXPECT_EQ(count(end.out, "of 2 was here"), 2U) << text(end);
  EXPECT_TRUE(has_line(end.out, {"[Proc 1 : localhost : stdout] ", "$1 = 42"})) << text(end);
}

TEST(LaunchDebug, CtrlCUnderGdbInterruptsTheRankAndNotTheJob) {
  Order order = job({"-n", "2", "--debug", "gdb"}, {"sh", "-c", "echo up; exec sleep 600"});
  order.terminal = true;
  Dsmexec all(order);
  ASSERT_TRUE(all.shows("[Proc 1 : localhost : stdout] up"));
  all.type("run\n");
  ASSERT_TRUE(all.shows("[Proc 0 : localhost : stdout] up"));
  ::kill(all.pid(), SIGINT);
  ASSERT_TRUE(all.shows("SIGINT")) << text(all.wait());
  all.type("kill\n");
  all.type("quit 3\n");
  const Ended end = all.wait();
  EXPECT_EQ(end.code(), 3) << text(end);
}

TEST(LaunchDebug, CtrlCEndsTheJobAgainWhenGdbHasGone) {
  Order order = job({"-v", "-n", "2", "--debug", "gdb"}, {"sleep", "600"});
  order.terminal = true;
  Dsmexec all(order);
  ASSERT_TRUE(all.shows("(gdb)"));
  all.type("quit\n");
  ASSERT_TRUE(all.shows("rank 0 has ended"));
  ::kill(all.pid(), SIGINT);
  EXPECT_EQ(all.wait().signal(), SIGINT);
}

TEST(LaunchDebug, ADebuggerThatIsNotThereIsSaidInOneLine) {
  Order order = job({"--debug", "gdb"}, {"/bin/true"});
  order.before = {"env", "PATH=/nowhere"};
  const Ended end = run(order);
  EXPECT_EQ(end.code(), 125);
  ASSERT_EQ(end.own_lines().size(), 1U) << text(end);
  EXPECT_EQ(end.own_lines().front().rfind("rank 0 (localhost): cannot start gdb: No such file or directory (install it "
                                          "there, or leave out --debug)",
                                          0),
            0U)
      << text(end);
}

}  // namespace
}  // namespace dsm::launch::testing
