#include "dsm/net/acceptor.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <future>
#include <optional>
#include <system_error>

#include "dsm/net/handshaking.hpp"
#include "dsm/net/testing.hpp"

namespace dsm::net {
namespace {

using namespace dsm::net::testing;
using std::chrono::milliseconds;

// An acceptor, driven as a poll loop drives it, on the test's own thread.
struct Door {
  explicit Door(Acceptor::Options options = {}, const JobKey& job_key = random_key()) : key(job_key) {
    options.max_body = 4096;
    options.log = [this](const std::string& line) { log.push_back(line); };
    acceptor.emplace(key, std::move(options));
  }

  // Serves until `enough`; false if the deadline comes first.
  template <class Condition>
  bool serve_until(Condition enough) {
    for (const Deadline end = soon(); !enough();) {
      if (std::chrono::steady_clock::now() >= end) return false;
      std::vector<pollfd> set;
      acceptor->add_to(set);
      // Conditions also come true by what other threads do, hence the 10 ms.
      const Deadline next = std::min(acceptor->next_deadline(), std::chrono::steady_clock::now() + milliseconds(10));
      ::poll(set.data(), set.size(), milliseconds_until(next));
      ++turns;
      for (auto& arrival : acceptor->serve()) arrivals.push_back(std::move(arrival));
    }
    return true;
  }

  std::future<Channel> client() {
    return std::async(std::launch::async, [this] { return connect("127.0.0.1", acceptor->port(), key, soon(), 4096); });
  }
  ipc::Fd stranger() const { return ipc::connect_tcp("127.0.0.1", acceptor->port(), wait_ms); }
  std::size_t logged(const std::string& what) const {
    return static_cast<std::size_t>(
        std::count_if(log.begin(), log.end(), [&](auto& line) { return line.find(what) != std::string::npos; }));
  }

