#include "dsm/net/rendezvous.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "dsm/net/testing.hpp"

namespace dsm::net {
namespace {

using namespace dsm::net::testing;
using nlohmann::json;

Join sample_join() { return {3, 4711, 40123, {"x86_64", "little", 4096, 1}}; }

Welcome sample_welcome() {
  return {{{"127.0.0.1", 4000}, {"::1", 65535}}, "msi", "block", "uffd", 1 << 30, 4096, 4, 50};
}

Enter sample_enter() { return {"pi-2.b_c", 3, 4711, 2, {"x86_64", "little", 4096, 1}}; }

Place sample_place() {
  Place place{63, {}, 600};
  for (std::size_t i = 0; i < place.nonce.size(); ++i) place.nonce[i] = static_cast<std::uint8_t>(i * 8 + 1);
  return place;
}

TEST(Rendezvous, EnterAndPlaceComeBackAsTheyWere) {
  const auto enter = from_json(to_json(sample_enter()));
  ASSERT_TRUE(enter && std::holds_alternative<Enter>(*enter));
  EXPECT_EQ(std::get<Enter>(*enter).session, "pi-2.b_c");
  EXPECT_EQ(std::get<Enter>(*enter).members, 3);
  EXPECT_EQ(std::get<Enter>(*enter).pid, 4711);
  EXPECT_EQ(std::get<Enter>(*enter).cores, 2);
  EXPECT_EQ(std::get<Enter>(*enter).platform, sample_enter().platform);
  const auto place = from_json(to_json(sample_place()));
  ASSERT_TRUE(place && std::holds_alternative<Place>(*place));
  EXPECT_EQ(std::get<Place>(*place).rank, 63);
  EXPECT_EQ(std::get<Place>(*place).nonce, sample_place().nonce);
  EXPECT_EQ(std::get<Place>(*place).patience_s, 600);
}

TEST(Rendezvous, AVerdictComesAsItsTextAndIsCut) {
  SocketPair sockets = tcp_pair();
  Channel member(std::move(sockets.one), max_control_body), daemon(std::move(sockets.other), max_control_body);
  for (const std::string& line : {std::string("rank 1 was lost"), std::string(max_verdict + 7, 'x')}) {
    ASSERT_EQ(send_verdict(daemon, line), Io::done);
    FrameHeader header;
    const std::uint8_t* body = nullptr;
    ASSERT_EQ(next_frame(member, header, body), Io::done);
    EXPECT_EQ(read_verdict(header, body), line.substr(0, max_verdict));
    EXPECT_FALSE(read_report(header));
    EXPECT_FALSE(read_control(header, body));
  }
  ASSERT_EQ(send(daemon, Refusal{"no"}), Io::done);
  FrameHeader header;
  const std::uint8_t* body = nullptr;
  ASSERT_EQ(next_frame(member, header, body), Io::done);
  EXPECT_TRUE(read_verdict(header, body).empty());
}

TEST(Rendezvous, JoinComesBackAsItWas) {
  const auto back = from_json(to_json(sample_join()));
  ASSERT_TRUE(back && std::holds_alternative<Join>(*back));
  const Join& join = std::get<Join>(*back);
  EXPECT_EQ(join.rank, 3);
  EXPECT_EQ(join.pid, 4711);
  EXPECT_EQ(join.mesh_port, 40123);
  EXPECT_EQ(join.platform, sample_join().platform);
}

TEST(Rendezvous, WelcomeComesBackAsItWas) {
  const auto back = from_json(to_json(sample_welcome()));
  ASSERT_TRUE(back && std::holds_alternative<Welcome>(*back));
  const Welcome& welcome = std::get<Welcome>(*back);
  ASSERT_EQ(welcome.peers.size(), 2u);
  EXPECT_EQ(welcome.peers[1].address, "::1");
  EXPECT_EQ(welcome.peers[1].port, 65535);
  EXPECT_EQ(welcome.protocol, "msi");
  EXPECT_EQ(welcome.home, "block");
  EXPECT_EQ(welcome.pager, "uffd");
  EXPECT_EQ(welcome.size, 1u << 30);
  EXPECT_EQ(welcome.page_size, 4096u);
  EXPECT_EQ(welcome.lanes, 4u);
  EXPECT_EQ(welcome.spin_us, 50u);
}

TEST(Rendezvous, RefusalComesBackAndNeedNotBeUtf8) {
  const auto back = from_json(to_json(Refusal{"rank 3 has joined already"}));
  ASSERT_TRUE(back && std::holds_alternative<Refusal>(*back));
  EXPECT_EQ(std::get<Refusal>(*back).why, "rank 3 has joined already");
  EXPECT_TRUE(from_json(to_json(Refusal{"caf\xe9"})));
}

TEST(Rendezvous, ReportsComeBackAsTextAndAsHeader) {
  SocketPair sockets = tcp_pair();
  Channel rank(std::move(sockets.one), max_control_body), coordinator(std::move(sockets.other), max_control_body);
  for (int phase = 0; phase <= static_cast<int>(Report::Phase::bad_peer); ++phase) {
    for (const std::int64_t value : {std::int64_t{0}, std::int64_t{-1}, std::numeric_limits<std::int64_t>::max(),
                                     std::numeric_limits<std::int64_t>::min()}) {
      const Report sent{static_cast<Report::Phase>(phase), value};
      const auto text = from_json(to_json(sent));
      ASSERT_TRUE(text && std::holds_alternative<Report>(*text));
      EXPECT_EQ(std::get<Report>(*text).phase, sent.phase);
      EXPECT_EQ(std::get<Report>(*text).value, sent.value);

      ASSERT_EQ(report(rank, sent), Io::done);
      FrameHeader header;
      const std::uint8_t* body = nullptr;
      ASSERT_EQ(next_frame(coordinator, header, body), Io::done);
      const auto got = read_report(header);
      ASSERT_TRUE(got);
      EXPECT_EQ(got->phase, sent.phase);
      EXPECT_EQ(got->value, sent.value);
    }
  }
}

TEST(Rendezvous, HeadersThatAreNoReportAreRefused) {
  FrameHeader good{};
  good.kind = static_cast<std::uint8_t>(FrameKind::control);
  good.op = 1;
  ASSERT_TRUE(read_report(good));
  const auto refused = [&](auto spoil) {
    FrameHeader bad = good;
    spoil(bad);
    return !read_report(bad);
  };
  EXPECT_TRUE(refused([](FrameHeader& h) { h.kind = static_cast<std::uint8_t>(FrameKind::bye); }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.op = 0; }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.op = 6; }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.length = 2; }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.flags = 1; }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.access = 1; }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.page = 1; }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.seq = 1; }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.b = 1; }));
}

