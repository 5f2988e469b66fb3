#include "dsm/net/mesh.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <future>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>

#include "dsm/net/testing.hpp"

namespace dsm::net {
namespace {

using namespace dsm::net::testing;
using std::chrono::milliseconds;

Welcome welcome_of(std::uint32_t lanes) {
  Welcome welcome;
  welcome.size = 1 << 20;
  welcome.page_size = 4096;
  welcome.lanes = lanes;
  return welcome;
}

// What dsmexec's side of the rendezvous comes to, on a thread of its own.
class Coordinator {
 public:
  // `before_welcome` is called with all ports of the job when all ranks have joined.
  Coordinator(int ranks, std::uint32_t lanes,
              std::function<void(const std::vector<std::uint16_t>&)> before_welcome = {})
      : key_(random_key()), acceptor_(key_, options()), before_welcome_(std::move(before_welcome)) {
    thread_ = std::jthread([this, ranks, lanes](const std::stop_token& stop) { run(stop, ranks, lanes); });
  }

  [[nodiscard]] const JobKey& key() const { return key_; }
  [[nodiscard]] std::uint16_t port() const { return acceptor_.port(); }
  Mesh join(int rank, milliseconds patience = milliseconds(wait_ms)) {
    return net::join(key_, rank, "127.0.0.1", port(), patience);
  }
  // Waits for the next Report of this rank.
  std::optional<Report> next_report(int rank) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, milliseconds(wait_ms), [&] { return reports_.count(rank) != 0; });
    const auto found = reports_.find(rank);
    return found == reports_.end() ? std::nullopt : std::optional(found->second);
  }
  void stop() {
    thread_.request_stop();
    thread_.join();
  }

 private:
  static Acceptor::Options options() {
    Acceptor::Options options;
    options.max_body = max_control_body;
    return options;
  }

  void run(const std::stop_token& stop, int ranks, std::uint32_t lanes) {
    std::vector<Channel> channels;
    std::map<int, Channel*> joined;
    std::map<int, Join> joins;
    bool welcomed = false;
    channels.reserve(1000);
    while (!stop.stop_requested()) {
      std::vector<pollfd> set;
      acceptor_.add_to(set);
      for (const Channel& channel : channels) set.push_back({channel.fd(), POLLIN, 0});
      ::poll(set.data(), set.size(), 20);
      for (auto& arrival : acceptor_.serve()) channels.push_back(std::move(arrival.channel));
      for (Channel& channel : channels) read(channel, joined, joins);
      if (welcomed || static_cast<int>(joins.size()) < ranks) continue;
      welcome(lanes, joined, joins);
      welcomed = true;
    }
  }

  void read(Channel& channel, std::map<int, Channel*>& joined, std::map<int, Join>& joins) {
    FrameHeader header;
    const std::uint8_t* body = nullptr;
    while (channel.receive(header, body) == Io::done) {
      if (const auto report = read_report(header)) {
        for (const auto& [rank, its] : joined) {
          if (its != &channel) continue;
          const std::lock_guard lock(mutex_);
          reports_[rank] = *report;
          changed_.notify_all();
        }
      } else if (const auto message = read_control(header, body); message && std::holds_alternative<Join>(*message)) {
        const Join join = std::get<Join>(*message);
        joined[join.rank] = &channel;
        joins[join.rank] = join;
      }
    }
  }

  void welcome(std::uint32_t lanes, const std::map<int, Channel*>& joined, const std::map<int, Join>& joins) {
    Welcome welcome = welcome_of(lanes);
    std::vector<std::uint16_t> ports{port()};
    for (const auto& [rank, join] : joins) {
      EXPECT_EQ(difference(Platform::here(), join.platform), "");
      welcome.peers.push_back({"127.0.0.1", join.mesh_port});
      ports.push_back(join.mesh_port);
    }
    if (before_welcome_) before_welcome_(ports);
    for (const auto& [rank, channel] : joined) EXPECT_EQ(send(*channel, welcome), Io::done);
  }

