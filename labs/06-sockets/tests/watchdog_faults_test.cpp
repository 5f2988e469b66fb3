// What the watchdog is for: whatever is killed or stopped, whenever that is, nobody who asks is left without a word.
//
// LAB_TEST_RUNS=200 for that many moments, LAB_TEST_SEED to repeat a run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "watchdog_bench.hpp"

namespace ipc::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

constexpr int beat_ms = 400;

// Clients that ask all the time, each for another number of words and bytes.
class Crowd {
 public:
  Crowd(const std::string& socket, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) threads_.emplace_back([this, socket, i] { ask_on(socket, i); });
  }
  ~Crowd() { leave(); }
  void leave() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }
  std::atomic<int> answered = 0, sent_away = 0;
  std::vector<std::string> wrong;  // to be read when they have left

 private:
  void ask_on(const std::string& socket, std::size_t i) {
    for (std::size_t round = 0; !stop_; ++round) {
      const std::size_t words = 1 + i + 8 * (round % 1000), bytes = 2 * words + 101 * i;
      const std::string answer = ask(socket, text_of(words, bytes));
      if (answer == count_of(words, bytes)) {
        ++answered;
      } else if (failed_politely(answer)) {
        ++sent_away;
      } else {
        const std::lock_guard lock(mutex_);
        wrong.push_back(count_of(words, bytes) + " asked for, and got: " + answer);
      }
      std::this_thread::sleep_for(1ms);  // leaves the machine to others; nothing waits for it
    }
  }
  std::atomic<bool> stop_ = false;
  std::mutex mutex_;
  std::vector<std::thread> threads_;
};

// "request" itself, over and over.
class Requests {
 public:
  explicit Requests(std::string socket) : socket_(std::move(socket)), thread_([this] { ask_on(); }) {}
  ~Requests() { leave(); }
  void leave() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }
  int answered = 0, sent_away = 0;
  std::vector<std::string> wrong;

 private:
  void ask_on() {
    while (!stop_) {
      const Outcome outcome = run({"request", "to be or not to be", "--socket", socket_});
      if (outcome.code == 0 && outcome.out == std::vector<std::string>{"words=6 bytes=18"}) {
        ++answered;
      } else if (outcome.code == 75 && outcome.out == std::vector<std::string>{"error: try again"}) {
        ++sent_away;
      } else {
        wrong.push_back("exit " + std::to_string(outcome.code) +
                        (outcome.out.empty() ? "" : ": " + outcome.out.front()));
      }
    }
  }
  std::string socket_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

// When a process was started, by the kernel's book (field 22 of proc(5), in clock ticks), and the same clock now.
milliseconds started_at(pid_t pid) {
  const auto fields = stat_fields(pid);
  return fields.size() < 20 ? 0ms : milliseconds(std::stol(fields[19]) * 1000 / ::sysconf(_SC_CLK_TCK));
}
milliseconds since_boot() {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return milliseconds(now.tv_sec * 1000 + now.tv_nsec / 1'000'000);
}

// What the machine withholds from one who wants to run for a moment every 5 ms: on a busy one a process that is due
// waits for its turn, ours and the watchdog's alike.
class Metronome {
 public:
  Metronome() : thread_([this] { tick(); }) {}
  ~Metronome() {
    stop_ = true;
    thread_.join();
  }
  [[nodiscard]] milliseconds withheld() const { return milliseconds(withheld_us_ / 1000); }

 private:
  void tick() {
    while (!stop_) {
      const auto due = Clock::now() + 5ms;
      std::this_thread::sleep_until(due);
      withheld_us_ += std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - due).count();
    }
  }
  std::atomic<long> withheld_us_ = 0;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