  JobKey key;
  std::vector<std::string> log;
  std::optional<Acceptor> acceptor;
  std::vector<Acceptor::Arrival> arrivals;
  int turns = 0;
};

// The channel works in both directions.
void expect_talk(Channel& one, Channel& other) {
  ASSERT_EQ(one.send(bytes_frame(1), nullptr), Io::done);
  ASSERT_EQ(other.send(bytes_frame(2), nullptr), Io::done);
  FrameHeader header;
  ASSERT_EQ(other.receive_header(header), Io::done);
  EXPECT_EQ(header.a, 1u);
  ASSERT_EQ(one.receive_header(header), Io::done);
  EXPECT_EQ(header.a, 2u);
}

std::size_t open_descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

// What the acceptor sends before it closes; empty if it closes without a word.
std::string read_to_end(int fd) {
  std::string all;
  for (char buffer[256];;) {
    if (!wait_for(fd, POLLIN)) return "still open";
    const ssize_t got = ::recv(fd, buffer, sizeof buffer, 0);
    if (got <= 0) return all;
    all.append(buffer, static_cast<std::size_t>(got));
  }
}

TEST(Acceptor, LetsInWhoKnowsTheKey) {
  Door door;
  auto client = door.client();
  ASSERT_TRUE(door.serve_until([&] { return door.arrivals.size() == 1; }));
  Channel channel = client.get();
  EXPECT_EQ(door.arrivals[0].peer_address, "127.0.0.1");
  expect_talk(channel, door.arrivals[0].channel);
  EXPECT_TRUE(door.log.empty());
  EXPECT_EQ(door.acceptor->next_deadline(), Deadline::max());
}

// The first frame may follow the last byte of the handshake in the same segment.
TEST(Acceptor, ReadsNoByteBehindTheHandshake) {
  Door door;
  const ipc::Fd fd = door.stranger();
  Handshake shake(Handshake::Role::client, door.key);
  write_text(fd.get(), shake.take_output());
  auto answer = std::async(std::launch::async, [&] {
    while (shake.state() == Handshake::State::running) {
      std::vector<std::uint8_t> bytes(shake.wants());
      const iovec part{bytes.data(), bytes.size()};
      ASSERT_EQ(ipc::receive_all(fd.get(), {&part, 1}).bytes, bytes.size());
      shake.feed(bytes);
    }
    const FrameHeader frame = bytes_frame(77);
    write_text(fd.get(), shake.take_output() + std::string(reinterpret_cast<const char*>(&frame), sizeof frame));
  });
  ASSERT_TRUE(door.serve_until([&] { return door.arrivals.size() == 1; }));
  answer.get();
  FrameHeader header;
  ASSERT_EQ(door.arrivals[0].channel.receive_header(header), Io::done);
  EXPECT_EQ(header.a, 77u);
}

TEST(Acceptor, WrongKeyIsRefused) {
  Door door;
  auto client = std::async(std::launch::async,
                           [&] { return connect("127.0.0.1", door.acceptor->port(), random_key(), soon(), 0); });
  ASSERT_TRUE(door.serve_until([&] { return door.logged("closed the connection during the handshake") == 1; }));
  try {
    static_cast<void>(client.get());
    FAIL() << "let in";
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "the peer does not have this job's key");
  }
  EXPECT_TRUE(door.arrivals.empty());
}

TEST(Acceptor, AnotherVersionIsRefusedByNameAndToldOurs) {
  Door door;
  const ipc::Fd fd = door.stranger();
  std::string magic(handshake_magic.begin(), handshake_magic.end());
  magic.back() = 2;
  write_text(fd.get(), magic);
  ASSERT_TRUE(door.serve_until([&] { return door.logged("peer speaks version 2, this is version 1") == 1; }));
  magic.back() = 1;
  EXPECT_EQ(read_to_end(fd.get()), magic);
}

TEST(Acceptor, GarbageIsDroppedAtItsFourthByteWithoutAnAnswer) {
  Door door;
  const ipc::Fd fd = door.stranger();
  write_text(fd.get(), "GET ");
  ASSERT_TRUE(door.serve_until([&] { return door.logged(": wrong first bytes") == 1; }));
  EXPECT_EQ(door.log[0].rfind("127.0.0.1:", 0), 0u);
  EXPECT_EQ(read_to_end(fd.get()), "");
}

TEST(Acceptor, SilenceAndHalfAHandshakeEndWithTheirPatience) {
  Acceptor::Options options;
  options.patience = milliseconds(200);
  Door door(options);
  const auto start = std::chrono::steady_clock::now();
  const ipc::Fd silent = door.stranger(), few = door.stranger(), half = door.stranger();
  const std::string hello = Handshake(Handshake::Role::client, door.key).take_output();
  write_text(few.get(), hello.substr(0, 2));
  write_text(half.get(), hello);
  ASSERT_TRUE(door.serve_until([&] { return door.logged("no handshake within 200 ms") == 3; }));
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(200));
  EXPECT_EQ(read_to_end(silent.get()), "");
  EXPECT_EQ(read_to_end(few.get()), "");
  EXPECT_EQ(read_to_end(half.get()).size(), 72u);  // the server's magic, nonce and proof
  EXPECT_TRUE(door.arrivals.empty());
}

TEST(Acceptor, StrangersDoNotStallOthers) {
  Door door;
  std::vector<ipc::Fd> strangers;
  const std::string hello = Handshake(Handshake::Role::client, door.key).take_output();
  for (int i = 0; i < 60; ++i) {
    strangers.push_back(door.stranger());
    if (i % 3 == 1) write_text(strangers.back().get(), hello);
    if (i % 3 == 2) write_text(strangers.back().get(), std::string(4, '\xff') + std::string(1000, 'x'));
  }
  auto client = door.client();
  ASSERT_TRUE(door.serve_until([&] { return door.arrivals.size() == 1; }));
  Channel channel = client.get();
  expect_talk(channel, door.arrivals[0].channel);
  EXPECT_EQ(door.logged("no handshake within"), 0u);  // it did not have to wait for them
}

TEST(Acceptor, FiveHundredConnectionsAtOnceAreBoundedAndAClientGetsIn) {
  Acceptor::Options options;
  options.pending = 128;
  Door door(options);
  std::vector<ipc::Fd> strangers;
  for (int i = 0; i < 500; ++i) strangers.push_back(door.stranger());
  const std::size_t before = open_descriptors();
  auto client = door.client();
  std::size_t most = 0;
  ASSERT_TRUE(door.serve_until([&] {
    most = std::max(most, open_descriptors() - before);
    return door.arrivals.size() == 1;
  }));
  Channel channel = client.get();
  expect_talk(channel, door.arrivals[0].channel);
  EXPECT_GE(most, 128u);
  EXPECT_LE(most, 128u + 2u);  // both ends of the client's, too
  EXPECT_GE(door.logged("made room for a newer connection"), 500u - 128u);
}

