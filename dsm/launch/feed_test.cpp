#include "dsm/launch/feed.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "ipc/spawn.hpp"

namespace dsm::launch {
namespace {

class FeedTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ::signal(SIGPIPE, SIG_IGN);
    for (ipc::Pipe& pipe : pipes) {
      ASSERT_EQ(::fcntl(pipe.read.get(), F_SETFL, O_NONBLOCK), 0);
      feed.add(std::move(pipe.write));
    }
  }
  // What is in the pipe now; "end" behind it if it has been closed.
  std::string read(std::size_t which) {
    std::string text;
    char buffer[65536];
    ssize_t got = 0;
    while ((got = ::read(pipes[which].read.get(), buffer, sizeof buffer)) > 0) {
      text.append(buffer, static_cast<std::size_t>(got));
    }
    return got == 0 ? text + "end" : text;
  }
  ipc::Pipe pipes[2] = {ipc::make_pipe(), ipc::make_pipe()};
  Feed feed;
};

TEST_F(FeedTest, AllGetTheSameBytesAndThenTheEnd) {
  feed.put("one ");
  feed.write();
  EXPECT_EQ(feed.taken(), 4U);
  feed.put("two");
  feed.end();
  feed.write();
  EXPECT_EQ(feed.taken(), 3U);
  EXPECT_FALSE(feed.wanted());
  EXPECT_EQ(read(0), "one twoend");
  EXPECT_EQ(read(1), "one twoend");
}

TEST_F(FeedTest, WhatTheSlowestHasNotTakenIsNotTaken) {
  const std::string much(1 << 20, 'x');
  feed.put(much);
  std::string fast, slow;
  std::uint64_t taken = 0;
  while (fast.size() < much.size()) {
    feed.write();
    fast += read(0);
    taken += feed.taken();
  }
  EXPECT_LE(taken, 1U << 18) << "no pipe holds so much";
  std::vector<pollfd> set;
  feed.add_to(set);
  EXPECT_EQ(set.size(), 1U);
  while (slow.size() < much.size()) {
    feed.write();
    slow += read(1);
    taken += feed.taken();
  }
  EXPECT_EQ(taken, much.size());
  EXPECT_EQ(slow, much);
}

TEST_F(FeedTest, WhoDoesNotWantAnyMoreHoldsNobodyUp) {
  pipes[0].read.reset();
  feed.put("text");
  feed.write();
  EXPECT_TRUE(feed.wanted());
  EXPECT_EQ(feed.taken(), 4U);
  EXPECT_EQ(read(1), "text");
  pipes[1].read.reset();
  feed.put("more");
  feed.write();
  EXPECT_FALSE(feed.wanted());
  EXPECT_EQ(feed.taken(), 4U);
}

}  // namespace
}  // namespace dsm::launch
