#include "dsm/daemon/outbox.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cstring>

namespace dsm::daemon {
namespace {

constexpr std::size_t max_body = 8192;

struct Pair {
  Pair() {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    one.emplace(ipc::Fd(fds[0]), max_body, 4);
    other.emplace(ipc::Fd(fds[1]), max_body, 4);
  }
  // The next frame that has come; empty if none has.
  std::vector<std::uint8_t> take() {
    net::FrameHeader header{};
    const std::uint8_t* body = nullptr;
    if (other->receive(header, body) != net::Io::done) return {};
    EXPECT_EQ(header.kind, static_cast<std::uint8_t>(net::FrameKind::sysv));
    return {body, body + header.length};
  }
  std::optional<net::Channel> one, other;
};

std::vector<std::uint8_t> numbered(std::uint8_t number) { return std::vector<std::uint8_t>(4000, number); }

TEST(Outbox, SendsInOrder) {
  Pair pair;
  Outbox out;
  for (std::uint8_t i = 1; i <= 10; ++i) out.push(numbered(i));  // more than the channel's queue has room for
  EXPECT_EQ(out.bytes(), 40'000u);
  EXPECT_EQ(out.flush(*pair.one), net::Io::done);
  EXPECT_TRUE(out.empty());
  EXPECT_EQ(out.bytes(), 0u);
  for (std::uint8_t i = 1; i <= 10; ++i) EXPECT_EQ(pair.take(), numbered(i));
}

TEST(Outbox, KeepsWhatNobodyReads) {
  Pair pair;
  Outbox out;
  std::size_t pushed = 0;
  net::Io io = net::Io::done;
  while (io == net::Io::done && pushed < 10'000) {
    out.push(numbered(static_cast<std::uint8_t>(pushed++ % 251)));
    io = out.flush(*pair.one);
  }
  ASSERT_EQ(io, net::Io::again);
  for (int i = 0; i < 20; ++i) out.push(numbered(static_cast<std::uint8_t>(pushed++ % 251)));
  EXPECT_GE(out.bytes(), 80'000u);
  for (std::size_t got = 0; got < pushed;) {
    const auto frame = pair.take();
    if (frame.empty()) {
      (void)out.flush(*pair.one);
      continue;
    }
    ASSERT_EQ(frame, numbered(static_cast<std::uint8_t>(got++ % 251)));
  }
  EXPECT_EQ(out.flush(*pair.one), net::Io::done);
  EXPECT_TRUE(out.empty());
}

TEST(Outbox, SaysThatThePeerHasGone) {
  Pair pair;
  Outbox out;
  pair.other.reset();
  out.push(numbered(1));
  EXPECT_EQ(out.flush(*pair.one), net::Io::closed);
}

}  // namespace
}  // namespace dsm::daemon
