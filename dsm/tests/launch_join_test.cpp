// The rendezvous as ranks of a DSM job meet it: who is let in, who is refused, whose fault it was.
#include <gtest/gtest.h>
#include <signal.h>

#include "dsm/tests/launch_bench.hpp"

namespace dsm::launch::testing {
namespace {

Ended run_ranks(const std::string& mode, std::vector<std::string> options = {},
                std::vector<std::string> environment = {}) {
  Order order;
  order.arguments = std::move(options);
  order.arguments.insert(order.arguments.end(), {"@", own_path(), "--rank", mode});
  order.environment = std::move(environment);
  return run(std::move(order));
}

TEST(LaunchJoin, AJobThatJoinsAndFinalizesEndsWell) {
  const Ended end = run_ranks("good", {"--size", "64M", "-p", "migrate", "--output", "plain"}, {"DSMEXEC_SPIN_US=7"});
  EXPECT_EQ(end.code(), 0) << end.err;
  EXPECT_EQ(end.err, "");
  EXPECT_EQ(count(end.out, "lanes 4 spin 7 size 67108864 protocol migrate peers 4\n"), 4u) << end.out;
  EXPECT_EQ(count(run_ranks("good", {"-n", "9"}).out, "lanes 1 "), 9u);
}

TEST(LaunchJoin, ANonsensicalSpinIsRefused) {
  const Ended end = run_ranks("good", {}, {"DSMEXEC_SPIN_US=lots"});
  EXPECT_EQ(end.code(), 125);
  EXPECT_EQ(end.own_lines().size(), 1u);
}

TEST(LaunchJoin, SixtyFourRanksMayJoinSixtyFiveMayNot) {
  EXPECT_EQ(run_ranks("good", {"-n", "64"}).code(), 0);
  const Ended end = run_ranks("good", {"-n", "65"});
  EXPECT_EQ(end.code(), 125);
  EXPECT_EQ(count(end.err, "\n"), 1u) << end.err;
  EXPECT_EQ(count(end.err, "at most 64 ranks, and this job has 65"), 1u) << end.err;
}

TEST(LaunchJoin, LeavingWithoutFinalizeIsNamed) {
  const Ended end = run_ranks("leave");
  EXPECT_EQ(end.code(), 125);
  ASSERT_EQ(end.own_lines().size(), 1u) << end.err;
  EXPECT_EQ(end.own_lines()[0],
            "rank 2 (localhost) left without dsm_finalize (exit code 0); dsmexec stopped ranks 0-1, 3");
}

TEST(LaunchJoin, ARankThatOnlyClosesItsConnectionIsNamed) {
  const Ended end = run_ranks("closed");
  EXPECT_EQ(end.code(), 125);
  EXPECT_EQ(count(end.err, "rank 2 (localhost) left the job without dsm_finalize, though its process goes on"), 1u)
      << end.err;
}

TEST(LaunchJoin, TheRankThatDiedIsNamedNotThoseThatLostIt) {
  const Ended end = run_ranks("peer-dies");
  EXPECT_EQ(end.code(), 137);
  ASSERT_GE(end.own_lines().size(), 1u);
  EXPECT_EQ(end.own_lines()[0].find("rank 1 (localhost) failed: killed by signal 9 (SIGKILL)"), 0u) << end.err;
  EXPECT_EQ(count(end.err, "rank 2 (localhost) lost rank 1 and then ended: exit code 70"), 1u) << end.err;
}

TEST(LaunchJoin, AKilledRankIsNamed) {
  Order order;
  order.arguments = {"-v", "@", own_path(), "--rank", "wait"};
  Dsmexec one(order);
  for (int rank = 0; rank < 4; ++rank) ASSERT_TRUE(one.shows("rank " + std::to_string(rank) + " runs"));
  const auto list = one.left();
  const pid_t agent = one.agent();
  pid_t victim = 0;
  for (const pid_t pid : list) {
    if (pid != agent && pid != one.pid()) victim = pid;
  }
  ASSERT_EQ(::kill(victim, SIGKILL), 0);
  const auto killed_at = Clock::now();
  const Ended end = one.wait();
  EXPECT_EQ(end.code(), 137);
  EXPECT_EQ(count(end.err, "failed: killed by signal 9 (SIGKILL); dsmexec stopped ranks "), 1u) << end.err;
  EXPECT_LT(Clock::now() - killed_at, std::chrono::seconds(30));
}

TEST(LaunchJoin, OneThatEndsWithoutJoiningIsNamed) {
  const Ended end = run_ranks("one-never-joins");
  EXPECT_EQ(end.code(), 125);
  EXPECT_EQ(count(end.err, "rank 1 (localhost) ended without dsm_init (exit code 0)"), 1u) << end.err;
}

TEST(LaunchJoin, AnotherPlatformIsRefusedByName) {
  const Ended end = run_ranks("other-platform", {"-n", "2"});
  EXPECT_EQ(end.code(), 125);
  EXPECT_EQ(count(end.err, "architecture"), 1u) << end.err;
}

TEST(LaunchJoin, ASecondOneOfTheSameRankIsRefusedAndTheJobGoesOn) {
  const Ended end = run_ranks("twice", {"-n", "2"});
  EXPECT_EQ(end.code(), 0) << end.err;
  EXPECT_EQ(count(end.out, "second: rank 0 has joined already\n"), 1u) << end.out;
}

TEST(LaunchJoin, StrangersAreDroppedAndLoggedAndDoNoHarm) {
  const Ended end = run_ranks("strangers", {"-v", "-n", "3"});
  EXPECT_EQ(end.code(), 0) << end.err;
  EXPECT_EQ(count(end.out, "peers 3\n"), 3u);
  EXPECT_GE(count(end.err, "wrong first bytes"), 3u) << end.err;
  EXPECT_EQ(run_ranks("strangers", {"-n", "3"}).err, "") << "only -v tells of them";
}

TEST(LaunchJoin, TheClassroomsHandshake) {
  const Ended open = run_ranks("classroom", {"--open-rendezvous"});
  EXPECT_EQ(open.code(), 0);
  EXPECT_EQ(count(open.out, "got <0><1><2><3>.\n"), 4u) << open.out;
  const Ended closed = run_ranks("classroom", {"-v"});
  EXPECT_EQ(count(closed.out, "got .\n"), 4u) << closed.out;
  EXPECT_EQ(count(closed.err, "wrong first bytes"), 4u) << closed.err;
}

}  // namespace
}  // namespace dsm::launch::testing