// Each turn asked each of them. In dsmd's loop, others wait for the end of that.
TEST(Acceptor, SilentOnesAreNotAskedAgainAndAgain) {
  Door door;
  std::vector<ipc::Fd> strangers;
  for (int i = 0; i < 400; ++i) strangers.push_back(door.stranger());
  ASSERT_TRUE(door.serve_until([&] { return door.turns == 20; }));
  std::vector<pollfd> set;
  door.acceptor->add_to(set);
  EXPECT_EQ(set.size(), 2u) << "the listener, and one for them all";
  EXPECT_EQ(::poll(set.data(), set.size(), 0), 0);
}

// There was room for 128. Among 500 at each port, a rank waited for seconds at every door, a dozen times, and the job gave
// up before its mesh stood.
TEST(Acceptor, HundredsOfHalfHandshakesDoNotKeepAClientWaiting) {
  Door door;
  std::vector<ipc::Fd> strangers;
  const std::string hello = Handshake(Handshake::Role::client, door.key).take_output();
  for (int i = 0; i < 400; ++i) {
    strangers.push_back(door.stranger());
    if (i % 2 == 0) write_text(strangers.back().get(), hello);
  }
  for (std::size_t i = 1; i <= 13; ++i) {
    auto client = door.client();
    ASSERT_TRUE(door.serve_until([&] { return door.arrivals.size() == i; }));
    static_cast<void>(client.get());
  }
  EXPECT_EQ(door.log, std::vector<std::string>());  // nobody had to make room
}

TEST(Acceptor, WhoComesWhileTheDoorIsOnlyKeptIsHandedOutLater) {
  Door door;
  const ipc::Fd stranger = door.stranger();
  write_text(stranger.get(), "GET ");
  auto client = door.client();
  for (const Deadline end = soon(); client.wait_for(milliseconds(1)) != std::future_status::ready;) {
    ASSERT_LT(std::chrono::steady_clock::now(), end);
    door.acceptor->keep_door();
  }
  Channel channel = client.get();
  ASSERT_EQ(channel.send(bytes_frame(5), nullptr), Io::done);
  for (const Deadline end = soon(); door.arrivals.empty();) {  // the proof may still be on its way
    ASSERT_LT(std::chrono::steady_clock::now(), end);
    door.acceptor->keep_door();
    door.arrivals = door.acceptor->serve();
  }
  EXPECT_EQ(door.logged(": wrong first bytes"), 1u);
  FrameHeader header;
  ASSERT_EQ(door.arrivals[0].channel.receive_header(header), Io::done);
  EXPECT_EQ(header.a, 5u);
  EXPECT_TRUE(door.acceptor->serve().empty());
}

TEST(Acceptor, HandsOverWhoDoesNotSpeakTheKeyedProtocol) {
  struct Guest {
    ipc::Fd fd;
    std::string first_bytes, peer;
  };
  std::vector<Guest> guests;
  Acceptor::Options options;
  options.other = [&](ipc::Fd fd, std::string first, std::string peer) {
    guests.push_back({std::move(fd), std::move(first), std::move(peer)});
  };
  Door door(options);
  const ipc::Fd fd = door.stranger();
  const int rank = 3;
  std::string said(sizeof rank, '\0');
  std::memcpy(said.data(), &rank, sizeof rank);
  write_text(fd.get(), said.substr(0, 1));
  write_text(fd.get(), said.substr(1) + "the rest");
  auto client = door.client();
  ASSERT_TRUE(door.serve_until([&] { return guests.size() == 1 && door.arrivals.size() == 1; }));
  static_cast<void>(client.get());
  EXPECT_EQ(guests[0].first_bytes, said);
  EXPECT_EQ(guests[0].peer, "127.0.0.1:" + std::to_string(ipc::local_port(fd.get())));
  char rest[9] = {};
  ASSERT_TRUE(wait_for(guests[0].fd.get(), POLLIN));
  EXPECT_EQ(::recv(guests[0].fd.get(), rest, 8, 0), 8);
  EXPECT_STREQ(rest, "the rest");
}

