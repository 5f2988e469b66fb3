// ipc/watchdog.hpp and the link of 6C.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <chrono>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ipc/signals.hpp"
#include "ipc/spawn.hpp"
#include "ipc/watchdog.hpp"
#include "labs/06-sockets/src/link.hpp"
#include "labs/06-sockets/src/outbox.hpp"
#include "watchdog_bench.hpp"

namespace ipc {
namespace {

using namespace std::chrono_literals;
using testing::socket_pair;
using testing::wait_until;
using Verdict = HeartbeatMonitor::Verdict;

const BeatClock::time_point start = BeatClock::now();

class Hearts : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(RecordsAndStreams, Hearts, ::testing::Values(SOCK_SEQPACKET, SOCK_STREAM));

TEST_P(Hearts, ABeatIsSentWhenItIsDueAndNotBefore) {
  auto [watcher, watched] = socket_pair(GetParam());
  Heartbeat heart(watched.get(), 1h);
  EXPECT_EQ(heart.due_ms(), 0);
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(heart.beat());
  EXPECT_GT(heart.due_ms(), 3'500'000);
  HeartbeatMonitor monitor(watcher.get(), 100ms, start);
  EXPECT_EQ(monitor.check(start), Verdict::alive);
  EXPECT_EQ(monitor.beats(), 1U);
}

TEST_P(Hearts, SilenceCountsFromTheLastBeat) {
  auto [watcher, watched] = socket_pair(GetParam());
  Heartbeat heart(watched.get(), 0ms);
  HeartbeatMonitor monitor(watcher.get(), 100ms, start);
  EXPECT_EQ(monitor.check(start + 99ms), Verdict::alive);
  EXPECT_EQ(monitor.deadline(), start + 100ms);
  heart.beat();
  EXPECT_EQ(monitor.check(start + 99ms), Verdict::alive);
  EXPECT_EQ(monitor.check(start + 198ms), Verdict::alive);
  EXPECT_EQ(monitor.check(start + 199ms), Verdict::silent);
}

TEST_P(Hearts, AWatcherThatSleptReadsBeforeItJudges) {
  auto [watcher, watched] = socket_pair(GetParam());
  Heartbeat heart(watched.get(), 0ms);
  HeartbeatMonitor monitor(watcher.get(), 100ms, start);
  for (int i = 0; i < 3; ++i) heart.beat();
  EXPECT_EQ(monitor.check(start + 1h), Verdict::alive);
  EXPECT_EQ(monitor.beats(), 3U);
}

TEST_P(Hearts, AFullSocketStopsNoBeatingHeart) {
  auto [watcher, watched] = socket_pair(GetParam());
  Heartbeat heart(watched.get(), 0ms);
  for (int i = 0; i < 20000; ++i) ASSERT_TRUE(heart.beat());
  HeartbeatMonitor monitor(watcher.get(), 100ms, start);
  EXPECT_EQ(monitor.check(start + 1h), Verdict::alive);
}

TEST_P(Hearts, BothSidesNoticeThatTheOtherHasGone) {
  auto [watcher, watched] = socket_pair(GetParam());
  Heartbeat heart(watched.get(), 0ms);
  HeartbeatMonitor monitor(watcher.get(), 100ms, start);
  heart.beat();
  watched.reset();
  EXPECT_EQ(monitor.check(start), Verdict::gone);
  EXPECT_EQ(monitor.beats(), 1U) << "what it said before it died counts";

  auto [dead, alive] = socket_pair(GetParam());
  dead.reset();
  EXPECT_FALSE(Heartbeat(alive.get(), 0ms).beat());
}

TEST(Hearts, TheLimitLeavesTimeToRestartWithinThreeBeats) {
  EXPECT_EQ(silence_limit(200ms), 500ms);
  EXPECT_EQ(milliseconds_until(start, start + 1s), 0);
  EXPECT_EQ(milliseconds_until(start + 1500us, start), 2);
}

TEST(Restarts, WhatHadComeUpIsStartedAgainAtOnce) {
  RestartPolicy policy(200ms, 5);
  for (int i = 0; i < 100; ++i) {
    policy.started(start + i * 1s);
    policy.came_up();
    EXPECT_EQ(policy.next_start(), start + i * 1s + 200ms);  // not in a tight loop, though
  }
}

TEST(Restarts, WhatDiesAtItsStartIsStartedLaterAndLaterAndThenNoMore) {
  RestartPolicy policy(200ms, 3);
  auto now = start;
  for (const auto wait : {200ms, 400ms, 800ms}) {
    policy.started(now);
    ASSERT_EQ(policy.next_start(), now + wait);
    now += wait;
  }
  policy.started(now);
  EXPECT_EQ(policy.next_start(), std::nullopt);
  policy.came_up();
  EXPECT_EQ(policy.next_start(), now + 200ms);
}

TEST(Restarts, NoneMeansNone) {
  RestartPolicy policy(200ms, 0);
  policy.started(start);
  EXPECT_EQ(policy.next_start(), std::nullopt);
}

SpawnOptions shell(const std::string& script) {
  SpawnOptions options;
  options.arguments = {"/bin/sh", "-c", script};
  return options;
}

// Waits for its death, and returns what is said of it.
std::string death_of(Supervised& child) {
  std::string said = "it lives";
  wait_until([&] {
    const auto ended = child.look(BeatClock::now());
    if (ended) said = *ended;
    return ended.has_value();
  });
  return said;
}

TEST(ASupervisedChild, IsReapedAndItsEndIsTold) {
  for (const auto& [script, ending] : {std::pair{"exit 3", "exited with code 3"},
                                       {"kill -9 $$", "was killed by SIGKILL"},
                                       {"exec 3>&-; kill -ABRT $$", "was killed by SIG"}}) {
    Supervised child("child", 1h, 5);
    child.start(shell(script));
    const pid_t pid = child.pid();
    EXPECT_THAT(death_of(child), ::testing::StartsWith(ending));
    EXPECT_FALSE(testing::exists(pid));
    EXPECT_FALSE(child.is_running());
    EXPECT_EQ(child.look(BeatClock::now()), std::nullopt) << "it is told once";
  }
}

TEST(ASupervisedChild, ThatIsSilentIsKilledEvenIfItIsStopped) {
  for (const char* script : {"trap '' TERM; exec sleep 1000", "kill -STOP $$"}) {
    Supervised child("child", 20ms, 5);
    child.start(shell(script));
    const pid_t pid = child.pid();
    EXPECT_EQ(death_of(child), "was silent, so it was killed");
    EXPECT_FALSE(testing::exists(pid));
  }
}

TEST(ASupervisedChild, ThatClosesItsEndIsNoLongerTrusted) {
  Supervised child("child", 1h, 5);
  child.start(shell("exec 3>&-; exec sleep 1000"));
  EXPECT_EQ(death_of(child), "was killed by SIGKILL");
}

TEST(ASupervisedChild, ThatBeatsLives) {
  Supervised child("child", 600ms, 5);
  child.start(shell("while :; do printf x >&3; sleep 0.02; done"));
  const auto end = BeatClock::now() + 2s;  // longer than the limit of one and a half
  for (; BeatClock::now() < end; std::this_thread::sleep_for(1ms))
    ASSERT_EQ(child.look(BeatClock::now()), std::nullopt);
}

TEST(ASupervisedChild, HasNoDescriptorsButItsOwnAndDiesWithUs) {
  const auto before = testing::open_descriptors().size();
  {
    Supervised child("child", 1h, 5);
    child.start(shell("exec sleep 1000"));
    // 0, 1, 2 and 3; until it sleeps, the libraries that are just being loaded besides.
    std::map<int, std::string> its;
    EXPECT_TRUE(wait_until([&] {
      its = testing::open_descriptors(std::to_string(child.pid()));
      return testing::state_of(child.pid()) == 'S' && its.size() == 4;
    }));
    EXPECT_EQ(its.count(Supervised::control_fd), 1U);
    EXPECT_EQ(::getpgid(child.pid()), child.pid());
    EXPECT_EQ(testing::open_descriptors().size(), before + 1);
    const pid_t pid = child.pid();
    child.end();
    EXPECT_FALSE(testing::exists(pid));
  }
  EXPECT_EQ(testing::open_descriptors().size(), before);
}

TEST(ASupervisedChild, IsEndedByForceIfItDoesNotListen) {
  Supervised child("child", 40ms, 5);
  child.start(shell("kill -STOP $$"));
  const pid_t pid = child.pid();
  ASSERT_TRUE(wait_until([&] { return testing::state_of(pid) == 'T'; }));
  child.end();
  EXPECT_FALSE(testing::exists(pid));
}

TEST(ASupervisedChild, IsNotWaitedForLongerBecauseItsBeatIsSlow) {
  Supervised child("child", 100s, 5);
  child.start(shell("kill -STOP $$"));
  const pid_t pid = child.pid();
  ASSERT_TRUE(wait_until([&] { return testing::state_of(pid) == 'T'; }));
  const auto begin = BeatClock::now();
  child.end();
  EXPECT_LT(BeatClock::now() - begin, 30s);  // two and a half beats would be 250
  EXPECT_FALSE(testing::exists(pid));
}

TEST(ASupervisedChild, ThatCannotBeStartedIsAnErrorAndCountsAsADeathAtItsStart) {
  const auto before = testing::open_descriptors().size();
  Supervised child("child", 1h, 1);
  SpawnOptions options;
  options.arguments = {"/nowhere/at/all"};
  EXPECT_THROW(child.start(options), SpawnError);
  EXPECT_FALSE(child.is_running());
  child.end();
  EXPECT_GT(child.next_step().value(), BeatClock::now() + 30min);
  EXPECT_THROW(child.start(options), SpawnError);
  EXPECT_EQ(child.next_step(), std::nullopt);
  EXPECT_EQ(testing::open_descriptors().size(), before);
}

TEST(AnInheritedSocket, IsCheckedAndClosesOnExec) {
  auto [one, other] = socket_pair(SOCK_SEQPACKET);
  ASSERT_EQ(::fcntl(one.get(), F_SETFD, 0), 0);
  const Fd taken = inherited_socket(one.release(), SOCK_SEQPACKET);
  EXPECT_EQ(::fcntl(taken.get(), F_GETFD), FD_CLOEXEC);
  EXPECT_THROW(static_cast<void>(inherited_socket(taken.get(), SOCK_STREAM)), std::runtime_error);
  EXPECT_THROW(static_cast<void>(inherited_socket(1000, SOCK_STREAM)), std::runtime_error);
  const Pipe pipe = make_pipe();
  EXPECT_THROW(static_cast<void>(inherited_socket(pipe.read.get(), SOCK_STREAM)), std::runtime_error);
}

// ---- what is said ----

std::vector<std::string> numbered(const std::string& name, int first, int last) {
  std::vector<std::string> lines;
  for (int i = first; i <= last; ++i) lines.push_back(name + " " + std::to_string(i));
  return lines;
}

TEST(AnOutbox, KeepsWhatDoesNotGoOutAndTheNewestIfThatIsTooMuch) {
  testing::FullPipe pipe;
  Outbox outbox(pipe.fd(), "the pipe", 10);
  EXPECT_EQ(outbox.waiting_for(), -1);
  for (const std::string& line : numbered("line", 1, 10)) outbox.put(line), outbox.flush();
  EXPECT_EQ(outbox.waiting_for(), pipe.fd());
  pipe.drain();
  outbox.flush();
  EXPECT_EQ(pipe.drain(), numbered("line", 1, 10));
  EXPECT_EQ(outbox.waiting_for(), -1);

  pipe.fill();
  for (const std::string& line : numbered("more", 1, 25)) outbox.put(line);
  pipe.drain();
  outbox.flush();
  auto expected = numbered("more", 16, 25);
  expected.insert(expected.begin(), "(15 lines were dropped: nobody read them)");
  EXPECT_EQ(pipe.drain(), expected);
}

TEST(AnOutbox, SaysWhenNobodyWillEverRead) {
  const ScopedAction no_death(SIGPIPE, [](int, siginfo_t*, void*) {});
  Pipe pipe = make_pipe();
  pipe.read.reset();
  Outbox outbox(pipe.write.get(), "the pipe", 10);
  outbox.put("anybody?");
  EXPECT_EQ(testing::error_of([&] { outbox.flush(); }), EPIPE);
}

// ---- the link ----

TEST(ALink, LeavesNoSegmentAndNoDescriptorBehind) {
  const auto before = testing::open_descriptors().size();
  auto [parent, child] = socket_pair(SOCK_SEQPACKET);
  Link link;
  int id = -1;
  {
    const NewLink made = make_link();
    id = made.segment.id();
    EXPECT_TRUE(send_link(parent.get(), made.worker, id));
    EXPECT_TRUE(receive_links(child.get(), link));
    ASSERT_TRUE(link);
    EXPECT_EQ(link.segment->size(), max_text);
    EXPECT_EQ(::fcntl(link.in.get(), F_GETFD), FD_CLOEXEC);
  }
  EXPECT_EQ(link.segment->stat().shm_nattch, 1U);  // it outlives its maker as long as it is used
  link = {};
  EXPECT_EQ(testing::error_of([&] { static_cast<void>(SysvSegment::attach(id)); }), EINVAL);
  parent.reset(), child.reset();
  EXPECT_EQ(testing::open_descriptors().size(), before);
}

TEST(SegmentsOf, TakesNobodyForNoneOfOurs) {
  const int id = ::shmget(IPC_PRIVATE, 1, IPC_CREAT | 0600);  // never attached: its last user is 0
  ASSERT_NE(id, -1);
  EXPECT_EQ(testing::segments_of({0}), 0U);
  EXPECT_GE(testing::segments_of({::getpid()}), 1U);
  ::shmctl(id, IPC_RMID, nullptr);
}

TEST(ALink, IsReplacedByTheNewestOne) {
  auto [parent, child] = socket_pair(SOCK_SEQPACKET);
  NewLink first = make_link(), second = make_link();
  ASSERT_TRUE(send_link(parent.get(), first.worker, first.segment.id()));
  ASSERT_TRUE(send_link(parent.get(), second.worker, second.segment.id()));
  Link link;
  ASSERT_TRUE(receive_links(child.get(), link));
  EXPECT_EQ(link.segment->id(), second.segment.id());
  first.worker = {};
  pollfd hung{first.dispatcher.in.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&hung, 1, 0), 1) << "nobody has the old pipes any more";
}

TEST(ALink, WhoseSegmentHasGoneIsLeftAlone) {
  auto [parent, child] = socket_pair(SOCK_SEQPACKET);
  {
    const NewLink made = make_link();
    ASSERT_TRUE(send_link(parent.get(), made.worker, made.segment.id()));
  }
  Link link;
  EXPECT_TRUE(receive_links(child.get(), link));
  EXPECT_FALSE(link);
  parent.reset();
  EXPECT_FALSE(receive_links(child.get(), link));
}

TEST(ALink, IsNotMadeOfSomethingElse) {
  auto [parent, child] = socket_pair(SOCK_SEQPACKET);
  ASSERT_EQ(::send(parent.get(), "what?", 5, 0), 5);
  Link link;
  EXPECT_THROW(static_cast<void>(receive_links(child.get(), link)), std::runtime_error);
}

}  // namespace
}  // namespace ipc