TEST(UnderFire, WhateverIsKilledOrStoppedIsReplacedWithinThreeBeats) {
  Watched watched({"--beat-ms", std::to_string(beat_ms)});
  const std::string identity = watched.socket_identity();
  ASSERT_NE(identity.find("socket:"), std::string::npos);
  const auto moments = random_moments({SIGKILL, SIGSTOP}, 300ms, 16);
  ::alarm(static_cast<unsigned>(240 + moments.size() * 3));
  std::mt19937_64 random(static_cast<unsigned long>(moments.front().delay.count()));
  std::vector<milliseconds> taken;
  milliseconds longest_seen = 0ms;
  long seen_late = 0, late = 0, late_by_itself = 0;
  const Metronome metronome;
  Crowd crowd(watched.socket(), 3);
  Requests requests(watched.socket());
  for (const Moment& moment : moments) {
    const std::string name = random() % 2 == 0 ? "worker" : "dispatcher";
    std::this_thread::sleep_for(moment.delay);
    const pid_t victim = watched.pid_of(name);
    const std::size_t told_before = watched.history().size();
    const auto begin = Clock::now();
    const auto begin_by_kernel = since_boot();
    const auto withheld_before = metronome.withheld();
    ASSERT_TRUE(watched.hit(name, moment.signo));
    ASSERT_TRUE(watched.next_start(name)) << name << " was not detected";
    const auto seen = std::chrono::duration_cast<milliseconds>(Clock::now() - begin);
    const auto withheld = metronome.withheld() - withheld_before;
    // From the fault to the fork. Until the line has come to us, the new process, the watchdog and we must each have
    // had a turn on the machine. (Negative: that process is not there any more.)
    const auto by_kernel = started_at(watched.pid_of(name)) - begin_by_kernel;
    taken.push_back(by_kernel < -20ms ? seen : by_kernel);
    longest_seen = std::max(longest_seen, seen);
    if (seen > 3 * beat_ms * 1ms) {
      ++seen_late;
      late += taken.back() > 3 * beat_ms * 1ms;
      late_by_itself += taken.back() > 3 * beat_ms * 1ms + withheld;
      std::printf("late: %s %d, signal %d: seen after %ld ms, by the kernel %ld ms; the machine withheld %ld ms\n",
                  name.c_str(), victim, moment.signo, static_cast<long>(seen.count()),
                  static_cast<long>(by_kernel.count()), static_cast<long>(withheld.count()));
      for (std::size_t i = told_before; i < watched.history().size(); ++i) {
        std::printf("  %s\n", watched.history()[i].c_str());
      }
    }
    EXPECT_FALSE(exists(victim)) << "not reaped";
    EXPECT_EQ(children_of(watched.pid()).size(), 2U);
    EXPECT_EQ(watched.socket_identity(), identity);
  }
  EXPECT_TRUE(wait_until([&] { return ask(watched.socket(), "all is well") == "words=3 bytes=11"; }));
  requests.leave(), crowd.leave();
  EXPECT_THAT(crowd.wrong, IsEmpty());
  EXPECT_THAT(requests.wrong, IsEmpty());
  EXPECT_GT(crowd.answered, 0);
  std::sort(taken.begin(), taken.end());
  // Whether the machine was busy or the watchdog slow: the first is excused, and a limit that is wrong is not.
  std::printf(
      "%zu faults; started anew after %ld ms (median), %ld ms (longest), told after %ld ms (longest); later than three "
      "beats: %ld told, %ld started, %ld of these by more than the machine withheld\n",
      taken.size(), static_cast<long>(taken[taken.size() / 2].count()), static_cast<long>(taken.back().count()),
      static_cast<long>(longest_seen.count()), seen_late, late, late_by_itself);
  std::printf("clients: %d answered, %d told to try again; request: %d and %d\n", crowd.answered.load(),
              crowd.sent_away.load(), requests.answered, requests.sent_away);
  EXPECT_EQ(late_by_itself, 0);
  watched.run().signal(SIGTERM);
  EXPECT_EQ(watched.run().wait(), 128 + SIGTERM);
  EXPECT_THAT(watched.run().left_processes(), IsEmpty());
  EXPECT_FALSE(std::filesystem::exists(watched.socket()));
}

TEST(UnderFire, TheRequestUnderWayIsToldToTryAgainAndTheNextIsAnswered) {
  Watched watched({"--beat-ms", "2000"});  // time to ask before the worker that is stopped is found out
  ASSERT_TRUE(watched.hit("worker", SIGSTOP));
  Asker under_way(watched.socket(), "one");
  Asker behind_it(watched.socket(), "one two");
  EXPECT_EQ(under_way.answer(), "error: try again");
  EXPECT_EQ(behind_it.answer(), "words=2 bytes=7");
  const pid_t dispatcher = watched.dispatcher();
  EXPECT_TRUE(watched.next_start("worker"));
  EXPECT_EQ(children_of(watched.pid()).size(), 2U);
  EXPECT_TRUE(is_alive(dispatcher)) << "the dispatcher outlives a worker";
}

