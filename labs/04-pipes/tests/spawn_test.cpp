// Which program is started, with what, and how a failure is told. How it finds its world: spawn_child_test.cpp.
#include "ipc/spawn.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "labs/04-pipes/tests/spawning.hpp"
#include "labs/common/testing.hpp"

namespace {

using ipc::SpawnOptions;
using ipc::testing::Failure;
using ipc::testing::failure_of;
using ipc::testing::open_descriptors;
using ipc::testing::output_of;
using ipc::testing::shell;
using ipc::testing::TempDir;

void write_file(const std::string& path, const std::string& text, mode_t mode) {
  std::ofstream(path) << text;
  ASSERT_EQ(::chmod(path.c_str(), mode), 0);
}

// A variable of the environment, put back at the end.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, const char* value) : name_(name) {
    const char* const former = ::getenv(name);
    if (former != nullptr) former_ = former;
    if (value != nullptr) {
      ::setenv(name, value, 1);
    } else {
      ::unsetenv(name);
    }
  }
  ScopedVariable(const ScopedVariable&) = delete;
  ScopedVariable& operator=(const ScopedVariable&) = delete;
  ~ScopedVariable() {
    if (former_) {
      ::setenv(name_, former_->c_str(), 1);
    } else {
      ::unsetenv(name_);
    }
  }

 private:
  const char* name_;
  std::optional<std::string> former_;
};

TEST(Spawn, PassesArgumentsByteForByte) {
  SpawnOptions options;
  options.arguments = {"printf", "<%s>", "a b", "", "--help", "$HOME", "*", "\xff\n\"'"};
  EXPECT_EQ(output_of(options), "<a b><><--help><$HOME><*><\xff\n\"'>");
}

TEST(Spawn, ReturnsAChildThatCanBeWaitedFor) {
  int status = 0;
  output_of(shell("exit 37"), &status);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 37);
  output_of(shell("kill -TERM $$"), &status);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGTERM);
}

TEST(Spawn, ManyMayBeOnTheirWayAtOneTime) {
  SpawnOptions good = shell("exit 5"), bad;
  bad.arguments = {"/nonexistent/program"};
  const ipc::Starting first = ipc::begin_spawn(good), second = ipc::begin_spawn(bad), third = ipc::begin_spawn(good);
  EXPECT_EQ(ipc::finish_spawn(third, good), third.pid);
  try {
    ipc::finish_spawn(second, bad);
    ADD_FAILURE() << "it has started";
  } catch (const ipc::SpawnError& failure) {
    EXPECT_EQ(failure.step, "execve");
    EXPECT_EQ(failure.error, ENOENT);
  }
  EXPECT_EQ(::waitpid(second.pid, nullptr, 0), -1) << "it has not been reaped";
  EXPECT_EQ(ipc::finish_spawn(first, good), first.pid);
  for (const ipc::Starting* one : {&first, &third}) EXPECT_EQ(WEXITSTATUS(ipc::testing::wait_for(one->pid)), 5);
}

TEST(Spawn, TheProgramNeedNotBeTheFirstArgument) {
  SpawnOptions options;
  options.program = "/bin/sh";
  options.arguments = {"not-what-runs", "-c", "echo $0"};
  EXPECT_EQ(output_of(options), "not-what-runs\n");
}

TEST(Spawn, EnvironmentIsInheritedOrGiven) {
  const ScopedVariable variable("IPC_SPAWN_TEST", "inherited");
  EXPECT_EQ(output_of(shell("echo $IPC_SPAWN_TEST")), "inherited\n");
  SpawnOptions options;
  options.arguments = {"env"};
  options.environment = std::vector<std::string>{"A=1", "B=two words"};
  EXPECT_EQ(output_of(options), "A=1\nB=two words\n");
  options.environment = std::vector<std::string>{};
  EXPECT_EQ(output_of(options), "");
}

TEST(Spawn, RunsInTheDirectoryGiven) {
  const TempDir folder;
  write_file(folder.path("here"), "#!/bin/sh\npwd -P\n", 0700);
  SpawnOptions options;
  options.working_directory = folder.path();
  options.arguments = {"./here"};  // relative to that directory, as for a shell after cd
  EXPECT_EQ(output_of(options), std::filesystem::canonical(folder.path()).string() + "\n");
  options.working_directory = folder.path("missing");
  const Failure failure = failure_of(options);
  EXPECT_EQ(failure.step, "chdir");
  EXPECT_EQ(failure.error, ENOENT);
  EXPECT_NE(failure.text.find(folder.path("missing")), std::string::npos) << failure.text;
}

