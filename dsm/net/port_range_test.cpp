#include "dsm/net/port_range.hpp"

#include <gtest/gtest.h>

#include <system_error>

#include "ipc/socket.hpp"

namespace dsm::net {
namespace {

TEST(PortRange, IsTwoPortsAndADash) {
  const auto ports = parse_ports("4000-4099");
  ASSERT_TRUE(ports.has_value());
  EXPECT_EQ(ports->first, 4000);
  EXPECT_EQ(ports->last, 4099);
  EXPECT_EQ(to_text(*ports), "4000-4099");
  EXPECT_TRUE(parse_ports("7-7").has_value());
  EXPECT_TRUE(parse_ports("1-65535").has_value());
  for (const char* text : {"", "-", "4000", "4000-", "-4000", "0-10", "5-4", "1-65536", "1-99999999999", "a-b", "1-2-3",
                           " 1-2", "1- 2", "1-2 ", "+1-2"}) {
    EXPECT_FALSE(parse_ports(text).has_value()) << text;
  }
}

TEST(PortRange, NoneLeavesTheChoiceToTheKernel) {
  const ipc::Fd one = listen_within("127.0.0.1", {}, 1), other = listen_within("127.0.0.1", {}, 1);
  EXPECT_NE(ipc::local_port(one.get()), ipc::local_port(other.get()));
}

TEST(PortRange, ThePortsOfOthersAreSteppedOver) {
  const ipc::Fd taken = listen_within("127.0.0.1", {}, 1);
  const std::uint16_t port = ipc::local_port(taken.get());
  EXPECT_THROW((void)listen_within("127.0.0.1", {port, port}, 1), std::system_error);
  const auto last = static_cast<std::uint16_t>(port < 65000 ? port + 500 : 65535);
  const std::uint16_t next = ipc::local_port(listen_within("127.0.0.1", {port, last}, 1).get());
  EXPECT_GT(next, port);
  EXPECT_LE(next, last);
  try {
    (void)listen_within("127.0.0.1", {port, port}, 1);
    FAIL() << "the port was taken";
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code(), std::errc::address_in_use);
    EXPECT_NE(std::string(error.what()).find("in use"), std::string::npos);
  }
}

TEST(PortRange, AWrongAddressIsNotTakenForABusyPort) {
  EXPECT_THROW((void)listen_within("203.0.113.1", {4000, 65535}, 1), std::system_error);
}

}  // namespace
}  // namespace dsm::net
