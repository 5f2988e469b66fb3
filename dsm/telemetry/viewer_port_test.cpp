#include "dsm/telemetry/viewer_port.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <memory>

#include "dsm/telemetry/viewer_client.hpp"
#include "ipc/socket.hpp"

namespace dsm::telemetry {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

Snapshot snapshot_of(std::uint64_t elapsed_us, std::size_t pages = 4) {
  Snapshot s;
  s.job = "demo-1";
  s.protocol = "msi";
  s.page_size = 4096;
  s.pages = pages;
  s.elapsed_us = elapsed_us;
  for (std::uint32_t i = 0; i < pages; ++i) s.pages_touched.push_back({i, 2, 0, 0, i * 77777});
  return s;
}

// Both ends live in this thread: turns dsmexec's loop, answering whoever asks, until `done` or the deadline.
bool turn(ViewerPort& port, const Snapshot& answer, const std::function<bool()>& done,
          std::chrono::seconds deadline = 20s) {
  for (const auto until = Clock::now() + deadline; Clock::now() < until;) {
    if (done()) return true;
    std::vector<pollfd> polled;
    port.add_to(polled);
    (void)::poll(polled.data(), polled.size(), 5);
    port.serve();
    if (port.pending()) port.answer(answer);
  }
  return false;
}

bool answered(ViewerPort& port, ViewerClient& client, const Snapshot& answer, Snapshot& out) {
  client.ask();
  return turn(port, answer, [&] { return client.receive(out) == ViewerClient::Got::snapshot; });
}

TEST(JobName, IsRecognisedAmongOtherSockets) {
  const JobName job{1000, 1700000000000, 4711, "sor-512"};
  JobName out;
  ASSERT_TRUE(parse_socket_name(job.socket(), out));
  EXPECT_EQ(out, job);
  EXPECT_EQ(job.socket(), "dsm/1000/1700000000000-4711/sor-512");
  EXPECT_EQ(job.job(), "sor-512-4711");
  for (const char* bad : {"", "dsm/", "dsm/1000/1-2/", "dsm/1000/1-2", "dsm/-1/1-2/x", "dsm/1000/-1-2/x",
                          "dsm/1000/1--2/x", "dsm/99999999999/1-2/x", "dsm/1000/99999999999999999999-2/x",
                          "dsm/1000/1-2/x/y", "dsm/1000/1-2/\x1b[2J", "/tmp/.X11-unix/X0", "dsmx/1000/1-2/x"}) {
    EXPECT_FALSE(parse_socket_name(bad, out)) << bad;
  }
  EXPECT_FALSE(parse_socket_name("dsm/1000/1-2/" + std::string(65, 'x'), out));
}

TEST(JobName, ListenersOfThisUserNewestFirst) {
  const std::string text =
      "Num       RefCount Protocol Flags    Type St Inode Path\n"
      "0000000000000000: 00000002 00000000 00010000 0001 01 11 @dsm/7/1000-20/old\n"
      "0000000000000000: 00000003 00000000 00000000 0001 03 12 @dsm/7/1000-20/old\n"
      "0000000000000000: 00000002 00000000 00010000 0001 01 13 @dsm/7/2000-10/new\n"
      "0000000000000000: 00000002 00000000 00010000 0001 01 14 @dsm/8/3000-30/theirs\n"
      "0000000000000000: 00000002 00000000 00010000 0001 01 15 dsm/7/4000-40/a_file\n"
      "0000000000000000: 00000002 00000000 00010000 0001 01 16 /run/systemd/private\n"
      "0000000000000000: 00000002 00000000 00000000 0002 01 17\n"
      "garbage\n";
  const auto jobs = jobs_in(text, 7);
  ASSERT_EQ(jobs.size(), 2u);
  EXPECT_EQ(jobs[0].job(), "new-10");
  EXPECT_EQ(jobs[1].job(), "old-20");
  EXPECT_EQ(find_job(jobs, "")->pid, 10);
  EXPECT_EQ(find_job(jobs, "old")->pid, 20);
  EXPECT_EQ(find_job(jobs, "20")->pid, 20);
  EXPECT_EQ(find_job(jobs, "old-20")->pid, 20);
  EXPECT_FALSE(find_job(jobs, "old-2"));
  EXPECT_FALSE(find_job({}, ""));
}

TEST(JobName, AnyProgramCanHaveAPort) {
  for (const std::string& path :
       {std::string("/bin/demo"), std::string("a b\nc"), std::string(4000, 'x'), std::string()}) {
    ViewerPort port(path);
    const auto jobs = list_jobs();
    EXPECT_NE(std::find(jobs.begin(), jobs.end(), port.name()), jobs.end()) << path;
  }
  EXPECT_EQ(ViewerPort("/bin/demo").name().program, "demo");
}

TEST(ViewerPort, IsListedWhileItIsThere) {
  auto port = std::make_unique<ViewerPort>("./some/where/portlisted");
  const JobName name = port->name();
  const auto is_listed = [&] {
    const auto jobs = list_jobs();
    return std::find(jobs.begin(), jobs.end(), name) != jobs.end();
  };
  EXPECT_TRUE(is_listed());
  EXPECT_TRUE(ViewerClient::connect(name));
  port.reset();
  EXPECT_FALSE(is_listed());
  EXPECT_FALSE(ViewerClient::connect(name));
}

TEST(ViewerPort, AnswersOnlyWhoAsks) {
  ViewerPort port("demo");
  auto asks = ViewerClient::connect(port.name()), silent = ViewerClient::connect(port.name());
  ASSERT_TRUE(asks && silent);
  Snapshot out;
  ASSERT_TRUE(answered(port, *asks, snapshot_of(1), out));
  EXPECT_EQ(out.elapsed_us, 1u);
  ASSERT_TRUE(answered(port, *asks, snapshot_of(2), out));
  EXPECT_EQ(out.elapsed_us, 2u);
  EXPECT_FALSE(port.pending());
  EXPECT_EQ(silent->receive(out), ViewerClient::Got::nothing);
}

TEST(ViewerPort, AnAnswerLargerThanTheSocketArrives) {
  ViewerPort port("demo");
  auto client = ViewerClient::connect(port.name());
  ASSERT_TRUE(client);
  Snapshot out;
  ASSERT_TRUE(answered(port, *client, snapshot_of(1, 300'000), out));
  EXPECT_EQ(out.pages_touched.size(), 300'000u);
}

TEST(ViewerPort, WhoDoesNotTakeTheAnswerIsDropped) {
  ViewerPort port("demo");
  auto slow = ViewerClient::connect(port.name()), good = ViewerClient::connect(port.name());
  ASSERT_TRUE(slow && good);
  slow->ask();
  const Snapshot large = snapshot_of(1, 300'000);
  ASSERT_TRUE(turn(port, large, [&] { return port.clients() == 1; })) << "nobody was dropped";
  Snapshot out;
  EXPECT_TRUE(answered(port, *good, large, out));
}

TEST(ViewerPort, StrangersDoNotDisturb) {
  ViewerPort port("demo");
  const auto say = [&](std::string_view text) {
    ipc::Fd fd = ipc::connect_abstract(port.name().socket(), SOCK_STREAM);
    EXPECT_EQ(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
    return fd;
  };
  using namespace std::string_view_literals;
  const ipc::Fd silent = say(""), garbage = say("GET / HTTP/1.0\r\n\r\n"), huge = say("\xff\xff\xff\xff"),
                zeros = say("\0\0\0\0"sv), half = say("\x15\0"sv),
                greedy = say("\x15\0\0\0dsm-viewer/1 snapshot\x15\0\0\0dsm-viewer/1 snapshot"sv);
  auto good = ViewerClient::connect(port.name());
  ASSERT_TRUE(good);
  Snapshot out;
  ASSERT_TRUE(answered(port, *good, snapshot_of(3), out));
  EXPECT_EQ(out.elapsed_us, 3u);
  EXPECT_TRUE(turn(port, snapshot_of(3), [&] { return port.clients() == 3; })) << "silent, half and good stay";
  ASSERT_TRUE(answered(port, *good, snapshot_of(4), out));
}

TEST(ViewerPort, TheSilentMakeRoom) {
  ViewerPort port("demo");
  auto good = ViewerClient::connect(port.name());
  ASSERT_TRUE(good);
  Snapshot out;
  std::vector<ipc::Fd> crowd;
  for (std::size_t i = 0; i < 3 * max_viewers; ++i) {
    ASSERT_TRUE(answered(port, *good, snapshot_of(i), out)) << i;
    crowd.push_back(ipc::connect_abstract(port.name().socket(), SOCK_STREAM));
    port.serve();
    ASSERT_LE(port.clients(), max_viewers);
  }
  EXPECT_TRUE(answered(port, *good, snapshot_of(9), out));
}

TEST(ViewerPort, TheLastSnapshotGoesToAll) {
  ViewerPort port("demo");
  auto asked = ViewerClient::connect(port.name()), silent = ViewerClient::connect(port.name());
  ASSERT_TRUE(asked && silent);
  Snapshot out;
  ASSERT_TRUE(answered(port, *silent, snapshot_of(1), out));
  asked->ask();
  port.finish(snapshot_of(5));
  for (auto* client : {&*asked, &*silent}) {
    client->ask();  // into a closed connection: what was said last must still be read
    EXPECT_EQ(client->receive(out), ViewerClient::Got::snapshot);
    EXPECT_TRUE(out.ended);
    EXPECT_EQ(out.elapsed_us, 5u);
    EXPECT_EQ(client->receive(out), ViewerClient::Got::closed);
  }
  EXPECT_EQ(port.clients(), 0u);
  EXPECT_FALSE(ViewerClient::connect(port.name()));
}

TEST(ViewerPort, TheEndDoesNotWaitForTheSlow) {
  ViewerPort port("demo");
  auto slow = ViewerClient::connect(port.name());
  ASSERT_TRUE(slow);
  slow->ask();
  const Snapshot large = snapshot_of(1, 300'000);
  ASSERT_TRUE(turn(port, large, [&] { return port.clients() == 1 && !port.pending(); }));
  port.finish(large, 50ms);
  EXPECT_EQ(port.clients(), 0u);
}

TEST(ViewerClient, RefusesAnAnswerThatMakesNoSense) {
  using namespace std::string_view_literals;
  for (const std::string_view answer : {"\xff\xff\xff\xff"sv, "\4\0\0\0abcd"sv, "\0\0\0\0"sv}) {
    const JobName name{::geteuid(), 1, ::getpid(), "nonsense"};
    const ipc::Fd listener = ipc::listen_abstract(name.socket(), SOCK_STREAM);
    auto client = ViewerClient::connect(name);
    ASSERT_TRUE(client);
    const ipc::Fd peer(::accept(listener.get(), nullptr, nullptr));
    ASSERT_EQ(::send(peer.get(), answer.data(), answer.size(), MSG_NOSIGNAL), static_cast<ssize_t>(answer.size()));
    EXPECT_FALSE(client->fetch(20s));
  }
}

TEST(ViewerClient, DoesNotWaitForAListenerThatAcceptsNobody) {
  const JobName name{::geteuid(), 1, ::getpid(), "deaf"};
  const ipc::Fd listener = ipc::listen_abstract(name.socket(), SOCK_STREAM, 0);
  std::vector<ViewerClient> waiting;
  std::optional<ViewerClient> client;
  while ((client = ViewerClient::connect(name))) {
    ASSERT_LT(waiting.size(), 100u) << "the backlog has an end";
    EXPECT_FALSE(client->fetch(1ms));
    waiting.push_back(std::move(*client));
  }
}

}  // namespace
}  // namespace dsm::telemetry
