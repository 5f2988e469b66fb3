#include "dsm/dshm/command_line.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace dsm::dshm {
namespace {

std::optional<CommandLine> read(std::vector<const char*> words, std::string* complaint = nullptr) {
  words.insert(words.begin(), "dshmrun");
  std::string why;
  auto line = read_command_line(words, why);
  if (complaint != nullptr) *complaint = why;
  return line;
}

std::string complaint(const std::vector<const char*>& words) {
  std::string why;
  EXPECT_FALSE(read(words, &why).has_value());
  return why;
}

TEST(CommandLine, AProgramIsEnough) {
  const auto line = read({"ls", "-l"});
  ASSERT_TRUE(line.has_value());
  EXPECT_EQ(line->program, 1U);
  EXPECT_EQ(line->server, "");
  EXPECT_FALSE(line->help);
}

TEST(CommandLine, TheServerIsSaidInFourWays) {
  for (const std::vector<const char*>& words : std::vector<std::vector<const char*>>{
           {"-s", "a:1", "ls"}, {"--server", "a:1", "ls"}, {"-sa:1", "--", "ls"}, {"--server=a:1", "ls"}}) {
    const auto line = read(words);
    ASSERT_TRUE(line.has_value());
    EXPECT_EQ(line->server, "a:1");
    EXPECT_EQ(line->program, words.size()) << "the last word, behind dshmrun's own name";
  }
}

TEST(CommandLine, WhatStandsBehindTheProgramIsTheProgram_s) {
  const auto line = read({"prog", "-s", "nonsense", "--help"});
  ASSERT_TRUE(line.has_value());
  EXPECT_EQ(line->program, 1U);
  EXPECT_EQ(line->server, "");
}

TEST(CommandLine, Help) {
  EXPECT_TRUE(read({"--help"})->help);
  EXPECT_TRUE(read({"-s", "a:1", "-h"})->help);
}

TEST(CommandLine, MisuseIsNamed) {
  EXPECT_EQ(complaint({}), "a program is missing");
  EXPECT_EQ(complaint({"--"}), "a program is missing");
  EXPECT_EQ(complaint({"-s"}), "-s: host:port is missing");
  EXPECT_EQ(complaint({"-x", "ls"}), "there is no option -x");
  for (const char* server : {"", "a", "a:", ":1", "a:0", "a:65536", "a:1x", "a:-1"})
    EXPECT_THAT(complaint({"-s", server, "ls"}), ::testing::EndsWith(": host:port is needed, as localhost:8080"));
}

TEST(CommandLine, SixIsWellNamed) { EXPECT_EQ(wrong_with_server("[::1]:8080"), ""); }

TEST(CommandLine, PreloadKeepsWhatWasThere) {
  std::string why;
  EXPECT_EQ(preload("/lib/libdshm.so", nullptr, why), "/lib/libdshm.so");
  EXPECT_EQ(preload("/lib/libdshm.so", "", why), "/lib/libdshm.so");
  EXPECT_EQ(preload("/lib/libdshm.so", "/x.so:/y.so", why), "/lib/libdshm.so:/x.so:/y.so");
  EXPECT_EQ(preload("/my lib/libdshm.so", nullptr, why), std::nullopt);
  EXPECT_THAT(why, ::testing::HasSubstr("space or a colon"));
}

}  // namespace
}  // namespace dsm::dshm
