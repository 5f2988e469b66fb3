// dsmd as the home of System V objects, seen from agents: the test plays them, over real connections.
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <deque>
#include <optional>

#include "dsm/net/channel.hpp"
#include "dsm/net/key_file.hpp"
#include "dsm/sysv/wire.hpp"
#include "dsm/tests/daemon_bench.hpp"
#include "dsm/tests/job_bench.hpp"

namespace dsm::daemon::testing {
namespace {

using namespace std::chrono_literals;
using core::Message;
using Clock = std::chrono::steady_clock;
using Kind = Message::Kind;
using sysv::Answer;
using sysv::Call;
using sysv::PageFrame;
using sysv::Question;

class Agent {
 public:
  explicit Agent(Dsmd& dsmd)
      : channel_(net::connect("127.0.0.1", dsmd.port(), net::Credentials(net::read_or_make_key_file(dsmd.key_file())),
                              Clock::now() + 10s, sysv::max_frame)) {}
  Agent(Dsmd& dsmd, const std::string& name) : Agent(dsmd) {
    const Answer answer = call(hello(name));
    EXPECT_EQ(answer.error, 0) << answer.text;
  }

  static Question hello(const std::string& name) {
    return {.call = Call::hello, .size = sysv::wire_version, .text = name};
  }

  // False: the connection has ended.
  bool send(const std::vector<std::uint8_t>& body, std::uint8_t op = 0) {
    net::FrameHeader header{};
    header.length = static_cast<std::uint32_t>(body.size());
    header.kind = static_cast<std::uint8_t>(net::FrameKind::sysv);
    header.op = op;
    return channel_.send(header, body.data()) == net::Io::done;
  }
  bool send(const sysv::Frame& frame) { return send(sysv::encode(frame)); }

  // The next frame; nothing if the connection has ended. Fails the test if neither happens.
  std::optional<sysv::Frame> receive() {
    for (const auto until = Clock::now() + 20s;;) {
      net::FrameHeader header{};
      const std::uint8_t* body = nullptr;
      const net::Io io = channel_.receive(header, body);
      std::string why;
      if (io == net::Io::done) return sysv::decode({body, header.length}, why);
      if (io != net::Io::again) return {};
      pollfd one{channel_.fd(), POLLIN, 0};
      if (::poll(&one, 1, net::milliseconds_until(until)) != 0) continue;
      ADD_FAILURE() << "dsmd says nothing";
      return {};
    }
  }
  template <class T>
  T expect() {
    const std::optional<sysv::Frame> frame = receive();
    const T* const it = frame ? std::get_if<T>(&*frame) : nullptr;
    if (it == nullptr) ADD_FAILURE() << "not the frame that was expected";
    return it == nullptr ? T{} : *it;
  }
  Answer call(Question question) {
    question.request = ++request_;
    EXPECT_TRUE(send(question));
    Answer answer = expect<Answer>();
    EXPECT_EQ(answer.request, request_);
    return answer;
  }
  bool is_ended() { return !receive().has_value(); }

  std::int32_t get(std::uint64_t size, sysv::Object kind = sysv::Object::segment) {
    return static_cast<std::int32_t>(call({.call = Call::get, .kind = kind, .flags = 0666, .size = size}).value);
  }
  void attach(std::int32_t id) {
    const Answer answer = call({.call = Call::attach, .process = 1, .id = id});
    EXPECT_EQ(answer.error, 0);
    tenure = answer.tenure;
  }
  std::uint64_t attaches(std::int32_t id) {
    return call({.call = Call::stat, .id = id}).segment.value_or(sysv::SegmentStat{}).nattch;
  }
  void say(const Message& message, std::uint8_t byte = 0) {
    PageFrame frame{.tenure = tenure, .message = message};
    if (message.carries_page) frame.bytes.assign(sysv::page_bytes, byte);
    EXPECT_TRUE(send(frame));
  }
  // What it does not read waits at dsmd, and not in this machine's buffers.
  void have_no_buffer() {
    const int least = 1;
    EXPECT_EQ(::setsockopt(channel_.fd(), SOL_SOCKET, SO_RCVBUF, &least, sizeof least), 0);
  }
  void beat() { EXPECT_EQ(call({.call = Call::beat, .size = 7}).value, 7); }

  std::uint32_t tenure = 0;

