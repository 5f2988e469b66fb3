#include "dsm/launch/machine_file.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace dsm::launch {
namespace {

std::string refusal(std::string_view text) {
  try {
    (void)parse_machine_file(text, "hosts");
  } catch (const MachineFileError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(MachineFile, CommentsBlankLinesCrlfAndMissingLastNewline) {
  const auto machines = parse_machine_file("# all of them\r\n\r\n one  # first\r\n\ttwo\r\none", "hosts");
  ASSERT_EQ(machines.size(), 3u);
  EXPECT_EQ(machines[0].host, "one");
  EXPECT_EQ(machines[0].line, 3);
  EXPECT_EQ(machines[1].host, "two");
  EXPECT_EQ(machines[2].host, "one");
  EXPECT_EQ(machines[2].line, 5);
}

TEST(MachineFile, UserPortSlotsAndVersion6) {
  const auto machines = parse_machine_file(
      "\xef\xbb\xbfhost slots=4\nann@host.example:2222\n[fe80::1]:22\n[::1]\nfe80::2\nbob@[::1]:7 slots=2\n", "hosts");
  ASSERT_EQ(machines.size(), 6u);
  EXPECT_EQ(machines[0].slots, 4);
  EXPECT_EQ(machines[1].user, "ann");
  EXPECT_EQ(machines[1].host, "host.example");
  EXPECT_EQ(machines[1].port, 2222);
  EXPECT_EQ(machines[2].host, "fe80::1");
  EXPECT_EQ(machines[2].port, 22);
  EXPECT_EQ(machines[3].port, 0);
  EXPECT_EQ(machines[4].host, "fe80::2");
  EXPECT_EQ(machines[5].user, "bob");
  EXPECT_EQ(machines[5].slots, 2);
}

TEST(MachineFile, BadLinesAreNamedByFileAndLine) {
  for (const std::string_view bad :
       {"host slots=0", "host slots=", "host slots=x", "host slots=257", "host slots=2 slots=2", "host other", "host:0",
        "host:65536", "host:", "host:22x", "[::1", "[::1]22", "[nonsense]:22", "@host", "a@", "-oProxyCommand=x",
        "ho/st", "a b c", "ho\x01st"}) {
    const std::string why = refusal("good\n" + std::string(bad) + "\ngood\n");
    EXPECT_EQ(why.substr(0, 9), "hosts:2: ") << bad << " -> " << why;
    EXPECT_EQ(why.find('\n'), std::string::npos);
    EXPECT_EQ(why.find('\x01'), std::string::npos);
  }
}

// They were taken for IPv6 addresses, and then shown in front of output and handed to ssh as they were.
TEST(MachineFile, BytesBehindAnIpv6AddressWereTakenUnseen) {
  using namespace std::string_literals;
  for (const std::string& bad : {"::1%\x1b[31m"s, "::1%"s, "::1%-oX"s, "::1%a/b"s, "::1%`id`"s, "[::1%a;b]:22"s,
                                 "::1\0x"s, "[::1\0$x]:22"s, "::1%" + std::string(16, 'z')}) {
    EXPECT_EQ(refusal("good\n" + bad + "\n").substr(0, 8), "hosts:2:") << bad;
  }
  const auto machines = parse_machine_file("fe80::1%eth0\nann@[fe80::2%br-1.2]:22\n", "hosts");
  ASSERT_EQ(machines.size(), 2u);
  EXPECT_EQ(machines[0].host, "fe80::1%eth0");
  EXPECT_EQ(machines[1].host, "fe80::2%br-1.2");
  EXPECT_EQ(machines[1].port, 22);
}

TEST(MachineFile, NoMachineIsRefused) {
  for (const std::string_view empty : {"", "\n\n", "# nothing\n", "\xef\xbb\xbf"}) {
    EXPECT_NE(refusal(empty).find("names no machine"), std::string::npos);
  }
}

TEST(MachineFile, UnreadableFilesSayWhy) {
  EXPECT_THROW((void)read_machine_file("/no/such/file"), MachineFileError);
  EXPECT_THROW((void)read_machine_file("/"), MachineFileError);
  EXPECT_THROW((void)read_machine_file("/dev/zero"), MachineFileError);
}

TEST(MachineFile, ThisMachineIsKnownByItsNames) {
  const std::vector<std::string> own = {"Castle.example", "castle", "10.1.2.3"};
  for (const char* host :
       {"localhost", "LOCALHOST", "127.0.0.1", "127.9.8.7", "::1", "castle.EXAMPLE", "castle", "10.1.2.3"}) {
    EXPECT_TRUE(is_this_machine(host, own)) << host;
  }
  for (const char* host : {"castl", "128.0.0.1", "127.0.0.1.example", "10.1.2.4", "::2", ""}) {
    EXPECT_FALSE(is_this_machine(host, own)) << host;
  }
}

TEST(MachineFile, PlacementFollowsTheLinesAndWrapsRound) {
  const auto machines = parse_machine_file("a slots=2\nb\n", "hosts");
  const auto hosts = [&machines](int ranks) {
    std::string text;
    for (const Machine& machine : place(machines, ranks)) text += machine.host;
    return text;
  };
  EXPECT_EQ(slots_of(machines), 3);
  EXPECT_EQ(hosts(0), "aab");
  EXPECT_EQ(hosts(2), "aa");
  EXPECT_EQ(hosts(5), "aabaa");
}

}  // namespace
}  // namespace dsm::launch