TEST(Rendezvous, ControlFramesCarryMessages) {
  SocketPair sockets = tcp_pair();
  Channel one(std::move(sockets.one), max_control_body), other(std::move(sockets.other), max_control_body);
  ASSERT_EQ(send(one, sample_join()), Io::done);
  FrameHeader header;
  const std::uint8_t* body = nullptr;
  ASSERT_EQ(next_frame(other, header, body), Io::done);
  const auto message = read_control(header, body);
  ASSERT_TRUE(message && std::holds_alternative<Join>(*message));
  header.kind = static_cast<std::uint8_t>(FrameKind::bytes);
  std::string why;
  EXPECT_FALSE(read_control(header, body, &why));
  EXPECT_EQ(why, "a frame of kind 6 where a control frame belongs");
}

// Replaces the value at a JSON pointer.
std::string spoiled(const ControlMessage& message, const std::string& where, const json& value) {
  json object = json::parse(to_json(message));
  object[json::json_pointer(where)] = value;
  return object.dump();
}

void expect_refused(const ControlMessage& good, const std::string& where, const json& value) {
  std::string why;
  ASSERT_TRUE(from_json(to_json(good)));
  EXPECT_FALSE(from_json(spoiled(good, where, value), &why)) << where << " = " << value;
  EXPECT_FALSE(why.empty());
}

TEST(Rendezvous, EveryFieldOfAJoinIsChecked) {
  const std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
  for (const json& bad :
       {json(-1), json(1e300), json(1.5), json("3"), json(nullptr), json(most), json::array(), json(true)})
    expect_refused(sample_join(), "/rank", bad);
  for (const json& bad : {json(0), json(-5), json("x"), json(most)}) expect_refused(sample_join(), "/pid", bad);
  for (const json& bad : {json(0), json(65536), json(-1), json(nullptr)})
    expect_refused(sample_join(), "/mesh_port", bad);
  for (const json& bad : {json(1), json("x"), json::array()}) expect_refused(sample_join(), "/platform", bad);
  for (const json& bad : {json(1), json(""), json(std::string(256, 'x'))}) {
    expect_refused(sample_join(), "/platform/architecture", bad);
    expect_refused(sample_join(), "/platform/byte_order", bad);
  }
  for (const json& bad : {json(0), json(4095), json(1LL << 31), json("4096")})
    expect_refused(sample_join(), "/platform/page_size", bad);
  for (const json& bad : {json(-1), json(1LL << 40), json("1")})
    expect_refused(sample_join(), "/platform/version", bad);
  for (const json& bad : {json("joi"), json(1), json("")}) expect_refused(sample_join(), "/type", bad);
}

