#include "dsm/launch/remote.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "ipc/spawn.hpp"

namespace dsm::launch {
namespace {

// The line as a shell there runs it, with its standard input from a file; what it prints.
class RemoteLine : public ::testing::TestWithParam<const char*> {
 public:
  RemoteLine() {
    char name[] = "/tmp/dsm-remote-test.XXXXXX";
    folder_ = ::mkdtemp(name);
  }
  ~RemoteLine() override { std::filesystem::remove_all(folder_); }

 protected:
  // A program that answers --hash and --guard as dsmexec does.
  static std::string stand_in(const std::string& hash) {
    return "#!/bin/sh\n[ \"$1\" = --hash ] && echo " + hash + " && exit\n[ \"$4\" ] && [ \"$2\" != " + hash +
           " ] && exec sh -c \"$4\" sh \"$2\" \"$3\"\necho \"guard $1 $2\"\n";
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
  const std::string older = write("older", "#!/bin/sh\necho older; test $# = 2 || exit 125\n");
  for (const std::string& path : {folder_ + "/none", other, older, folder_}) {
    const std::string text = run(remote_line(path, "abc", copy.size()), copy + "frames that follow");
    EXPECT_EQ(text, (path == older ? "older\n" : "") + send_line("abc") + "guard --guard abc\n") << path;
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