TEST(Spawn, NotFoundIsToldFromNotExecutable) {
  const TempDir folder;
  write_file(folder.path("text"), "#!/bin/sh\n", 0600);
  SpawnOptions options;
  for (const auto& [name, error] : std::vector<std::pair<std::string, int>>{{folder.path("missing"), ENOENT},
                                                                            {"ipc-no-such-program", ENOENT},
                                                                            {"", ENOENT},
                                                                            {folder.path("text"), EACCES},
                                                                            {folder.path(), EACCES},
                                                                            {folder.path("text/under"), ENOTDIR}}) {
    options.arguments = {name};
    const Failure failure = failure_of(options);
    EXPECT_EQ(failure.step, "execve") << name;
    EXPECT_EQ(failure.error, error) << name << ": " << failure.text;
    EXPECT_NE(failure.text.find(name), std::string::npos) << failure.text;
  }
  write_file(folder.path("noise"), "\x01\x02\x03", 0700);
  options.arguments = {folder.path("noise")};
  EXPECT_EQ(failure_of(options).error, ENOEXEC);
}

TEST(Spawn, LooksOnPathAsAShellDoes) {
  const TempDir first, second;
  const ScopedVariable path("PATH", ("/nowhere:" + first.path() + ":" + second.path()).c_str());
  SpawnOptions options;
  options.arguments = {"ipc-thing"};
  EXPECT_EQ(failure_of(options).error, ENOENT);
  write_file(first.path("ipc-thing"), "#!/bin/sh\necho first\n", 0600);
  EXPECT_EQ(failure_of(options).error, EACCES) << "there, but not executable";
  write_file(second.path("ipc-thing"), "#!/bin/sh\necho second\n", 0700);
  EXPECT_EQ(output_of(options), "second\n") << "a better one further on";
  ASSERT_EQ(::chmod(first.path("ipc-thing").c_str(), 0700), 0);
  EXPECT_EQ(output_of(options), "first\n");
}

TEST(Spawn, AnEmptyOrMissingPathIsWhatExecvpMakesOfIt) {
  const TempDir folder;
  write_file(folder.path("ipc-thing"), "#!/bin/sh\necho here\n", 0700);
  SpawnOptions options;
  options.arguments = {"ipc-thing"};
  options.working_directory = folder.path();
  {
    const ScopedVariable path("PATH", "/nowhere:");
    EXPECT_EQ(output_of(options), "here\n") << "an empty entry is the working directory";
  }
  const ScopedVariable path("PATH", nullptr);
  EXPECT_EQ(failure_of(options).error, ENOENT);
  options.arguments = {"sh", "-c", "echo standard"};
  EXPECT_EQ(output_of(options), "standard\n");
}

TEST(Spawn, AnEntryOfPathThatIsNoDirectoryIsPassedOver) {
  const TempDir folder;
  write_file(folder.path("file"), "", 0600);
  const ScopedVariable path("PATH", ("/nowhere:" + folder.path("file")).c_str());
  SpawnOptions options;
  options.arguments = {"ipc-thing"};
  EXPECT_EQ(failure_of(options).error, ENOENT);
}

TEST(Spawn, AFailedStartLeavesNothing) {
  const auto before = open_descriptors();
  SpawnOptions options;
  options.arguments = {"/ipc/no/such/program"};
  for (int i = 0; i < 20; ++i) EXPECT_EQ(failure_of(options).step, "execve");
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
  EXPECT_EQ(open_descriptors(), before);
}

TEST(Spawn, MisuseIsRefusedBeforeAnythingStarts) {
  EXPECT_THROW(static_cast<void>(ipc::spawn(SpawnOptions{})), std::invalid_argument);
  SpawnOptions options = shell("true");
  options.standard_output = 2;
  options.descriptors = {{2, 7}, {1, 7}};
  EXPECT_THROW(static_cast<void>(ipc::spawn(options)), std::invalid_argument);
  options.descriptors = {{2, 1}};
  EXPECT_THROW(static_cast<void>(ipc::spawn(options)), std::invalid_argument);
}

}  // namespace
