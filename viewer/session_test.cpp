#include "viewer/session.hpp"

#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <memory>

#include "dsm/telemetry/viewer_port.hpp"
#include "viewer/sample_test.hpp"

namespace viewer {
namespace {

using dsm::telemetry::JobName;
using dsm::telemetry::ViewerPort;
using namespace std::chrono_literals;

// dsmtop's turns and a dsmexec's turns, one after the other in one thread; the session's time runs 50 ms a turn.
struct Watch {
  std::vector<JobName> jobs;  // the only ones there are, newest first
  Session session;
  Model model;
  View view;
  Session::Time now{1h};

  explicit Watch(const std::string& wanted = "") : session(wanted, [this] { return jobs; }) {}

  void turn(ViewerPort* port = nullptr) {
    session.turn(now, model, view);
    now += 50ms;
    if (port == nullptr) return;
    port->serve();
    if (!port->pending()) return;
    Snapshot s = sample_snapshot(static_cast<std::uint64_t>(now.time_since_epoch() / 1us));
    s.job = port->job();
    port->answer(s);
  }
  template <class Done>
  [[nodiscard]] bool until(ViewerPort* port, Done done) {
    for (int i = 0; i < 500; ++i) {
      turn(port);
      if (done()) return true;
    }
    return false;
  }
};

Snapshot last_of(const ViewerPort& port) {
  Snapshot s = sample_snapshot(UINT64_MAX / 2);
  s.job = port.job();
  return s;
}

// Names tell milliseconds apart, and a test may be faster than that.
std::unique_ptr<ViewerPort> port_later_than(std::int64_t started_ms, const std::string& program) {
  std::unique_ptr<ViewerPort> port;
  do {
    port.reset();
    port = std::make_unique<ViewerPort>(program);
  } while (port->name().started_ms <= started_ms);
  return port;
}

TEST(Session, WaitsAndSaysSo) {
  Watch any, named("nosuch");
  any.turn();
  named.turn();
  EXPECT_TRUE(any.model.empty());
  EXPECT_NE(any.view.notice.find("Waiting"), std::string::npos);
  EXPECT_NE(named.view.notice.find("'nosuch'"), std::string::npos);
  EXPECT_EQ(any.session.fd(any.view), -1);
}

TEST(Session, FindsAJobThatStartsLaterAndKeepsAsking) {
  Watch watch;
  watch.turn();
  ViewerPort port("sessionfinds");
  watch.jobs = {port.name()};
  ASSERT_TRUE(watch.until(&port, [&] { return !watch.model.empty(); }));
  EXPECT_EQ(watch.model.now().job, port.job());
  const auto first = watch.model.now().elapsed_us;
  EXPECT_TRUE(watch.until(&port, [&] { return watch.model.now().elapsed_us > first + 1'000'000; }));
  EXPECT_EQ(watch.view.notice, "");
}

TEST(Session, APausedOneAsksNothing) {
  Watch watch;
  ViewerPort port("sessionpauses");
  watch.jobs = {port.name()};
  ASSERT_TRUE(watch.until(&port, [&] { return !watch.model.empty(); }));
  watch.view.paused = true;
  for (int i = 0; i < 10; ++i) watch.turn(&port);
  const auto still = watch.model.now().elapsed_us;
  for (int i = 0; i < 50; ++i) watch.turn();
  port.serve();
  EXPECT_FALSE(port.pending());
  EXPECT_EQ(watch.model.now().elapsed_us, still);
  EXPECT_EQ(watch.session.fd(watch.view), -1);
  watch.view.paused = false;
  EXPECT_TRUE(watch.until(&port, [&] { return watch.model.now().elapsed_us > still; }));
}

TEST(Session, KeepsTheLastFrameAndThenFollowsOnlyANewerJob) {
  Watch watch;
  auto old = std::make_unique<ViewerPort>("sessionold");
  const JobName older{old->name().uid, old->name().started_ms - 5, 1, "older"};
  watch.jobs = {old->name(), older};
  ASSERT_TRUE(watch.until(old.get(), [&] { return !watch.model.empty(); }));
  const std::string name = old->job();
  old->finish(last_of(*old));
  old.reset();
  watch.jobs = {older};
  ASSERT_TRUE(watch.until(nullptr, [&] { return watch.model.now().ended; }));
  for (int i = 0; i < 20; ++i) watch.turn();
  EXPECT_EQ(watch.model.now().job, name);
  EXPECT_NE(watch.view.notice.find("next job"), std::string::npos) << watch.view.notice;

  const auto port = port_later_than(older.started_ms + 5, "sessionnew");
  watch.jobs = {port->name(), older};
  ASSERT_TRUE(watch.until(port.get(), [&] { return !watch.model.empty() && watch.model.now().job == port->job(); }));
  EXPECT_NE(watch.view.notice.find(name + " has ended"), std::string::npos) << watch.view.notice;
}

TEST(Session, ANamedJobIsNotFollowedByAnother) {
  auto port = std::make_unique<ViewerPort>("sessionnamed");
  Watch watch("sessionnamed");
  watch.jobs = {port->name()};
  ASSERT_TRUE(watch.until(port.get(), [&] { return !watch.model.empty(); }));
  const auto started = port->name().started_ms;
  port->finish(last_of(*port));
  port.reset();
  watch.jobs.clear();
  ASSERT_TRUE(watch.until(nullptr, [&] { return watch.model.now().ended; }));
  port = port_later_than(started, "sessionnamed");
  watch.jobs = {port->name()};
  for (int i = 0; i < 50; ++i) watch.turn(port.get());
  EXPECT_TRUE(watch.model.now().ended);
}

TEST(Session, SaysWhenDsmexecDiedWithoutALastWord) {
  auto port = std::make_unique<ViewerPort>("sessiondies");
  Watch watch;
  watch.jobs = {port->name()};
  ASSERT_TRUE(watch.until(port.get(), [&] { return !watch.model.empty(); }));
  port.reset();
  watch.jobs.clear();
  ASSERT_TRUE(watch.until(nullptr, [&] { return watch.view.gone; }));
  EXPECT_FALSE(watch.model.empty());
  EXPECT_NE(watch.view.notice.find("without a last word"), std::string::npos) << watch.view.notice;
}

TEST(Session, ComesBackWhenOnlyTheConnectionBroke) {
  ViewerPort port("sessionreturns");
  Watch watch;
  watch.jobs = {port.name()};
  ASSERT_TRUE(watch.until(&port, [&] { return !watch.model.empty(); }));
  // Strangers push the connection out.
  std::vector<dsm::telemetry::ViewerClient> crowd;
  for (std::size_t i = 0; i < dsm::telemetry::max_viewers; ++i) {
    auto client = dsm::telemetry::ViewerClient::connect(port.name());
    ASSERT_TRUE(client);
    crowd.push_back(std::move(*client));
    port.serve();
  }
  const auto still = watch.model.now().elapsed_us;
  EXPECT_TRUE(watch.until(&port, [&] { return watch.model.now().elapsed_us > still; }));
  EXPECT_FALSE(watch.view.gone);
}

TEST(Session, SaysWhenDsmexecDoesNotAnswer) {
  ViewerPort port("sessionmute");
  Watch watch;
  watch.jobs = {port.name()};
  ASSERT_TRUE(watch.until(&port, [&] { return !watch.model.empty(); }));
  ASSERT_TRUE(watch.until(nullptr, [&] { return watch.view.notice.starts_with("No answer"); }));
  EXPECT_FALSE(watch.view.gone);
  ASSERT_TRUE(watch.until(&port, [&] { return watch.view.notice.empty(); }));
}

}  // namespace
}  // namespace viewer
