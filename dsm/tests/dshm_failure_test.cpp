// Processes, agents, hosts and dsmd that go at a random moment, under programs that share by System V calls: attaches are
// counted right within 5 seconds, semaphores undone, nothing stale is ever read, nothing is left.
//
// How often: the environment's DSM_TEST_RUNS; the seed is DSM_TEST_SEED.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <new>
#include <random>
#include <thread>

#include "dsm/tests/dshm_bench.hpp"
#include "dsm/tests/dshm_truth.hpp"
#include "dsm/tests/job_bench.hpp"

namespace dsm::dshm::testing {
namespace {

using dshm_stress::Truth;
using launch::testing::count;
using launch::testing::has_line;
using launch::testing::runs;
using launch::testing::text;
using namespace std::chrono_literals;

// A host is lost after 5 s of silence; what is more is for those who find out.
constexpr std::chrono::milliseconds until_known = 5500ms;

unsigned test_seed() {
  const char* const given = std::getenv("DSM_TEST_SEED");
  return given != nullptr ? static_cast<unsigned>(std::atoi(given)) : std::random_device{}();
}

class DshmFailure : public Dshm {
 protected:
  void SetUp() override {
    Dshm::SetUp();
    if (IsSkipped()) return;
    RecordProperty("seed", static_cast<int>(seed_));
    truth_fd_ = ::memfd_create("truth", MFD_CLOEXEC);
    ASSERT_EQ(::ftruncate(truth_fd_, sizeof(Truth)), 0);
    void* const at = ::mmap(nullptr, sizeof(Truth), PROT_READ | PROT_WRITE, MAP_SHARED, truth_fd_, 0);
    ASSERT_NE(at, MAP_FAILED);
    truth_ = new (at) Truth{};
  }
  void TearDown() override {
    if (truth_ != nullptr) ::munmap(truth_, sizeof(Truth));
    if (truth_fd_ != -1) ::close(truth_fd_);
    if (HasFailure()) std::fprintf(stderr, "DSM_TEST_SEED=%u\n", seed_);
    Dshm::TearDown();
  }

