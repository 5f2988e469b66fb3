// --keep-going: what ends the job, and what does not.
#include "dsm/launch/job_scene.hpp"

namespace dsm::launch {
namespace {

using testing::death_by;
using testing::exit_status;
using testing::Phase;
using testing::Scene;

TEST(KeepGoing, ARankThatFailsStopsNobodyAndTheFirstGivesTheCode) {
  Scene s(3, std::nullopt, true);
  s.exit(1, exit_status(3));
  EXPECT_EQ(s.commands(), "");
  EXPECT_FALSE(s.job.over());
  s.exit(0, exit_status(4));
  s.exit(2, exit_status(0));
  s.job.agent_done();
  EXPECT_TRUE(s.job.over());
  EXPECT_EQ(s.commands(), "");
  EXPECT_EQ(s.job.exit_code(), 3);
  EXPECT_EQ(s.job.summary(),
            (std::vector<std::string>{"rank 1 (b) failed: exit code 3", "rank 0 (a) failed too: exit code 4"}));
}

TEST(KeepGoing, WithoutItTheOthersAreStopped) {
  Scene s(2);
  s.exit(1, exit_status(3));
  EXPECT_EQ(s.commands(), "SIGTERM");
}

// The others would wait for it for ever.
TEST(KeepGoing, ARankOfADsmJobIsNeeded) {
  Scene s(3, std::nullopt, true);
  s.all_join();
  s.exit_and_close(1, death_by(SIGKILL));
  EXPECT_EQ(s.commands(), "SIGTERM");
  EXPECT_EQ(s.job.exit_code(), 137);
}

TEST(KeepGoing, ARankThatFailsWhileOthersAreInDsmInitIsNeeded) {
  Scene s(3, std::nullopt, true);
  s.job.joined(0, s.now);
  s.exit(1, exit_status(3));
  EXPECT_EQ(s.commands(), "SIGTERM");
  EXPECT_EQ(s.job.exit_code(), 3);
}

TEST(KeepGoing, ARankThatWaitsInDsmInitForOneThatHasFailedIsTold) {
  Scene s(3, std::nullopt, true);
  s.exit(1, exit_status(3));
  EXPECT_EQ(s.commands(), "");
  s.job.joined(0, s.now);
  EXPECT_EQ(s.commands(), "SIGTERM");
  s.exit(0, death_by(SIGTERM), true);
  s.exit(2, death_by(SIGTERM), true);
  s.job.agent_done();
  EXPECT_EQ(s.job.exit_code(), 3);
  EXPECT_EQ(s.job.summary(), (std::vector<std::string>{"rank 1 (b) failed: exit code 3",
                                                       "rank 1 (b) ended without dsm_init (exit code 3), and rank 0 "
                                                       "waits for it there; dsmexec stopped ranks 0, 2"}));
}

TEST(KeepGoing, WhoFailsAfterDsmFinalizeIsNotWaitedFor) {
  Scene s(2, std::nullopt, true);
  s.all_join();
  for (const int rank : {0, 1}) s.job.reported(rank, {Phase::finalized, 0}, s.now);
  s.exit_and_close(1, exit_status(3));
  s.after(1000);
  EXPECT_EQ(s.commands(), "");
  s.exit_and_close(0, exit_status(0));
  s.job.agent_done();
  EXPECT_EQ(s.job.exit_code(), 3);
}

TEST(KeepGoing, ATimeoutEndsTheRestAndBothAreSaid) {
  Scene s(2, milliseconds(500), true);
  s.exit(1, exit_status(3));
  s.after(600);
  s.job.stacks_taken(s.now);
  s.after(0);
  EXPECT_EQ(s.commands(), "stacks SIGTERM");
  s.exit(0, death_by(SIGTERM), true);
  s.job.agent_done();
  EXPECT_EQ(s.job.exit_code(), 3);
  EXPECT_EQ(s.job.summary(), (std::vector<std::string>{"rank 1 (b) failed: exit code 3",
                                                       "timeout after 0.5 s; dsmexec stopped rank 0"}));
}

TEST(KeepGoing, ASignalEndsTheRestAndBothAreSaid) {
  Scene s(2, std::nullopt, true);
  s.exit(1, exit_status(3));
  s.job.interrupted(SIGINT, s.now);
  s.exit(0, death_by(SIGINT), true);
  s.job.agent_done();
  EXPECT_EQ(s.job.die_of(), SIGINT);
  EXPECT_EQ(s.job.summary(),
            (std::vector<std::string>{"rank 1 (b) failed: exit code 3", "ended by SIGINT; dsmexec stopped rank 0"}));
}

}  // namespace
}  // namespace dsm::launch
