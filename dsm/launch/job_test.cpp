#include "dsm/launch/job.hpp"

#include "dsm/launch/job_scene.hpp"

namespace dsm::launch {
namespace {

using testing::death_by;
using testing::exit_status;
using testing::Phase;
using testing::Scene;

TEST(Job, AllRanksEndWell) {
  Scene s(2);
  s.exit(0, exit_status(0));
  EXPECT_FALSE(s.job.over());
  s.exit(1, exit_status(0));
  EXPECT_FALSE(s.job.over()) << "the agent still has output to hand over";
  s.job.agent_done();
  EXPECT_TRUE(s.job.over());
  EXPECT_EQ(s.job.exit_code(), 0);
  EXPECT_TRUE(s.job.summary().empty());
  EXPECT_EQ(s.commands(), "");
}

TEST(Job, TheFirstThatFailsGivesTheCodeAndTheOthersAreStopped) {
  Scene s(4);
  s.exit(2, exit_status(3));
  EXPECT_EQ(s.commands(), "SIGTERM");
  s.exit(0, death_by(SIGTERM), true);
  s.exit(1, exit_status(9));  // by itself, at the same moment
  s.exit(3, death_by(SIGTERM), true);
  s.job.agent_done();
  EXPECT_TRUE(s.job.over());
  EXPECT_EQ(s.job.exit_code(), 3);
  const auto lines = s.job.summary();
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0], "rank 2 (c) failed: exit code 3; dsmexec stopped ranks 0, 3");
  EXPECT_EQ(lines[1], "rank 1 (b) failed too: exit code 9");
}

TEST(Job, ASignalIs128AndMore) {
  Scene s(2);
  s.exit(1, death_by(SIGKILL));
  s.exit(0, death_by(SIGTERM), true);
  s.job.agent_done();
  EXPECT_EQ(s.job.exit_code(), 137);
  EXPECT_EQ(s.first_line(), "rank 1 (b) failed: killed by signal 9 (SIGKILL); dsmexec stopped rank 0");
}

TEST(Job, WhoDoesNotHeedTermIsKilledAfterTheGrace) {
  Scene s(2);
  s.exit(0, exit_status(1));
  EXPECT_EQ(s.commands(), "SIGTERM");
  s.after(900);
  EXPECT_EQ(s.commands(), "");
  s.after(200);
  EXPECT_EQ(s.commands(), "kill");
  s.after(5000);
  EXPECT_EQ(s.commands(), "");
}

TEST(Job, GivesUpWhenNothingCanBeKilledButNotWhileOutputIsHeldUp) {
  Scene s(2);
  s.exit(0, exit_status(1));
  s.after(1500);
  s.now += milliseconds(11'000);
  s.job.tick(s.now, /*held_up=*/true);
  EXPECT_FALSE(s.job.over());
  s.after(11'000);
  EXPECT_TRUE(s.job.over());
  EXPECT_EQ(s.job.exit_code(), 1);
  EXPECT_EQ(s.job.summary().back(), "rank 1 could not be ended");
}

TEST(Job, ARankThatLostItsPeerIsSecondaryEvenIfItsWordComesFirst) {
  Scene s(3);
  s.all_join();
  s.job.reported(0, {Phase::lost_peer, 1}, s.now);
  s.exit_and_close(0, exit_status(70));
  EXPECT_EQ(s.commands(), "");
  s.after(100);
  s.exit_and_close(1, death_by(SIGKILL));
  EXPECT_EQ(s.commands(), "SIGTERM");
  s.exit_and_close(2, death_by(SIGTERM), true);
  s.job.agent_done();
  EXPECT_EQ(s.job.exit_code(), 137);
  const auto lines = s.job.summary();
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0], "rank 1 (b) failed: killed by signal 9 (SIGKILL); dsmexec stopped rank 2");
  EXPECT_EQ(lines[1], "rank 0 (a) lost rank 1 and then ended: exit code 70");
}

TEST(Job, TheWordOfAnExitWaitsForTheRanksLastReport) {
  Scene s(3);
  s.all_join();
  s.exit(0, exit_status(70));  // its connection has not ended: its report may be on the way
  EXPECT_EQ(s.commands(), "");
  s.job.reported(0, {Phase::lost_peer, 1}, s.now);
  s.job.channel_ended(0, s.now);
  EXPECT_EQ(s.commands(), "");
  s.exit_and_close(1, death_by(SIGSEGV));
  EXPECT_EQ(s.job.exit_code(), 139);
}

