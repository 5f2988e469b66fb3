#include "dsm/net/frame.hpp"

#include <gtest/gtest.h>

#include <cstring>

namespace dsm::net {
namespace {

using core::Access;
using core::Atomic;
using core::Message;
using core::SyncMessage;

constexpr std::size_t page_size = 4096;

TEST(Frame, EveryCoherenceMessageComesBackAsItWas) {
  for (int kind = 0; kind <= static_cast<int>(Message::Kind::located); ++kind) {
    if (kind >= static_cast<int>(Message::Kind::perform) && kind <= static_cast<int>(Message::Kind::performed)) continue;
    for (int access = 0; access <= static_cast<int>(Access::write); ++access) {
      for (int flags = 0; flags < 8; ++flags) {
        Message message;
        message.kind = static_cast<Message::Kind>(kind);
        message.access = static_cast<Access>(access);
        message.carries_page = (flags & 1) != 0;
        message.have = (flags & 2) != 0;
        message.prefetch = (flags & 4) != 0;
        message.page = 0xfedcba98;
        message.seq = 0x80000001;
        const FrameHeader header = encode(message, page_size);
        EXPECT_EQ(header.length, message.carries_page ? page_size : 0u);
        Message back;
        ASSERT_TRUE(decode(header, page_size, back));
        EXPECT_EQ(back, message);
      }
    }
  }
}

TEST(Frame, EveryAtomicOperationComesBackAsItWas) {
  for (const Message::Kind kind : {Message::Kind::perform, Message::Kind::performed}) {
    for (const Atomic::Kind what : {Atomic::Kind::add, Atomic::Kind::compare_swap}) {
      for (const Atomic::State state : {Atomic::State::asked, Atomic::State::done, Atomic::State::missed}) {
        const Message message{.kind = kind,
                              .page = 0xfedcba98,
                              .seq = 0x80000001,
                              .atomic = {.kind = what,
                                         .state = state,
                                         .word = page_size / 8 - 1,
                                         .value = 0xfedcba9876543210,
                                         .expected = 0x0123456789abcdef}};
        Message back;
        ASSERT_TRUE(decode(encode(message, page_size), page_size, back));
        EXPECT_EQ(back, message);
      }
    }
  }
}

TEST(Frame, RefusesAtomicOperationsThatAreNone) {
  const Message message{.kind = Message::Kind::perform, .atomic = {.kind = Atomic::Kind::add, .value = 1}};
  const FrameHeader good = encode(message, page_size);
  Message out;
  ASSERT_TRUE(decode(good, page_size, out));
  const auto refused = [&](auto spoil) {
    FrameHeader bad = good;
    spoil(bad);
    return !decode(bad, page_size, out);
  };
  EXPECT_TRUE(refused([](FrameHeader& h) { h.flags = 0; }));     // no operation
  EXPECT_TRUE(refused([](FrameHeader& h) { h.flags = 0x18; }));  // one that there is not
  EXPECT_TRUE(refused([](FrameHeader& h) { h.flags = 0x68; }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.flags = 0x88; }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.word = page_size / 8; }));  // beside the page
  EXPECT_TRUE(refused([](FrameHeader& h) { h.word = 0xffffffff; }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.spare = 1; }));
}

TEST(Frame, EverySyncMessageComesBackAsItWas) {
  for (int kind = 0; kind <= static_cast<int>(SyncMessage::Kind::cond_wake); ++kind) {
    for (unsigned flags = 0; flags < 16; ++flags) {
      const SyncMessage message{.kind = static_cast<SyncMessage::Kind>(kind),
                                .yes = (flags & 1U) != 0,
                                .attempt = (flags & 2U) != 0,
                                .all = (flags & 4U) != 0,
                                .full = (flags & 8U) != 0,
                                .waiter = 65535,
                                .node = 255,
                                .key = 0xfedcba9876543210,
                                .number = 0x0123456789abcdef};
      const FrameHeader header = encode(message);
      EXPECT_EQ(header.length, 0u);
      SyncMessage back;
      ASSERT_TRUE(decode(header, back));
      EXPECT_EQ(back, message);
    }
  }
}

TEST(Frame, IsLittleEndianOnTheWire) {
  FrameHeader header =
      encode(Message{Message::Kind::recalled, Access::write, true, false, true, 0x11223344, 0x55667788}, page_size);
  header.a = 0x0102030405060708;
  header.b = 0x090a0b0c0d0e0f10;
  header.word = 0x11121314;
  const std::uint8_t expected[40] = {0x00, 0x10, 0,    0,    1,    3,    2,    5,    0x44, 0x33, 0x22, 0x11,
                                     0x88, 0x77, 0x66, 0x55, 8,    7,    6,    5,    4,    3,    2,    1,
                                     0x10, 0x0f, 0x0e, 0x0d, 0x0c, 0x0b, 0x0a, 0x09, 0x14, 0x13, 0x12, 0x11};
  EXPECT_EQ(std::memcmp(&header, expected, sizeof expected), 0);
}

// Each entry spoils one thing in a good header.
TEST(Frame, RefusesMalformedCoherenceMessages) {
  const FrameHeader good = encode(Message{Message::Kind::grant, Access::read, true, false, false, 7, 9}, page_size);
  Message out;
  ASSERT_TRUE(decode(good, page_size, out));
  const auto refused = [&](auto spoil) {
    FrameHeader bad = good;
    spoil(bad);
    Message untouched{Message::Kind::recall, Access::none, false, false, false, 1, 2};
    const Message before = untouched;
    const bool taken = decode(bad, page_size, untouched);
    EXPECT_EQ(untouched, before);
    return !taken;
  };
  EXPECT_TRUE(refused([](FrameHeader& h) { h.kind = static_cast<std::uint8_t>(FrameKind::sync); }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.op = 11; }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.op = 255; }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.access = 3; }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.flags = 9; }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.flags = 0; }));  // a page that is not announced
  EXPECT_TRUE(refused([](FrameHeader& h) { h.length = 0; }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.length = page_size - 1; }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.length = 0xffffffff; }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.a = 1; }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.b = 1; }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.word = 1; }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.spare = 1; }));
}

TEST(Frame, RefusesMalformedSyncMessages) {
  const FrameHeader good = encode(SyncMessage{.kind = SyncMessage::Kind::lock_want, .waiter = 3, .key = 5});
  SyncMessage out;
  ASSERT_TRUE(decode(good, out));
  const auto refused = [&](auto spoil) {
    FrameHeader bad = good;
    spoil(bad);
    return !decode(bad, out);
  };
  EXPECT_TRUE(refused([](FrameHeader& h) { h.kind = static_cast<std::uint8_t>(FrameKind::coherence); }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.op = static_cast<std::uint8_t>(SyncMessage::Kind::cond_wake) + 1; }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.access = 1; }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.flags = 16; }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.length = 1; }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.seq = 65536; }));
  EXPECT_TRUE(refused([](FrameHeader& h) { h.page = 256; }));
}

}  // namespace
}  // namespace dsm::net
