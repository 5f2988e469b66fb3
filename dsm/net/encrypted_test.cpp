// What somebody in between gets to see of connections whose ends want to encrypt, and of others.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "dsm/net/acceptor.hpp"
#include "dsm/net/testing.hpp"

namespace dsm::net {
namespace {

using namespace dsm::net::testing;

// One connection through here to `port`, until either end closes; all that goes through is noted.
class Between {
 public:
  explicit Between(std::uint16_t port)
      : listener_(ipc::listen_tcp("127.0.0.1", 0)), thread_([this, port] { run(port); }) {}
  [[nodiscard]] std::uint16_t port() const { return ipc::local_port(listener_.get()); }
  // REQUIRES: one end has closed, or will.
  [[nodiscard]] std::string seen() {
    thread_.join();
    return seen_;
  }

 private:
  void run(std::uint16_t port) {
    if (!wait_for(listener_.get(), POLLIN)) return;
    const ipc::Fd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    const ipc::Fd server = ipc::connect_tcp("127.0.0.1", port, wait_ms);
    for (;;) {
      std::array<pollfd, 2> set = {pollfd{client.get(), POLLIN, 0}, pollfd{server.get(), POLLIN, 0}};
      if (::poll(set.data(), set.size(), wait_ms) <= 0) return;
      if (set[0].revents != 0 && !carry(client.get(), server.get())) return;
      if (set[1].revents != 0 && !carry(server.get(), client.get())) return;
    }
  }
  bool carry(int from, int to) {
    std::array<char, 65536> piece;
    const ssize_t got = ::recv(from, piece.data(), piece.size(), 0);
    if (got <= 0) return false;
    const std::string text(piece.data(), static_cast<std::size_t>(got));
    seen_ += text;
    write_text(to, text);
    return true;
  }

  ipc::Fd listener_;
  std::string seen_;
  std::jthread thread_;
};

// A page, there and back, over a connection that was made as all connections of a job are. What was seen of it.
std::string page_seen(bool encrypt, const PageBytes& page) {
  const Credentials credentials(random_key(), encrypt);
  Acceptor::Options options;
  options.max_body = page_size;
  Acceptor acceptor(credentials, options);
  Between between(acceptor.port());
  {
    auto connecting = std::async(std::launch::async,
                                 [&] { return connect("127.0.0.1", between.port(), credentials, soon(), page_size); });
    std::vector<Acceptor::Arrival> arrived;
    for (const Deadline end = soon(); arrived.empty() && std::chrono::steady_clock::now() < end;) {
      std::vector<pollfd> set;
      acceptor.add_to(set);
      ::poll(set.data(), set.size(), milliseconds_until(std::min(end, acceptor.next_deadline())));
      arrived = acceptor.serve();
    }
    Channel client = connecting.get();
    EXPECT_EQ(arrived.size(), 1u);
    if (arrived.size() == 1) {
      FrameHeader header;
      PageBytes back(page_size);
      EXPECT_EQ(client.send(bytes_frame(1, page_size), page.data()), Io::done);
      EXPECT_EQ(arrived[0].channel.receive_header(header), Io::done);
      EXPECT_EQ(arrived[0].channel.receive_body(back.data()), Io::done);
      EXPECT_EQ(back, page);
      EXPECT_EQ(arrived[0].channel.send(bytes_frame(2, page_size), back.data()), Io::done);
      EXPECT_EQ(client.receive_header(header), Io::done);
      EXPECT_EQ(client.receive_body(back.data()), Io::done);
      EXPECT_EQ(back, page);
    }
  }
  return between.seen();
}

TEST(Encrypted, ConnectionsShowNothingOfAPageInBetweenAndOthersDo) {
  const PageBytes page = pattern(5);
  const std::string part(reinterpret_cast<const char*>(page.data()), 64);
  for (const bool encrypt : {false, true}) {
    SCOPED_TRACE(encrypt);
    const std::string seen = page_seen(encrypt, page);
    EXPECT_GT(seen.size(), 2 * page_size);
    EXPECT_EQ(seen.find(part) == std::string::npos, encrypt);
  }
}

}  // namespace
}  // namespace dsm::net
