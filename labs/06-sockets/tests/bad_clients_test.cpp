// What clients do that they should not: be silent, die, come too many, talk nonsense. The server goes on for the others.
#include <sys/socket.h>

#include <future>
#include <string>
#include <string_view>
#include <vector>

#include "server_bench.hpp"

namespace {

using ipc::Fd;
using ipc::testing::descriptors_of;
using ipc::testing::expect_one_clear_line;
using ipc::testing::hear_from;
using ipc::testing::Lines;
using ipc::testing::Outcome;
using ipc::testing::say_to;
using ipc::testing::Server;
using ipc::testing::Started;
using ipc::testing::wait_until;
using BadClients = Server;

TEST_F(BadClients, ASilentClientHoldsUpNobodyAndIsTold) {
  Started server(server_with({"--rounds", "1000", "--timeout-ms", "3000"}));
  const Fd silent = connect();
  const Fd one = connect(), two = connect();
  say_to(one, "1"), say_to(two, "2");
  EXPECT_EQ(hear_from(one), "3");
  EXPECT_EQ(hear_from(two), "3");
  EXPECT_EQ(hear_from(silent), "error: no number came within 3000 ms");
  EXPECT_EQ(hear_from(silent), "end");
  EXPECT_FALSE(server.ended());
}

TEST_F(BadClients, MoreSilentClientsThanItTakesOnlyDelayTheOthers) {
  Started server(server_with({"--timeout-ms", "2000"}));
  std::vector<Fd> silent;
  for (int i = 0; i < 75; ++i) silent.push_back(connect());  // as many as it takes, and some in the backlog
  const Outcome outcome = [&] {
    auto other = std::async(std::launch::async, [this] { return client("1"); });
    const Outcome mine = client("2");
    EXPECT_EQ(other.get().out, Lines{"Result = 3"});
    return mine;
  }();
  EXPECT_EQ(outcome.out, Lines{"Result = 3"});
  EXPECT_EQ(server.wait(), 0);
}

TEST_F(BadClients, WhoFindsNoPartnerIsTold) {
  Started server(server_with({"--timeout-ms", "1500"}));
  wait_until_it_listens();
  expect_one_clear_line(client("5"), 1, "client: error: nobody else sent a number within 1500 ms");
  EXPECT_FALSE(server.ended());
}

TEST_F(BadClients, AClientThatDiesBeforeItsPairIsCompleteTakesItsNumberAlong) {
  Started server(server_with({}));
  {
    const Fd dead = connect();
    say_to(dead, "1000");
  }
  // It has gone for the server, too, once its descriptor there is closed.
  const Fd last = connect();
  say_to(last, "x");
  ASSERT_EQ(hear_from(last).rfind("error: ", 0), 0U);
  const Fd one = connect(), two = connect();
  say_to(one, "1"), say_to(two, "2");
  EXPECT_EQ(hear_from(one), "3");
  EXPECT_EQ(hear_from(two), "3");
  EXPECT_EQ(server.wait(), 0);
}

TEST_F(BadClients, AClientThatIsKilledInTheMiddleLeavesTheOtherWithAnAnswer) {
  for (const bool stop_the_server : {false, true}) {
    Started server(server_with({"--timeout-ms", "1000", "--rounds", "1"}));
    wait_until_it_listens();
    {
      Started dead({"client", "1", "--socket", path});
      ASSERT_TRUE(wait_until([&] { return ipc::testing::state_of(dead.pid()) == 'S'; }));
      // With the server stopped, both the number and the death are there when it goes on.
      if (stop_the_server) server.signal(SIGSTOP);
      dead.signal(SIGKILL);
      dead.wait();
    }
    Started other({"client", "2", "--socket", path});
    if (stop_the_server) server.signal(SIGCONT);
    const int code = other.wait();
    if (code == 0) {
      EXPECT_EQ(other.lines(), Lines{"Result = 3"});
    } else {
      expect_one_clear_line({code, other.lines(), other.error_lines()}, 1, "client: error: nobody else sent a number");
    }
  }
}

TEST_F(BadClients, AThirdClientWaitsForTheNextRoundOrIsToldThatThereIsNone) {
  Started server(server_with({"--rounds", "2"}));
  const Fd one = connect(), two = connect(), three = connect();
  say_to(one, "1");
  say_to(two, "2");
  EXPECT_EQ(hear_from(one), "3");
  EXPECT_EQ(hear_from(two), "3");
  say_to(three, "10");
  const Fd four = connect(), five = connect();
  say_to(four, "20");
  EXPECT_EQ(hear_from(three), "30");
  EXPECT_EQ(hear_from(four), "30");
  EXPECT_EQ(hear_from(five), "error: the last round is over");
  EXPECT_EQ(server.wait(), 0);
  EXPECT_EQ(server.lines(), (Lines{"Sum: 3", "Sum: 30"}));
}

TEST_F(BadClients, WhoStandsInTheBacklogWhenTheLastRoundEndsIsToldToo) {
  Started server(server_with({}));
  const Fd first = connect();
  say_to(first, "x");
  ASSERT_EQ(hear_from(first).rfind("error: ", 0), 0U);
  ASSERT_EQ(hear_from(first), "end");
  const std::size_t alone = descriptors_of(server);
  const Fd one = connect(), two = connect();
  say_to(one, "1");
  ASSERT_TRUE(wait_until([&] { return descriptors_of(server) == alone + 2; })) << "both are accepted";
  server.signal(SIGSTOP);
  ASSERT_TRUE(wait_until([&] { return ipc::testing::state_of(server.pid()) == 'T'; }));
  say_to(two, "2");
  const Fd spoke = connect(), silent = connect();
  say_to(spoke, "3");
  server.signal(SIGCONT);
  EXPECT_EQ(hear_from(one), "3");
  EXPECT_EQ(hear_from(two), "3");
  EXPECT_EQ(hear_from(spoke), "error: the last round is over");
  EXPECT_EQ(hear_from(silent), "error: the last round is over");
  EXPECT_EQ(server.wait(), 0);
}

TEST_F(BadClients, WhatIsNoNumberGetsAnErrorAndTheRoundGoesOn) {
  Started server(server_with({}));
  const Fd waiting = connect();
  say_to(waiting, "1");
  const auto answer_to = [&](std::string_view text) {
    const Fd fd = connect();
    say_to(fd, text);
    const std::string answer = hear_from(fd);
    EXPECT_EQ(hear_from(fd), "end");
    return answer;
  };
  for (const char* text : {"abc", "", "-", "+1", " 1", "1 ", "1\n", "0x10", "1.5", "--1"}) {
    EXPECT_EQ(answer_to(text).rfind("error: ", 0), 0U) << text;
  }
  EXPECT_EQ(answer_to(std::string_view("12\0", 3)), "error: '12?' is no whole number") << "not one byte more";
  EXPECT_EQ(answer_to("9223372036854775808"), "error: '9223372036854775808' does not fit into 64 bits");
  EXPECT_EQ(answer_to("-9223372036854775809"), "error: '-9223372036854775809' does not fit into 64 bits");
  EXPECT_EQ(answer_to(std::string(100'000, '1')), "error: so long a record is no number");
  EXPECT_EQ(answer_to("\x1b[2J"), "error: '?[2J' is no whole number");
  EXPECT_EQ(answer_to("41"), "42");
  EXPECT_EQ(hear_from(waiting), "42");
  EXPECT_EQ(server.wait(), 0);
}

TEST_F(BadClients, ASumThatDoesNotFitIsAnErrorForBothAndNoRound) {
  Started server(server_with({}));
  for (const auto& [a, b] : {std::pair("9223372036854775807", "1"), std::pair("-9223372036854775808", "-1")}) {
    const Fd one = connect(), two = connect();
    say_to(one, a), say_to(two, b);
    EXPECT_EQ(hear_from(one), "error: the sum does not fit into 64 bits");
    EXPECT_EQ(hear_from(two), "error: the sum does not fit into 64 bits");
  }
  const Fd one = connect(), two = connect();
  say_to(one, "9223372036854775807"), say_to(two, "-9223372036854775808");
  EXPECT_EQ(hear_from(one), "-1");
  EXPECT_EQ(server.wait(), 0);
  EXPECT_EQ(server.lines(), Lines{"Sum: -1"});
}

TEST_F(BadClients, OneNumberIsEnough) {
  Started server(server_with({}));
  const Fd talker = connect();
  say_to(talker, "1");
  for (int i = 0; i < 5; ++i) static_cast<void>(::send(talker.get(), "2", 1, MSG_NOSIGNAL));
  EXPECT_EQ(hear_from(talker), "error: one number is enough");
  EXPECT_EQ(hear_from(talker), "end");
}
}  // namespace