TEST(UnderFire, WhoConnectsWhileThereIsNoDispatcherIsServedByTheNext) {
  Watched watched({"--beat-ms", "400"});
  ASSERT_EQ(ask(watched.socket(), "one"), "words=1 bytes=3");
  const pid_t worker = watched.worker();
  ASSERT_TRUE(watched.hit("dispatcher", SIGSTOP));
  ASSERT_TRUE(wait_until([&] { return state_of(watched.dispatcher()) == 'T'; }));
  EXPECT_EQ(ask(watched.socket(), "one two"), "words=2 bytes=7");
  EXPECT_TRUE(is_alive(worker)) << "the worker outlives a dispatcher";
}

TEST(UnderFire, ARequestOfAStoppedDispatcherIsNotLost) {
  Watched watched;
  Asker accepted(watched.socket());
  ASSERT_EQ(ask(watched.socket(), "one"), "words=1 bytes=3");  // so it has accepted the one before, too
  ASSERT_TRUE(watched.hit("dispatcher", SIGSTOP));
  accepted.send("one two");
  EXPECT_EQ(accepted.answer(), "end") << "its connection died with the dispatcher; `request` says: try again";
}

TEST(UnderFire, BothAtOnceAreReplaced) {
  Watched watched;
  for (const auto& [first, second] : {std::pair{SIGKILL, SIGKILL}, {SIGSTOP, SIGSTOP}, {SIGSTOP, SIGKILL}}) {
    const pid_t worker = watched.worker(), dispatcher = watched.dispatcher();
    ASSERT_TRUE(watched.hit("worker", first) && watched.hit("dispatcher", second));
    while (watched.worker() == worker || watched.dispatcher() == dispatcher) ASSERT_TRUE(watched.line());
    EXPECT_EQ(ask(watched.socket(), "one"), "words=1 bytes=3");
    EXPECT_THAT(children_of(watched.pid()), ::testing::UnorderedElementsAre(watched.worker(), watched.dispatcher()));
  }
}

TEST(UnderFire, WhoOnlyPausesForAMomentIsLeftAlone) {
  Watched watched({"--beat-ms", "60000"});
  const pid_t worker = watched.worker();
  ASSERT_TRUE(watched.hit("worker", SIGSTOP));
  ASSERT_TRUE(wait_until([&] { return state_of(worker) == 'T'; }));
  Asker client(watched.socket(), "one");
  ASSERT_TRUE(watched.hit("worker", SIGCONT));
  EXPECT_EQ(client.answer(), "words=1 bytes=3");
  EXPECT_THAT(children_of(watched.pid()), ::testing::ElementsAre(worker, watched.dispatcher()));
}

TEST(UnderFire, AWatchdogThatWasStoppedDoesNotBlameItsChildren) {
  Watched watched({"--beat-ms", "1000"});
  ASSERT_EQ(ask(watched.socket(), "one"), "words=1 bytes=3");
  const auto children = children_of(watched.pid());
  watched.run().signal(SIGSTOP);
  ASSERT_TRUE(wait_until([&] { return state_of(watched.pid()) == 'T'; }));
  std::this_thread::sleep_for(5s);  // twice the limit
  watched.run().signal(SIGCONT);
  EXPECT_EQ(ask(watched.socket(), "one"), "words=1 bytes=3");
  EXPECT_EQ(children_of(watched.pid()), children);
}

// ---- a world that is full ----

TEST(AFullWorld, HoldsUpNeitherSupervisionNorTheEndWhenNobodyReadsTheLines) {
  FullPipe output;
  const TempDir folder;
  const std::string socket = folder.path("s");
  // The beat is slow: on a machine that has more to do than it can, nobody else is to be taken for dead.
  Started run(into(output, {"watchdog", "--socket", socket, "--beat-ms", "2000"}));
  ASSERT_TRUE(wait_until([&] { return children_of(run.pid()).size() == 2; }));
  ASSERT_EQ(ask(socket, "one"), "words=1 bytes=3");
  const pid_t worker = children_of(run.pid()).front();
  ASSERT_EQ(::kill(worker, SIGKILL), 0);
  ASSERT_TRUE(wait_until([&] {
    const auto now = children_of(run.pid());
    return now.size() == 2 && std::find(now.begin(), now.end(), worker) == now.end();
  }));
  EXPECT_EQ(ask(socket, "one"), "words=1 bytes=3");
  // Nothing is lost: it comes when somebody reads.
  std::vector<std::string> lines;
  EXPECT_TRUE(wait_until([&] {
    for (const std::string& line : output.drain()) lines.push_back(line);
    return lines.size() == 5;
  }));
  EXPECT_THAT(lines, ElementsAre("listening on " + socket, "worker " + std::to_string(worker) + " started",
                                 StartsWith("dispatcher "), HasSubstr("was killed by SIGKILL"), StartsWith("worker ")));
  output.fill();
  run.signal(SIGTERM);
  EXPECT_EQ(run.wait(), 128 + SIGTERM);
  EXPECT_THAT(run.left_processes(), IsEmpty());
  EXPECT_FALSE(std::filesystem::exists(socket));
}

