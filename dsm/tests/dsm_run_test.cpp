// Whole jobs, as dsmexec starts them: real processes, real faults, real connections.
//
// The number of repetitions is the environment's DSM_TEST_RUNS (`make test-long` asks for 200).
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/shm.h>
#include <sys/wait.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <random>
#include <set>

#include "dsm/tests/job_bench.hpp"

namespace dsm {
namespace {

using launch::testing::Dsmexec;
using launch::testing::dsmexec_path;
using launch::testing::Ended;
using launch::testing::has_line;
using launch::testing::job;
using launch::testing::Order;
using launch::testing::runs;
using launch::testing::text;
using launch::testing::wait_until;
using namespace std::chrono_literals;

// Two processes that do nothing but compete for the processors.
class BusyLoops {
 public:
  BusyLoops() {
    for (pid_t& pid : pids_) {
      pid = ::fork();
      if (pid == 0) {
        for (std::atomic<unsigned> i{0};; ++i) {
        }
      }
    }
  }
  ~BusyLoops() {
    for (const pid_t pid : pids_) {
      if (pid <= 0) continue;
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
  }

 private:
  pid_t pids_[2] = {-1, -1};
};

class Protocols : public ::testing::TestWithParam<const char*> {
 protected:
  [[nodiscard]] Ended dsm(const std::string& ranks, const std::vector<std::string>& line) const {
    return run(job({"-p", GetParam(), "-n", ranks, "--size", "16M"}, line));
  }
};
INSTANTIATE_TEST_SUITE_P(Run, Protocols, ::testing::Values("migrate", "msi"),
                         [](const auto& p) { return std::string(p.param); });

TEST_P(Protocols, RandomReadModifyWriteBy4RanksOn4PagesLosesNothing) {
  for (int i = 0; i < runs(5); ++i) {
    const Ended r = dsm("4", {"dsm_stress", "rmw", "--rounds", "200", "--seed", std::to_string(i)});
    ASSERT_EQ(r.code(), 0) << "seed " << i << ": " << text(r);
    ASSERT_NE(r.out.find("rmw: 4 ranks added"), std::string::npos) << text(r);
  }
}

TEST_P(Protocols, AFaultInsidePrintfWhileItHoldsStdoutsLockDoesNotHang) {
  for (int i = 0; i < runs(5); ++i) {
    const Ended r = dsm("4", {"dsm_stress", "print", "--rounds", "10"});
    ASSERT_EQ(r.code(), 0) << text(r);
    for (int rank = 0; rank < 4; ++rank) {
      for (int round = 0; round < 10; ++round) {
        const std::string line =
            "[Proc " + std::to_string(rank) + " : localhost : stdout] line " + std::to_string(round) + "\n";
        ASSERT_NE(r.out.find(line), std::string::npos) << line << text(r);
      }
    }
  }
}

TEST_P(Protocols, OneInstructionOnTwoContendedPagesInBothDirectionsMakesProgress) {
  for (int i = 0; i < runs(3); ++i) {
    for (const char* ranks : {"2", "4"}) {
      const Ended r = dsm(ranks, {"dsm_stress", "straddle", "--rounds", "100"});
      ASSERT_EQ(r.code(), 0) << ranks << " ranks: " << text(r);
    }
  }
}

TEST_P(Protocols, EncryptedJobsWorkAsOthersDo) {
  for (const char* what : {"rmw", "sync", "atomic"}) {
    const Ended r = run(job({"-p", GetParam(), "--encrypt", "-n", "4", "--size", "16M"},
                            {"dsm_stress", what, "--rounds", "100", "--threads", "2", "--seconds", "1"}));
    ASSERT_EQ(r.code(), 0) << what << text(r);
  }
  for (const char* page_size : {"4K", "1M"}) {
    const Ended r = run(job({"-p", GetParam(), "--encrypt", "--page-size", page_size, "-n", "3", "--size", "16M"},
                            {"dsm_stress", "rmw", "--rounds", "20"}));
    ASSERT_EQ(r.code(), 0) << page_size << text(r);
  }
}

// Who has the key and does not encrypt, or the other way round, is told so, and says so.
TEST(Failure, ARankThatDoesNotEncryptAsItsJobDoesIsRefused) {
  const std::string hello = std::filesystem::path(dsmexec_path()).replace_filename("hello");
  const Ended without = run(job({"-n", "2", "--encrypt", "--size", "1M"}, {"env", "-u", "DSMEXEC_ENCRYPT", hello}));
  EXPECT_EQ(without.code(), 1) << text(without);
  EXPECT_TRUE(has_line(without.err, {"stderr] dsm: rank ", "no connection to the coordinator",
                                     "the peer encrypts (--encrypt), and this side does not"}))
      << text(without);
  const Ended with = run(job({"-n", "2", "--size", "1M"}, {"env", "DSMEXEC_ENCRYPT=1", hello}));
  EXPECT_EQ(with.code(), 1) << text(with);
  EXPECT_TRUE(has_line(with.err, {"the peer does not encrypt, and this side does (--encrypt)"})) << text(with);
}

TEST_P(Protocols, DoubleTouchFinds4Then12Or8Then12) {
  for (int i = 0; i < runs(5); ++i) {
    const Ended r = dsm("4", {"double_touch"});
    ASSERT_EQ(r.code(), 0) << text(r);
    const bool four_first =
        has_line(r.out, {"rank 0 found 0 and left 4"}) && has_line(r.out, {"rank 1 found 4 and left 12"});
    const bool eight_first =
        has_line(r.out, {"rank 1 found 0 and left 8"}) && has_line(r.out, {"rank 0 found 8 and left 12"});
    ASSERT_TRUE(four_first || eight_first) << text(r);
  }
}

TEST_P(Protocols, HammeringThreadsCountExactlyAndFairlyAndWasteNoGrants) {
  for (const bool busy : {false, true}) {
    std::optional<BusyLoops> loops;
    if (busy) loops.emplace();
    for (int i = 0; i < runs(1); ++i) {
      const Ended r = dsm("2", {"dsm_stress", "hammer", "--threads", "4", "--seconds", "2"});
      ASSERT_EQ(r.code(), 0) << (busy ? "beside two busy loops: " : "") << text(r);
    }
  }
}

TEST_P(Protocols, PagesMayBeLarger) {
  for (const char* page_size : {"8K", "64K", "1M"}) {
    for (const std::vector<std::string>& line : std::vector<std::vector<std::string>>{
             {"dsm_stress", "rmw", "--rounds", "50"}, {"dsm_stress", "straddle", "--rounds", "20"}}) {
      const Ended r = run(job({"-p", GetParam(), "-n", "3", "--size", "32M", "--page-size", page_size}, line));
      ASSERT_EQ(r.code(), 0) << page_size << text(r);
    }
  }
}

// 4 ranks x 4 threads, beside two busy loops; as many seconds as runs are asked for, up to 60.
TEST_P(Protocols, LocksConditionVariablesAndSemaphoresKeepTheirTotals) {
  const BusyLoops loops;
  const std::string seconds = std::to_string(std::min(runs(3), 60));
  const Ended r =
      dsm("4", {"dsm_stress", "sync", "--threads", "4", "--seconds", seconds, "--seed", std::to_string(::getpid())});
  ASSERT_EQ(r.code(), 0) << "seed " << ::getpid() << ": " << text(r);
  EXPECT_NE(r.out.find("sync: 4 ranks counted to"), std::string::npos) << text(r);
}

TEST_P(Protocols, FourRanksPassManyBarriers) {
  const std::string rounds = std::to_string(runs(10) * 500);
  const Ended r = dsm("4", {"dsm_stress", "barriers", "--rounds", rounds});
  ASSERT_EQ(r.code(), 0) << text(r);
  EXPECT_NE(r.out.find("barriers: " + rounds + " passed"), std::string::npos) << text(r);
}

TEST_P(Protocols, AtomicOperationsOfAllThreadsDrawEachNumberOnce) {
  for (int i = 0; i < runs(2); ++i) {
    const Ended r = dsm(i % 2 == 0 ? "4" : "2", {"dsm_stress", "atomic", "--rounds", "500", "--seed", std::to_string(i)});
    ASSERT_EQ(r.code(), 0) << text(r);
  }
}

TEST_P(Protocols, BroadcastAndReduceOfAnySizeFromAnyRankToAnyRank) {
  for (const char* ranks : {"1", "3", "4"}) {
    const Ended r = run(job({"-n", ranks, "-p", GetParam()}, {"dsm_stress", "collective", "--rounds", "20"}));
    EXPECT_EQ(r.code(), 0) << text(r);
    EXPECT_TRUE(has_line(r.out, {"collective: 20 rounds"})) << text(r);
  }
  const Ended large = run(job({"--page-size", "1M", "-p", GetParam()}, {"dsm_stress", "collective", "--rounds", "1"}));
  EXPECT_EQ(large.code(), 0) << text(large);
}

TEST_P(Protocols, EachOperationCostsItsMessagesAndTheKernelCountsThemToo) {
  std::vector<std::string> line = {"dsm_stress", "messages"};
  if (std::string(GetParam()) == "migrate") line.emplace_back("--migrate");
  const Ended r = dsm("4", line);
  EXPECT_EQ(r.code(), 0) << text(r);
}

TEST_P(Protocols, PagesLiveWhereHomeSays) {
  for (const std::string home : {"cyclic", "block", "first-touch"}) {
    const auto with = [&](const std::string& ranks) {
      return std::vector<std::string>{"-p", GetParam(), "-n", ranks, "--home", home};
    };
    for (const char* ranks : {"2", "3"}) {
      const Ended r = run(job(with(ranks), {"dsm_stress", "homes", "--how", home}));
      EXPECT_EQ(r.code(), 0) << home << text(r);
    }
    for (const std::vector<std::string>& line : std::vector<std::vector<std::string>>{
             {"dsm_stress", "rmw", "--rounds", "100"},
             {"dsm_stress", "atomic", "--threads", "2", "--rounds", "50"},
             {"dsm_stress", "collective", "--rounds", "5"},
             {"dsm_stress", "heap", "--rounds", "400", "--threads", "2"}}) {
      const Ended r = run(job(with("4"), line));
      EXPECT_EQ(r.code(), 0) << home << text(r);
    }
  }
}

TEST_P(Protocols, ASignalHandlerMayTouchPagesDuringAnAtomicOperationOnAPageThatWasNeverHere) {
  for (const std::string home : {"cyclic", "first-touch"}) {
    const Ended r = run(job({"-p", GetParam(), "-n", "4", "--home", home}, {"dsm_stress", "alarms"}));
    EXPECT_EQ(r.code(), 0) << home << text(r);
  }
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they keep memory of their own for what is touched
TEST(Memory, APageThatAllRanksHaveTouchedCostsEachAtMost24Bytes) {
  for (const std::string home : {"cyclic", "block", "first-touch"}) {
    const Ended alone = run(job({"-n", "1", "--home", home}, {"dsm_stress", "tables", "--pages", "12000"}));
    EXPECT_EQ(alone.code(), 0) << home << text(alone);
    const Ended r = run(job({"-n", "4", "--home", home}, {"dsm_stress", "tables", "--pages", "12000"}));
    EXPECT_EQ(r.code(), 0) << home << text(r);
    for (std::size_t at = r.out.find("tables: "); at != std::string::npos; at = r.out.find("tables: ", at + 1)) {
      EXPECT_LE(std::stod(r.out.substr(at + 8)), 19) << home << ": a table of what others are home of";
    }
  }
}
#endif

// A mapping for each page would be more than vm.max_map_count has, as it usually is. The program counts them. The whole
// 200,000 pages: see HACKING.md.
TEST_P(Protocols, ACheckerboardOfARanksOwnPagesStaysWithinTheKernelsLimit) {
  const Ended r =
      run(job({"-p", GetParam(), "-n", "1", "--size", "1G"}, {"dsm_stress", "checkerboard", "--pages", "68000"}));
  ASSERT_EQ(r.code(), 0) << text(r);
}

TEST(Pager, ACheckerboardWrittenByTwoRanksStaysWithinTheKernelsLimit) {
  const Ended r = run(job({"-n", "2", "--size", "1G"}, {"dsm_stress", "checkerboard", "--pages", "68000"}));
  ASSERT_EQ(r.code(), 0) << text(r);
  EXPECT_NE(r.out.find("checkerboard: every other one of 68000 pages"), std::string::npos) << text(r);
}

TEST_P(Protocols, ReadIntoPinnedPagesNeverFailsThoughOtherRanksWantThem) {
  const Ended r = dsm("3", {"dsm_stress", "pin", "--rounds", std::to_string(runs(4))});
  ASSERT_EQ(r.code(), 0) << text(r);
}

// ---- how a job fails ------------------------------------------------------------------------------------------------

// NAME=value of a process's environment; empty if it has none, or is gone.
std::string variable_of(pid_t pid, const std::string& name) {
  std::ifstream variables("/proc/" + std::to_string(pid) + "/environ");
  for (std::string variable; std::getline(variables, variable, '\0');) {
    if (variable.rfind(name + "=", 0) == 0) return variable.substr(name.size() + 1);
  }
  return {};
}

std::vector<pid_t> ranks_of(const Dsmexec& dsmexec) {
  std::vector<pid_t> found;
  for (const pid_t pid : dsmexec.left()) {
    if (!variable_of(pid, "DSMEXEC_RANKID").empty()) found.push_back(pid);
  }
  return found;
}

// System V segments that one of these processes made.
int segments_of(const std::set<pid_t>& makers) {
  struct shm_info info {};
  const int last = ::shmctl(0, SHM_INFO, reinterpret_cast<struct shmid_ds*>(&info));
  int count = 0;
  for (int i = 0; i <= last; ++i) {
    struct shmid_ds segment {};
    if (::shmctl(i, SHM_STAT, &segment) >= 0 && makers.count(segment.shm_cpid) != 0) ++count;
  }
  return count;
}

Order long_job(const char* what) { return job({"--size", "16M"}, {"dsm_stress", what, "--rounds", "1000000000"}); }

TEST(Failure, ARankKilledAtARandomMomentIsNamedAndNothingIsLeft) {
  std::minstd_rand random(20260401);
  std::set<pid_t> all_ranks;
  for (int i = 0; i < runs(5); ++i) {
    Dsmexec running(long_job(i % 2 == 0 ? "rmw" : "heap"));
    ASSERT_TRUE(wait_until([&] { return ranks_of(running).size() == 4; }));
    ::usleep(static_cast<useconds_t>(random() % 100000));  // not synchronization: any moment will do
    const auto ranks = ranks_of(running);
    ASSERT_EQ(ranks.size(), 4U);
    all_ranks.insert(ranks.begin(), ranks.end());
    const pid_t victim = ranks[random() % 4];
    const std::string id = variable_of(victim, "DSMEXEC_RANKID");
    const auto killed_at = std::chrono::steady_clock::now();
    ASSERT_EQ(::kill(victim, SIGKILL), 0);
    const Ended r = running.wait();
    EXPECT_EQ(r.code(), 137) << text(r);
    EXPECT_LT(std::chrono::steady_clock::now() - killed_at, 2s) << text(r);
    EXPECT_TRUE(has_line(r.err, {"rank " + id + " (localhost)", "SIGKILL"})) << id << text(r);
    EXPECT_TRUE(wait_until([&] { return running.left().empty(); }, 2s));
  }
  EXPECT_EQ(segments_of(all_ranks), 0);
}

TEST(Failure, AWildPointerIsNamedAndEndsTheJobWith139) {
  const Ended r = run(job({}, {"dsm_stress", "wild"}));
  EXPECT_EQ(r.code(), 139) << text(r);
  EXPECT_TRUE(has_line(r.err, {"rank 3 (localhost)", "SIGSEGV"})) << text(r);
}

TEST(Failure, NoMemoryForAPageIsNamedAndEndsTheJobWith134) {
  const Ended r = run(job({"-n", "2", "--size", "1M"}, {"dsm_stress", "no-memory"}));
  EXPECT_EQ(r.code(), 134) << text(r);
  EXPECT_TRUE(has_line(r.err, {"[Proc 1 ", "dsm: no memory for one more page", "ENOMEM"})) << text(r);
  EXPECT_TRUE(has_line(r.err, {"rank 1 (localhost)", "SIGABRT"})) << text(r);
}

TEST(Failure, LeavingWithoutFinalizeIsNamed) {
  const Ended r = run(job({}, {"dsm_stress", "leave"}));
  EXPECT_EQ(r.code(), 125) << text(r);
  EXPECT_TRUE(has_line(r.err, {"rank 3 ", "dsm_finalize"})) << text(r);
}

TEST(Failure, DifferentSizesInTwoRanksAreNamed) {
  const Ended r = run(job({}, {"dsm_stress", "unlike"}));
  EXPECT_EQ(r.code(), 134) << text(r);
  EXPECT_TRUE(has_line(r.err, {"ranks 0 and 2 ", "dsm_alloc"})) << text(r);
}

TEST(Failure, ABroadcastFromDifferentRootsIsNamed) {
  const Ended r = run(job({}, {"dsm_stress", "unlike-broadcast"}));
  EXPECT_EQ(r.code(), 134) << text(r);
  EXPECT_TRUE(has_line(r.err, {"ranks 0 and 1 ", "dsm_broadcast"})) << text(r);
}

TEST(Failure, AnAtomicOperationOutsideTheRegionIsNamed) {
  const Ended r = run(job({}, {"dsm_stress", "astray"}));
  EXPECT_EQ(r.code(), 134) << text(r);
  EXPECT_TRUE(has_line(r.err, {"rank 1: dsm_fetch_add_u64: 0x", " is no word of the region"})) << text(r);
}

TEST(Failure, UseAfterFinalizeIsNamed) {
  const Ended r = run(job({}, {"dsm_stress", "late"}));
  EXPECT_EQ(r.code(), 134) << text(r);
  EXPECT_TRUE(has_line(r.err, {"rank 1: dsm_lock after dsm_finalize"})) << text(r);
}

// One port is dsmexec's, one is rank 0's, and there is no third.
TEST(Failure, TooFewPortsAreNamed) {
  const int port = 20000 + ::getpid() % 12000;  // below those that the kernel gives to who names none
  const std::string ports = std::to_string(port) + "-" + std::to_string(port + 1);
  const Ended r = run(job({"-n", "2", "--size", "1M", "--port-range", ports}, {"hello"}));
  EXPECT_NE(r.code(), 0) << text(r);
  EXPECT_TRUE(has_line(r.err, {"dsm: rank ", "--port-range " + ports + ": none of these ports can be had"})) << text(r);
}

TEST(Failure, SixtyFiveRanksOfADsmProgramAreRefusedInOneLine) {
  const Ended r = run(job({"-n", "65", "--size", "1M"}, {"hello"}));
  EXPECT_EQ(r.code(), 125) << text(r);
  EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << text(r);
  EXPECT_NE(r.err.find("64"), std::string::npos) << text(r);
}

}  // namespace
}  // namespace dsm
