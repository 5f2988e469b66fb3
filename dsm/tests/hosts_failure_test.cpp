// Jobs on several machines that fail: who is named, how fast, and that nothing is left.
//
// The number of random kills is the environment's DSM_TEST_RUNS, their seed is DSM_TEST_SEED.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <random>
#include <sstream>

#include "dsm/tests/hosts_bench.hpp"

namespace dsm::launch::testing {
namespace {

using Words = std::vector<std::string>;
using namespace std::chrono_literals;

class Stopwatch {
 public:
  [[nodiscard]] Clock::duration now() const { return Clock::now() - began_; }
  [[nodiscard]] std::string text() const {
    return std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(now()).count()) + " ms";
  }

 private:
  Clock::time_point began_ = Clock::now();
};

TEST_F(Hosts, TheFirstFailureIsNamedAndTheOthersAreStopped) {
  const Ended three = run(on({1, 2, 3, 4}, {}, {"sh", "-c", "test $DSMEXEC_RANKID = 2 && exit 3; exec sleep 600"}));
  EXPECT_EQ(three.code(), 3);
  EXPECT_EQ(three.own_lines(), Words{"rank 2 (" + name(3) + ") failed: exit code 3; dsmexec stopped ranks 0-1, 3"});
  const Ended crash =
      run(on({1, 2, 3, 4}, {}, {"sh", "-c", "test $DSMEXEC_RANKID = 1 && kill -SEGV $$; exec sleep 600"}));
  EXPECT_EQ(crash.code(), 139);
  EXPECT_EQ(crash.own_lines(),
            Words{"rank 1 (" + name(2) + ") failed: killed by signal 11 (SIGSEGV); dsmexec stopped ranks 0, 2-3"});
}

// ConnectTimeout is 5 s.
TEST_F(Hosts, AnUnusedAddressIsNamedWithin6Seconds) {
  const std::string unused = v4(1).substr(0, v4(1).rfind('.')) + ".200";
  const Stopwatch watch;
  const Ended r = run(on_machines(Words{name(1), unused, "localhost"}, {}, {"echo", "started"}));
  EXPECT_LT(watch.now(), 6s) << text(r);
  EXPECT_EQ(r.code(), 125) << text(r);
  ASSERT_EQ(r.own_lines().size(), 1u) << text(r);
  EXPECT_TRUE(
      has_line(r.err, {"no agent on host " + unused + " (machine_file, line 2)", "the machine cannot be reached"}))
      << text(r);
  EXPECT_EQ(r.out, "");
}

TEST_F(Hosts, ALoginThatIsRefusedIsOneLineThatSaysWhatToDo) {
  const HostFile key(folder() + "/another_key"), public_key(folder() + "/another_key.pub");
  const Said made = shell("ssh-keygen -q -t ed25519 -N '' -f " + key.path());
  ASSERT_EQ(made.code, 0) << made.text;
  std::ostringstream config, another;
  config << std::ifstream(folder() + "/ssh_config").rdbuf();
  another << std::ifstream(public_key.path()).rdbuf();
  std::string other_identity = config.str();
  const std::string identity = "IdentityFile " + folder() + "/ssh/id\n";
  ASSERT_NE(other_identity.find(identity), std::string::npos);
  other_identity.replace(other_identity.find(identity), identity.size(), "IdentityFile " + key.path() + "\n");
  const HostFile with_key(folder() + "/another_config", other_identity);
  const HostFile changed(folder() + "/another_known_hosts", "* " + another.str());

  const std::string unknown_hint = "its host key is not known, or has changed; log in once by hand: ssh ";
  for (const auto& [options, hint] :
       {std::pair<Words, std::string>(ssh("-o UserKnownHostsFile=/dev/null"), unknown_hint + name(1)),
        {ssh("-o UserKnownHostsFile=" + changed.path()), unknown_hint + name(1)},
        {Words{"--ssh", "ssh -F " + with_key.path()},
         "refuses the key; for a login without a password: ssh-copy-id " + name(1)}}) {
    const Ended r = run(on({1}, options, {"echo", "started"}));
    EXPECT_EQ(r.code(), 125) << text(r);
    EXPECT_EQ(count(r.err, "\n"), 1u) << text(r);
    EXPECT_TRUE(has_line(r.err, {"dsmexec: no agent on host " + name(1) + " (machine_file, line 1): ", hint}))
        << text(r);
    EXPECT_EQ(r.out, "");
  }
}

TEST_F(Hosts, ALoopbackAddressIsNotGivenToAnotherHost) {
  for (const char* address : {"127.0.0.1", "::1", "localhost"}) {
    const Ended r = run(on({1}, {"--iface", address}, {"echo", "started"}));
    EXPECT_EQ(r.code(), 125) << text(r);
    EXPECT_EQ(r.own_lines(), Words{std::string("--iface ") + address +
                                   ": the other machines cannot reach this one there; name an address that they can "
                                   "connect to"})
        << text(r);
    EXPECT_EQ(r.out, "");
  }
}

TEST_F(Hosts, ACopyThatMayNotBeExecutedIsSaidAndNotTakenForALogin) {
  const std::string there = "ssh -F " + folder() + "/ssh_config " + name(without_tree) + " ";
  const Said mounted = shell(there + "mount -t tmpfs -o noexec none /tmp");
  ASSERT_EQ(mounted.code, 0) << mounted.text;
  const Ended r = run(on({without_tree}, {"--send"}, {"hello"}));
  EXPECT_EQ(r.code(), 125) << text(r);
  EXPECT_TRUE(has_line(r.err, {"no agent on host " + name(without_tree),
                               "its copy lies in /tmp, where nothing may be "
                               "executed (noexec); set TMPDIR there"}))
      << text(r);
  EXPECT_EQ(r.err.find("ssh-copy-id"), std::string::npos) << text(r);
  const Said unmounted = shell(there + "'ls -A /tmp; umount /tmp'");
  EXPECT_EQ(unmounted.code, 0);
  EXPECT_EQ(unmounted.text, "");  // and nothing was left there
}

// It hears neither that its connection has ended, nor SIGTERM.
TEST_F(Hosts, AStoppedAgentIsEndedWithItsConnection) {
  Dsmexec job(on({1}, {"-v", "--wdir", "/"}, {"sleep", "600"}));
  ASSERT_TRUE(job.shows("dsmexec: rank 0 started"));
  int stopped = 0;
  for (const pid_t pid : processes(1)) {
    if (command_line(pid).find("dsmexec --agent remote ") != std::string::npos && ::kill(pid, SIGSTOP) == 0) ++stopped;
  }
  EXPECT_EQ(stopped, 1);
  EXPECT_EQ(::kill(job.pid(), SIGKILL), 0);
  expect_nothing_left();
  EXPECT_EQ(job.wait().signal(), SIGKILL);
}

// A DSM job that goes on for ever, once all its ranks are connected.
class EndlessJob : public Dsmexec {
 public:
  explicit EndlessJob(Order order, int ranks) : Dsmexec(std::move(order)) {
    for (int rank = 0; rank < ranks; ++rank) EXPECT_TRUE(shows("dsmexec: rank " + std::to_string(rank) + " runs"));
  }
  // Until dsmexec says that the job has failed; then until it has ended.
  void expect_noticed_within_5_seconds(const Stopwatch& watch) {
    EXPECT_TRUE(shows("dsmexec: stopping all ranks by SIGTERM"));
    EXPECT_LT(watch.now(), 5s);
    const std::string noticed = watch.text();
    const Ended r = wait();
    ::testing::Test::RecordProperty("noticed", noticed);
    ::testing::Test::RecordProperty("ended", watch.text());
    EXPECT_LT(watch.now(), 7s) << "a second from TERM to KILL, and one for what is slow";
    EXPECT_EQ(r.code(), 125) << text(r);
    last_ = r.own_lines().empty() ? "" : r.err;
  }
  [[nodiscard]] const std::string& said() const { return last_; }