 private:
  net::Channel channel_;
  std::uint32_t request_ = 0;
};

bool comes_to_say(Dsmd& dsmd, const std::string& text) { return dsmd.itself().shows(text); }

TEST(DaemonSysv, PagesMoveBetweenAgents) {
  Dsmd dsmd;
  Agent a(dsmd, "boot one lab1"), b(dsmd, "boot two lab2");
  EXPECT_TRUE(comes_to_say(dsmd, "dsmd: host lab2 (127.0.0.1) has come"));
  const std::int32_t id = a.get(5000);
  a.attach(id);
  b.attach(id);
  a.say({.kind = Kind::want, .access = core::Access::write, .page = 1});
  const PageFrame granted = a.expect<PageFrame>();
  EXPECT_EQ(granted.message.kind, Kind::grant);
  EXPECT_EQ(granted.bytes, std::vector<std::uint8_t>(sysv::page_bytes));
  b.say({.kind = Kind::want, .access = core::Access::read, .page = 1});
  const PageFrame recall = a.expect<PageFrame>();
  EXPECT_EQ(recall.message.kind, Kind::recall);
  a.say({.kind = Kind::recalled,
         .access = core::Access::read,
         .carries_page = true,
         .page = 1,
         .seq = recall.message.seq},
        42);
  EXPECT_EQ(b.expect<PageFrame>().bytes, std::vector<std::uint8_t>(sysv::page_bytes, 42));
}

TEST(DaemonSysv, AnAgentThatIsKilledDetaches) {
  Dsmd dsmd;
  Agent a(dsmd, "lab1");
  std::optional<Agent> b(std::in_place, dsmd, "lab2");
  const std::int32_t id = a.get(1);
  b->attach(id);
  EXPECT_EQ(a.attaches(id), 1u);
  b.reset();
  EXPECT_TRUE(
      comes_to_say(dsmd,
                   "dsmd: host lab2 (127.0.0.1) has gone: its connection ended; that ends 1 attach of 1 process; "
                   "its pages wait "));
  EXPECT_EQ(a.attaches(id), 0u);
}

TEST(DaemonSysv, ASilentAgentIsDropped) {
  Dsmd dsmd;
  Agent a(dsmd, "lab1");
  const auto begin = Clock::now();
  EXPECT_TRUE(a.is_ended());
  EXPECT_GE(Clock::now() - begin, 4900ms);
  EXPECT_TRUE(comes_to_say(dsmd, "dsmd: host lab1 (127.0.0.1) has gone"));
}

TEST(DaemonSysv, WhoTalksNonsenseIsDroppedAndNoOther) {
  Dsmd dsmd;
  Agent good(dsmd, "lab1");
  const std::vector<std::uint8_t> beat = sysv::encode(Question{.call = Call::beat});
  for (int way = 0; way < 4; ++way) {
    Agent bad(dsmd);
    if (way < 2) {
      EXPECT_EQ(bad.call(Agent::hello("lab2")).error, 0);
    }
    if (way == 0) bad.send(std::vector<std::uint8_t>{1, 2, 3});
    if (way == 1) bad.send(beat, 1);  // a field that is 0
    if (way == 2) bad.send(beat);     // before hello
    if (way == 3) bad.send(std::vector<std::uint8_t>{});
    EXPECT_TRUE(bad.is_ended()) << way;
    good.beat();
  }
}

TEST(DaemonSysv, WhoDoesNotReadHoldsUpNobody) {
  Dsmd dsmd;
  Agent good(dsmd, "lab1"), bad(dsmd, "lab2");
  const std::int32_t set = good.get(32000, sysv::Object::set);
  bool sent = true;
  for (std::uint32_t i = 1; sent && i < 5000; ++i) {
    sent = bad.send(Question{.call = Call::get_all, .request = i, .id = set});
    if (i % 100 == 0) good.beat();
  }
  EXPECT_TRUE(comes_to_say(dsmd, "dsmd: host lab2 (127.0.0.1) has gone"));
  good.beat();
}

// Each of them is told less than one may leave unread.
TEST(DaemonSysv, ManyWhoDoNotReadTakeNoMoreMemoryThanThereIsForAll) {
  constexpr core::Page pages = 3500;
  const std::string line = "it reads least of what all are told";
  Dsmd dsmd;
  Agent good(dsmd, "lab1");
  const std::int32_t id = good.get(pages * sysv::page_bytes);
  std::deque<Agent> bad;
  while (bad.size() < 48 && dsmd.itself().err().find(line) == std::string::npos) {
    Agent& agent = bad.emplace_back(dsmd, "lab2");
    agent.attach(id);
    agent.have_no_buffer();
    for (core::Page page = 0; page < pages; ++page) {
      const Message want{.kind = Kind::want, .access = core::Access::read, .page = page};
      if (!agent.send(PageFrame{.tenure = agent.tenure, .message = want, .bytes = {}})) break;
    }
    good.beat();
  }
  EXPECT_TRUE(comes_to_say(dsmd, line));
  good.beat();
}

TEST(DaemonSysv, SegmentsTakeNoMoreMemoryThanItWasGiven) {
  Dsmd dsmd({"--shm-size", "1M"});
  Agent a(dsmd, "lab1");
  EXPECT_GE(a.get((1u << 20) - sysv::page_bytes), 0);
  const auto error = [&](std::uint64_t size) { return a.call({.call = Call::get, .flags = 0600, .size = size}).error; };
  EXPECT_EQ(error(sysv::page_bytes + 1), ENOSPC);
  EXPECT_EQ(error(sysv::page_bytes), 0);
  EXPECT_EQ(error(1), ENOSPC);
  EXPECT_EQ(a.call({.call = Call::info}).segment_totals.value_or(sysv::SegmentTotals{}).limits.max_pages, 256u);
}

TEST(DaemonSysv, OnceThereIsNone) {
  Dsmd dsmd({"--once", "--nproc", "1"});
  {
    Agent a(dsmd);
    const Answer answer = a.call(Agent::hello("lab1"));
    EXPECT_EQ(answer.error, ENOSYS);
    EXPECT_NE(answer.text.find("--once"), std::string::npos) << answer.text;
  }
  dsmd.itself().kill(SIGTERM);
  EXPECT_EQ(dsmd.itself().wait().code(), 1) << "it has served no session";
}

TEST(DaemonSysv, WhenItEndsSoDoTheConnections) {
  Dsmd dsmd;
  Agent a(dsmd, "lab1");
  dsmd.itself().kill(SIGTERM);
  EXPECT_TRUE(a.is_ended());
  EXPECT_EQ(dsmd.itself().wait().code(), 0);
}

}  // namespace
}  // namespace dsm::daemon::testing