TEST(Job, ABlamedRankThatGoesOnIsNamedAfterAMoment) {
  Scene s(3);
  s.all_join();
  s.job.reported(0, {Phase::lost_peer, 2}, s.now);
  s.after(100);
  EXPECT_EQ(s.commands(), "");
  s.after(300);
  EXPECT_EQ(s.commands(), "SIGTERM");
  EXPECT_EQ(s.job.exit_code(), 125);
  EXPECT_EQ(s.first_line(),
            "rank 2 (c) and rank 0 (a) lost the connection between them, though the process of rank 2 goes on");
}

TEST(Job, TheEndOfAChainOfBlameIsNamed) {
  Scene s(3);
  s.all_join();
  s.job.reported(0, {Phase::lost_peer, 1}, s.now);
  s.job.reported(1, {Phase::lost_peer, 2}, s.now);
  s.after(400);
  EXPECT_EQ(s.first_line().substr(0, 10), "rank 2 (c)");
}

TEST(Job, TwoThatBlameEachOtherLostTheirConnection) {
  Scene s(2);
  s.all_join();
  s.job.reported(0, {Phase::lost_peer, 1}, s.now);
  s.job.reported(1, {Phase::lost_peer, 0}, s.now);
  s.after(400);
  EXPECT_EQ(s.job.exit_code(), 125);
  EXPECT_EQ(s.first_line(), "rank 0 (a) and rank 1 (b) lost the connection between them");
}

TEST(Job, WhoBreaksTheProtocolIsNamed) {
  Scene s(2);
  s.all_join();
  s.job.reported(1, {Phase::bad_peer, 17}, s.now);  // no rank: nothing to go by
  s.job.reported(1, {Phase::bad_peer, 0}, s.now);
  s.after(400);
  EXPECT_EQ(s.job.exit_code(), 125);
  EXPECT_EQ(s.first_line(), "rank 0 (a) broke the protocol, says rank 1");
}

TEST(Job, LeavingWithoutFinalizeIsAFailure) {
  Scene s(2);
  s.all_join();
  s.job.reported(0, {Phase::finalized, 0}, s.now);
  s.exit_and_close(0, exit_status(0));
  EXPECT_EQ(s.commands(), "");
  s.exit_and_close(1, exit_status(0));
  EXPECT_EQ(s.job.exit_code(), 125);
  EXPECT_EQ(s.first_line(), "rank 1 (b) left without dsm_finalize (exit code 0)");
}

TEST(Job, AFinalizedReportThatComesAfterTheExitCounts) {
  Scene s(1);
  s.all_join();
  s.exit(0, exit_status(0));
  s.job.agent_done();
  EXPECT_FALSE(s.job.over());
  s.job.reported(0, {Phase::finalized, 0}, s.now);
  s.job.channel_ended(0, s.now);
  EXPECT_TRUE(s.job.over());
  EXPECT_EQ(s.job.exit_code(), 0);
}

TEST(Job, ARankThatClosesItsConnectionAndGoesOnIsNamed) {
  Scene s(2);
  s.all_join();
  s.job.channel_ended(1, s.now);
  s.after(700);
  EXPECT_EQ(s.job.exit_code(), 125);
  EXPECT_EQ(s.first_line(), "rank 1 (b) left the job without dsm_finalize, though its process goes on");
}

// Its machine may have lost power: then its connection is the first thing that is missed.
TEST(Job, ARankOfAnotherMachineIsNotSaidToGoOnWhenOnlyItsConnectionHasEnded) {
  auto config = Scene::config(2, std::nullopt);
  config.elsewhere = {false, true};
  Time now = Time{} + std::chrono::hours(1);
  Job job(config, now);
  for (const int rank : {0, 1}) job.started(rank, 100 + rank);
  for (const int rank : {0, 1}) job.joined(rank, now);
  job.welcomed(now);
  for (const int rank : {0, 1}) job.reported(rank, {Phase::running, 0}, now);
  job.channel_ended(1, now);
  job.tick(now + milliseconds(700));
  EXPECT_EQ(job.exit_code(), 125);
  EXPECT_EQ(job.summary().front(),
            "rank 1 (b) was lost: its connection has ended, and nothing is known of the end of its process");
}

TEST(Job, AConnectionThatEndsJustBeforeTheRanksDeathIsExplainedByIt) {
  Scene s(2);
  s.all_join();
  s.job.channel_ended(1, s.now);
  s.after(200);
  s.exit(1, death_by(SIGABRT));
  EXPECT_EQ(s.job.exit_code(), 134);
}

TEST(Job, OneThatEndsWithoutJoiningWhileOthersWaitIsNamed) {
  Scene before(3), after(3);
  before.exit(1, exit_status(0));
  EXPECT_EQ(before.commands(), "");
  before.job.joined(0, before.now);
  EXPECT_EQ(before.job.exit_code(), 125);
  EXPECT_EQ(before.first_line(), "rank 1 (b) ended without dsm_init (exit code 0), and rank 0 waits for it there");
  after.job.joined(0, after.now);
  after.job.joined(2, after.now);
  after.exit(1, exit_status(0));
  EXPECT_EQ(after.first_line(), "rank 1 (b) ended without dsm_init (exit code 0), and ranks 0, 2 wait for it there");
}

