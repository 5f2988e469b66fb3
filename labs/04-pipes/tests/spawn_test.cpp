#include "ipc/spawn.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <fstream>
#include <new>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "labs/common/testing.hpp"

namespace {

using ipc::Fd;
using ipc::Pipe;
using ipc::SpawnError;
using ipc::SpawnOptions;
using ipc::testing::Child;
using ipc::testing::open_descriptors;
using ipc::testing::TempDir;
using ipc::testing::wait_until;

int wait_for(pid_t pid) {
  int status = -1;
  while (::waitpid(pid, &status, 0) == -1 && errno == EINTR) continue;
  return status;
}

std::string read_all(int fd) {
  std::string result;
  std::array<char, 4096> buffer;
  for (ssize_t n = 0; (n = ipc::read_full(fd, buffer.data(), buffer.size())) > 0;) {
    result.append(buffer.data(), static_cast<std::size_t>(n));
  }
  return result;
}

// Runs a program to its end: what it wrote to standard output. Its wait status goes to `status` if that is asked for.
std::string output_of(SpawnOptions options, int* status = nullptr) {
  Pipe out = ipc::make_pipe();
  options.standard_output = out.write.get();
  const pid_t pid = ipc::spawn(options);
  out.write.reset();
  std::string text = read_all(out.read.get());
  const int ended = wait_for(pid);
  if (status != nullptr) *status = ended;
  return text;
}

SpawnOptions shell(const std::string& script) {
  SpawnOptions options;
  options.arguments = {"/bin/sh", "-c", script};
  return options;
}

// The SpawnError's step, errno and whole text; "started" if there was none.
struct Failure {
  std::string step = "started";
  int error = 0;
  std::string text;
};
Failure failure_of(const SpawnOptions& options) {
  try {
    wait_for(ipc::spawn(options));
  } catch (const SpawnError& failure) {
    return {failure.step, failure.error, failure.what()};
  }
  return {};
}

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

// ---- signals ----

void do_nothing(int) {}

TEST(Spawn, TheProgramStartsWithDefaultSignalsAndAnEmptyMask) {
  Child test([] {
    struct sigaction ignore {
    }, handle{};
    ignore.sa_handler = SIG_IGN;
    handle.sa_handler = do_nothing;
    for (const int signo : {SIGINT, SIGPIPE, SIGUSR1, SIGRTMIN, SIGRTMAX}) ::sigaction(signo, &ignore, nullptr);
    ::sigaction(SIGTERM, &handle, nullptr);
    sigset_t some;
    sigemptyset(&some);
    for (const int signo : {SIGUSR2, SIGCHLD, SIGRTMAX}) sigaddset(&some, signo);
    ::sigprocmask(SIG_SETMASK, &some, nullptr);

    SpawnOptions options;
    options.arguments = {"cat", "/proc/self/status"};
    const std::string seen = output_of(options);
    for (const char* field : {"SigBlk", "SigIgn", "SigCgt"}) {
      if (seen.find(std::string(field) + ":\t0000000000000000\n") == std::string::npos) return 1;
    }
    sigset_t after;
    ::sigprocmask(SIG_SETMASK, nullptr, &after);
    const bool kept = sigismember(&after, SIGUSR2) == 1 && sigismember(&after, SIGINT) == 0;
    return kept ? 0 : 2;  // our own mask is as it was
  });
  EXPECT_EQ(test.wait(), 0);
}

struct HandlerRuns {
  std::atomic<int> in_parent{0}, elsewhere{0};
};
HandlerRuns* runs = nullptr;
pid_t main_pid = 0;

void count_where(int) { (::getpid() == main_pid ? runs->in_parent : runs->elsewhere)++; }

TEST(Spawn, OurHandlersNeverRunInTheChild) {
  // In a process group of its own, all of which a thread showers with signals.
  void* const memory = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  runs = new (memory) HandlerRuns;
  Child test([] {
    ::setpgid(0, 0);
    main_pid = ::getpid();
    struct sigaction handle {};
    handle.sa_handler = count_where;
    handle.sa_flags = SA_RESTART;
    ::sigaction(SIGUSR1, &handle, nullptr);
    std::atomic<bool> stop{false};
    std::thread shower([&] {
      while (!stop) ::kill(0, SIGUSR1);
    });
    SpawnOptions options;
    options.arguments = {"/bin/true"};
    for (int i = 0; i < 50; ++i) wait_for(ipc::spawn(options));  // ended by the signal or not: both are right
    stop = true;
    shower.join();
    return 0;
  });
  EXPECT_EQ(test.wait(), 0);
  EXPECT_GT(runs->in_parent, 0);
  EXPECT_EQ(runs->elsewhere, 0);
  ::munmap(memory, 4096);
}

// ---- descriptors ----

// A child that lives until its standard input ends.
class Cat {
 public:
  explicit Cat(SpawnOptions options = {}) : input_(ipc::make_pipe()) {
    options.arguments = {"cat"};
    options.standard_input = input_.read.get();
    pid_ = ipc::spawn(options);
  }
  Cat(const Cat&) = delete;
  Cat& operator=(const Cat&) = delete;
  ~Cat() {
    if (pid_ > 0) finish();
  }
  int finish() {
    input_.write.reset();
    return wait_for(std::exchange(pid_, -1));
  }
  [[nodiscard]] std::string who() const { return std::to_string(pid_); }
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  Pipe input_;
  pid_t pid_ = -1;
};

Fd at_number(const Fd& fd, int least) { return Fd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, least)); }

