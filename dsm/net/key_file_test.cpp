#include "dsm/net/key_file.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

namespace dsm::net {
namespace {

namespace fs = std::filesystem;

class KeyFile : public ::testing::Test {
 protected:
  KeyFile() : folder_(::testing::TempDir() + "dsm-key-XXXXXX") { EXPECT_NE(::mkdtemp(folder_.data()), nullptr); }
  ~KeyFile() override { fs::remove_all(folder_); }

  [[nodiscard]] std::string path(const std::string& name = "key") const { return folder_ + "/" + name; }
  std::string made(const std::string& text, mode_t mode = 0600) const {
    std::ofstream(path()) << text;
    EXPECT_EQ(::chmod(path().c_str(), mode), 0);
    return path();
  }
  static mode_t mode_of(const std::string& name) {
    struct stat file {};
    EXPECT_EQ(::stat(name.c_str(), &file), 0) << name;
    return file.st_mode & 07777;
  }
  static std::string why_not(const std::string& name) {
    try {
      (void)read_key_file(name);
      return "it was taken";
    } catch (const std::runtime_error& error) {
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
      return error.what();
    }
  }

  std::string folder_;
};

TEST_F(KeyFile, IsMadeOnceForItsOwnerOnly) {
  const mode_t before = ::umask(0);
  const JobKey key = read_or_make_key_file(path());
  ::umask(before);
  EXPECT_EQ(mode_of(path()), 0600u);
  EXPECT_EQ(fs::file_size(path()), 65u);
  EXPECT_EQ(read_or_make_key_file(path()), key);
  EXPECT_EQ(read_key_file(path()), key);
  EXPECT_NE(read_or_make_key_file(path("other")), key);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 2) << "no draft is left";
}

TEST_F(KeyFile, AllWhoMakeItAtOneTimeGetTheSame) {
  for (int round = 0; round < 50; ++round) {
    const std::string name = path(std::to_string(round));
    std::vector<JobKey> keys(4);
    std::vector<std::thread> makers;
    for (JobKey& key : keys) makers.emplace_back([&key, &name] { key = read_or_make_key_file(name); });
    for (std::thread& maker : makers) maker.join();
    for (const JobKey& key : keys) EXPECT_EQ(key, read_key_file(name));
  }
}

TEST_F(KeyFile, TheUsualOneIsInAFolderOfItsOwn) {
  const char* const home = std::getenv("HOME");
  const std::string before = home != nullptr ? home : "";
  ::setenv("HOME", folder_.c_str(), 1);
  ::unsetenv(key_file_variable);
  EXPECT_EQ(usual_key_file(), path(".config/dsm/key"));
  const JobKey key = read_or_make_key_file(usual_key_file());
  EXPECT_EQ(mode_of(path(".config/dsm")), 0700u);
  EXPECT_EQ(mode_of(path(".config/dsm/key")), 0600u);
  ::setenv(key_file_variable, path("mine").c_str(), 1);
  EXPECT_EQ(usual_key_file(), path("mine"));
  EXPECT_NE(read_or_make_key_file(usual_key_file()), key);
  ::unsetenv(key_file_variable);
  ::setenv("HOME", before.c_str(), 1);
}

TEST_F(KeyFile, OneThatOthersMayUseIsRefused) {
  const std::string digits(64, 'a');
  for (const mode_t mode : {0640, 0604, 0620, 0602, 0610, 0601, 0644, 0777}) {
    const std::string why = why_not(made(digits, mode));
    EXPECT_NE(why.find("others may use it (mode 0"), std::string::npos) << why;
    EXPECT_NE(why.find("; chmod 600 " + path()), std::string::npos) << why;
  }
  EXPECT_EQ(why_not(made(digits, 0400)), "it was taken");
  EXPECT_EQ(why_not(made(digits, 0600)), "it was taken");
}

TEST_F(KeyFile, OneOfAnotherUserIsRefused) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to give a file away";
  ASSERT_EQ(::chown(made(std::string(64, 'a')).c_str(), 4711, 4711), 0);
  EXPECT_NE(why_not(path()).find("it belongs to another user"), std::string::npos) << why_not(path());
}

TEST_F(KeyFile, WhatHoldsNoKeyIsRefused) {
  for (const std::string& text :
       {std::string(), std::string(63, 'a'), std::string(65, 'a'), std::string(64, 'g'), std::string(64, 'A'),
        std::string(100'000, 'a'), std::string(64, '\0'), std::string(64, 'a') + "\n\nx"}) {
    EXPECT_NE(why_not(made(text)).find("it does not hold 64 hexadecimal digits"), std::string::npos) << why_not(path());
  }
  for (const char* end : {"", "\n", "\r\n"}) EXPECT_EQ(why_not(made(std::string(64, '0') + end)), "it was taken");
  EXPECT_NE(why_not(path("nowhere")).find("it is not there; dsmd makes it where it runs"), std::string::npos);
  EXPECT_NE(why_not(folder_).find("it is no regular file"), std::string::npos) << why_not(folder_);
  ASSERT_EQ(::mkfifo(path("fifo").c_str(), 0600), 0);
  EXPECT_NE(why_not(path("fifo")).find("it is no regular file"), std::string::npos) << "and it was not waited for";
  EXPECT_THROW((void)read_or_make_key_file(path("no/folder/key")), std::runtime_error);
}

}  // namespace
}  // namespace dsm::net
