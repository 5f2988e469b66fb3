// Whoever is killed, nothing of a job is left: ranks, their children, and children that left group and session.
#include <gtest/gtest.h>
#include <signal.h>

#include "dsm/tests/launch_bench.hpp"

namespace dsm::launch::testing {
namespace {

// Two ranks, each with a child in its group, one in a session of its own, and one that has also lost its parent; then
// "ready".
const char* const script =
    "(exec sleep 600) & setsid sh -c 'exec sleep 600' & (setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 600; "
    "done' &); "
    "echo ready $DSMEXEC_RANKID $$; exec sleep 600";

struct Family : Dsmexec {
  Family() : Dsmexec({{"-n", "2", "--output", "plain", "@", "sh", "-c", script}, "localhost\n", "", {}, false, true}) {
    // dsmexec, its agent, and four processes of each rank (two more while a sleep is started).
    EXPECT_TRUE(shows("ready 0 ") && shows("ready 1 "));
    EXPECT_TRUE(wait_until([this] { return left().size() >= 10; }));
  }
  bool nothing_left() {
    return wait_until([this] { return left().empty(); });
  }
};

TEST(LaunchOrphan, KilledRank) {
  Family one;
  pid_t rank = 0;
  // The agent's children are the two ranks and who fell to it; a rank is the one that leads a group and is not a
  // session's leader.
  for (const pid_t pid : one.left()) {
    if (::getpgid(pid) == pid && ::getsid(pid) != pid && pid != one.agent() && pid != one.pid()) rank = pid;
  }
  ASSERT_NE(rank, 0);
  ASSERT_EQ(::kill(rank, SIGKILL), 0);
  const Ended end = one.wait();
  EXPECT_EQ(end.code(), 137);
  ASSERT_EQ(end.own_lines().size(), 1u) << end.err;
  EXPECT_EQ(count(end.err, " (localhost) failed: killed by signal 9 (SIGKILL); dsmexec stopped rank "), 1u) << end.err;
  EXPECT_TRUE(one.left().empty()) << "all must be gone before dsmexec is";
}

TEST(LaunchOrphan, KilledAgent) {
  Family job;
  ASSERT_EQ(::kill(job.agent(), SIGKILL), 0);
  const Ended end = job.wait();
  EXPECT_EQ(end.code(), 125);
  ASSERT_EQ(end.own_lines().size(), 1u) << end.err;
  EXPECT_EQ(
      count(end.err, "the agent on host localhost was lost (killed by signal 9 (SIGKILL)), and with it ranks 0-1"), 1u);
  EXPECT_TRUE(job.left().empty()) << "all must be gone before dsmexec is";
}

TEST(LaunchOrphan, TerminatedAgent) {
  Family job;
  ASSERT_EQ(::kill(job.agent(), SIGTERM), 0);
  EXPECT_EQ(job.wait().code(), 125);
  EXPECT_TRUE(job.left().empty());
}

TEST(LaunchOrphan, KilledDsmexec) {
  Family job;
  ASSERT_EQ(::kill(job.pid(), SIGKILL), 0);
  EXPECT_TRUE(job.nothing_left());
  EXPECT_EQ(job.wait().signal(), SIGKILL);
}

TEST(LaunchOrphan, KilledDsmexecWhileItsOutputIsBlocked) {
  Dsmexec one({{"-n", "2", "@", "sh", "-c", "yes & exec setsid yes"}, "localhost\n", "", {}, false, false});
  ASSERT_TRUE(wait_until([&] { return one.left().size() >= 6; }));
  ASSERT_EQ(::kill(one.pid(), SIGKILL), 0);
  EXPECT_TRUE(wait_until([&] { return one.left().empty(); }));
  one.start_reading();
  EXPECT_EQ(one.wait().signal(), SIGKILL);
}

TEST(LaunchOrphan, InterruptedDsmexec) {
  Family job;
  ASSERT_EQ(::kill(job.pid(), SIGINT), 0);
  const Ended end = job.wait();
  EXPECT_EQ(end.signal(), SIGINT);
  EXPECT_TRUE(job.left().empty());
}

TEST(LaunchOrphan, WhatARankLeavesRunningIsEndedWithTheJob) {
  Dsmexec one({{"@", "sh", "-c", "setsid sh -c 'trap \"\" TERM; while :; do sleep 600; done' & echo done"},
               "localhost\n",
               "",
               {},
               false,
               true});
  const Ended end = one.wait();
  EXPECT_EQ(end.code(), 0) << end.err;
  EXPECT_EQ(end.err, "");
  EXPECT_TRUE(one.left().empty());
}

TEST(LaunchOrphan, ALateLineOfABackgroundProcessStillArrives) {
  const Ended end = run_script("(sleep 0.05; echo late) & exit 0", {"-n", "1", "--output", "plain"});
  EXPECT_EQ(end.code(), 0);
  EXPECT_EQ(end.out, "late\n");
}

TEST(LaunchOrphan, AnotherChildOfTheShellThatBecameDsmexecIsLeftAlone) {
  Dsmexec one(
      {{"--output", "plain", "@", "sh", "-c", "echo $PPID; exec sleep 600"}, "localhost\n", "", {}, false, true});
  // The rank's own dsmexec: started by a shell that has a child already and then becomes dsmexec.
  Dsmexec outer({{"-n", "1", "--output", "plain", "@", "sh", "-c",
                  "sleep 600 & child=$!; (dsmexec \"$0\" true); kill -0 $child && echo alive; sh -c \"exec dsmexec "
                  "'$0' true\"; kill -0 $child && echo alive",
                  one.folder() + "/machines"},
                 "localhost\n",
                 "",
                 {"PATH=" + dsmexec_path().substr(0, dsmexec_path().rfind('/')) + ":/usr/bin:/bin"},
                 false,
                 true});
  const Ended end = outer.wait();
  EXPECT_EQ(end.code(), 0) << end.err;
  EXPECT_EQ(count(end.out, "alive\n"), 2u);
}

}  // namespace
}  // namespace dsm::launch::testing