TEST(Spawn, PassesOnWhatIsAskedForAndNothingElse) {
  const TempDir folder;
  const Fd stray(::open(folder.path("stray").c_str(), O_CREAT | O_RDWR, 0600));  // inherited, if nobody takes care
  const Fd given(::open(folder.path("given").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  SpawnOptions options;
  options.descriptors = {{given.get(), 33}};
  const Cat cat(options);
  const auto inside = open_descriptors(cat.who());
  ASSERT_EQ(inside.size(), 4U);
  EXPECT_TRUE(inside.count(0) && inside.count(1) && inside.count(2));
  EXPECT_EQ(inside.at(33), folder.path("given"));
}

TEST(Spawn, RedirectsTheThreeStandardDescriptors) {
  Pipe in = ipc::make_pipe(), out = ipc::make_pipe(), err = ipc::make_pipe();
  SpawnOptions options = shell("cat; echo problem >&2");
  options.standard_input = in.read.get();
  options.standard_output = out.write.get();
  options.standard_error = err.write.get();
  const pid_t pid = ipc::spawn(options);
  in.read.reset();
  out.write.reset();
  err.write.reset();
  ASSERT_EQ(ipc::write_full(in.write.get(), "text", 4), 4);
  in.write.reset();
  EXPECT_EQ(read_all(out.read.get()), "text");
  EXPECT_EQ(read_all(err.read.get()), "problem\n");
  EXPECT_EQ(wait_for(pid), 0);
}

TEST(Spawn, NumbersMayOverlapInAnyWay) {
  const TempDir folder;
  std::vector<Fd> files;
  std::vector<std::string> names;
  for (const char* name : {"a", "b", "c", "d"}) {
    names.push_back(folder.path(name));
    const Fd low(::open(names.back().c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    files.push_back(at_number(low, 50));
  }
  const auto number = [&](std::size_t i) { return files[i].get(); };
  SpawnOptions options;
  // a and b change places; c stays; d goes to a free number and, once more, to the one above.
  options.descriptors = {{number(0), number(1)}, {number(1), number(0)}, {number(2), number(2)},
                         {number(3), 70},        {number(3), 71},        {number(0), number(3)}};
  const Cat cat(options);
  const auto inside = open_descriptors(cat.who());
  EXPECT_EQ(inside.size(), 9U);
  EXPECT_EQ(inside.at(number(1)), names[0]);
  EXPECT_EQ(inside.at(number(0)), names[1]);
  EXPECT_EQ(inside.at(number(2)), names[2]);
  EXPECT_EQ(inside.at(70), names[3]);
  EXPECT_EQ(inside.at(71), names[3]);
  EXPECT_EQ(inside.at(number(3)), names[0]);
  EXPECT_TRUE(::fcntl(number(2), F_GETFD) & FD_CLOEXEC) << "ours stays as it was";
}

TEST(Spawn, StandardOutputAndErrorMayBeExchanged) {
  Pipe out = ipc::make_pipe(), err = ipc::make_pipe();
  Child middle([&] {  // a process whose own 1 and 2 may be replaced
    ::dup2(out.write.get(), 1);
    ::dup2(err.write.get(), 2);
    SpawnOptions options = shell("echo to-out; echo to-err >&2");
    options.standard_output = 2;
    options.standard_error = 1;
    return wait_for(ipc::spawn(options));
  });
  EXPECT_EQ(middle.wait(), 0);
  out.write.reset();
  err.write.reset();
  EXPECT_EQ(read_all(out.read.get()), "to-err\n");
  EXPECT_EQ(read_all(err.read.get()), "to-out\n");
}

TEST(Spawn, AFailureIsToldEvenIfEveryNumberIsWanted) {
  const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  SpawnOptions options;
  for (int number = 3; number < 200; ++number) options.descriptors.emplace_back(null.get(), number);
  options.arguments = {"true"};
  EXPECT_EQ(failure_of(options).step, "started");
  options.arguments = {"/ipc/no/such/program"};
  EXPECT_EQ(failure_of(options).error, ENOENT) << "the error pipe has got out of the way";
}

TEST(Spawn, AClosedDescriptorIsNamed) {
  SpawnOptions options = shell("true");
  options.descriptors = {{999, 5}};
  const Failure failure = failure_of(options);
  EXPECT_EQ(failure.step, "dup2");
  EXPECT_EQ(failure.error, EBADF);
  EXPECT_NE(failure.text.find("999 -> 5"), std::string::npos) << failure.text;
}

TEST(Spawn, StandardDescriptorsMayBeClosedInTheParent) {
  const TempDir folder;
  Child middle([&] {
    for (const int number : {0, 1, 2}) ::close(number);  // the pipes of spawn() get these numbers
    SpawnOptions options = shell("echo written");
    const Fd file(::open(folder.path("out").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    options.standard_output = file.get();
    options.standard_error = file.get();
    if (wait_for(ipc::spawn(options)) != 0) return 1;
    options.arguments = {"/ipc/no/such/program"};
    return failure_of(options).error == ENOENT ? 0 : 2;
  });
  EXPECT_EQ(middle.wait(), 0);
  EXPECT_EQ(ipc::testing::read_text(folder.path("out")), "written\n");
}

// ---- life and death ----

TEST(Spawn, TheGroupExistsWhenSpawnReturns) {
  SpawnOptions options;
  options.new_process_group = true;
  for (int i = 0; i < 20; ++i) {
    Cat cat(options);
    ASSERT_EQ(::getpgid(cat.pid()), cat.pid());
    ASSERT_EQ(::kill(-cat.pid(), SIGKILL), 0);
    const int status = cat.finish();
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  }
  const Cat cat;
  EXPECT_EQ(::getpgid(cat.pid()), ::getpgrp()) << "unless it is asked for";
}

// How a child of a process that has ended fares. We become its parent, so that we can see it.
int status_of_orphan(int parent_death_signal) {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  const Pipe input = ipc::make_pipe();
  const Pipe report = ipc::make_pipe();
  Child middle([&] {
    SpawnOptions options;
    options.arguments = {"cat"};
    options.standard_input = input.read.get();
    options.parent_death_signal = parent_death_signal;
    const pid_t pid = ipc::spawn(options);
    return ipc::write_full(report.write.get(), &pid, sizeof pid) == sizeof pid ? 0 : 1;
  });
  pid_t orphan = -1;
  EXPECT_EQ(ipc::read_full(report.read.get(), &orphan, sizeof orphan), static_cast<ssize_t>(sizeof orphan));
  EXPECT_EQ(middle.wait(), 0);
  if (parent_death_signal == 0) ::kill(orphan, SIGTERM);  // it lives until somebody does something
  const int status = wait_for(orphan);
  ::prctl(PR_SET_CHILD_SUBREAPER, 0);
  return status;
}

TEST(Spawn, TheParentDeathSignalComes) {
  const int killed = status_of_orphan(SIGKILL);
  EXPECT_TRUE(WIFSIGNALED(killed) && WTERMSIG(killed) == SIGKILL) << killed;
  const int lived = status_of_orphan(0);
  EXPECT_TRUE(WIFSIGNALED(lived) && WTERMSIG(lived) == SIGTERM) << lived;
}

TEST(Spawn, ThreadsMayStartProgramsAtTheSameTime) {
  const auto before = open_descriptors();
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 15; ++i) {
        const std::string text = std::to_string(t) + "/" + std::to_string(i);
        if (output_of(shell("echo " + text)) != text + "\n") ++wrong;
        SpawnOptions missing;
        missing.arguments = {"/ipc/no/such/program"};
        if (failure_of(missing).error != ENOENT) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(open_descriptors(), before);
}

}  // namespace
