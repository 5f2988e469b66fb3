#include "dsm/launch/program.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

namespace dsm::launch {
namespace {

struct Folder {
  Folder() {
    path = ::testing::TempDir() + "dsmexec-program-XXXXXX";
    EXPECT_NE(::mkdtemp(path.data()), nullptr);
  }
  ~Folder() { std::filesystem::remove_all(path); }
  void file(const std::string& name, mode_t mode) const {
    std::filesystem::create_directories(std::filesystem::path(path + "/" + name).parent_path());
    std::ofstream(path + "/" + name) << "#!/bin/sh\n";
    ::chmod((path + "/" + name).c_str(), mode);
  }
  std::string path;
};

TEST(Program, ASlashMakesItAPathRelativeToTheRanksFolder) {
  const Folder f;
  f.file("sub/prog", 0755);
  EXPECT_EQ(find_program("./prog", f.path + "/sub", "/", "").path, "./prog");
  EXPECT_EQ(find_program("./prog", f.path, "/", "").code, 127);
  EXPECT_EQ(find_program(f.path + "/sub/prog", "", "/", "").path, f.path + "/sub/prog");
}

TEST(Program, ANameIsLookedUpBesideDsmexecThenOnPath) {
  const Folder f;
  f.file("beside/both", 0755);
  f.file("one/both", 0755);
  f.file("two/only", 0755);
  const std::string beside = f.path + "/beside", path = f.path + "/one:" + f.path + "/two";
  EXPECT_EQ(find_program("both", "", beside, path).path, beside + "/both");
  EXPECT_EQ(find_program("only", "", beside, path).path, f.path + "/two/only");
  EXPECT_EQ(find_program("none", "", beside, path).code, 127);
  EXPECT_EQ(find_program("", "", beside, path).code, 127);
}

TEST(Program, WhatCannotBeExecutedIs126AndDoesNotHideWhatCan) {
  const Folder f;
  f.file("one/prog", 0644);
  f.file("two/prog", 0755);
  f.file("one/plain", 0644);
  std::filesystem::create_directories(f.path + "/one/folder");
  const std::string path = f.path + "/one:" + f.path + "/two";
  EXPECT_EQ(find_program("prog", "", "/", path).path, f.path + "/two/prog");
  EXPECT_EQ(find_program("plain", "", "/", path).code, 126);
  EXPECT_EQ(find_program("folder", "", "/", path).code, 127);
  EXPECT_EQ(find_program(f.path + "/one", "", "/", path).code, 126);
  EXPECT_EQ(find_program(f.path + "/one/plain/x", "", "/", path).code, 127);
}

TEST(Program, TheOwnIdentityIsOneWordThatEndsWithTheSizeOfTheFile) {
  const std::string own = own_identity();
  EXPECT_EQ(own, own_identity());
  EXPECT_EQ(own.find_first_not_of("0123456789abcdef-"), std::string::npos) << own;
  EXPECT_GE(own.find('-'), 32U) << own;  // this linker makes build ids
  EXPECT_TRUE(own.ends_with('-' + std::to_string(std::filesystem::file_size("/proc/self/exe")))) << own;
}

}  // namespace
}  // namespace dsm::launch
