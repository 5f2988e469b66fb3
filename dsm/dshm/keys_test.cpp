#include "dsm/dshm/keys.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dsm::dshm {
namespace {

KeyFilter filter(const char* text) {
  std::string why;
  const auto parsed = KeyFilter::parse(text, why);
  EXPECT_TRUE(parsed.has_value()) << text << ": " << why;
  return parsed.value_or(KeyFilter{});
}

std::string complaint(const char* text) {
  std::string why;
  EXPECT_FALSE(KeyFilter::parse(text, why).has_value()) << text;
  return why;
}

TEST(Keys, UnsaidItIsAllButThatOfOpenSsl) {
  const KeyFilter usual;
  EXPECT_FALSE(usual.none());
  for (const int key : {0, 1, 113, 115, 0x7fffffff, -1}) EXPECT_TRUE(usual.ours(key)) << key;
  EXPECT_FALSE(usual.ours(114));
}

TEST(Keys, AllIsAll) {
  for (const int key : {0, 114, -1}) EXPECT_TRUE(filter("all").ours(key)) << key;
}

TEST(Keys, NoneIsNoneNotEvenPrivateOnes) {
  EXPECT_TRUE(filter("none").none());
  for (const int key : {0, 1, 114, -1}) EXPECT_FALSE(filter("none").ours(key)) << key;
}

TEST(Keys, RangesHaveBothTheirEnds) {
  const KeyFilter some = filter("10-20,0x40,0xfffffff0-0xffffffff");
  for (const int key : {0, 10, 15, 20, 64, -1, -16}) EXPECT_TRUE(some.ours(key)) << key;
  for (const int key : {9, 21, 63, 65, 114, -17}) EXPECT_FALSE(some.ours(key)) << key;
}

TEST(Keys, WhatIsNoFilterSaysWhy) {
  for (const char* text : {"", ",", "1,", "x", "1-", "-1", "1-2-3", "0x", "1 ", "4294967296", "ALL"})
    EXPECT_THAT(complaint(text), ::testing::HasSubstr("is no key and no LOW-HIGH")) << text;
  EXPECT_EQ(complaint("1,9-8"), "'9-8' ends before it begins");
  EXPECT_THAT(complaint("\n"), ::testing::StartsWith("'?' is no key"));
}

}  // namespace
}  // namespace dsm::dshm