TEST(Rendezvous, EveryFieldOfAWelcomeIsChecked) {
  const json peer = {{"address", "127.0.0.1"}, {"port", 1}};
  for (const json& bad : {json::array(), json(std::vector<json>(65, peer)), json("x"), json({1, 2})})
    expect_refused(sample_welcome(), "/peers", bad);
  for (const json& bad : {json(""), json(7), json(std::string(300, '1'))})
    expect_refused(sample_welcome(), "/peers/1/address", bad);
  for (const json& bad : {json(0), json(65536), json("80")}) expect_refused(sample_welcome(), "/peers/0/port", bad);
  for (const char* name : {"/protocol", "/home", "/pager"}) {
    for (const json& bad : {json(""), json(1)}) expect_refused(sample_welcome(), name, bad);
  }
  for (const json& bad : {json(0), json(4097), json(-4096), json(1LL << 50), json(1e9)})
    expect_refused(sample_welcome(), "/size", bad);
  for (const json& bad : {json(0), json(4097), json("4096")}) expect_refused(sample_welcome(), "/page_size", bad);
  for (const json& bad : {json(0), json(65), json(-1)}) expect_refused(sample_welcome(), "/lanes", bad);
  for (const json& bad : {json(-1), json(1'000'001)}) expect_refused(sample_welcome(), "/spin_us", bad);
}

TEST(Rendezvous, EveryFieldOfEnterAndPlaceIsChecked) {
  for (const json& bad : {json(""), json(1), json("a b"), json("a/b"), json("a\n"), json(std::string(65, 'x'))})
    expect_refused(sample_enter(), "/session", bad);
  for (const char* name : {"/members", "/pid", "/cores"}) {
    for (const json& bad : {json(0), json(-5), json("x"), json(1LL << 40)}) expect_refused(sample_enter(), name, bad);
  }
  expect_refused(sample_enter(), "/platform/page_size", json(4095));
  for (const json& bad : {json(-1), json(64), json("1")}) expect_refused(sample_place(), "/rank", bad);
  for (const json& bad : {json(std::string(63, 'a')), json(std::string(65, 'a')), json(std::string(64, 'g')), json(1)})
    expect_refused(sample_place(), "/nonce", bad);
  for (const json& bad : {json(0), json(1'000'001)}) expect_refused(sample_place(), "/patience_s", bad);
}

TEST(Rendezvous, EveryFieldMustBeThere) {
  for (const ControlMessage& good :
       {ControlMessage(sample_join()), ControlMessage(sample_welcome()), ControlMessage(sample_enter()),
        ControlMessage(sample_place()), ControlMessage(Refusal{"no"}), ControlMessage(Report{})}) {
    const json object = json::parse(to_json(good));
    for (const auto& [name, value] : object.items()) {
      json less = object;
      less.erase(name);
      std::string why;
      EXPECT_FALSE(from_json(less.dump(), &why));
      EXPECT_EQ(why, "\"" + name + "\" is missing");
    }
  }
}

TEST(Rendezvous, GarbageIsRefusedWithoutAnException) {
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("\0\0", 2), std::string("[]"), std::string("null"),
        std::string("{\"type\":\"join\""), std::string(max_control_body, '['), std::string(max_control_body + 1, ' '),
        std::string("{\"a\":").append(1000, '{')}) {
    std::string why;
    EXPECT_FALSE(from_json(text, &why));
    EXPECT_FALSE(why.empty());
  }
  // As deep as it may come, and well-formed.
  const std::size_t depth = max_control_body / 2;
  EXPECT_FALSE(from_json(std::string(depth, '[') + std::string(depth, ']')));
}

TEST(Rendezvous, MutatedMessagesNeverThrow) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const std::string sources[] = {to_json(sample_join()), to_json(sample_welcome()), to_json(Report{}),
                                 to_json(sample_enter()), to_json(sample_place())};
  int refused = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string text = sources[random() % std::size(sources)];
    for (unsigned changes = 1 + random() % 4; changes > 0; --changes) {
      const std::size_t at = random() % text.size();
      if (random() % 3 == 0)
        text.erase(at, 1 + random() % 5);
      else
        text[at] = random() % 2 == 0 ? static_cast<char>(random()) : "0123456789-.eE\"{}[]:,"[random() % 21];
      if (text.empty()) text = "x";
    }
    if (!from_json(text)) ++refused;
  }
  EXPECT_GT(refused, 1000);
}

TEST(Rendezvous, PlatformsDifferByName) {
  const Platform here = Platform::here();
  EXPECT_FALSE(here.architecture.empty());
  EXPECT_GE(here.page_size, 4096u);
  EXPECT_EQ(difference(here, here), "");
  Platform other{"x86_64", "little", 4096, 1};
  const Platform job = other;
  other.page_size = 65536;
  EXPECT_EQ(difference(job, other), "its page size is 65536, this job's is 4096");
  other = job;
  other.byte_order = "big";
  EXPECT_EQ(difference(job, other), "its byte order is big, this job's is little");
  other.architecture = "s390x";
  EXPECT_EQ(difference(job, other), "its architecture is s390x, this job's is x86_64");
  other.version = 2;
  EXPECT_EQ(difference(job, other), "its version of libdsm's protocol is 2, this job's is 1");
}

}  // namespace
}  // namespace dsm::net
