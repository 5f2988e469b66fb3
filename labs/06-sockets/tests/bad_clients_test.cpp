// What clients do that they should not: be silent, die, come too many, talk nonsense. The server goes on for the
// others.
#include <sys/socket.h>

#include <future>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "server_bench.hpp"

namespace {

using ipc::Fd;
using ipc::testing::expect_error;
using ipc::testing::has_descriptors;
using ipc::testing::hear_from;
using ipc::testing::is_heard;
using ipc::testing::Lines;
using ipc::testing::Outcome;
using ipc::testing::say_to;
using ipc::testing::Server;
using ipc::testing::Started;
using ipc::testing::suspend;
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
  expect_error(client("5"), "client: error: nobody else sent a number within 1500 ms");
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

TEST_F(BadClients, AClientThatIsKilledTakesItsNumberAlongAndTheNextTwoGetTheirOwnSum) {
  Started server(server_with({"--timeout-ms", "60000"}));
  const std::size_t alone = descriptors_alone(server);
  {
    Started dead({"client", "1000", "--socket", path});
    ASSERT_TRUE(has_descriptors(server, alone + 1));
    dead.signal(SIGKILL);
    dead.wait();
  }
  ASSERT_TRUE(has_descriptors(server, alone)) << "it has noticed";
  Started one({"client", "1", "--socket", path});
  EXPECT_EQ(client("2").out, Lines{"Result = 3"});
  EXPECT_EQ(one.wait(), 0);
  EXPECT_EQ(one.lines(), Lines{"Result = 3"});
  EXPECT_EQ(server.wait(), 0);
  EXPECT_EQ(server.lines(), Lines{"Sum: 3"});
}

// Both lie there at the same time, and the server comes to the number first; or not even the dead one's was read.
TEST_F(BadClients, AClientWhoseDeathIsThereTogetherWithTheNextNumberMakesNoPair) {
  for (const bool number_was_read : {true, false}) {
    Started server(server_with({"--timeout-ms", "60000"}));
    const std::size_t alone = descriptors_alone(server);
    Fd first = connect(), second = connect();  // in this order they are looked at
    ASSERT_TRUE(has_descriptors(server, alone + 2));
    Fd& dead = number_was_read ? second : first;
    const Fd& other = number_was_read ? first : second;
    if (number_was_read) {
      say_to(dead, "1000");
      ASSERT_TRUE(is_heard(dead));
    }
    ASSERT_TRUE(suspend(server));
    if (!number_was_read) say_to(dead, "1000");
    dead.reset();
    say_to(other, "1");
    server.signal(SIGCONT);
    ASSERT_TRUE(has_descriptors(server, alone + 1));
    const Fd third = connect();
    say_to(third, "2");
    EXPECT_EQ(hear_from(other), "3");
    EXPECT_EQ(hear_from(third), "3");
    EXPECT_EQ(server.wait(), 0);
    EXPECT_EQ(server.lines(), Lines{"Sum: 3"});
  }
}

TEST_F(BadClients, AClientThatDiesWhenItsPairIsCompleteLeavesTheOtherWithTheSum) {
  Started server(server_with({"--timeout-ms", "60000"}));
  const std::size_t alone = descriptors_alone(server);
  const Fd one = connect();
  Fd dead = connect();
  ASSERT_TRUE(has_descriptors(server, alone + 2));
  say_to(one, "1");
  ASSERT_TRUE(is_heard(one));
  ASSERT_TRUE(suspend(server));
  say_to(dead, "2");
  dead.reset();
  server.signal(SIGCONT);
  EXPECT_EQ(hear_from(one), "3");
  EXPECT_EQ(server.wait(), 0);
}

TEST_F(BadClients, MoreSilentClientsThanItMayHaveDescriptorsOnlyDelayTheOthers) {
  constexpr int limit = 20;
  Started server({"/bin/sh", "-c",
                  "ulimit -n " + std::to_string(limit) + "; exec \"$0\" --timeout-ms 2000 --socket " + path,
                  ipc::testing::program_path("server")});
  std::vector<Fd> silent;
  for (int i = 0; i < limit; ++i) silent.push_back(connect());  // it has some descriptors besides
  Started one({"client", "1", "--socket", path}), two({"client", "2", "--socket", path});
  const double before = ipc::testing::cpu_seconds(server.pid());
  ASSERT_TRUE(wait_until([&] {
    const auto taken = ipc::testing::open_descriptors(std::to_string(server.pid()));
    return std::distance(taken.begin(), taken.lower_bound(limit)) == limit;  // others of any number may be inherited
  }));
  EXPECT_EQ(hear_from(silent[0]), "error: no number came within 2000 ms");
  EXPECT_LE(ipc::testing::cpu_seconds(server.pid()) - before, 0.2) << "it does not ask again and again";
  EXPECT_EQ(one.wait(), 0);
  EXPECT_EQ(two.wait(), 0);
  EXPECT_EQ(one.lines(), Lines{"Result = 3"});
  EXPECT_EQ(two.lines(), Lines{"Result = 3"});
  EXPECT_EQ(server.wait(), 0);
  for (int i = 1; i < limit; ++i) EXPECT_EQ(hear_from(silent[static_cast<std::size_t>(i)]).rfind("error: ", 0), 0U);
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
  const std::size_t alone = descriptors_alone(server);
  const Fd one = connect(), two = connect();
  say_to(one, "1");
  ASSERT_TRUE(has_descriptors(server, alone + 2)) << "both are accepted";
  ASSERT_TRUE(suspend(server));
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
