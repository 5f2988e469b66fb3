#include <gtest/gtest.h>

#include <string>

#include "dsm/net/channel.hpp"
#include "dsm/net/testing.hpp"

namespace dsm::net {
namespace {

using namespace dsm::net::testing;

// receive() looked for whole frames in the buffer before it looked at what had become of the connection.
TEST(Channel, AFrameBehindOneThatBrokeTheConnectionWasTakenForGood) {
  SocketPair sockets = tcp_pair();
  Channel channel(std::move(sockets.one), 16);
  const FrameHeader good = bytes_frame(1), too_long = bytes_frame(2, 17);
  std::string stream;
  for (const FrameHeader* header : {&good, &too_long, &good})
    stream.append(reinterpret_cast<const char*>(header), sizeof *header);
  write_text(sockets.other.get(), stream);

  FrameHeader header{};
  const std::uint8_t* body = nullptr;
  ASSERT_EQ(next_frame(channel, header, body), Io::done);
  EXPECT_EQ(header.a, 1u);
  ASSERT_EQ(channel.receive_header(header), Io::broken);
  EXPECT_EQ(channel.receive(header, body), Io::broken);
  EXPECT_EQ(channel.receive(header, body, Ahead::no), Io::broken);
  EXPECT_EQ(channel.receive_header(header), Io::broken);
}

}  // namespace
}  // namespace dsm::net
