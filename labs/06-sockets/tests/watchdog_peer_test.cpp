// worker and dispatcher, each alone, with the test as their watchdog and as the other side.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "ipc/signals.hpp"
#include "ipc/spawn.hpp"
#include "ipc/watchdog.hpp"
#include "labs/06-sockets/src/link.hpp"
#include "watchdog_bench.hpp"

namespace ipc {
namespace {

using namespace std::chrono_literals;
using testing::Asker;
using testing::long_enough;
using testing::socket_pair;
using testing::wait_until;
using Verdict = HeartbeatMonitor::Verdict;

class AsWatchdog : public ::testing::Test {
 protected:
  // Without the death signal, to see what end of file alone does.
  pid_t start(const std::string& program, std::vector<std::pair<int, int>> descriptors) {
    auto [ours, theirs] = socket_pair(SOCK_SEQPACKET);
    control_ = std::move(ours);
    SpawnOptions options;
    options.arguments = {testing::program_path(program), "--beat-ms", "20"};
    if (program == "dispatcher") options.arguments.emplace_back("--supervised");
    options.descriptors = std::move(descriptors);
    options.descriptors.emplace_back(theirs.get(), Supervised::control_fd);
    return pid_ = spawn(options);
  }
  void TearDown() override {
    if (pid_ <= 0) return;
    testing::kill_child(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  std::uint64_t beats() {
    const auto verdict = monitor().check(BeatClock::now());
    return verdict == Verdict::gone ? 0 : monitor().beats();
  }
  HeartbeatMonitor& monitor() {
    if (!monitor_) monitor_.emplace(control_.get(), 1h, start_of_test_);
    return *monitor_;
  }
  // The other side's half of a new link, which the program has got.
  Link give_link(bool to_worker) {
    NewLink made = make_link();
    EXPECT_TRUE(send_link(control_.get(), to_worker ? made.worker : made.dispatcher, made.segment.id()));
    Link mine = std::move(to_worker ? made.dispatcher : made.worker);
    mine.segment = std::move(made.segment);
    return mine;
  }
  static bool readable(int fd, Milliseconds deadline = long_enough) {
    pollfd wait{fd, POLLIN, 0};
    return ::poll(&wait, 1, static_cast<int>(deadline.count())) == 1;
  }

  const BeatClock::time_point start_of_test_ = BeatClock::now();
  Fd control_;
  pid_t pid_ = 0;
  std::optional<HeartbeatMonitor> monitor_;
};

TEST_F(AsWatchdog, AWorkerBeatsFromItsFirstLinkOnAndCounts) {
  start("worker", {});
  ASSERT_TRUE(wait_until([&] { return testing::state_of(pid_) == 'S'; }));
  EXPECT_EQ(beats(), 0U);
  Link link = give_link(true);
  EXPECT_TRUE(wait_until([&] { return beats() >= 5; }));
  const std::string text = " one two\nthree\tfour  five ";
  text.copy(link.text(), text.size());
  const Request request{77, text.size()};
  ASSERT_EQ(write_full(link.out.get(), &request, sizeof request), static_cast<ssize_t>(sizeof request));
  Reply reply{};
  ASSERT_TRUE(readable(link.in.get()));
  ASSERT_EQ(read_full(link.in.get(), &reply, sizeof reply), static_cast<ssize_t>(sizeof reply));
  EXPECT_EQ(reply.number, 77U);
  EXPECT_EQ(reply.words, 5U);
  EXPECT_EQ(reply.bytes, text.size());
}

TEST_F(AsWatchdog, AWorkerLeavesTheOldLinkForTheNewOne) {
  start("worker", {});
  Link old = give_link(true);
  ASSERT_TRUE(wait_until([&] { return beats() > 0; }));
  const auto descriptors = testing::open_descriptors(std::to_string(pid_)).size();
  Link link = give_link(true);
  ASSERT_TRUE(readable(old.in.get()));
  Reply reply{};
  EXPECT_EQ(read_full(old.in.get(), &reply, sizeof reply), 0) << "end of file, and no stale answer";
  EXPECT_EQ(testing::open_descriptors(std::to_string(pid_)).size(), descriptors);
  link = {};  // the dispatcher dies: no reason for a worker to die
  const auto before = beats();
  EXPECT_TRUE(wait_until([&] { return beats() > before + 3; }));
}

TEST_F(AsWatchdog, AWorkerDiesWhenAnAbsurdLengthIsAnnounced) {
  start("worker", {});
  const Link link = give_link(true);
  const Request request{1, max_text + 1};
  ASSERT_EQ(write_full(link.out.get(), &request, sizeof request), static_cast<ssize_t>(sizeof request));
  EXPECT_TRUE(wait_until([&] { return testing::has_ended(pid_); }));
}

TEST_F(AsWatchdog, EndOfFileEndsAWorkerAndADispatcher) {
  const testing::TempDir folder;
  const UnixListener listener(folder.path("s"), SOCK_STREAM);
  for (const char* program : {"worker", "dispatcher"}) {
    start(program, program == std::string("worker") ? std::vector<std::pair<int, int>>{}
                                                    : std::vector<std::pair<int, int>>{{listener.fd(), 4}});
    control_.reset();
    EXPECT_TRUE(wait_until([&] { return testing::has_ended(pid_); })) << program;
    TearDown();
  }
}

class AsWatchdogAndWorker : public AsWatchdog {
 protected:
  AsWatchdogAndWorker() {
    set_nonblocking(listener_.fd());
    start("dispatcher", {{listener_.fd(), 4}});
    link_ = give_link(false);
  }
  // What the dispatcher wants to be counted next: its number.
  std::uint64_t next_request() {
    Request request{};
    if (!readable(link_.in.get()) || read_full(link_.in.get(), &request, sizeof request) != sizeof request) return 0;
    return request.number;
  }
  void reply(std::uint64_t number, std::uint64_t words) {
    const Reply reply{number, words, 0};
    static_cast<void>(write_full(link_.out.get(), &reply, sizeof reply));
  }
  testing::TempDir folder_;
  UnixListener listener_{folder_.path("s"), SOCK_STREAM};
  Link link_;
};

TEST_F(AsWatchdogAndWorker, TheOneUnderWayIsToldAndTheOthersGoToTheNewWorker) {
  Asker first(folder_.path("s"), "first");
  const auto old_number = next_request();
  Asker second(folder_.path("s"), "second");
  link_ = {};  // the worker dies
  EXPECT_EQ(first.answer(), "error: try again");
  link_ = give_link(false);
  const auto number = next_request();
  EXPECT_NE(number, old_number);
  reply(number, 42);
  EXPECT_EQ(second.answer(), "words=42 bytes=0");
}

TEST_F(AsWatchdogAndWorker, ALateReplyOfTheOldWorkerReachesNobody) {
  const ScopedAction no_death(SIGPIPE, [](int, siginfo_t*, void*) {});
  Asker first(folder_.path("s"), "first");
  const auto old_number = next_request();
  Asker second(folder_.path("s"), "second");
  Link old = std::exchange(link_, {});
  link_ = give_link(false);  // the old worker hangs, and still has its pipes
  const auto number = next_request();
  std::swap(old, link_);
  reply(old_number, 666);
  std::swap(old, link_);
  reply(number, 42);
  EXPECT_EQ(first.answer(), "error: try again");
  EXPECT_EQ(second.answer(), "words=42 bytes=0");
}

TEST_F(AsWatchdogAndWorker, ADispatcherRatherDiesThanBelieveAWrongNumber) {
  Asker first(folder_.path("s"), "first");
  const auto number = next_request();
  ASSERT_NE(number, 0U);
  reply(number + 1, 666);
  EXPECT_TRUE(testing::failed_politely(first.answer()));
  EXPECT_TRUE(wait_until([&] { return testing::has_ended(pid_); }));
}

TEST_F(AsWatchdogAndWorker, ADispatcherThatIsTerminatedTellsEverybody) {
  Asker first(folder_.path("s"), "first");
  ASSERT_NE(next_request(), 0U);
  Asker second(folder_.path("s"), "second");
  ASSERT_TRUE(wait_until([&] { return testing::open_descriptors(std::to_string(pid_)).size() >= 10; }));
  testing::kill_child(pid_, SIGTERM);
  EXPECT_EQ(first.answer(), "error: try again");
  EXPECT_EQ(second.answer(), "error: try again");
}

}  // namespace
}  // namespace ipc