  void begin_anew() {
    key_ = new_key();
    truth_ = new (truth_) Truth{};
  }
  [[nodiscard]] std::unique_ptr<Program> stress(int host, User user, Words line) const {
    line.insert(line.begin(), "dshm_stress");
    line.insert(line.begin() + 2, key_);
    return start({host, user}, line, {std::string(dshm_stress::truth_variable) + "=" + std::to_string(truth_fd_)},
                 {truth_fd_});
  }
  // Writes to that slot, and does so already.
  std::unique_ptr<Program> writer(int host, User user, int slot) {
    auto one = stress(host, user, {"records", "--slot", std::to_string(slot)});
    EXPECT_TRUE(one->shows("writes "));
    id_ = number_behind(*one, "writes ");
    return one;
  }
  std::unique_ptr<Program> reader(int host, User user) {
    auto one = stress(host, user, {"check"});
    EXPECT_TRUE(one->shows("reads "));
    return one;
  }
  void expect_attached(int want, std::chrono::milliseconds limit, int from) {
    int seen = -1;
    EXPECT_TRUE(wait_until([&] { return (seen = attached(id_, from)) == want; }, limit))
        << "attached are " << seen << ", and not " << want;
  }
  void expect_reads_well(Program& one) const { EXPECT_FALSE(one.ended()) << one.err(); }
  void expect_read_well(Program& one) const {
    const Ended end = one.wait();
    EXPECT_EQ(end.code(), 0) << text(end);
    EXPECT_EQ(count(end.out, "check: 0 records"), 0u) << end.out;
  }
  void stop(User user, int host = 3) const { EXPECT_EQ(stress(host, user, {"stop"})->wait().code(), 0); }
  // At a random moment of what goes on.
  void a_moment() { std::this_thread::sleep_for(std::chrono::microseconds(random_() % 300'000)); }
  // It was killed, or it ended because it heard of the loss: by SIGBUS, or by a call that failed with EIDRM.
  static void expect_lost(Program& one) {
    const Ended end = one.wait(10s);
    EXPECT_TRUE(end.signal() == SIGBUS || end.signal() == SIGKILL || has_line(end.err, {"Identifier removed"}))
        << text(end);
    EXPECT_NE(end.code(), 0) << text(end);
  }
  [[nodiscard]] int semaphore(int id, int from) const {
    const std::string stat = dshmctl({"stat", "-s", std::to_string(id)}, from), before = "\nsemaphore 0 ";
    const std::size_t at = stat.find(before);
    return at == std::string::npos ? -1 : std::stoi(stat.substr(at + before.size()));
  }
  // Holds the one semaphore of a new set, with SEM_UNDO.
  std::unique_ptr<Program> holder_of_semaphore(int host, int& id) {
    const auto post = stress(3, User::root, {"post", "--count", "1"});
    EXPECT_EQ(post->wait().code(), 0) << post->err();
    id = number_behind(*post, "set ");
    auto holder = stress(host, User::root, {"undo"});
    EXPECT_TRUE(holder->shows("took of "));
    EXPECT_EQ(semaphore(id, 3), 0);
    return holder;
  }
  void lose(std::initializer_list<std::size_t> slots) const {
    for (const std::size_t slot : slots) {
      truth_->lost[slot].store(true);
      truth_->losses[slot].fetch_add(1);
    }
  }

  std::string key_ = new_key();
  int id_ = -1;  // of the segment of records
  Truth* truth_ = nullptr;
  const unsigned seed_ = test_seed();
  std::mt19937 random_{seed_};

 private:
  int truth_fd_ = -1;
};

// The frames are the agent's: what a process has written stays, whatever kills it.
TEST_F(DshmFailure, KilledProcessesLeaveNothingAndLoseNothing) {
  for (const User user : {User::root, User::ordinary}) {
    SCOPED_TRACE(user == User::root ? "root" : "ordinary user");
    begin_anew();
    std::vector<std::unique_ptr<Program>> writers;
    for (const int slot : {0, 1, 2, 3}) writers.push_back(writer(1 + slot / 2, user, slot));
    const auto near = reader(1, user), far = reader(3, user);
    for (int i = 0; i < runs(4) && !HasFailure(); ++i) {
      a_moment();
      const std::size_t slot = random_() % writers.size();
      kill_inside(*writers[slot]);
      EXPECT_EQ(writers[slot]->wait().signal(), SIGKILL);
      expect_attached(5, 5s, 3);
      expect_reads_well(*near);
      expect_reads_well(*far);
      writers[slot] = writer(1 + static_cast<int>(slot) / 2, user, static_cast<int>(slot));
      expect_attached(6, 5s, 2);
    }
    stop(user);
    for (const auto& one : writers) EXPECT_EQ(one->wait().code(), 0) << one->err();
    expect_read_well(*near);
    expect_read_well(*far);
  }
}

TEST_F(DshmFailure, AKilledAgentTakesItsHostsProcessesWithItAndNobodyElse) {
  for (int i = 0; i < runs(1) && !HasFailure(); ++i) {
    begin_anew();
    int set = -1;
    const auto here = writer(1, User::root, 0), there = writer(2, User::root, 1);
    const auto near = reader(1, User::root), far = reader(3, User::root);
    const auto holder = holder_of_semaphore(1, set);
    a_moment();
    const std::vector<pid_t> agent = agents(1);
    ASSERT_EQ(agent.size(), 1u);
    lose({0});
    ::kill(agent.front(), SIGKILL);
    expect_attached(2, 5s, 3);
    EXPECT_TRUE(wait_until([&] { return semaphore(set, 3) == 1; }, 5s)) << "the semaphore is not undone";
    expect_lost(*here);
    expect_lost(*near);
    kill_inside(*holder);  // it sleeps, and touches nothing
    holder->wait();
    expect_reads_well(*far);
    expect_reads_well(*there);
    const auto again = writer(1, User::root, 0);  // with an agent of its own
    expect_attached(3, 5s, 3);
    stop(User::root);
    EXPECT_EQ(again->wait().code(), 0) << again->err();
    EXPECT_EQ(there->wait().code(), 0) << there->err();
    expect_read_well(*far);
    EXPECT_EQ(dshmctl({"rm", "-s", std::to_string(set)}, 3), "");
  }
}

// The link first: nobody says goodbye.
TEST_F(DshmFailure, AHostThatLosesPowerLosesItsAttachesAndWhatItHeldIsSaid) {
  for (int i = 0; i < runs(1) && !HasFailure(); ++i) {
    begin_anew();
    int set = -1;
    const auto here = writer(1, User::root, 0), there = writer(2, User::root, 1);
    const auto far = reader(3, User::root);
    const auto holder = holder_of_semaphore(1, set);
    a_moment();
    lose({0});
    ASSERT_EQ(hosts_sh({"cut", "1", "254"}).code, 0);
    for (const pid_t pid : processes(1)) ::kill(pid, SIGKILL);
    here->wait();
    holder->wait();
    expect_attached(2, until_known, 3);
    EXPECT_TRUE(wait_until([&] { return semaphore(set, 3) == 1; }, 1s)) << "the semaphore is not undone";
    ASSERT_EQ(hosts_sh({"mend", "1", "254"}).code, 0);
    expect_reads_well(*far);
    const auto again = writer(1, User::root, 0);
    stop(User::root);
    EXPECT_EQ(again->wait().code(), 0) << again->err();
    EXPECT_EQ(there->wait().code(), 0) << there->err();
    expect_read_well(*far);
    EXPECT_EQ(dshmctl({"rm", "-s", std::to_string(set)}, 3), "");
  }
}

// It lives, and does not know yet that it is lost: it must know before others write what it would then read as stale.
TEST_F(DshmFailure, AHostThatIsCutOffReadsNothingStale) {
  const unsigned first = random_() % 2;
  for (unsigned turn = first; turn < first + static_cast<unsigned>(runs(1)); ++turn) {  // each takes 6 s
    const User user = turn % 2 == 0 ? User::root : User::ordinary;
    SCOPED_TRACE(user == User::root ? "root" : "ordinary user");
    begin_anew();
    const auto there = writer(2, user, 1);
    const auto near = reader(1, user), far = reader(3, user);
    a_moment();
    ASSERT_EQ(hosts_sh({"cut", "1", "254"}).code, 0);
    expect_attached(2, until_known, 3);
    const Ended end = near->wait(10s);
    EXPECT_EQ(end.signal(), SIGBUS) << text(end);
    EXPECT_EQ(count(end.err, "\n"), 1u) << "one line: " << text(end);
    EXPECT_EQ(count(end.err, "stale"), 0u) << text(end);
    const std::uint64_t then = truth_->finished[1].load();
    EXPECT_TRUE(wait_until([&] { return truth_->finished[1].load() > then + 10; }, 5s)) << "nobody writes any more";
    ASSERT_EQ(hosts_sh({"mend", "1", "254"}).code, 0);
    stop(user);
    EXPECT_EQ(there->wait().code(), 0) << there->err();
    expect_read_well(*far);
  }
}

TEST_F(DshmFailure, AKilledDsmdEndsWhoTouchesAndNothingIsLeft) {
  for (int i = 0; i < runs(1) && !HasFailure(); ++i) {
    for (const User user : {User::root, User::ordinary}) {
      SCOPED_TRACE(user == User::root ? "root" : "ordinary user");
      begin_anew();
      std::vector<std::unique_ptr<Program>> all_of_them;
      all_of_them.push_back(writer(1, user, 0));
      all_of_them.push_back(writer(2, user, 1));
      all_of_them.push_back(reader(3, user));
      a_moment();
      dsmd().itself().kill(SIGKILL);
      for (const auto& one : all_of_them) {
        const Ended end = one->wait(10s);
        EXPECT_EQ(end.signal(), SIGBUS) << text(end);
        EXPECT_EQ(count(end.err, "\n"), 1u) << "one line: " << text(end);
      }
      const Ended late = run({1, user}, {"dshm_stress", "hold", key_});
      EXPECT_EQ(late.code(), 1) << text(late);
      EXPECT_TRUE(has_line(late.err, {"dshm: "})) << text(late);
      restart_dsmd();
    }
  }
}

}  // namespace
}  // namespace dsm::dshm::testing
