#include "dsm/net/session_address.hpp"

#include <gtest/gtest.h>

namespace dsm::net {
namespace {

TEST(SessionAddress, IsHostPortNameAndNumber) {
  std::string why;
  const auto one = parse_session("node1.lab:8080/pi-2.b_c:3", why);
  ASSERT_TRUE(one) << why;
  EXPECT_EQ(one->host, "node1.lab");
  EXPECT_EQ(one->port, 8080);
  EXPECT_EQ(one->session, "pi-2.b_c");
  EXPECT_EQ(one->members, 3);
  EXPECT_EQ(one->daemon(), "node1.lab:8080");
  const auto six = parse_session("[fe80::1]:1/x:64", why);
  ASSERT_TRUE(six) << why;
  EXPECT_EQ(six->host, "fe80::1");
  EXPECT_EQ(six->daemon(), "[fe80::1]:1");
  const auto beside = parse_session("localhost:65535/pi", 2, why);
  ASSERT_TRUE(beside) << why;
  EXPECT_EQ(beside->members, 2);
}

TEST(SessionAddress, WhatIsWrongIsSaidInOneLineThatShowsWhatIsNeeded) {
  const auto expect_why = [](const std::string& text, const std::string& part) {
    std::string why;
    EXPECT_FALSE(parse_session(text, why)) << text;
    EXPECT_NE(why.find(part), std::string::npos) << text << ": " << why;
    EXPECT_NE(why.find("host:port/name:N is needed, as in localhost:8080/pi:3"), std::string::npos) << why;
    EXPECT_EQ(why.find('\n'), std::string::npos) << why;
  };
  for (const char* text : {"", "pi", "localhost:8080", "localhost:8080:3"}) expect_why(text, "there is no /");
  for (const char* text : {"localhost/pi:3", "/pi:3"}) expect_why(text, "the port is missing");
  for (const char* text : {":8080/pi:3", "[]:8080/pi:3"}) expect_why(text, text[0] == ':' ? "the host" : "brackets");
  for (const char* text : {"fe80::1:80/pi:3", "[::1:80/pi:3"}) expect_why(text, "in brackets");
  for (const char* text : {"h:0/pi:3", "h:65536/pi:3", "h:http/pi:3", "h:/pi:3", "h:80 /pi:3"})
    expect_why(text, "the port is a number from 1 to 65535");
  for (const char* text : {"h:80/:3", "h:80/a b:3", "h:80/a/b:3", "h:80/\n:3"}) expect_why(text, "the session's name");
  expect_why("h:80/" + std::string(65, 'x') + ":3", "the session's name is 1 to 64 letters");
  expect_why("h:80/pi", "the number of members");
  for (const char* text : {"h:80/pi:", "h:80/pi:0", "h:80/pi:65", "h:80/pi:x", "h:80/pi:3x", "h:80/pi:-1"})
    expect_why(text, "the number of members is 1 to 64");
  std::string why;
  for (const int members : {-1, 0, 65}) {
    EXPECT_FALSE(parse_session("h:80/pi", members, why));
    EXPECT_NE(why.find("the number of members is 1 to 64"), std::string::npos) << why;
  }
  EXPECT_FALSE(parse_session("h:80/pi:3", 3, why)) << "the number is not in the text, then";
}

}  // namespace
}  // namespace dsm::net
