#include "dsm/net/seal.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>
#include <thread>

#include "dsm/net/testing.hpp"

namespace dsm::net {
namespace {

using namespace dsm::net::testing;

using Bytes = std::vector<std::uint8_t>;

Handshake::State feed(Handshake& to, const std::string& bytes) {
  return to.feed({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
}

void pass(Handshake& from, Handshake& to) { feed(to, from.take_output()); }

// As handshake.hpp says that it is made.
std::string client_proof(const JobKey& key, bool encrypt, const std::string& hello, const std::string& answer) {
  std::string text(handshake_magic.begin(), handshake_magic.end());
  text += encrypt ? "dsm encrypted: client" : "dsm handshake: client";
  for (const std::string* side : {&hello, &answer}) text += side->substr(handshake_magic.size(), 32);
  std::string proof(32, '\0');
  crypto_generichash(reinterpret_cast<unsigned char*>(proof.data()), proof.size(),
                     reinterpret_cast<const unsigned char*>(text.data()), text.size(), key.data(), key.size());
  return proof;
}

struct Keys {
  Keys() {
    const Credentials credentials(random_key(), true);
    Handshake client(Handshake::Role::client, credentials), server(Handshake::Role::server, credentials);
    pass(client, server);
    pass(server, client);
    pass(client, server);
    one = client.session().value();
    other = server.session().value();
  }
  SessionKeys one{}, other{};
};

// Two channels, and every byte from the first passes through the test's hands on its way to the second.
struct Wire {
  explicit Wire(std::size_t queue = 64)
      : one(end(0), page_size, queue, keys.one), other(end(2), page_size, queue, keys.other) {}
  ipc::Fd end(std::size_t pair) {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    raw[pair / 2] = ipc::Fd(fds[1]);
    return ipc::Fd(fds[0]);
  }
  Bytes take() const {  // what the first has sent
    Bytes bytes(1 << 16);
    const ssize_t got = ::recv(raw[0].get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    bytes.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return bytes;
  }
  void give(const Bytes& bytes) const { write_bytes(raw[1].get(), bytes.data(), bytes.size()); }
  ipc::Fd raw[2];
  Keys keys;
  Channel one, other;
};

Bytes page_of(std::uint8_t byte) { return Bytes(page_size, byte); }

TEST(Seal, FramesArriveAsTheyWereAndOnTheWireNothingOfThemIsSeen) {
  Wire wire;
  const Bytes page = page_of('x');
  ASSERT_EQ(wire.one.send(bytes_frame(0x1122334455667788), nullptr), Io::done);
  ASSERT_EQ(wire.one.send(bytes_frame(7, page_size), page.data()), Io::done);
  const Bytes sent = wire.take();
  EXPECT_EQ(sent.size(), Seal::stream_header_size + 2 * Seal::header_record_size + Seal::body_record_size(page_size));
  EXPECT_LT(std::count(sent.begin(), sent.end(), 'x'), 100) << "of 4096, each value should be seen about 16 times";
  wire.give(sent);
  FrameHeader header;
  const std::uint8_t* body = nullptr;
  ASSERT_EQ(wire.other.receive(header, body), Io::done);
  EXPECT_EQ(header.a, 0x1122334455667788U);
  ASSERT_EQ(wire.other.receive(header, body), Io::done);
  EXPECT_EQ(Bytes(body, body + header.length), page);
  EXPECT_EQ(wire.other.receive(header, body), Io::again);
}

TEST(Seal, EveryWayOfReceivingOpensThem) {
  for (int way = 0; way < 3; ++way) {
    SCOPED_TRACE(way);
    Keys keys;
    SocketPair sockets = tcp_pair();
    Channel one(std::move(sockets.one), page_size, 64, keys.one),
        other(std::move(sockets.other), page_size, 64, keys.other);
    constexpr std::uint64_t frames = 200;
    std::thread sender([&] {
      for (std::uint64_t i = 0; i < frames; ++i) {
        const Bytes page = page_of(static_cast<std::uint8_t>(i));
        ASSERT_EQ(one.send(bytes_frame(i, i % 3 == 0 ? 0 : page_size), page.data()), Io::done);
      }
    });
    for (std::uint64_t i = 0; i < frames; ++i) {
      FrameHeader header;
      Bytes place(page_size);
      if (way == 0) {
        const std::uint8_t* body = nullptr;
        ASSERT_EQ(next_frame(other, header, body), Io::done);
        std::copy_n(body, std::size_t{header.length}, place.begin());
      } else if (way == 1) {
        ASSERT_EQ(other.receive_header(header), Io::done);
        ASSERT_EQ(other.receive_body(place.data()), Io::done);
      } else {
        ASSERT_EQ(other.receive_into(header, place.data(), page_size), Io::done);
      }
      ASSERT_EQ(header.a, i);
      if (i % 3 != 0) {
        ASSERT_EQ(place, page_of(static_cast<std::uint8_t>(i)));
      }
    }
    sender.join();
    EXPECT_EQ(one.counters().bytes_out, other.counters().bytes_in);
  }
}

TEST(Seal, AFullSocketHoldsASealedFrameUntilThereIsRoom) {
  constexpr std::size_t frames = 300;
  Wire wire(frames);
  Bytes page = page_of(1), zeros(page_size);
  for (std::size_t i = 0; i < frames; ++i) ASSERT_TRUE(wire.one.queue(bytes_frame(i, page_size), page.data()));
  ASSERT_EQ(wire.one.flush(), Io::again);
  const std::size_t gone = frames - wire.one.queued();
  wire.one.withdraw(page.data(), zeros.data());
  page = page_of(2);
  for (std::size_t i = 0; i < frames; ++i) {
    FrameHeader header;
    const std::uint8_t* body = nullptr;
    while (wire.other.receive(header, body) == Io::again) {
      (void)wire.one.flush();
      wire.give(wire.take());
    }
    ASSERT_EQ(header.a, i);
    const Bytes got(body, body + header.length);
    EXPECT_EQ(got, i <= gone ? page_of(1) : zeros) << i << " of which " << gone << " had gone";
  }
  EXPECT_EQ(wire.one.queued(), 0U);
}

// The bytes of three frames, and where each begins.
struct Recorded {
  explicit Recorded(const Wire& wire, Channel& from) {
    for (std::uint64_t i = 0; i < 3; ++i) {
      EXPECT_EQ(from.send(bytes_frame(i, 16), "sixteen bytes ab"), Io::done);
      frames.push_back(wire.take());
    }
  }
  std::vector<Bytes> frames;
};

Io first_not_done(Channel& channel, std::uint64_t& whole) {
  FrameHeader header;
  const std::uint8_t* body = nullptr;
  Io io = Io::done;
  for (whole = 0; (io = channel.receive(header, body)) == Io::done; ++whole) EXPECT_EQ(header.a, whole);
  return io;
}

TEST(Seal, EachByteThatIsChangedIsNoticed) {
  Wire probe;
  const std::size_t size = Recorded(probe, probe.one).frames[0].size();
  for (std::size_t at = 0; at < size; ++at) {
    Wire wire;
    Recorded recorded(wire, wire.one);
    recorded.frames[0][at] ^= 0x40;
    wire.give(recorded.frames[0]);
    std::uint64_t whole = 0;
    ASSERT_EQ(first_not_done(wire.other, whole), Io::broken) << "byte " << at;
    ASSERT_EQ(whole, 0U);
    ASSERT_EQ(first_not_done(wire.other, whole), Io::broken) << "and stays so";
  }
}

// Wherever it ends: no frame comes of a part of one, and what is whole is taken.
TEST(Seal, WhatIsCutOffIsNoFrame) {
  Wire probe;
  const std::size_t size = Recorded(probe, probe.one).frames[1].size();
  for (std::size_t left = 0; left <= size; ++left) {
    Wire wire;
    Recorded recorded(wire, wire.one);
    recorded.frames[1].resize(left);
    wire.give(recorded.frames[0]);
    wire.give(recorded.frames[1]);
    wire.raw[1].reset();
    std::uint64_t whole = 0;
    Io io = first_not_done(wire.other, whole);
    FrameHeader header;
    const std::uint8_t* body = nullptr;
    if (io == Io::again) io = wire.other.receive(header, body);  // the end is behind what was read last
    ASSERT_EQ(io, Io::closed) << left;
    ASSERT_EQ(whole, left == size ? 2U : 1U) << left;
  }
}

// What comes behind it may well be the peer's: it is not asked for.
TEST(Seal, NothingIsTakenBehindWhatWasChanged) {
  for (const bool waits : {false, true}) {
    Wire wire;
    Recorded recorded(wire, wire.one);
    recorded.frames[1].back() ^= 1;
    for (const Bytes& frame : recorded.frames) wire.give(frame);
    FrameHeader header;
    const std::uint8_t* body = nullptr;
    ASSERT_EQ(wire.other.receive(header, body), Io::done);
    std::array<char, 16> place{};
    const auto next = [&] {
      return waits ? wire.other.receive_into(header, place.data(), place.size()) : wire.other.receive(header, body);
    };
    EXPECT_EQ(next(), Io::broken);
    EXPECT_EQ(next(), Io::broken);
    EXPECT_EQ(place, decltype(place){}) << "nothing of a page that is not the peer's";
  }
}

// A service thread has looked, and found the header only; then somebody waits for that frame.
TEST(Seal, AFrameThatWasBegunWithoutWaitingCanBeWaitedFor) {
  Wire wire;
  const Recorded recorded(wire, wire.one);
  const Bytes& first = recorded.frames[0];
  const auto half = first.begin() + Seal::stream_header_size + Seal::header_record_size + 3;
  wire.give(Bytes(first.begin(), half));
  FrameHeader header;
  const std::uint8_t* body = nullptr;
  ASSERT_EQ(wire.other.receive(header, body), Io::again);
  wire.give(Bytes(half, first.end()));
  std::string place(16, ' ');
  ASSERT_EQ(wire.other.receive_into(header, place.data(), place.size()), Io::done);
  EXPECT_EQ(place, "sixteen bytes ab");
  EXPECT_EQ(wire.other.counters().frames_in, 1U);
}

TEST(Seal, WhatIsRepeatedLeftOutOrMovedIsNotOpened) {
  const auto after = [](const std::vector<std::size_t>& order) {
    Wire wire;
    const Recorded recorded(wire, wire.one);
    for (const std::size_t i : order) wire.give(recorded.frames[i]);
    std::uint64_t whole = 0;
    const Io io = first_not_done(wire.other, whole);
    return std::to_string(whole) + (io == Io::broken ? " broken" : " whole");
  };
  EXPECT_EQ(after({0, 1, 2}), "3 whole");
  EXPECT_EQ(after({0, 1, 1}), "2 broken");
  EXPECT_EQ(after({0, 2}), "1 broken");
  EXPECT_EQ(after({0, 2, 1}), "1 broken");
  EXPECT_EQ(after({1}), "0 broken");
}

TEST(Seal, WhatOneHasSentIsNotOpenedByItselfNorOnAnotherConnectionOfTheJob) {
  Wire wire, other_connection;
  const Recorded recorded(wire, wire.one);
  std::uint64_t whole = 0;
  write_bytes(wire.raw[0].get(), recorded.frames[0].data(), recorded.frames[0].size());
  EXPECT_EQ(first_not_done(wire.one, whole), Io::broken);
  other_connection.give(recorded.frames[0]);
  EXPECT_EQ(first_not_done(other_connection.other, whole), Io::broken);
  EXPECT_EQ(whole, 0U);
}

TEST(Seal, AnAnnouncedLengthThatIsTooLongIsNotAllocated) {
  Wire wire;
  Channel longer(wire.end(0), 2 * page_size, 64, wire.keys.one);
  const Bytes much(2 * page_size, 1);
  ASSERT_EQ(longer.send(bytes_frame(0, much.size()), much.data()), Io::done);
  wire.give(wire.take());
  std::uint64_t whole = 0;
  EXPECT_EQ(first_not_done(wire.other, whole), Io::broken);
}

TEST(Seal, TheKeysOfTheTwoDirectionsFitAndAreNotTheSame) {
  const Keys keys, others;
  EXPECT_EQ(keys.one.send, keys.other.receive);
  EXPECT_EQ(keys.one.receive, keys.other.send);
  EXPECT_NE(keys.one.send, keys.one.receive);
  EXPECT_NE(keys.one.send, others.one.send);
}

// Each tells its own user; neither has said anything in the clear that the other would take.
TEST(Seal, BothMustWantIt) {
  const JobKey key = random_key();
  for (const bool server_encrypts : {false, true}) {
    Handshake client(Handshake::Role::client, Credentials(key, !server_encrypts)),
        server(Handshake::Role::server, Credentials(key, server_encrypts));
    pass(client, server);
    pass(server, client);
    EXPECT_EQ(client.state(), Handshake::State::refused);
    EXPECT_EQ(client.why(), server_encrypts ? "the peer encrypts (--encrypt), and this side does not"
                                            : "the peer does not encrypt, and this side does (--encrypt)");
    EXPECT_FALSE(client.session().has_value());
    EXPECT_EQ(client.take_output(), "");
    EXPECT_EQ(server.state(), Handshake::State::running);
  }
}

// A client that goes on all the same, and proves the key as one proves it who encrypts, or does not.
TEST(Seal, AProofOfTheOtherWishIsNoProof) {
  const JobKey key = random_key();
  for (const bool server_encrypts : {false, true}) {
    Handshake client(Handshake::Role::client, Credentials(key)),
        server(Handshake::Role::server, Credentials(key, server_encrypts));
    const std::string hello = client.take_output();
    feed(server, hello);
    const std::string answer = server.take_output();
    EXPECT_EQ(feed(server, client_proof(key, !server_encrypts, hello, answer)), Handshake::State::refused);
    EXPECT_EQ(server.why(), server_encrypts ? "the peer does not encrypt, and this side does (--encrypt)"
                                            : "the peer encrypts (--encrypt), and this side does not");
    EXPECT_FALSE(server.session().has_value());
  }
}

}  // namespace
}  // namespace dsm::net
