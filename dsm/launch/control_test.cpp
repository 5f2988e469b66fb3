#include "dsm/launch/control.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include "ipc/fd.hpp"
#include "ipc/spawn.hpp"

namespace dsm::launch {
namespace {

template <class Message>
Message round_trip(const Message& message) {
  std::string why;
  const auto back = parse_message(to_json(message), why);
  EXPECT_TRUE(back.has_value()) << why;
  return std::get<Message>(back.value());
}

TEST(Control, EveryByteOfAnArgumentSurvives) {
  Start start;
  start.ranks = {0, 3};
  start.hosts = {"one", "two"};
  start.program = "/bin/\xff\x80";
  std::string all;
  for (int byte = 1; byte < 256; ++byte) all += static_cast<char>(byte);
  start.arguments = {"prog", "", all, "--", "\"\\\n"};
  start.environment = {"A=\xc3\xa4"};
  start.key = net::random_key();
  start.readers = {3};
  start.debugger = {"gdb", "--args"};
  start.debugged = {0};
  start.traceable = true;
  start.prompts = true;
  start.lenient = true;
  start.program_hash = "0a1b";
  start.program_size = 1ull << 40;
  const Start back = round_trip(start);
  EXPECT_EQ(back.ranks, start.ranks);
  EXPECT_EQ(back.hosts, start.hosts);
  EXPECT_EQ(back.program, start.program);
  EXPECT_EQ(back.arguments, start.arguments);
  EXPECT_EQ(back.environment, start.environment);
  EXPECT_EQ(back.key, start.key);
  EXPECT_EQ(back.readers, start.readers);
  EXPECT_EQ(back.debugger, start.debugger);
  EXPECT_EQ(back.debugged, start.debugged);
  EXPECT_TRUE(back.traceable);
  EXPECT_TRUE(back.prompts);
  EXPECT_TRUE(back.lenient);
  EXPECT_EQ(back.program_hash, "0a1b");
  EXPECT_EQ(back.program_size, 1ull << 40);
}

TEST(Control, SmallMessages) {
  EXPECT_EQ(round_trip(PassSignal{15}).signo, 15);
  EXPECT_EQ(round_trip(Watch{2, 77}).segment, 77);
  EXPECT_EQ(round_trip(Ask{1ull << 40}).id, 1ull << 40);
  EXPECT_EQ(round_trip(Hello{1, 8, "fd77::1"}).cores, 8);
  EXPECT_EQ(round_trip(Hello{1, 8, "fd77::1"}).caller, "fd77::1");
  EXPECT_EQ(round_trip(Interrupt{5}).rank, 5);
  round_trip(TakeStacks{});
  EXPECT_TRUE(round_trip(StacksTaken{true}).without_gdb);
  round_trip(Beat{});
  round_trip(NeedProgram{});
  round_trip(NoFolder{});
  EXPECT_EQ(round_trip(Started{1, 4242}).pid, 4242);
  EXPECT_EQ(round_trip(NotStarted{1, "execve", 8}).step, "execve");
  EXPECT_TRUE(round_trip(Exited{1, 9, true, false}).stopped);
  EXPECT_TRUE(round_trip(Exited{1, 9, false, true}).out_of_memory);
  EXPECT_EQ(round_trip(InputTaken{65536}).bytes, 65536u);
  EXPECT_EQ(round_trip(Done{3}).left, 3);
}

// It was written as it is, which JSON does not allow: an exception that nobody expected.
TEST(Control, AHashOfAnyBytesCouldBeReadButNotWritten) {
  Start start;
  start.ranks = {0};
  start.hosts = {"one"};
  start.arguments = {"prog"};
  start.program_hash = "\xe9\x80";
  EXPECT_EQ(round_trip(start).program_hash, start.program_hash);
}

TEST(Control, NonsenseIsRefused) {
  for (const char* bad :
       {"", "[]", "{}", R"({"type":3})", R"({"type":"nothing"})", R"({"type":"signal"})",
        R"({"type":"signal","signo":"9"})", R"({"type":"signal","signo":99999999999})", R"({"type":"ask","id":-1})",
        R"({"type":"exited","rank":1,"status":0,"stopped":1})", R"({"type":"start","ranks":[]})"}) {
    std::string why;
    EXPECT_FALSE(parse_message(bad, why).has_value()) << bad;
    EXPECT_FALSE(why.empty());
  }
}

struct Pair {
  Pair() {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    one.emplace(ipc::Fd(ends[0]), ipc::Fd(::dup(ends[0])));
    raw = ipc::Fd(ends[1]);
  }
  std::optional<Link> one;
  ipc::Fd raw;
};

TEST(Link, FramesArriveWholeInOrderWhateverThePieces) {
  Pair pair;
  Link two(ipc::Fd(::dup(pair.raw.get())), ipc::Fd(::dup(pair.raw.get())));
  const std::string big(3u << 20, 'x');  // more than a socket takes at once
  two.send(PassSignal{2});
  two.send(Bytes::lines, 7, 1, big);
  two.send(KillAll{});
  std::vector<std::string> got;
  const auto sink = [&](const Link::Frame& frame) {
    if (frame.header.kind == static_cast<std::uint8_t>(net::FrameKind::bytes)) {
      EXPECT_EQ(frame.header.a, 7u);
      EXPECT_EQ(frame.header.b, 1u);
      EXPECT_TRUE(frame.body == big);
      got.emplace_back("bytes");
    } else {
      got.emplace_back(frame.body);
    }
  };
  while (two.queued() > 0) {
    ASSERT_TRUE(two.flush());
    ASSERT_EQ(pair.one->receive(sink), Link::State::open);
  }
  while (got.size() < 3) ASSERT_EQ(pair.one->receive(sink), Link::State::open);
  EXPECT_EQ(got[0], to_json(PassSignal{2}));
  EXPECT_EQ(got[1], "bytes");
  EXPECT_EQ(got[2], to_json(KillAll{}));
}

TEST(Link, TheEndAndNonsenseAreTold) {
  const auto ignore = [](const Link::Frame&) { FAIL() << "no frame was sent"; };
  Pair pair;
  pair.raw.reset();
  EXPECT_EQ(pair.one->receive(ignore), Link::State::ended);

  Pair noisy;
  const std::string motd(64, '#');
  EXPECT_EQ(ipc::write_full(noisy.raw.get(), motd.data(), motd.size()), static_cast<ssize_t>(motd.size()));
  EXPECT_EQ(noisy.one->receive(ignore), Link::State::broken);

  Pair huge;
  net::FrameHeader header{};
  header.kind = static_cast<std::uint8_t>(net::FrameKind::bytes);
  header.length = 0xffffffffu;
  EXPECT_EQ(ipc::write_full(huge.raw.get(), &header, sizeof header), static_cast<ssize_t>(sizeof header));
  EXPECT_EQ(huge.one->receive(ignore), Link::State::broken);
}

}  // namespace
}  // namespace dsm::launch
