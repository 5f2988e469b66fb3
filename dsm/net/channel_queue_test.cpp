// Frames that wait in a Channel because the socket is full.
#include <gtest/gtest.h>

#include <algorithm>
#include <thread>
#include <utility>
#include <vector>

#include "dsm/net/channel.hpp"
#include "dsm/net/testing.hpp"

namespace dsm::net {
namespace {

using namespace dsm::net::testing;

TEST(Channel, QueueIsBoundedAndFlushResumesWhereTheSocketWasFull) {
  constexpr std::size_t frames = 500;
  SocketPair sockets = tcp_pair();
  const int small = 4096;  // the kernel makes it some kilobytes: far less than is queued
  ASSERT_EQ(::setsockopt(sockets.one.get(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
  Pair pair(std::move(sockets), frames);
  std::vector<PageBytes> pages;
  for (unsigned i = 0; i < frames; ++i) pages.push_back(pattern(i, i % 2 == 0 ? page_size : i % 50));
  for (std::size_t i = 0; i < frames; ++i)
    ASSERT_TRUE(pair.one.queue(bytes_frame(i, pages[i].size()), pages[i].data()));
  EXPECT_FALSE(pair.one.queue(bytes_frame(0), nullptr));
  // Nobody reads yet. (Somebody who does may be so quick that the socket is never full.)
  ASSERT_EQ(pair.one.flush(), Io::again) << "the socket took all of it";
  ASSERT_GT(pair.one.queued(), 0U);
  std::thread sender([&] {
    Io io;
    while ((io = pair.one.flush()) == Io::again) ASSERT_TRUE(wait_for(pair.one.fd(), POLLOUT));
    EXPECT_EQ(io, Io::done);
    EXPECT_EQ(pair.one.queued(), 0U);
    // A blocking send goes behind what is queued.
    ASSERT_TRUE(pair.one.queue(bytes_frame(frames), nullptr));
    EXPECT_EQ(pair.one.send(bytes_frame(frames + 1), nullptr), Io::done);
  });
  for (std::size_t i = 0; i < frames + 2; ++i) {
    FrameHeader header;
    const std::uint8_t* body = nullptr;
    ASSERT_EQ(next_frame(pair.other, header, body), Io::done);
    ASSERT_EQ(header.a, i);
    if (i < frames) {
      ASSERT_EQ(PageBytes(body, body + header.length), pages[i]);
    }
  }
  sender.join();
  EXPECT_EQ(pair.one.counters().frames_out, frames + 2);
  EXPECT_EQ(pair.one.counters().bytes_out, pair.other.counters().bytes_in);
}

// A copy that its reader has given up before it came: its owner writes on the page while the frame is in the queue.
TEST(Channel, AWithdrawnBodyIsNotReadAgainAndTheFramesAroundItGoOutWhole) {
  constexpr std::size_t frames = 200;
  SocketPair sockets = tcp_pair();
  const int small = 4096;
  ASSERT_EQ(::setsockopt(sockets.one.get(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
  Pair pair(std::move(sockets), frames);
  const PageBytes kept = pattern(1), zeros(page_size);
  PageBytes given_up = pattern(2);
  for (std::size_t i = 0; i < frames; ++i) {
    ASSERT_TRUE(pair.one.queue(bytes_frame(i, page_size), i % 2 == 0 ? kept.data() : given_up.data()));
  }
  ASSERT_EQ(pair.one.flush(), Io::again) << "the socket took all of it";
  ASSERT_GT(pair.one.queued(), 2U);
  const std::size_t before = frames - pair.one.queued();
  pair.one.withdraw(given_up.data(), zeros.data());
  const PageBytes old = std::exchange(given_up, PageBytes(page_size, 0xee));
  std::thread sender([&] {
    while (pair.one.flush() == Io::again) ASSERT_TRUE(wait_for(pair.one.fd(), POLLOUT));
  });
  for (std::size_t i = 0; i < frames; ++i) {
    FrameHeader header;
    const std::uint8_t* body = nullptr;
    ASSERT_EQ(next_frame(pair.other, header, body), Io::done);
    ASSERT_EQ(header.a, i);
    const PageBytes got(body, body + header.length);
    if (i % 2 == 0) {
      EXPECT_EQ(got, kept);
    } else if (i < before) {
      EXPECT_EQ(got, old);
    } else if (i > before) {
      EXPECT_EQ(got, zeros);
    } else {  // perhaps a part of it had gone
      const auto rest = std::mismatch(got.begin(), got.end(), old.begin()).first;
      EXPECT_EQ(std::count(rest, got.end(), 0), got.end() - rest);
    }
  }
  sender.join();
}

}  // namespace
}  // namespace dsm::net
