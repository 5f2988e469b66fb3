// A rank of a DSM job that does one thing wrong, or right: `launch_run_test --rank MODE`. Speaks the rendezvous only.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "dsm/net/rendezvous.hpp"
#include <gtest/gtest.h>

#include "dsm/tests/launch_bench.hpp"
#include "ipc/socket.hpp"
#include "ipc/spawn.hpp"

namespace dsm::launch::testing {
namespace {

using Phase = net::Report::Phase;

struct Rank {
  int number = std::atoi(std::getenv("DSMEXEC_RANKID"));
  std::string host = std::getenv("DSMEXEC_HOSTNAME");
  std::uint16_t port = static_cast<std::uint16_t>(std::atoi(std::getenv("DSMEXEC_PORTNUM")));
  net::JobKey key{};
  std::optional<net::Channel> channel;
  net::Welcome welcome;

  Rank() {
    const int fd = std::atoi(std::getenv(net::key_fd_variable));
    if (ipc::read_full(fd, key.data(), key.size()) != static_cast<ssize_t>(key.size())) std::abort();
  }

  // The answer to Join, waited for.
  net::ControlMessage join(int rank, net::Platform platform = net::Platform::here()) {
    channel.emplace(net::connect(host, port, key, Clock::now() + patience, net::max_control_body));
    if (net::send(*channel, net::Join{rank, ::getpid(), 1, std::move(platform)}) != net::Io::done) std::abort();
    net::FrameHeader header{};
    if (channel->receive_header(header) != net::Io::done) std::abort();
    std::vector<std::uint8_t> body(header.length + 1);
    if (channel->receive_body(body.data()) != net::Io::done) std::abort();
    return net::read_control(header, body.data()).value();
  }
  void enter() {
    welcome = std::get<net::Welcome>(join(number));
    say(Phase::running);
  }
  void say(Phase phase, std::int64_t value = 0) { (void)net::report(*channel, {phase, value}); }
};

[[noreturn]] void wait_for_ever() {
  for (;;) ::pause();
}

// Knocks on the rendezvous in every wrong way, and leaves the connections open.
std::vector<ipc::Fd> knock(const Rank& rank) {
  std::vector<ipc::Fd> strangers;
  const auto stranger = [&](const std::string& text) {
    strangers.push_back(ipc::connect_tcp(rank.host, rank.port, 10'000));
    (void)ipc::write_full(strangers.back().get(), text.data(), text.size());
  };
  stranger("");
  stranger("GET / HTTP/1.0\r\n\r\n");
  stranger(std::string(100'000, 'x'));
  std::string magic(reinterpret_cast<const char*>(net::handshake_magic.data()), net::handshake_magic.size());
  stranger(magic);
  stranger(magic + std::string(200, '\xff'));
  net::FrameHeader huge{};
  huge.kind = static_cast<std::uint8_t>(net::FrameKind::control);
  huge.length = 0xffffffffu;
  std::string frame(reinterpret_cast<const char*>(&huge), sizeof huge);
  stranger(frame);
  // One that knows the key, and then sends a frame of 4 GiB.
  net::Channel insider = net::connect(rank.host, rank.port, rank.key, Clock::now() + patience, 0);
  (void)ipc::write_full(insider.fd(), frame.data(), frame.size());
  strangers.emplace_back(::fcntl(insider.fd(), F_DUPFD_CLOEXEC, 3));
  return strangers;
}

// The classroom's handshake; what comes back.
std::string classroom(const Rank& rank, const std::string& blob) {
  const ipc::Fd fd = ipc::connect_tcp(rank.host, rank.port, 10'000);
  const std::size_t size = blob.size();
  (void)ipc::write_full(fd.get(), &rank.number, sizeof rank.number);
  (void)ipc::write_full(fd.get(), &size, sizeof size);
  (void)ipc::write_full(fd.get(), blob.data(), blob.size());
  std::string all(4096, ' ');
  const ssize_t got = ipc::read_full(fd.get(), all.data(), all.size());
  all.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  return all;
}

}  // namespace

int rank_main(const std::string& mode) {
  Rank rank;
  ::signal(SIGPIPE, SIG_IGN);  // a connection that is closed while we speak is what some modes are about
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  if (mode == "classroom") {
    std::printf("got %s.\n", classroom(rank, "<" + std::to_string(rank.number) + ">").c_str());
    return 0;
  }
  if (mode == "one-never-joins" && rank.number == 1) return 0;
  if (mode == "other-platform" && rank.number == 1) {
    net::Platform platform = net::Platform::here();
    platform.architecture = "pdp11";
    rank.join(rank.number, platform);
    wait_for_ever();
  }
  std::vector<ipc::Fd> strangers;
  if (mode == "strangers") strangers = knock(rank);
  rank.enter();
  std::printf("lanes %u spin %u size %llu protocol %s peers %zu\n", rank.welcome.lanes, rank.welcome.spin_us,
              static_cast<unsigned long long>(rank.welcome.size), rank.welcome.protocol.c_str(),
              rank.welcome.peers.size());
  if (mode == "strangers") {
    for (auto& more : knock(rank)) strangers.push_back(std::move(more));
  }
  if (mode == "twice" && rank.number == 0) {
    Rank again = std::move(rank);
    auto first = std::move(*again.channel);
    const auto answer = again.join(0);
    std::printf("second: %s\n", std::get<net::Refusal>(answer).why.c_str());
    again.channel.emplace(std::move(first));
    rank = std::move(again);
  }
  if (mode == "leave" && rank.number == 2) return 0;
  if (mode == "closed" && rank.number == 2) {
    rank.channel.reset();
    wait_for_ever();
  }
  if (mode == "peer-dies") {
    if (rank.number == 1) {
      ::poll(nullptr, 0, 100);  // the others speak first, or not: who is named must be the same
      ::raise(SIGKILL);
    }
    rank.say(Phase::lost_peer, 1);
    if (rank.number == 2) return 70;
    wait_for_ever();
  }
  if (mode == "wait" || mode == "leave") wait_for_ever();
  rank.say(Phase::finalized);
  return 0;
}

}  // namespace dsm::launch::testing

int main(int argc, char** argv) {
  if (argc >= 3 && std::string(argv[1]) == "--rank") return dsm::launch::testing::rank_main(argv[2]);
  ::signal(SIGPIPE, SIG_IGN);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
