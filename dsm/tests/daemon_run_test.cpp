// dsmd from the outside: real members on loopback, started by hand; killed in each phase; refused in one line.
//
// The number of repetitions is the environment's DSM_TEST_RUNS.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <random>

#include "dsm/tests/daemon_bench.hpp"
#include "dsm/tests/job_bench.hpp"
#include "ipc/socket.hpp"
#include "ipc/spawn.hpp"

namespace dsm::daemon::testing {
namespace {

using launch::testing::count;
using launch::testing::has_line;
using launch::testing::runs;
using launch::testing::text;
using launch::testing::wait_until;

// ---- sessions that end well ----

TEST(Daemon, ProgramsInThreeTerminalsShareMemory) {
  Dsmd dsmd;
  Programs members;
  for (const char* coming : {"1 of 3", "2 of 3", "3 of 3"}) {
    members.push_back(dsmd.start({program_path("hello")}, "three", 3));
    ASSERT_TRUE(dsmd.itself().shows(coming));
  }
  const std::string out = members[0]->wait().out;
  for (std::size_t rank = 0; rank < 3; ++rank) {
    EXPECT_TRUE(
        has_line(out, {"rank " + std::to_string(rank) + " of 3 was here, pid " + std::to_string(members[rank]->pid())}))
        << "in the order of coming\n"
        << out;
  }
  expect_all_well(members);
  EXPECT_TRUE(dsmd.itself().shows("session 'three' has ended well"));
}

TEST(Daemon, DsmJoinChoosesTheSessionToo) {
  Dsmd dsmd;
  for (const auto& one : dsmd.start_all(member("call", 2), "called", 2)) {
    const Ended end = one->wait();
    EXPECT_EQ(end.code(), 0) << text(end);
    expect_one_line(end, 0,
                    {"dsm: dsm_join(\"nowhere\", 2): there is no / and no name of a session; host:port/name and N"});
  }
}

TEST(Daemon, TheExamplesVerifyUnderBothProtocols) {
  for (const char* protocol : {"msi", "migrate"}) {
    Dsmd dsmd({"-p", protocol, "--size", "64M"});
    for (const std::vector<std::string>& example :
         {std::vector<std::string>{"pingpong", "--rounds", "100"}, {"pi"}, {"sor", "--size", "64", "--rounds", "5"}}) {
      std::vector<std::string> line = example;
      line[0] = program_path(line[0]);
      const Programs members = dsmd.start_all(line, example[0], 3);
      std::string all;
      for (const auto& one : members) all += one->wait().out;
      EXPECT_TRUE(has_line(all, {example[0] + ": OK"})) << all;
      expect_all_well(members);
    }
  }
}

TEST(Daemon, ASessionOfOneIsASession) {
  Dsmd dsmd;
  expect_all_well(dsmd.start_all({program_path("hello")}, "one", 1));
}

TEST(Daemon, ManySessionsOneAfterAnotherLeaveNothing) {
  Dsmd dsmd;
  expect_all_well(dsmd.start_all({program_path("hello")}, "first", 3));
  ASSERT_TRUE(dsmd.itself().shows("session 'first' has ended well"));
  const std::size_t before = dsmd.descriptors();
  const int sessions = runs(10);
  for (int i = 0; i < sessions; ++i) {
    expect_all_well(dsmd.start_all({program_path("hello")}, "again", 3));
    if (HasFailure()) return;
  }
  EXPECT_TRUE(wait_until([&] {
    dsmd.itself().ended();
    return count(dsmd.itself().err(), "session 'again' has ended well") == static_cast<std::size_t>(sessions);
  }));
  EXPECT_TRUE(wait_until([&] { return dsmd.descriptors() == before; })) << before << " before, " << dsmd.descriptors();
}

TEST(Daemon, TenSessionsAtOnce) {
  Dsmd dsmd({"--size", "16M"});
  Programs all;
  for (int session = 0; session < 10; ++session) {
    for (auto& one : dsmd.start_all(member("work", 20), "s" + std::to_string(session), 2))
      all.push_back(std::move(one));
  }
  expect_all_well(all);
}

TEST(Daemon, BarriersAndSemaphoresDoNotHang) {
  Dsmd dsmd;
  const std::chrono::seconds limit{60 + 3 * runs(2)};
  expect_all_well(dsmd.start_all(member("barriers", runs(2) * 1000), "barriers", 3), limit);
  expect_all_well(dsmd.start_all(member("semaphores", runs(2) * 1000 / 2), "semaphores", 2), limit);
}

TEST(Daemon, ServesThoughNobodyReadsWhatItSays) {
  ipc::Pipe lines = ipc::make_pipe();
  ASSERT_NE(::fcntl(lines.write.get(), F_SETPIPE_SZ, 4096), -1);
  const std::string key = ::testing::TempDir() + "dsm-unread-" + std::to_string(::getpid());
  Program dsmd({program_path("dsmd"), "--port", "0", "--key", key, "-v"}, {}, lines.write.get());
  std::string first(1024, ' ');
  first.resize(static_cast<std::size_t>(std::max<ssize_t>(::read(lines.read.get(), first.data(), first.size()), 0)));
  const std::string before = "listens at ";
  const std::size_t at = first.find(before) + before.size();
  for (int i = 0; i < 20; ++i) {  // some 500 bytes each
    Programs members;
    for (int rank = 0; rank < 2; ++rank) {
      const std::string session = "DSM_SESSION=" + first.substr(at, first.find(';') - at) + "/s:2";
      members.push_back(std::make_unique<Program>(std::vector<std::string>{program_path("hello")},
                                                  std::vector<std::string>{session, "DSM_KEY_FILE=" + key}));
    }
    expect_all_well(members);
  }
  dsmd.kill(SIGTERM);
  EXPECT_EQ(dsmd.wait().code(), 0);
  EXPECT_EQ(::unlink(key.c_str()), 0);
}

TEST(Daemon, DsmtopListsASessionAndShowsItAsAJob) {
  Dsmd dsmd;
  const Programs members = dsmd.start_all(member("spin"), "shown", 2);
  for (const auto& one : members) ASSERT_TRUE(one->shows("runs"));
  const std::string job = "shown-" + std::to_string(dsmd.itself().pid());
  EXPECT_TRUE(has_line(Program({program_path("dsmtop"), "--list"}, {}).wait().out, {job, "shown"}));
  const Ended end = Program({program_path("dsmtop"), "--once", "--json", job}, {}).wait();
  EXPECT_EQ(end.code(), 0) << text(end);
  for (const auto& one : members) {
    EXPECT_TRUE(has_line(end.out, {"\"host\":\"127.0.0.1\",\"pid\":" + std::to_string(one->pid())})) << text(end);
  }
  EXPECT_EQ(count(end.out, "\"state\":\"starting\""), 0u) << text(end);
  members[0]->kill(SIGKILL);
  EXPECT_EQ(members[1]->wait().code(), 125);
  EXPECT_FALSE(has_line(Program({program_path("dsmtop"), "--list"}, {}).wait().out, {job}));
}

TEST(Daemon, UnderDsmexecAProgramIsInItsJobWhateverItWasToldOfSessions) {
  launch::testing::Order order = launch::testing::job({"-n", "2"}, {program_path("hello")});
  order.environment = {"DSM_SESSION=nonsense"};
  const Ended end = launch::testing::run(order);
  EXPECT_EQ(end.code(), 0) << text(end);
}

TEST(DaemonOnce, ServesOneSessionAndEndsWithIt) {
  Dsmd dsmd({"--once", "--nproc", "3"});
  expect_all_well(dsmd.start_all({program_path("hello")}, "once", 3));
  EXPECT_EQ(dsmd.itself().wait().code(), 0) << dsmd.itself().err();
}

TEST(DaemonOnce, SaysSoByItsExitCodeWhenThatEndsBadly) {
  Dsmd dsmd({"--once", "--nproc", "2"});
  const Programs members = dsmd.start_all(member("leave", 1), "once", 2);
  for (const auto& one : members) EXPECT_NE(one->wait().code(), 1);
  const Ended end = dsmd.itself().wait();
  EXPECT_EQ(end.code(), 1);
  EXPECT_TRUE(
      has_line(end.err, {"dsmd: session 'once' is over: rank 1 (127.0.0.1, pid ", ") was lost before dsm_finalize"}));
}

// ---- members that are lost ----

TEST(DaemonLoss, OneKilledBeforeAllHaveComeGivesItsPlaceBack) {
  Dsmd dsmd;
  const auto first = dsmd.start({program_path("hello")}, "s", 3);
  ASSERT_TRUE(dsmd.itself().shows("1 of 3"));
  const auto victim = dsmd.start({program_path("hello")}, "s", 3);
  ASSERT_TRUE(dsmd.itself().shows("2 of 3"));
  victim->kill(SIGKILL);
  ASSERT_TRUE(dsmd.itself().shows("rank 1 " + named(*victim) + " has gone"));
  const auto second = dsmd.start({program_path("hello")}, "s", 3), third = dsmd.start({program_path("hello")}, "s", 3);
  for (const auto* one : {&first, &second, &third}) EXPECT_EQ((*one)->wait().code(), 0) << (*one)->err();
}

TEST(DaemonLoss, OneKilledBetweenItsPlaceAndItsJoinGivesItsPlaceBack) {
  Dsmd dsmd;
  const auto victim = dsmd.start(member("never-joins"), "s", 2);
  ASSERT_TRUE(victim->shows("placed"));
  const auto first = dsmd.start({program_path("hello")}, "s", 2);
  ASSERT_TRUE(dsmd.itself().shows("2 of 2"));
  victim->kill(SIGKILL);
  ASSERT_TRUE(dsmd.itself().shows(named(*victim) + " has gone"));
  const auto second = dsmd.start({program_path("hello")}, "s", 2);
  for (const auto* one : {&first, &second}) EXPECT_EQ((*one)->wait().code(), 0) << (*one)->err();
}

// The victim is killed; the others end with one line that names it.
void expect_named(Dsmd& dsmd, Programs& members, std::size_t victim, const std::string& how) {
  members[victim]->kill(SIGKILL);
  const auto killed_at = launch::testing::Clock::now();
  for (std::size_t i = 0; i < members.size(); ++i) {
    if (i != victim) expect_one_line(members[i]->wait(), 125, {"dsm: rank ", named(*members[victim]), how});
  }
  EXPECT_LT(launch::testing::Clock::now() - killed_at, std::chrono::seconds(10));
  members[victim]->wait();
  expect_unharmed(dsmd);
}

TEST(DaemonLoss, OneKilledAtTheStartIsNamedByTheOthers) {
  Dsmd dsmd;
  Programs members;
  members.push_back(dsmd.start(member("never-connects"), "s", 3));
  for (int i = 0; i < 2; ++i) members.push_back(dsmd.start({program_path("hello")}, "s", 3));
  ASSERT_TRUE(members[0]->shows("welcomed"));
  expect_named(dsmd, members, 0, "was lost in dsm_init");
}

TEST(DaemonLoss, OneKilledWhileItRunsIsNamedByTheOthers) {
  Dsmd dsmd;
  for (const char* mode : {"barrier-without", "spin"}) {
    Programs members = dsmd.start_all(member(mode, 1), mode, 3);
    for (const auto& one : members) ASSERT_TRUE(one->shows("runs"));
    expect_named(dsmd, members, 2, "was lost before dsm_finalize");
  }
}

TEST(DaemonLoss, OneKilledWhileTheOthersAreInFinalizeIsNamedByThem) {
  Dsmd dsmd;
  for (const std::size_t victim : {0, 1}) {  // the one that has not come there, and one that has
    const std::string session = "s" + std::to_string(victim);
    Programs members;
    for (const char* coming : {"1 of 3", "2 of 3", "3 of 3"}) {
      members.push_back(dsmd.start(member("finalize-without", 0), session, 3));
      ASSERT_TRUE(dsmd.itself().shows("session '" + session + "': rank " + std::to_string(members.size() - 1)));
      ASSERT_TRUE(dsmd.itself().shows(coming));
    }
    for (const auto& one : members) ASSERT_TRUE(one->shows("runs"));
    expect_named(dsmd, members, victim, "was lost before dsm_finalize");
  }
}

TEST(DaemonLoss, OneWhoseForkedChildLivesOnIsNamedByTheOthers) {
  Dsmd dsmd;
  Programs members = dsmd.start_all(member("fork"), "s", 2);
  for (const auto& one : members) ASSERT_TRUE(one->shows("runs"));
  expect_named(dsmd, members, 1, "was lost before dsm_finalize");
  for (const auto& one : members) {
    const std::string out = one->wait().out;
    EXPECT_EQ(::kill(std::stoi(out.substr(out.find("child ") + 6)), SIGKILL), 0) << "it has lived till now";
  }
}

TEST(DaemonLoss, OneThatLeavesWithoutFinalizeIsNamedByTheOthers) {
  Dsmd dsmd;
  const Programs members = dsmd.start_all(member("leave", 1), "s", 3);
  int lost = 0;
  for (const auto& one : members) {
    const Ended end = one->wait();
    lost += end.code() == 125 ? 1 : 0;
    if (end.code() == 125) expect_one_line(end, 125, {"rank 1 (127.0.0.1, pid ", "was lost before dsm_finalize"});
  }
  EXPECT_EQ(lost, 2);
  expect_unharmed(dsmd);
}

// Whenever it is: the others end well, or are told, or wait for one that takes the place.
TEST(DaemonLoss, WhoeverIsKilledAtARandomMomentNobodyHangs) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  Dsmd dsmd({"--size", "16M"});
  for (int i = 0; i < runs(10); ++i) {
    const std::string session = "s" + std::to_string(i);
    Programs members = dsmd.start_all(member("work", 50), session, 3);
    const auto moment = launch::testing::Clock::now() + std::chrono::microseconds(random() % 150'000);
    wait_until([&] { return launch::testing::Clock::now() >= moment; });
    const std::unique_ptr<Program> victim = std::move(members[random() % 3]);
    std::erase(members, nullptr);
    victim->kill(SIGKILL);
    victim->wait();
    std::unique_ptr<Program> instead;
    EXPECT_TRUE(wait_until([&] {
      const bool all = members[0]->ended() && members[1]->ended();
      if (!all && instead == nullptr && !dsmd.said("session '" + session + "' has started")) {
        instead = dsmd.start(member("work", 50), session, 3);
      }
      return all;
    })) << "round "
        << i;
    for (const auto& one : members) {
      const Ended end = one->wait();
      if (end.code() != 0) expect_one_line(end, 125, {"dsm: rank ", "was lost"});
    }
    if (HasFailure()) return;
  }
  expect_unharmed(dsmd);
}

TEST(DaemonLoss, TheEndOfDsmdEndsItsSessionsInOneLineEach) {
  for (const int signo : {SIGTERM, SIGINT, SIGKILL}) {
    Dsmd dsmd;
    const Programs members = dsmd.start_all(member("barrier-without", 1), "runs", 2);
    for (const auto& one : members) ASSERT_TRUE(one->shows("runs"));
    const auto waits = dsmd.start({program_path("hello")}, "waits", 2);
    ASSERT_TRUE(dsmd.itself().shows("session 'waits': rank 0 "));
    dsmd.itself().kill(signo);
    const std::string how = signo == SIGKILL   ? "dsmd has ended, or cannot be reached any more"
                            : signo == SIGTERM ? "session 'runs' is over: dsmd was ended by SIGTERM"
                                               : "session 'runs' is over: dsmd was ended by SIGINT";
    for (const auto& one : members) expect_one_line(one->wait(), 125, {"dsm: rank ", how});
    expect_one_line(waits->wait(), 1, {"dsm: session 'waits': rank 0: ", "dsmd "});
    EXPECT_EQ(dsmd.itself().wait().code(), signo == SIGKILL ? -1 : 0);
  }
}

}  // namespace
}  // namespace dsm::daemon::testing