  JobKey key_;
  Acceptor acceptor_;
  std::function<void(const std::vector<std::uint16_t>&)> before_welcome_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<int, Report> reports_;
  std::jthread thread_;
};

std::vector<Mesh> join_all(Coordinator& coordinator, int ranks) {
  std::vector<std::future<Mesh>> joining;
  for (int rank = 0; rank < ranks; ++rank)
    joining.push_back(std::async(std::launch::async, [&coordinator, rank] { return coordinator.join(rank); }));
  std::vector<Mesh> meshes;
  for (auto& one : joining) meshes.push_back(one.get());
  return meshes;
}

void expect_connected(Channel& one, Channel& other, std::uint64_t mark) {
  ASSERT_EQ(one.send(bytes_frame(mark), nullptr), Io::done);
  ASSERT_EQ(other.send(bytes_frame(mark + 1), nullptr), Io::done);
  FrameHeader header;
  ASSERT_EQ(other.receive_header(header), Io::done);
  EXPECT_EQ(header.a, mark);
  ASSERT_EQ(one.receive_header(header), Io::done);
  EXPECT_EQ(header.a, mark + 1);
}

// Each lane ends at the lane of the same name on the other side.
void expect_full_mesh(std::vector<Mesh>& meshes, std::uint32_t lanes) {
  for (std::size_t i = 0; i < meshes.size(); ++i) {
    ASSERT_EQ(meshes[i].links.size(), meshes.size());
    EXPECT_EQ(meshes[i].rank, static_cast<int>(i));
    EXPECT_EQ(meshes[i].links[i].service, nullptr);
    EXPECT_TRUE(meshes[i].links[i].calls.empty());
    for (std::size_t j = 0; j < meshes.size(); ++j) {
      if (i == j) continue;
      Link& mine = meshes[i].links[j];
      Link& theirs = meshes[j].links[i];
      ASSERT_EQ(mine.calls.size(), lanes);
      ASSERT_EQ(theirs.answers.size(), lanes);
      if (i < j) expect_connected(*mine.service, *theirs.service, 1000 * i + 10 * j);
      for (std::size_t lane = 0; lane < lanes; ++lane)
        expect_connected(*mine.calls[lane], *theirs.answers[lane], 100'000 + 1000 * i + 10 * j + lane);
    }
  }
}

TEST(Mesh, FourRanksFindEachOther) {
  Coordinator coordinator(4, 3);
  auto meshes = join_all(coordinator, 4);
  expect_full_mesh(meshes, 3);
  EXPECT_EQ(meshes[2].welcome.page_size, 4096u);
  ASSERT_EQ(report(*meshes[2].coordinator, {Report::Phase::running, 0}), Io::done);
  const auto got = coordinator.next_report(2);
  ASSERT_TRUE(got);
  EXPECT_EQ(got->phase, Report::Phase::running);
}

TEST(Mesh, ARankAloneNeedsNobody) {
  Coordinator coordinator(1, 2);
  const Mesh mesh = coordinator.join(0);
  EXPECT_EQ(mesh.links.size(), 1u);
}

TEST(Mesh, ListensNoLongerWhenItStands) {
  std::vector<std::uint16_t> ports;
  Coordinator coordinator(2, 1, [&](const auto& all) { ports = all; });
  auto meshes = join_all(coordinator, 2);
  ASSERT_EQ(ports.size(), 3u);
  for (std::size_t i = 1; i < ports.size(); ++i)
    EXPECT_THROW(static_cast<void>(ipc::connect_tcp("127.0.0.1", ports[i], wait_ms)), std::system_error);
}

// Many descriptors: three connections for each pair, both ends in this process.
TEST(Mesh, AsManyRanksAsAJobMayHave) {
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  limit.rlim_cur = limit.rlim_max;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  int ranks = 64;
  while (static_cast<rlim_t>(3 * ranks * ranks + 500) > limit.rlim_cur) ranks /= 2;
  Coordinator coordinator(ranks, 1);
  auto meshes = join_all(coordinator, ranks);
  expect_full_mesh(meshes, 1);
}

// A stranger on every port, from before the first rank connects until the mesh stands.
class Strangers {
 public:
  void add(std::uint16_t port) {
    for (int kind = 0; kind < 4; ++kind)
      threads_.emplace_back([this, port, kind](const std::stop_token& stop) { run(stop, port, kind); });
  }
  // Each port has been called so often by every kind of stranger.
  void await_calls(int calls) {
    for (const Deadline end = soon(); calls_ < calls * static_cast<int>(threads_.size());) {
      ASSERT_LT(std::chrono::steady_clock::now(), end);
      std::this_thread::yield();
    }
  }

 private:
  void run(const std::stop_token& stop, std::uint16_t port, int kind) {
    std::string words;
    const std::string magic(handshake_magic.begin(), handshake_magic.end());
    if (kind == 1) words = "GET / HTTP/1.1\r\n\r\n";
    if (kind == 2) words = magic + std::string(200, 'x');
    if (kind == 3) words = std::string(4, '\xff') + std::string(28, '\1');  // a frame of 4 GiB
    std::vector<ipc::Fd> held;
    while (!stop.stop_requested()) {
      try {
        held.push_back(ipc::connect_tcp("127.0.0.1", port, 1000));
        const iovec part{words.data(), words.size()};
        static_cast<void>(ipc::send_some(held.back().get(), {&part, 1}));
      } catch (const std::system_error&) {  // the door has closed for good, or its queue is full
      }
      ++calls_;
      ::poll(nullptr, 0, 1);  // a stranger is a nuisance, not a test of the machine's speed
      if (held.size() > 20) held.erase(held.begin());
    }
  }

  std::atomic<int> calls_{0};
  std::vector<std::jthread> threads_;
};

TEST(Mesh, StrangersOnEveryPortDoNotHinder) {
  Strangers strangers;
  Coordinator coordinator(4, 2, [&](const std::vector<std::uint16_t>& ports) {
    for (std::size_t i = 1; i < ports.size(); ++i) strangers.add(ports[i]);
    strangers.await_calls(20);
  });
  strangers.add(coordinator.port());
  strangers.await_calls(5);
  auto meshes = join_all(coordinator, 4);
  expect_full_mesh(meshes, 2);
}

// They lay in the kernel's queue until the last rank had joined; 1024 of them, and it took no rank any more.
TEST(Mesh, StrangersAreTurnedAwayWhileOthersAreWaitedFor) {
  int turned_away = 0;
  Coordinator coordinator(2, 1, [&](const std::vector<std::uint16_t>& ports) {
    for (std::size_t i = 1; i < ports.size(); ++i) {
      const ipc::Fd stranger = ipc::connect_tcp("127.0.0.1", ports[i], wait_ms);
      write_text(stranger.get(), "GET ");
      char byte = 0;
      if (wait_for(stranger.get(), POLLIN) && ::recv(stranger.get(), &byte, 1, 0) == 0) ++turned_away;
    }
  });
  auto meshes = join_all(coordinator, 2);
  EXPECT_EQ(turned_away, 2);
  expect_full_mesh(meshes, 1);
}

// ---- ranks that misbehave: joined by hand ----

struct HandMade {
  HandMade(Coordinator& coordinator, int rank)
      : door(coordinator.key(), {}),
        control(connect("127.0.0.1", coordinator.port(), coordinator.key(), soon(), max_control_body)) {
    EXPECT_EQ(send(control, Join{rank, 1, door.port(), Platform::here()}), Io::done);
  }
  Welcome welcome() {
    FrameHeader header;
    const std::uint8_t* body = nullptr;
    EXPECT_EQ(next_frame(control, header, body), Io::done);
    return std::get<Welcome>(read_control(header, body).value());
  }
  Acceptor door;
  Channel control;
};

Channel call(const Coordinator& coordinator, const Peer& peer, std::uint64_t rank, std::uint64_t lane,
             FrameKind kind = FrameKind::lane_hello, std::uint32_t to = 0) {
  Channel channel = connect(peer.address, peer.port, coordinator.key(), soon(), 4096);
  FrameHeader hello{};
  hello.kind = static_cast<std::uint8_t>(kind);
  hello.a = rank;
  hello.b = lane;
  hello.page = to;
  EXPECT_EQ(channel.send(hello, nullptr), Io::done);
  return channel;
}

std::string why_not(std::future<Mesh>& joining) {
  try {
    static_cast<void>(joining.get());
  } catch (const std::exception& error) {
    return error.what();
  }
  return "joined";
}

// Nobody looked for it before the next connection came; after the last one none did, and the job stood still for a minute.
TEST(Mesh, ARankThatWasLetInWhileTheWelcomeWasWaitedForWasForgotten) {
  for (int round = 0; round < 20; ++round) {
    std::vector<Channel> lanes;
    Coordinator coordinator(2, 1, [&](const std::vector<std::uint16_t>& ports) {
      for (const std::uint64_t lane : {0, 1}) lanes.push_back(call(coordinator, {"127.0.0.1", ports[1]}, 1, lane));
    });
    auto joining = std::async(std::launch::async, [&] { return coordinator.join(0); });
    HandMade other(coordinator, 1);
    std::vector<Acceptor::Arrival> arrived;
    while (joining.wait_for(milliseconds(1)) != std::future_status::ready) {
      for (auto& arrival : other.door.serve()) arrived.push_back(std::move(arrival));
    }
    ASSERT_NO_THROW(static_cast<void>(joining.get())) << "round " << round;
  }
}

TEST(Mesh, FalseAndDuplicateLanesAreRefused) {
  Coordinator coordinator(2, 1);
  auto joining = std::async(std::launch::async, [&] { return coordinator.join(0); });
  HandMade other(coordinator, 1);
  const Peer peer = other.welcome().peers[0];
  const auto refused = [](Channel channel) {
    FrameHeader header;
    const std::uint8_t* body = nullptr;
    return next_frame(channel, header, body) == Io::closed;
  };
  EXPECT_TRUE(refused(call(coordinator, peer, 0, 1)));  // itself
  EXPECT_TRUE(refused(call(coordinator, peer, 2, 0)));  // no such rank
  EXPECT_TRUE(refused(call(coordinator, peer, ~0ull, 0)));
  EXPECT_TRUE(refused(call(coordinator, peer, 1, 2)));  // no such lane
  EXPECT_TRUE(refused(call(coordinator, peer, 1, ~0ull)));
  EXPECT_TRUE(refused(call(coordinator, peer, 1, 0, FrameKind::bye)));
  EXPECT_TRUE(refused(call(coordinator, peer, 1, 0, FrameKind::lane_hello, 1)));  // came to the wrong one
  Channel service = call(coordinator, peer, 1, 0);
  EXPECT_TRUE(refused(call(coordinator, peer, 1, 0)));  // once is enough
  Channel calls = call(coordinator, peer, 1, 1);
  // Rank 0 opens its own call lane to us, too.
  std::vector<Acceptor::Arrival> arrived;
  for (const Deadline end = soon(); arrived.empty() && std::chrono::steady_clock::now() < end;) {
    std::vector<pollfd> set;
    other.door.add_to(set);
    ::poll(set.data(), set.size(), milliseconds_until(std::min(end, other.door.next_deadline())));
    arrived = other.door.serve();
  }
  ASSERT_EQ(arrived.size(), 1u);
  Mesh mesh = joining.get();
  expect_connected(*mesh.links[1].service, service, 5);
  expect_connected(*mesh.links[1].answers[0], calls, 7);
}

TEST(Mesh, NamesTheRankThatDoesNotConnect) {
  Coordinator coordinator(2, 1);
  auto joining = std::async(std::launch::async, [&] { return coordinator.join(0, milliseconds(1500)); });
  HandMade other(coordinator, 1);
  std::jthread door([&](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      std::vector<pollfd> set;
      other.door.add_to(set);
      ::poll(set.data(), set.size(), 20);
      static_cast<void>(other.door.serve());
    }
  });
  const std::string why = why_not(joining);
  EXPECT_EQ(why.rfind("rank 0: no connection from rank 1 within 1500 ms (mesh)", 0), 0u) << why;
  const auto told = coordinator.next_report(0);
  ASSERT_TRUE(told);
  EXPECT_EQ(told->phase, Report::Phase::lost_peer);
  EXPECT_EQ(told->value, 1);
}

