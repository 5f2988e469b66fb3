// make install and make uninstall: what is there then, that it runs from there, and that nothing is left.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <set>

#include "dsm/tests/job_bench.hpp"

namespace dsm::launch::testing {
namespace {

namespace fs = std::filesystem;

class Install : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "dsm-install-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  // What is built already is copied: this make has no say in what a test was built with.
  [[nodiscard]] Said make(const std::string& verb) const {
    const fs::path build = fs::path(own_path()).parent_path().parent_path();
    return shell("env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make " + verb + " BUILD='" + build.string() +
                 "' PREFIX=/opt/dsm DESTDIR='" + folder_.string() + "'");
  }
  [[nodiscard]] std::set<std::string> files() const {
    std::set<std::string> found;
    for (const auto& entry : fs::recursive_directory_iterator(folder_)) {
      if (!entry.is_directory()) found.insert(fs::relative(entry.path(), folder_ / "opt/dsm").string());
    }
    return found;
  }
  [[nodiscard]] std::string path(const std::string& name) const { return (folder_ / "opt/dsm" / name).string(); }

  fs::path folder_;
};

TEST_F(Install, WhatIsInstalledRunsAndIsTakenAwayAgain) {
  const Said made = make("install-files");
  ASSERT_EQ(made.code, 0) << made.text;
  EXPECT_EQ(files(), (std::set<std::string>{"bin/dsmexec", "bin/dsmd", "bin/dsmtop", "bin/dsmc++", "bin/dshmrun",
                                            "bin/dshm_agent", "bin/dshmctl", "lib/libdsm.a", "lib/libdsm.so",
                                            "lib/libdshm.a", "lib/libdshm.so", "lib/systemd/system/dsmd.service",
                                            "include/dsm/dsm.h", "include/dsm/dsm.hpp"}));
  for (const char* program : {"dsmexec", "dsmd", "dsmtop", "dshmrun", "dshmctl"}) {
    const Said help = shell(path("bin/") + program + " --help");
    EXPECT_EQ(help.code, 0) << program << "\n" << help.text;
  }
  // It finds the library that is beside it.
  const Said preloaded = shell(path("bin/dshmrun") + " sh -c 'echo $LD_PRELOAD'");
  EXPECT_EQ(fs::weakly_canonical(preloaded.text.substr(0, preloaded.text.find('\n'))), path("lib/libdshm.so"))
      << preloaded.text;
  EXPECT_TRUE(has_line(shell(path("bin/dsmc++") + " --show x.cpp").text, {"-I/opt/dsm/include", "-L/opt/dsm/lib"}));
  EXPECT_TRUE(has_line(content(path("lib/systemd/system/dsmd.service")), {"ExecStart=/opt/dsm/bin/dsmd --key"}));

  const Said gone = make("uninstall");
  EXPECT_EQ(gone.code, 0) << gone.text;
  EXPECT_EQ(files(), std::set<std::string>{});
  EXPECT_FALSE(fs::exists(path("include/dsm")));
  EXPECT_FALSE(fs::exists(path("lib/systemd")));
  EXPECT_EQ(make("uninstall").code, 0) << "twice does no harm";
}

}  // namespace
}  // namespace dsm::launch::testing
