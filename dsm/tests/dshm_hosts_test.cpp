// Programs on two hosts under dshmrun, and what they share: counted, verified, as root (userfaultfd) and as an ordinary
// user (SIGSEGV).
//
// The number of repetitions is the environment's DSM_TEST_RUNS.
#include <gtest/gtest.h>

#include "dsm/tests/dshm_bench.hpp"
#include "dsm/tests/job_bench.hpp"

namespace dsm::dshm::testing {
namespace {

using launch::testing::count;
using launch::testing::has_line;
using launch::testing::runs;
using launch::testing::text;

constexpr User both_users[] = {User::root, User::ordinary};

const char* said(User user) { return user == User::root ? "root" : "ordinary user"; }

class DshmHosts : public Dshm {
 protected:
  // One process of dshm_stress on each of these hosts, all with one new key.
  [[nodiscard]] std::vector<std::unique_ptr<Program>> stress(const std::vector<int>& hosts, User user,
                                                             Words line) const {
    line.insert(line.begin(), "dshm_stress");
    line.insert(line.begin() + 2, new_key());
    std::vector<std::unique_ptr<Program>> members;
    for (const int host : hosts) members.push_back(start({host, user}, line));
    return members;
  }
};

// ---- programs that know nothing of us ----

TEST_F(DshmHosts, TheExampleDoesTheSameNativelyAndHere) {
  for (const User user : both_users) {
    SCOPED_TRACE(said(user));
    const Ended native = run({1, user, true}, {"dshm_example"}), here = run({1, user}, {"dshm_example"});
    EXPECT_EQ(native.code(), 0) << text(native);
    EXPECT_TRUE(has_line(native.out, {"semctl: OK"})) << text(native);
    EXPECT_EQ(text(here), text(native));
  }
}

#ifndef __SANITIZE_ADDRESS__  // which maps memory of its own where attaches have been
// Host 1's kernel beside dsmd: no line differs.
TEST_F(DshmHosts, EveryRowOfTheTableIsTheKernels) {
  for (const User user : both_users) {
    SCOPED_TRACE(said(user));
    const Ended native = run({1, user, true}, {"sysv_table"}), here = run({1, user}, {"sysv_table"});
    EXPECT_EQ(native.code(), 0) << text(native);
    EXPECT_GT(count(native.out, "\n"), 100u);
    EXPECT_EQ(text(here), text(native));
  }
}
#endif

TEST_F(DshmHosts, TheLabsProgramsRunUnchanged) {
  for (const User user : both_users) {
    SCOPED_TRACE(said(user));
    const Ended random = run({1, user}, {"shm_random", "--count", "200", "--seed", "1"});
    EXPECT_EQ(random.code(), 0) << text(random);
    EXPECT_EQ(count(random.out, " wrote "), 200u);
    EXPECT_EQ(count(random.out, " read "), 200u);

    const std::string key = new_key();
    const auto reader = start({1, user}, {"shm_reader", key});
    const Ended writer = run({2, user}, shell("seq 100 | shm_writer " + key));
    EXPECT_EQ(writer.code(), 0) << text(writer);
    const Ended end = reader->wait();
    EXPECT_EQ(end.code(), 0) << text(end);
    EXPECT_EQ(count(end.out, "\n"), 100u) << end.out;
    EXPECT_TRUE(has_line(end.out, {"100"})) << end.out;
  }
}

TEST_F(DshmHosts, IpcsAndIpcrmShowAndRemoveOurs) {
  const std::string key = new_key();
  const auto holder = start({1}, {"dshm_stress", "hold", key, "--count", "2"});
  ASSERT_TRUE(holder->shows("holds "));
  char shown[16];
  std::snprintf(shown, sizeof shown, "0x%08x", static_cast<unsigned>(std::stoul(key)));
  const Ended listed = run({2}, {"ipcs", "-m"});
  EXPECT_TRUE(has_line(listed.out, {shown, " root ", " 666 ", " 4096 ", " 2 "})) << text(listed);
  EXPECT_FALSE(has_line(run({2, User::root, true}, {"ipcs", "-m"}).out, {shown})) << "the kernel knows nothing of it";
  const Ended removed = run({2}, {"ipcrm", "-M", key});
  EXPECT_EQ(removed.code(), 0) << text(removed);
  EXPECT_TRUE(has_line(run({2}, {"ipcs", "-m"}).out, {"0x00000000", " 2 ", "dest"}));
  kill_inside(*holder);
  holder->wait();
  EXPECT_TRUE(wait_until([&] { return count(dshmctl({"list"}), "\n") == 4; }));
}

TEST_F(DshmHosts, DshmctlListsReadsWritesAndRemoves) {
  const std::string key = new_key();
  const auto holder = start({1, User::ordinary}, {"dshm_stress", "hold", key});
  ASSERT_TRUE(holder->shows("holds "));
  const std::string id = std::to_string(number_behind(*holder, "holds "));
  EXPECT_TRUE(has_line(dshmctl({"list"}, 2), {id, " nobody ", " 0666 ", " 4096 ", " 1"}));
  const Ended wrote =
      run({2, User::root, true}, shell("echo hello | dshmctl -s " + dsmd().at() + " write " + id + " 4000"));
  EXPECT_EQ(wrote.code(), 0) << text(wrote);
  EXPECT_EQ(dshmctl({"read", id, "4000", "6"}, 3), "hello\n");
  EXPECT_EQ(dshmctl({"read", id}, 1).size(), 4096u);
  EXPECT_TRUE(has_line(dshmctl({"stat", id}, 3), {"attached", "1"}));
  EXPECT_NE(dshmctl({"stat"}, 3), "");

  const auto fails = [&](const Words& words, int code, const std::string& why) {
    Words line{"dshmctl", "-s", dsmd().at()};
    line.insert(line.end(), words.begin(), words.end());
    const Ended end = run({2, User::root, true}, line);
    EXPECT_EQ(end.code(), code) << text(end);
    EXPECT_EQ(end.err, "dshmctl: " + why + "\n");
  };
  fails({"read", id, "4095", "2"}, 1, "segment " + id + " has 4096 bytes: there are no 2 from offset 4095 on");
  fails({"read", "4711"}, 1, "segment 4711: there is none of this id");
  fails({"rm", "-s", "4711"}, 1, "semaphore set 4711: there is none of this id");
  fails({"read", id, "1"}, 2, "it is: dshmctl read ID [OFFSET LENGTH]; see dshmctl --help");
  fails({"mend"}, 2, "'mend' is no command; see dshmctl --help");
  fails({}, 2, "a command is missing; see dshmctl --help");

  EXPECT_EQ(dshmctl({"rm", id}, 2), "");
  kill_inside(*holder);
  holder->wait();
  EXPECT_TRUE(wait_until([&] { return count(dshmctl({"list"}), "\n") == 4; }));
}

// ---- what each call does ----

// Two processes, natively on one host, and under dshmrun on two.
TEST_F(DshmHosts, EveryRowOfTheTableForTwoIsTheKernels) {
  for (const User user : both_users) {
    SCOPED_TRACE(said(user));
    const auto both = [&](bool native, int second) {
      const std::string key = new_key();
      const auto a = start({1, user, native}, {"sysv_table", "--role", "a", "--key", key});
      const auto b = start({second, user, native}, {"sysv_table", "--role", "b", "--key", key});
      return text(a->wait()) + text(b->wait());
    };
    const std::string native = both(true, 1);
    EXPECT_TRUE(has_line(native, {"exit 0"})) << native;
    EXPECT_EQ(both(false, 2), native);
  }
}

// ---- memory ----

// Two hosts, two processes on each, two threads in each: a million.
TEST_F(DshmHosts, AnAtomicCounterIsExact) {
  for (const User user : both_users) {
    SCOPED_TRACE(said(user));
    const auto members = stress({1, 1, 2, 2}, user, {"count", "--members", "4", "--threads", "2", "--count", "125000"});
    expect_well(members);
    for (const auto& one : members) EXPECT_EQ(one->wait().out, "count: 1000000 in all\n");
  }
}

TEST_F(DshmHosts, AProcessSharedMutexWorksBetweenProcessesOfOneHost) {
  for (const User user : both_users) {
    SCOPED_TRACE(said(user));
    const auto members = stress({2, 2}, user, {"mutex", "--members", "2", "--threads", "2", "--count", "50000"});
    expect_well(members);
    EXPECT_EQ(members[0]->wait().out, "mutex: 200000 in all\n");
  }
}

TEST_F(DshmHosts, SystemCallsWorkOnPagesThatAreElsewhere) {
  for (const User user : both_users) {
    SCOPED_TRACE(said(user));
    const auto members = stress({1, 2}, user, {"io"});
    expect_well(members);
    for (const auto& one : members) EXPECT_EQ(one->wait().out, "io: OK\n");
  }
}

// It closes all descriptors and takes SIGSEGV for itself: only the agent, from outside, can serve it then.
TEST_F(DshmHosts, ARudeProgramIsServedAllTheSame) {
  expect_well(stress({1, 2}, User::root, {"count", "--rude", "--count", "20000"}));
}

// ---- fork ----

TEST_F(DshmHosts, ForkWhileAnotherHostWritesToTheSamePages) {
  for (const User user : both_users) {
    SCOPED_TRACE(said(user));
    expect_well(stress({1, 2}, user, {"forks", "--count", std::to_string(runs(50))}));
  }
}

TEST_F(DshmHosts, AChildOutlivesItsParent) {
  for (const User user : both_users) {
    SCOPED_TRACE(said(user));
    const auto members = stress({1, 2}, user, {"orphan", "--count", std::to_string(runs(50))});
    expect_well(members);
    EXPECT_EQ(members[0]->wait().out + members[1]->wait().out, "orphan: OK\n");
  }
}

}  // namespace
}  // namespace dsm::dshm::testing