// Lowers the limit of descriptors to those that are open, while it lives.
class NoMoreDescriptors {
 public:
  NoMoreDescriptors() {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    const int next = ::fcntl(0, F_DUPFD_CLOEXEC, 0);
    ::close(next);
    rlimit now = before_;
    now.rlim_cur = static_cast<rlim_t>(next);
    ::setrlimit(RLIMIT_NOFILE, &now);
  }
  ~NoMoreDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

TEST(Acceptor, OutOfDescriptorsItWaitsWithoutSpinningAndGoesOn) {
  Door door;
  Handshaking client(door.stranger(), Handshake::Role::client,
                     door.key);  // has its descriptor, and waits in the kernel's queue
  ipc::set_nonblocking(client.fd());
  ASSERT_EQ(client.advance(), Handshake::State::running);
  {
    const NoMoreDescriptors none;
    ASSERT_TRUE(door.serve_until([&] { return door.logged("Too many open files") >= 1; }));
    std::vector<pollfd> set;
    door.acceptor->add_to(set);
    EXPECT_TRUE(set.empty());  // a ready listener would make a poll loop spin
    EXPECT_NE(door.acceptor->next_deadline(), Deadline::max());
    door.turns = 0;
    const auto pause_end = std::chrono::steady_clock::now() + milliseconds(300);
    ASSERT_TRUE(door.serve_until([&] { return std::chrono::steady_clock::now() >= pause_end; }));
    EXPECT_LT(door.turns, 100);
    EXPECT_TRUE(door.arrivals.empty());
  }
  ASSERT_TRUE(
      door.serve_until([&] { return client.advance() == Handshake::State::done && door.arrivals.size() == 1; }));
  Channel channel(client.take_fd(), 4096);
  expect_talk(channel, door.arrivals[0].channel);
}

TEST(Connect, GivesUpAtTheDeadlineIfNobodyAnswers) {
  const ipc::Fd listener = ipc::listen_tcp("127.0.0.1", 0);  // the kernel accepts, nobody shakes hands
  const auto start = std::chrono::steady_clock::now();
  try {
    static_cast<void>(
        connect("127.0.0.1", ipc::local_port(listener.get()), random_key(), start + milliseconds(100), 0));
    FAIL() << "connected";
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code(), std::errc::timed_out);
  }
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(100));
}

TEST(Connect, SaysWhyAServerIsNoPeer) {
  const ipc::Fd listener = ipc::listen_tcp("127.0.0.1", 0);
  const auto answer = [&](const std::string& words) {
    auto server = std::async(std::launch::async, [&] {
      const ipc::Fd fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
      std::vector<char> hello(40);
      const iovec part{hello.data(), hello.size()};
      EXPECT_EQ(ipc::receive_all(fd.get(), {&part, 1}).bytes, hello.size());
      write_text(fd.get(), words);
    });
    std::string why = "connected";
    try {
      static_cast<void>(connect("127.0.0.1", ipc::local_port(listener.get()), random_key(), soon(), 0));
    } catch (const std::runtime_error& error) {
      why = error.what();
    }
    server.get();
    return why;
  };
  EXPECT_EQ(answer(""), "the peer closed the connection during the handshake");
  EXPECT_EQ(answer("HTTP/1.1 400 Bad Request\r\n\r\n"), "wrong first bytes");
  std::string magic(handshake_magic.begin(), handshake_magic.end());
  magic.back() = 2;
  EXPECT_EQ(answer(magic), "peer speaks version 2, this is version 1");
  magic.back() = 1;
  EXPECT_EQ(answer(magic + std::string(64, 'x')), "the peer does not have this job's key");
}

TEST(Connect, RefusedIsASystemError) {
  std::uint16_t port = 0;
  ipc::Fd bound(
      ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));  // bound but not listening: nobody else gets this port
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::bind(bound.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  port = ipc::local_port(bound.get());
  try {
    static_cast<void>(connect("127.0.0.1", port, random_key(), soon(), 0));
    FAIL() << "connected";
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code(), std::errc::connection_refused);
  }
}

}  // namespace
}  // namespace dsm::net