// So that a process has no more than `count` descriptors left to open.
void leave_descriptors(pid_t pid, std::size_t count) {
  const auto used = open_descriptors(std::to_string(pid));
  rlim_t limit = 0;
  for (std::size_t free = 0; free < count || used.count(static_cast<int>(limit)) != 0; ++limit) {
    free += used.count(static_cast<int>(limit)) == 0;
  }
  rlimit now{};
  ASSERT_EQ(::prlimit(pid, RLIMIT_NOFILE, nullptr, &now), 0);
  now.rlim_cur = limit;
  ASSERT_EQ(::prlimit(pid, RLIMIT_NOFILE, &now, nullptr), 0);
}

// UBSan looks at memory by way of pipe(2) (its check of the vptr): without descriptors it complains of good objects.
constexpr const char* ubsan_needs_descriptors = "UBSan needs descriptors itself";

TEST(AFullWorld, IsOutlivedIfItHasRoomAgainInTime) {
  if (ipc::testing::sanitizer() == "undefined") GTEST_SKIP() << ubsan_needs_descriptors;
  // What the dead worker leaves is one descriptor: no socketpair. With three more the child comes to life, and there is
  // none left for its pipes.
  for (const auto& [left, complaint] : {std::pair{0U, "could not be started: socketpair: Too many open files"},
                                        {3U, "no link: pipe2: Too many open files"}}) {
    Watched watched({"--beat-ms", "400"});
    ASSERT_EQ(ask(watched.socket(), "one"), "words=1 bytes=3");
    rlimit before{};
    ASSERT_EQ(::prlimit(watched.pid(), RLIMIT_NOFILE, nullptr, &before), 0);
    leave_descriptors(watched.pid(), left);
    ASSERT_TRUE(watched.hit("worker", SIGKILL));
    for (std::optional<std::string> line = ""; line->find(complaint) == line->npos;) {
      line = watched.line();
      ASSERT_TRUE(line) << "it never said: " << complaint;
    }
    ASSERT_EQ(::prlimit(watched.pid(), RLIMIT_NOFILE, &before, nullptr), 0);
    ASSERT_TRUE(watched.next_start("worker"));
    EXPECT_EQ(ask(watched.socket(), "one two"), "words=2 bytes=7");
    EXPECT_EQ(children_of(watched.pid()).size(), 2U);
  }
}

TEST(AFullWorld, ThatStaysFullIsGivenUp) {
  if (ipc::testing::sanitizer() == "undefined") GTEST_SKIP() << ubsan_needs_descriptors;
  Watched watched({"--beat-ms", "200", "--max-restarts", "2"});
  ASSERT_EQ(ask(watched.socket(), "one"), "words=1 bytes=3");
  leave_descriptors(watched.pid(), 0);
  ASSERT_TRUE(watched.hit("worker", SIGKILL));
  EXPECT_EQ(watched.run().wait(), 1);
  EXPECT_THAT(watched.run().error_lines(),
              ElementsAre(HasSubstr("3 times in a row; at last it could not be started: socketpair")));
  EXPECT_THAT(watched.run().left_processes(), IsEmpty());
}

// ---- told to stop, at any moment ----

void expect_nothing_left(const std::string& program) {
  for (const Moment& moment : random_moments({SIGTERM, SIGINT, SIGHUP}, 60ms, 12)) {
    const TempDir folder;
    const std::string socket = folder.path("s");
    Started run({program, "--socket", socket});
    std::this_thread::sleep_for(moment.delay);
    const auto family = children_of(run.pid());
    run.signal(moment.signo);
    ASSERT_EQ(run.wait(), 128 + moment.signo);
    EXPECT_THAT(run.left_processes(), IsEmpty());
    EXPECT_FALSE(std::filesystem::exists(socket));
    EXPECT_EQ(segments_of({run.pid()}) + segments_of(family), 0U);
    EXPECT_THAT(run.error_lines(), IsEmpty());
  }
}

TEST(AtAnyMoment, AWatchdogThatIsToldToStopLeavesNothing) { expect_nothing_left("watchdog"); }
TEST(AtAnyMoment, ADispatcherThatIsToldToStopLeavesNothing) { expect_nothing_left("dispatcher"); }

}  // namespace
}  // namespace ipc::testing