 private:
  std::string last_;
};

TEST_F(Hosts, AHostThatLosesPowerIsNoticedWithin5SecondsAndNamed) {
  EndlessJob job(on({1, to_crash, 2}, {"-v", "--size", "16M"}, {"dsm_stress", "rmw", "--rounds", "1000000000"}), 3);
  const Stopwatch watch;
  const Said off = hosts_sh({"crash", std::to_string(to_crash)});
  ASSERT_EQ(off.code, 0) << off.text;
  job.expect_noticed_within_5_seconds(watch);
  EXPECT_TRUE(has_line(job.said(), {"dsmexec: ", name(to_crash), "lost"})) << job.said();
}

TEST_F(Hosts, ALinkThatIsCutBetweenTwoHostsIsNoticedWithin5SecondsAndBothAreNamed) {
  EndlessJob job(on({1, 2, 3}, {"-v", "--size", "16M"}, {"dsm_stress", "rmw", "--rounds", "1000000000"}), 3);
  const Stopwatch watch;
  const Said cut = hosts_sh({"cut", "1", "2"});
  ASSERT_EQ(cut.code, 0) << cut.text;
  job.expect_noticed_within_5_seconds(watch);
  EXPECT_TRUE(has_line(job.said(), {"dsmexec: rank ", name(1), name(2)}) ||
              has_line(job.said(), {"dsmexec: rank ", name(2), name(1)}))
      << job.said();
  const Said mended = hosts_sh({"mend", "1", "2"});
  EXPECT_EQ(mended.code, 0) << mended.text;
}

// ---- random kills ---------------------------------------------------------------------------------------------------

// Each rank with a child in its group, and one that has left group and session and does not want to go.
const char* const family =
    "(exec sleep 600) & (setsid sh -c 'trap \"\" TERM INT HUP; while :; do sleep 600; done' &); exec sleep 600";

bool is_a(const std::string& kind, pid_t pid) {
  const std::string line = command_line(pid);
  const auto has = [&line](const char* words) { return line.find(words) != std::string::npos; };
  if (kind == "dsmexec") return has("dsmexec --wdir ");
  if (kind == "ssh") return line.rfind("ssh ", 0) == 0;
  if (kind == "guard") return is_guard(line);
  if (kind == "agent") return has("dsmexec --agent remote ");
  return has("sleep 600") && !has("dsmexec ") && ::getpgid(pid) == pid && ::getsid(pid) != pid;  // the rank itself
}

TEST_F(Hosts, WhoeverIsKilledAtARandomMomentNothingIsLeftTwoSecondsLater) {
  const char* const asked = std::getenv("DSM_TEST_SEED");
  const unsigned seed = asked != nullptr ? static_cast<unsigned>(std::atoi(asked)) : 20260402u;
  std::minstd_rand random(seed);
  const std::vector<int> hosts = {1, 2, 3, without_tree};
  const Words kinds = {"dsmexec", "ssh", "guard", "agent", "rank"};
  for (unsigned i = 0; i < static_cast<unsigned>(runs(10)); ++i) {
    const std::string kind = kinds[i % kinds.size()];
    const int signo = i < kinds.size() ? SIGKILL : std::vector<int>{SIGKILL, SIGTERM, SIGINT}[random() % 3];
    const auto moment = static_cast<useconds_t>(random() % 800'000);
    SCOPED_TRACE("seed " + std::to_string(seed) + ", kill " + std::to_string(i) + ": " + kind + ", signal " +
                 std::to_string(signo) + ", after " + std::to_string(moment) + " us");
    Dsmexec job(on(hosts, {"--wdir", "/"}, {"sh", "-c", family}));
    ::usleep(moment);  // not synchronization: any moment will do
    ASSERT_TRUE(wait_until([&] {
      std::vector<pid_t> victims = job.left();
      for (const int host : hosts) {
        for (const pid_t pid : processes(host)) victims.push_back(pid);
      }
      std::erase_if(victims, [&](pid_t pid) { return !is_a(kind, pid); });
      return !victims.empty() && ::kill(victims[random() % victims.size()], signo) == 0;
    }));
    EXPECT_TRUE(wait_until([&] { return job.left().empty(); }, 2s)) << "something is left on this machine";
    expect_nothing_left();
    const Ended r = job.wait();
    EXPECT_NE(r.status, 0) << text(r);
    EXPECT_TRUE(r.signal() == SIGKILL || !r.own_lines().empty()) << text(r);
    if (HasFailure()) break;
  }
}

}  // namespace
}  // namespace dsm::launch::testing