TEST(Mesh, NamesTheRankThatDoesNotAnswer) {
  Coordinator coordinator(2, 1);
  auto joining = std::async(std::launch::async, [&] { return coordinator.join(0, milliseconds(1000)); });
  HandMade other(coordinator, 1);  // its kernel takes the connection, nobody serves it
  const std::string why = why_not(joining);
  EXPECT_EQ(why.rfind("rank 0: no connection to rank 1 at 127.0.0.1:" + std::to_string(other.door.port()) +
                          " within 1 s (mesh)",
                      0),
            0u)
      << why;
}

TEST(Mesh, NamesTheRendezvousIfNotAllJoin) {
  Coordinator coordinator(2, 1);
  auto joining = std::async(std::launch::async, [&] { return coordinator.join(1, milliseconds(500)); });
  const std::string why = why_not(joining);
  EXPECT_EQ(why.rfind("rank 1: not all ranks have joined within 500 ms (rendezvous)", 0), 0u) << why;
}

TEST(Mesh, WrongKeyAndNoCoordinatorAreSaidSo) {
  Coordinator coordinator(1, 1);
  const std::string at = "rank 0: no connection to the coordinator at 127.0.0.1:" + std::to_string(coordinator.port());
  auto joining = std::async(std::launch::async, [&] {
    return join(random_key(), 0, "127.0.0.1", coordinator.port(), milliseconds(wait_ms));
  });
  EXPECT_EQ(why_not(joining), at + " (rendezvous): the peer does not have this job's key");
}