TEST(Job, ASlowStartIsFineUntilSomebodyHasWaitedTooLong) {
  Scene s(3);
  s.after(3'600'000);
  s.job.joined(1, s.now);
  s.after(59'000);
  EXPECT_EQ(s.commands(), "");
  s.after(1'500);
  EXPECT_EQ(s.job.exit_code(), 125);
  EXPECT_EQ(s.first_line().substr(0, 12), "ranks 0, 2 d");
  EXPECT_NE(s.first_line().find("dsm_init"), std::string::npos);
  EXPECT_NE(s.first_line().find("rank 0 (a)"), std::string::npos);
}

TEST(Job, EveryPhaseHasItsDeadline) {
  Scene mesh(2);
  mesh.job.joined(0, mesh.now);
  mesh.job.joined(1, mesh.now);
  mesh.job.welcomed(mesh.now);
  mesh.job.reported(0, {Phase::running, 0}, mesh.now);
  mesh.after(61'000);
  EXPECT_EQ(mesh.first_line().substr(0, 24), "rank 1 did not connect t");

  Scene finalize(2);
  finalize.all_join();
  finalize.after(3'600'000);
  finalize.job.reported(1, {Phase::finalized, 0}, finalize.now);
  finalize.after(61'000);
  EXPECT_EQ(finalize.first_line().substr(0, 40), "rank 0 did not come out of dsm_finalize ");

  const Time now = Time{} + std::chrono::hours(1);
  Job job(Scene::config(2, std::nullopt), now);
  job.agent_reached({0});
  job.agent_reached({1});
  job.started(0, 1);
  job.tick(now + milliseconds(31'000));
  EXPECT_EQ(job.exit_code(), 125);
  EXPECT_EQ(job.summary().at(0), "the agent on host b has not started rank 1 within 30 s");
}

// No agent starts anything before all have been reached: the first one that has not started is not to blame.
TEST(Job, AHostThatSaysNothingIsNamedAndNotTheOnesThatWaitForIt) {
  const Time now = Time{} + std::chrono::hours(1);
  Job::Config config = Scene::config(2, std::nullopt);
  config.elsewhere = {false, true};
  config.silence_advice = "look there";
  Job job(config, now);
  job.agent_reached({0});
  job.tick(now + milliseconds(31'000));
  EXPECT_EQ(job.exit_code(), 125);
  EXPECT_EQ(job.summary().at(0), "no word from host b within 30 s: look there");
}

TEST(Job, Timeout) {
  Scene s(2, milliseconds(1500));
  s.after(1400);
  EXPECT_EQ(s.commands(), "");
  s.after(100);
  EXPECT_EQ(s.commands(), "stacks");
  EXPECT_TRUE(s.job.hasty());
  s.after(1000);
  EXPECT_EQ(s.commands(), "");
  s.job.stacks_taken(s.now);
  EXPECT_EQ(s.job.next_deadline(), s.now);
  s.after(0);
  EXPECT_EQ(s.commands(), "SIGTERM");
  s.exit(0, death_by(SIGTERM), true);
  s.exit(1, exit_status(0), true);
  s.job.agent_done();
  EXPECT_EQ(s.job.exit_code(), 124);
  EXPECT_EQ(s.first_line(), "timeout after 1.5 s; dsmexec stopped ranks 0-1");
}

TEST(Job, ATimeoutDoesNotWaitLongForStacksAndIsNotMadeUndone) {
  Scene s(2, milliseconds(100));
  s.after(100);
  EXPECT_EQ(s.commands(), "stacks");
  s.exit(0, exit_status(0));
  s.after(4900);
  EXPECT_EQ(s.commands(), "");
  s.after(101);
  EXPECT_EQ(s.commands(), "SIGTERM");
  s.exit(1, exit_status(0));
  s.job.agent_done();
  EXPECT_EQ(s.job.exit_code(), 124);
  EXPECT_EQ(s.first_line(), "timeout after 0.1 s");
}

TEST(Job, ADebuggerThatIsNotThereIsSaid) {
  Job::Config config = Scene::config(2, std::nullopt);
  config.debugger = "gdb";
  config.debugged = 1;
  Scene s(2);
  s.job = Job(config, s.now);
  s.job.not_started(1, "execve", ENOENT, s.now);
  EXPECT_EQ(s.job.exit_code(), 125);
  EXPECT_EQ(s.first_line(),
            "rank 1 (b): cannot start gdb: No such file or directory (install it there, or leave out --debug)");
}

TEST(Job, ASignalToDsmexecIsPassedOnThenTermThenKill) {
  Scene s(1);
  s.job.interrupted(SIGINT, s.now);
  EXPECT_EQ(s.commands(), "SIGINT");
  s.after(1100);
  EXPECT_EQ(s.commands(), "SIGTERM");
  s.after(1100);
  EXPECT_EQ(s.commands(), "kill");
  s.exit(0, death_by(SIGKILL), true);
  s.job.agent_done();
  EXPECT_TRUE(s.job.over());
  EXPECT_EQ(s.job.die_of(), SIGINT);
  EXPECT_EQ(s.job.exit_code(), 130);
  EXPECT_EQ(s.first_line(), "ended by SIGINT; dsmexec stopped rank 0");
}

TEST(Job, TermTwiceKillsAtOnce) {
  Scene s(1);
  s.job.interrupted(SIGTERM, s.now);
  EXPECT_EQ(s.commands(), "SIGTERM");
  s.job.interrupted(SIGTERM, s.now);
  EXPECT_EQ(s.commands(), "kill");
}

TEST(Job, ARankThatCrashesWhileItIsStoppedIsToldApart) {
  Scene s(2);
  s.exit(0, exit_status(1));
  s.exit(1, death_by(SIGSEGV), true);
  s.job.agent_done();
  const auto lines = s.job.summary();
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0], "rank 0 (a) failed: exit code 1");
  EXPECT_EQ(lines[1], "rank 1 (b) failed too: killed by signal 11 (SIGSEGV)");
}

TEST(Job, ALostAgentIsNamedWithItsHost) {
  Scene s(2);
  s.exit(0, exit_status(0));
  s.job.agent_lost("a", {0, 1}, "killed by signal 9 (SIGKILL)", s.now);
  EXPECT_TRUE(s.job.over());
  EXPECT_EQ(s.job.exit_code(), 125);
  EXPECT_EQ(s.first_line(), "the agent on host a was lost (killed by signal 9 (SIGKILL)), and with it rank 1");
}

TEST(Job, OfSeveralAgentsEachMustBeDoneOrLost) {
  auto config = Scene::config(3, std::nullopt);
  config.agents = 3;
  Time now{};
  Job job(config, now);
  for (int rank = 0; rank < 3; ++rank) job.started(rank, 100 + rank);
  job.exited(0, exit_status(0), false, false, now);
  job.agent_done();
  job.agent_lost("b", {1}, "nothing was heard from it for 4 s", now);
  EXPECT_FALSE(job.over());
  job.agent_failed("no agent on host c", now);
  EXPECT_TRUE(job.over());
  EXPECT_EQ(job.summary().front(),
            "the agent on host b was lost (nothing was heard from it for 4 s), and with it rank 1");
}

TEST(Job, AProgramThatIsNotOnAnotherMachineIs127) {
  auto config = Scene::config(2, std::nullopt);
  config.elsewhere = {false, true};
  Time now{};
  Job job(config, now);
  job.not_started(1, "execve", ENOENT, now);
  EXPECT_EQ(job.exit_code(), 127);
  EXPECT_NE(job.summary().front().find("rank 1 (b): program 'prog' is not there"), std::string::npos);
}

TEST(Job, AnAgentThatStopsItsRanksUnaskedIsToBlameItself) {
  Scene s(1);
  s.exit(0, death_by(SIGKILL), true);
  EXPECT_EQ(s.commands(), "");
  s.job.agent_lost("a", {0}, "exit code 1", s.now);
  EXPECT_EQ(s.job.exit_code(), 125);
}

TEST(Job, AProgramThatCannotBeExecutedIs126) {
  for (const int error : {EACCES, ENOEXEC, ENOENT}) {
    Scene s(1);
    s.job.not_started(0, "execve", error, s.now);
    s.job.agent_done();
    EXPECT_TRUE(s.job.over());
    EXPECT_EQ(s.job.exit_code(), 126);
    EXPECT_EQ(s.job.summary().size(), 1u);
  }
  Scene s(1);
  s.job.not_started(0, "fork", EAGAIN, s.now);
  EXPECT_EQ(s.job.exit_code(), 125);
}

TEST(Job, ManyFailuresAreSummedUp) {
  Scene s(26);
  for (int rank = 0; rank < 26; ++rank) s.exit(rank, exit_status(2));
  EXPECT_EQ(s.job.summary().size(), 10u);
  EXPECT_EQ(s.job.summary().back(), "17 more ranks failed too");
}

}  // namespace
}  // namespace dsm::launch
