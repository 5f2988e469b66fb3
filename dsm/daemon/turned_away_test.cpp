#include "dsm/daemon/turned_away.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace dsm::daemon {
namespace {

using namespace std::chrono_literals;

struct Scene {
  void comes(int port, const std::string& why) { turned_away.add("[::1]:" + std::to_string(port) + ": " + why, now); }
  void after(milliseconds time) {
    now += time;
    turned_away.tick(now);
  }
  Time now{1h};
  std::vector<std::string> said;
  TurnedAway turned_away{[this](const std::string& line) { said.push_back(line); }};
};

TEST(TurnedAway, TheFirstOfEachKindIsNamedAndTheOthersAreCounted) {
  Scene s;
  EXPECT_EQ(s.turned_away.next_deadline(), Time::max());
  for (int i = 0; i < 10'000; ++i) s.comes(i, "no handshake");
  for (int i = 0; i < 2; ++i) s.comes(i, "wrong first bytes");
  EXPECT_EQ(s.said, (std::vector<std::string>{"[::1]:0: no handshake", "[::1]:0: wrong first bytes"}));
  EXPECT_EQ(s.turned_away.next_deadline(), s.now + 10s);
  s.after(9999ms);
  EXPECT_EQ(s.said.size(), 2u);
  s.after(1ms);
  ASSERT_EQ(s.said.size(), 4u);
  EXPECT_EQ(s.said[2], "strangers: no handshake: 9999 more in 10 s");
  EXPECT_EQ(s.said[3], "strangers: wrong first bytes: 1 more in 10 s");
  s.comes(7, "no handshake");
  EXPECT_EQ(s.said.back(), "[::1]:7: no handshake");
}

TEST(TurnedAway, OneOfItsKindIsNotSpokenOfTwice) {
  Scene s;
  s.comes(1, "wrong first bytes");
  s.after(10s);
  EXPECT_EQ(s.said.size(), 1u);
  EXPECT_EQ(s.turned_away.next_deadline(), Time::max());
}

TEST(TurnedAway, WhatStrangersMakeUpDoesNotMakeMoreKinds) {
  Scene s;
  for (int version = 0; version < 256; ++version) s.comes(1, "peer speaks version " + std::to_string(version));
  EXPECT_LE(s.said.size(), 17u);
}

}  // namespace
}  // namespace dsm::daemon
