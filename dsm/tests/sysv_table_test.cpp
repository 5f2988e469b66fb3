// The table program on this machine's kernel: what it prints is the same each time, and it leaves nothing behind.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace {

std::string beside(const std::string& program) {
  char self[PATH_MAX] = "";
  if (::readlink("/proc/self/exe", self, sizeof self - 1) < 0) return program;
  return std::string(self).substr(0, std::string(self).rfind('/')) + "/../bin/" + program;
}

// How many System V objects this process's namespace has.
int objects() {
  int lines = 0;
  for (const char* const name : {"/proc/sysvipc/shm", "/proc/sysvipc/sem"}) {
    std::ifstream file(name);
    for (std::string line; std::getline(file, line);) ++lines;
    --lines;  // the heading
  }
  return lines;
}

// One run of it; its output goes to a file that has no name.
class Program {
 public:
  // `apart`: in a namespace of its own.
  explicit Program(std::vector<std::string> arguments, bool apart = false) {
    char name[] = "/tmp/sysv_table_test.XXXXXX";
    out_ = ::mkostemp(name, O_CLOEXEC);
    ::unlink(name);
    std::vector<char*> argv;
    arguments.insert(arguments.begin(), beside("sysv_table"));
    for (std::string& one : arguments) argv.push_back(one.data());
    argv.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ != 0) return;
    ::dup2(out_, STDOUT_FILENO);
    if (apart && ::geteuid() == 0 && ::unshare(CLONE_NEWIPC) != 0) ::_exit(126);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  ~Program() {
    if (pid_ > 0) ::kill(pid_, SIGTERM), (void)ended();
    ::close(out_);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  void signal(int number) const { ::kill(pid_, number); }
  int ended() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = 0;
    return status;
  }
  [[nodiscard]] off_t printed() const {
    struct stat data {};
    return ::fstat(out_, &data) == 0 ? data.st_size : 0;
  }
  [[nodiscard]] std::vector<std::string> lines() const {
    std::string all(static_cast<std::size_t>(printed()), ' ');
    if (::pread(out_, all.data(), all.size(), 0) != static_cast<ssize_t>(all.size())) return {};
    std::vector<std::string> result;
    std::istringstream in(all);
    for (std::string line; std::getline(in, line);) result.push_back(line);
    return result;
  }

 private:
  int out_ = -1;
  pid_t pid_ = 0;
};

// One row takes all segments that a namespace may have: not those of this machine, where other tests run.
bool own_namespace() {
  static const bool own = ::geteuid() != 0 || ::unshare(CLONE_NEWIPC) == 0;
  return own;
}

TEST(SysvTable, PrintsTheSameTwiceAndLeavesNothing) {
  ASSERT_TRUE(own_namespace());
  const int before = objects();
  Program first({}), second({}, true);
  EXPECT_EQ(first.ended(), 0);
  EXPECT_EQ(second.ended(), 0);
  EXPECT_GT(first.lines().size(), 100U);
  EXPECT_EQ(first.lines(), second.lines());
  if (::geteuid() == 0) {
    EXPECT_EQ(objects(), before);
  }
}

TEST(SysvTable, IsCleanedUpAfterWhenItIsStopped) {
  ASSERT_TRUE(own_namespace());
  const int before = objects();
  Program run({});
  while (run.printed() == 0) ::sched_yield();
  run.signal(SIGTERM);
  EXPECT_EQ(run.ended(), 256) << "exit code 1";
  if (::geteuid() == 0) {
    EXPECT_EQ(objects(), before);
  }
}

TEST(SysvTable, ARowThatHangsIsEndedAndSaid) {
  ASSERT_TRUE(own_namespace());
  const int before = objects();
  // Nobody plays b.
  Program run(
      {"--role", "a", "--key", std::to_string(0x51000000 + ::getpid() * 16), "--seconds", "1", "--only", "memory"});
  EXPECT_EQ(run.ended(), 256);
  ASSERT_EQ(run.lines().size(), 1U);
  EXPECT_NE(run.lines().front().find("pair a memory: died by SIGALRM"), std::string::npos) << run.lines().front();
  if (::geteuid() == 0) {
    EXPECT_EQ(objects(), before);
  }
}

TEST(SysvTable, TwoThatHaveOnlyAKeyInCommon) {
  ASSERT_TRUE(own_namespace());
  const std::string key = std::to_string(0x52000000 + ::getpid() * 16);
  Program a({"--role", "a", "--key", key}), b({"--role", "b", "--key", key});
  EXPECT_EQ(a.ended(), 0);
  EXPECT_EQ(b.ended(), 0);
  const std::vector<std::string> lines = a.lines();
  ASSERT_GE(lines.size(), 7U);
  EXPECT_NE(lines[0].find("1 2 nattch=2 cpid=me; nattch=1 lpid=me"), std::string::npos) << lines[0];
  EXPECT_NE(lines[5].find("atomics: 4000"), std::string::npos) << lines[5];
  EXPECT_EQ(b.lines().size(), lines.size());
}

}  // namespace
