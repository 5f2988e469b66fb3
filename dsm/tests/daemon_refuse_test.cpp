// Who may not take part in a session of dsmd's is told why in one line, and dsmd goes on.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "dsm/tests/daemon_bench.hpp"
#include "dsm/tests/job_bench.hpp"
#include "ipc/socket.hpp"
#include "ipc/spawn.hpp"

namespace dsm::daemon::testing {
namespace {

using launch::testing::has_line;
using launch::testing::text;

TEST(DaemonRefuses, ASurplusMemberALateOneAndOneWithAnotherNumberInOneLineEach) {
  Dsmd dsmd;
  const Programs members = dsmd.start_all(member("barrier-without", 1), "s", 2);
  for (const auto& one : members) ASSERT_TRUE(one->shows("runs"));
  expect_one_line(dsmd.start({program_path("hello")}, "s", 2)->wait(), 1,
                  {"dsm: session 's': its 2 members have come already, and it runs; wait until it is over, or choose "
                   "another name"});
  expect_one_line(dsmd.start({program_path("hello")}, "s", 3)->wait(), 1,
                  {"dsm: session 's': it has 2 members, as the first of them said, and this program was told 3"});
  expect_unharmed(dsmd);
  for (const auto& one : members) EXPECT_FALSE(one->ended()) << "they go on";
}

TEST(DaemonRefuses, AnotherVersionInOneLine) {
  Dsmd dsmd;
  const Ended end = dsmd.start(member("another-version"), "s", 2)->wait();
  EXPECT_EQ(end.code(), 0) << text(end);
  EXPECT_TRUE(has_line(end.out, {"this program's libdsm speaks version ", "build both from the same sources"}))
      << text(end);
  expect_unharmed(dsmd);
}

TEST(DaemonRefuses, AnotherKeyInOneLine) {
  Dsmd dsmd, other;
  auto environment = dsmd.environment("s", 2);
  environment[1] = "DSM_KEY_FILE=" + other.key_file();
  expect_one_line(
      Program({program_path("hello")}, environment).wait(), 1,
      {"dsm: session 's': dsmd at " + dsmd.at() + " does not let this program in: ", "key", "same key file"});
  environment[1] = "DSM_KEY_FILE=" + dsmd.folder() + "/nothing";
  expect_one_line(Program({program_path("hello")}, environment).wait(), 1,
                  {"dsm: key file " + dsmd.folder() + "/nothing: it is not there"});
  expect_unharmed(dsmd);
}

TEST(DaemonRefuses, WhatIsNoSessionInOneLine) {
  Dsmd dsmd;
  for (const char* bad : {"", "s", "localhost/s:3", "localhost:80/s", "localhost:80/s:0", "localhost:80/s:65"}) {
    auto environment = dsmd.environment("s", 2);
    environment[0] = std::string("DSM_SESSION=") + bad;
    expect_one_line(Program({program_path("hello")}, environment).wait(), 1,
                    {"dsm: DSM_SESSION=", "host:port/name:N is needed"});
  }
  auto environment = dsmd.environment("s", 2);
  environment[0] = "DSM_SESSION=127.0.0.1:1/s:2";
  expect_one_line(Program({program_path("hello")}, environment).wait(), 1,
                  {"dsm: session 's': no connection to dsmd at 127.0.0.1:1 (is it running?): Connection refused"});
}

TEST(DaemonRefuses, AnIncompleteSessionInOneLineOnceItsTimeIsUp) {
  Dsmd dsmd({"--gather", "1"});
  expect_one_line(dsmd.start({program_path("hello")}, "s", 2)->wait(), 1,
                  {"only 1 of its 2 members have come within 1 s; start all of them anew"});
  expect_unharmed(dsmd);
}

TEST(DaemonRefuses, StrangersAndThoseWhoTalkNonsense) {
  Dsmd dsmd;
  std::vector<ipc::Fd> strangers;
  for (const std::string& said : {std::string(), std::string("GET / HTTP/1.0\r\n\r\n"), std::string(100'000, 'x')}) {
    strangers.push_back(ipc::connect_tcp("127.0.0.1", dsmd.port(), 10'000));
    (void)ipc::write_full(strangers.back().get(), said.data(), said.size());
  }
  const Ended end = dsmd.start(member("nonsense"), "s", 2)->wait();
  EXPECT_EQ(end.code(), 0) << text(end);
  expect_unharmed(dsmd);
}

TEST(DaemonRefuses, ToStartWithAKeyThatOthersCanReadOrAtATakenPort) {
  Dsmd dsmd;
  const std::string bad = dsmd.folder() + "/bad";
  std::ofstream(bad) << std::string(64, 'a') << '\n';
  ASSERT_EQ(::chmod(bad.c_str(), 0640), 0);
  expect_one_line(Program({program_path("dsmd"), "--port", "0", "--key", bad}, {}).wait(), 1,
                  {"dsmd: key file " + bad + ": others may use it (mode 0640); chmod 600 "});
  expect_one_line(
      Program({program_path("dsmd"), "--port", std::to_string(dsmd.port()), "--key", dsmd.key_file()}, {}).wait(), 1,
      {"dsmd: cannot listen at " + dsmd.at() + ": Address already in use (--listen names another address, --port "});
  expect_one_line(Program({program_path("dsmd"), "--once"}, {}).wait(), 2, {"dsmd: --once and --nproc N go together"});
}

}  // namespace
}  // namespace dsm::daemon::testing