// A coordinator that answers with whatever a test likes.
std::string answer_to_join(const std::function<void(Channel&)>& answer) {
  const JobKey key = random_key();
  Acceptor::Options options;
  options.max_body = max_control_body;
  Acceptor acceptor(key, options);
  auto joining =
      std::async(std::launch::async, [&] { return join(key, 5, "127.0.0.1", acceptor.port(), milliseconds(wait_ms)); });
  std::vector<Acceptor::Arrival> arrived;
  while (arrived.empty()) {
    std::vector<pollfd> set;
    acceptor.add_to(set);
    ::poll(set.data(), set.size(), wait_ms);
    arrived = acceptor.serve();
  }
  FrameHeader header;
  const std::uint8_t* body = nullptr;
  EXPECT_EQ(next_frame(arrived[0].channel, header, body), Io::done);
  answer(arrived[0].channel);
  arrived.clear();
  return why_not(joining);
}

TEST(Mesh, SaysWhatTheCoordinatorAnswered) {
  EXPECT_EQ(answer_to_join([](Channel& to) { EXPECT_EQ(send(to, Refusal{"a job has at most 64 ranks"}), Io::done); }),
            "rank 5: refused: a job has at most 64 ranks (rendezvous)");
  EXPECT_EQ(answer_to_join([](Channel&) {}), "rank 5: the coordinator has closed the connection (rendezvous)");
  EXPECT_EQ(answer_to_join([](Channel& to) {
              Welcome welcome = welcome_of(1);
              welcome.peers.resize(5, {"127.0.0.1", 1});
              EXPECT_EQ(send(to, welcome), Io::done);
            }),
            "rank 5: the job is smaller than this rank's number (rendezvous)");
  EXPECT_EQ(answer_to_join([](Channel& to) { EXPECT_EQ(to.send(bytes_frame(0), nullptr), Io::done); }),
            "rank 5: the coordinator's answer: a frame of kind 6 where a control frame belongs (rendezvous)");
  EXPECT_EQ(answer_to_join([](Channel& to) { EXPECT_EQ(send(to, Report{}), Io::done); }),
            "rank 5: the coordinator's answer is neither welcome nor refusal (rendezvous)");
}

}  // namespace
}  // namespace dsm::net
