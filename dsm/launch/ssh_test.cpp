#include "dsm/launch/ssh.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "ipc/spawn.hpp"

namespace dsm::launch {
namespace {

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : " ") + word;
  return out;
}

TEST(Ssh, TheUsersOptionsComeFirstSoThatTheyCount) {
  Machine machine;
  machine.host = "far";
  machine.user = "me";
  machine.port = 2222;
  EXPECT_EQ(joined(ssh_command({"ssh", "-F", "file"}, machine, "run")),
            "ssh -F file -T -x -a -o BatchMode=yes -o ConnectTimeout=5 -o EscapeChar=none -p 2222 -l me far run");
}

TEST(Ssh, WhatIsWrongIsSaidInOneLineThatSaysWhatToDo) {
  Machine machine;
  machine.host = "far";
  machine.user = "me";
  machine.line = 3;
  const auto said = [&machine](std::string_view text) { return explain(machine, text, "exit code 255"); };
  EXPECT_EQ(
      said("banner\nme@far: Permission denied (publickey).\r\n\n"),
      "no agent on host far (machine_file, line 3): me@far: Permission denied (publickey): it wants a password, or "
      "refuses the key; for a login without a password: ssh-copy-id me@far");
  EXPECT_NE(said("No ED25519 host key is known for far\nHost key verification failed.\n")
                .find("log in once by hand: ssh me@far"),
            std::string::npos);
  EXPECT_EQ(said(""), "no agent on host far (machine_file, line 3): ssh ended with exit code 255");
  EXPECT_EQ(said(std::string(1000, 'x')).find('\n'), std::string::npos);
  EXPECT_LT(said(std::string(1000, 'x')).size(), 300u);
}

TEST(Ssh, ADroppedConnectionIsWorthAnotherTryAndARefusedKeyIsNot) {
  EXPECT_TRUE(worth_another_try("kex_exchange_identification: read: Connection reset by peer\n"));
  EXPECT_FALSE(worth_another_try("me@far: Permission denied (publickey).\n"));
}

// The line as a login shell runs it, with its standard input from a file; what it prints.
class RemoteLine : public ::testing::TestWithParam<const char*> {
 public:
  RemoteLine() {
    char name[] = "/tmp/dsm-ssh-test.XXXXXX";
    folder_ = ::mkdtemp(name);
  }
  ~RemoteLine() override { std::filesystem::remove_all(folder_); }

 protected:
  // A program that answers --hash and --guard as dsmexec does.
  static std::string stand_in(const std::string& hash) {
    return "#!/bin/sh\n[ \"$1\" = --hash ] && echo " + hash +
           " && exit\necho \"guard $*\"\nls \"${3:-/none}\" 2>/dev/null\n";
  }
  std::string write(const std::string& name, const std::string& content) {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path) << content;
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
    return path;
  }
  std::string run(const std::string& line, const std::string& input) {
    const std::string in = write("input", input), out = folder_ + "/output";
    std::filesystem::create_directory(folder_ + "/tmp");
    ipc::SpawnOptions options;
    options.arguments = {GetParam(), "-c", line + " <" + in + " >" + out};
    options.environment = {"PATH=/usr/bin:/bin", "TMPDIR=" + folder_ + "/tmp"};
    const pid_t pid = ipc::spawn(options);
    int status = 0;
    while (::waitpid(pid, &status, 0) == -1 && errno == EINTR) {
    }
    std::ostringstream text;
    text << std::ifstream(out).rdbuf();
    return text.str();
  }
  [[nodiscard]] bool nothing_left() const { return std::filesystem::is_empty(folder_ + "/tmp"); }
  std::string folder_;
};

TEST_P(RemoteLine, RunsTheSameFileThatLiesThere) {
  const std::string path = write("it's here", stand_in("abc"));
  EXPECT_EQ(run(remote_line(path, "abc", 5), ""), "guard --guard abc\n");
  EXPECT_TRUE(nothing_left());
}

TEST_P(RemoteLine, TakesACopyWhereThereIsNoneOrAnother) {
  const std::string copy = stand_in("abc");
  const std::string other = write("other", stand_in("def"));
  for (const std::string& path : {folder_ + "/none", other}) {
    const std::string text = run(remote_line(path, "abc", copy.size()), copy + "frames that follow");
    EXPECT_EQ(text, send_line("abc") + "guard --guard abc\n");
    EXPECT_TRUE(nothing_left());
  }
}

TEST_P(RemoteLine, LeavesNothingOfACopyThatDoesNotArriveWhole) {
  EXPECT_EQ(run(remote_line(folder_ + "/none", "abc", 1000), "#!/bin/sh\nexit 0\n"), send_line("abc"));
  EXPECT_TRUE(nothing_left());
}

INSTANTIATE_TEST_SUITE_P(Shells, RemoteLine, ::testing::Values("/bin/sh", "/bin/bash"),
                         [](const auto& param) { return std::string(param.param).substr(5); });

}  // namespace
}  // namespace dsm::launch
