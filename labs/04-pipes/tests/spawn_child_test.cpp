// What a started program finds: signals, descriptors, group, parent.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdarg>
#include <map>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ipc/spawn.hpp"
#include "labs/04-pipes/tests/spawning.hpp"
#include "labs/common/testing.hpp"

namespace {

using ipc::Fd;
using ipc::Pipe;
using ipc::SpawnOptions;
using ipc::testing::Child;
using ipc::testing::Failure;
using ipc::testing::failure_of;
using ipc::testing::kill_child;
using ipc::testing::kill_group_of_child;
using ipc::testing::open_descriptors;
using ipc::testing::output_of;
using ipc::testing::read_all;
using ipc::testing::shell;
using ipc::testing::TempDir;
using ipc::testing::wait_for;

// ---- signals ----

void do_nothing(int) {}

// 32 and 33 are glibc's own, for cancellation and setuid: sigaction(2) refuses them, and what posix_spawn(3) starts (make
// uses it) has them ignored.
constexpr unsigned long long signals_of_libc = 3ULL << 31;

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
      const std::size_t at = seen.find(std::string(field) + ":\t");
      if (at == std::string::npos) return 1;
      if ((std::stoull(seen.substr(at + 8, 16), nullptr, 16) & ~signals_of_libc) != 0) return 1;
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
    main_pid = ::getpid();
    if (::setpgid(0, 0) == -1 || ::getpgrp() != main_pid) return 1;  // else the shower would hit others
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

// The kernel closes what is close-on-exec one by one, from the lowest: when the error pipe has told that exec
// succeeded, a higher one may still be on its way out. One that is there to stay is still there at the deadline.
std::map<int, std::string> descriptors_in(const Cat& cat, std::size_t expected) {
  std::map<int, std::string> inside;
  static_cast<void>(ipc::testing::wait_until(
      [&] {
        inside = open_descriptors(cat.who());
        return inside.size() == expected;
      },
      std::chrono::seconds(10)));
  return inside;
}

Fd at_number(const Fd& fd, int least) { return Fd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, least)); }

TEST(Spawn, PassesOnWhatIsAskedForAndNothingElse) {
  const TempDir folder;
  const Fd stray(::open(folder.path("stray").c_str(), O_CREAT | O_RDWR, 0600));  // inherited, if nobody takes care
  const Fd given(::open(folder.path("given").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  SpawnOptions options;
  options.descriptors = {{given.get(), 33}};
  const Cat cat(options);
  const auto inside = descriptors_in(cat, 4);
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
  const auto inside = descriptors_in(cat, 9);
  ASSERT_EQ(inside.size(), 9U);
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
    ASSERT_EQ(kill_group_of_child(cat.pid(), SIGKILL), 0);
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
  if (parent_death_signal == 0) kill_child(orphan, SIGTERM);  // it lives until somebody does something
  const int status = orphan > 1 ? wait_for(orphan) : -1;
  ::prctl(PR_SET_CHILD_SUBREAPER, 0);
  return status;
}

TEST(Spawn, TheParentDeathSignalComes) {
  const int killed = status_of_orphan(SIGKILL);
  EXPECT_TRUE(WIFSIGNALED(killed) && WTERMSIG(killed) == SIGKILL) << killed;
  const int lived = status_of_orphan(0);
  EXPECT_TRUE(WIFSIGNALED(lived) && WTERMSIG(lived) == SIGTERM) << lived;
}

int announce = -1;  // where the child tells its pid; -1: nobody has to die

// Runs in the child, when it asks for the parent-death signal: its parent dies before it does so.
void outlive_the_parent() {
  const pid_t parent = ::getppid(), self = ::getpid();
  static_cast<void>(ipc::write_full(announce, &self, sizeof self));
  if (parent > 1) ::kill(parent, SIGKILL);
  while (::getppid() == parent) ::sched_yield();
}

}  // namespace

// Instead of the C library's, for all of this program: after vfork(2) no handler of pthread_atfork(3) runs.
extern "C" int prctl(int option, ...) noexcept {
  std::va_list rest;
  va_start(rest, option);
  unsigned long values[4];
  for (unsigned long& value : values) value = va_arg(rest, unsigned long);
  va_end(rest);
  if (option == PR_SET_PDEATHSIG && announce != -1) outlive_the_parent();
  return static_cast<int>(::syscall(SYS_prctl, option, values[0], values[1], values[2], values[3]));
}

namespace {

TEST(Spawn, TheParentDeathSignalComesThoughTheParentIsAlreadyDead) {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  Pipe input = ipc::make_pipe();
  const Pipe report = ipc::make_pipe();
  Child middle([&] {
    announce = report.write.get();
    SpawnOptions options;
    options.arguments = {"cat"};
    options.standard_input = input.read.get();
    options.parent_death_signal = SIGKILL;
    static_cast<void>(ipc::spawn(options));
    return 1;  // not reached
  });
  pid_t orphan = -1;
  ASSERT_EQ(ipc::read_full(report.read.get(), &orphan, sizeof orphan), static_cast<ssize_t>(sizeof orphan));
  const int ended = middle.wait();
  EXPECT_TRUE(WIFSIGNALED(ended) && WTERMSIG(ended) == SIGKILL);
  input.write.reset();  // a cat that lives on ends now, with 0
  const int status = wait_for(orphan);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
  ::prctl(PR_SET_CHILD_SUBREAPER, 0);
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
