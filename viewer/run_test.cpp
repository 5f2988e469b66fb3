// dsmtop as its user meets it: the real program in a pseudo-terminal, a made-up dsmexec at the other end of the socket.
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "dsm/telemetry/viewer_port.hpp"
#include "ipc/spawn.hpp"
#include "viewer/pseudo_terminal_test.hpp"
#include "viewer/sample_test.hpp"

namespace viewer {
namespace {

using dsm::telemetry::ViewerPort;
using Clock = std::chrono::steady_clock;

std::string dsmtop() {
  return (std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path() / "bin" / "dsmtop").string();
}

// A job of four ranks that answers whoever asks, in a thread of its own: the only one that touches the port.
class FakeJob {
 public:
  // `restless`: every cell and every number changes with every frame, so that much must be drawn.
  explicit FakeJob(const std::string& program, bool restless = false)
      : port_(program), job_(port_.job()), restless_(restless), thread_([this] { serve(); }) {}
  ~FakeJob() { end(); }
  [[nodiscard]] const std::string& name() const { return job_; }
  void end() {
    ending_ = true;
    if (thread_.joinable()) thread_.join();
  }

 private:
  [[nodiscard]] Snapshot now() {
    Snapshot s = sample_snapshot(++turn_ * 100'000);
    s.job = job_;
    add_pages(s);
    if (!restless_) return s;
    for (PageSample& page : s.pages_touched) {
      page.state = 2;
      page.owner = static_cast<std::uint8_t>((page.page + turn_) % 4);
    }
    return s;
  }
  void serve() {
    while (!ending_) {
      std::vector<pollfd> polled;
      port_.add_to(polled);
      (void)::poll(polled.data(), polled.size(), 10);
      port_.serve();
      if (port_.pending()) port_.answer(now());
    }
    port_.finish(now());
  }

  ViewerPort port_;
  const std::string job_;
  const bool restless_;
  std::uint64_t turn_ = 0;
  std::atomic<bool> ending_{false};
  std::thread thread_;  // last: it uses all others
};

// dsmtop in a pseudo-terminal.
struct Terminal : PseudoTerminal {
  explicit Terminal(const std::string& job, const std::string& locale = "C")
      : PseudoTerminal({dsmtop(), job}, locale) {}
};

constexpr const char* leaves_the_screen = "\x1b[?1049l";  // rmcup in xterm's terminfo

struct Result {
  int status;
  std::string out, err;
};

std::string read_to_end(int fd) {
  std::string out;
  std::array<char, 4096> buffer;
  for (ssize_t n; (n = ::read(fd, buffer.data(), buffer.size())) > 0;) {
    out.append(buffer.data(), static_cast<std::size_t>(n));
  }
  return out;
}

// dsmtop with pipes for standard descriptors.
Result run(const std::vector<std::string>& arguments) {
  ipc::Pipe out = ipc::make_pipe(), err = ipc::make_pipe(), in = ipc::make_pipe();
  ipc::SpawnOptions options;
  options.arguments = {dsmtop()};
  options.arguments.insert(options.arguments.end(), arguments.begin(), arguments.end());
  options.environment = std::vector<std::string>{"LC_ALL=C"};
  options.standard_input = in.read.get();
  options.standard_output = out.write.get();
  options.standard_error = err.write.get();
  const pid_t pid = ipc::spawn(options);
  out.write.reset();
  err.write.reset();
  Result result{0, read_to_end(out.read.get()), read_to_end(err.read.get())};
  ::waitpid(pid, &result.status, 0);
  return result;
}

void expect_refusal(const Result& result, int code) {
  EXPECT_TRUE(WIFEXITED(result.status) && WEXITSTATUS(result.status) == code) << result.status;
  EXPECT_EQ(result.out, "");
  EXPECT_TRUE(result.err.starts_with("dsmtop: ")) << result.err;
  EXPECT_EQ(result.err.find('\n'), result.err.size() - 1) << "one line: " << result.err;
}

TEST(Dsmtop, ShowsTheRanksAndQuits) {
  FakeJob job("runquits");
  Terminal terminal(job.name());
  for (const char* text : {"LIVE", "node0:4712", "node1:4713", "node2:4714", "node3:4715", "Pages 000-03f"}) {
    EXPECT_TRUE(terminal.shows(text)) << text;
  }
  EXPECT_FALSE(terminal.as_before()) << "then the rest of this would show nothing";
  terminal.type("q");
  EXPECT_EQ(terminal.end(), 0);
  EXPECT_TRUE(terminal.as_before());
  EXPECT_NE(terminal.drawn().find(leaves_the_screen), std::string::npos);
}

TEST(Dsmtop, ASignalEndsItAndTheTerminalIsAsBefore) {
  FakeJob job("runsignal");
  for (const int signo : {SIGTERM, SIGINT, SIGHUP, SIGQUIT}) {
    Terminal terminal(job.name());
    ASSERT_TRUE(terminal.shows("node3:4715"));
    terminal.signal(signo);
    const int status = terminal.end();
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == signo) << status;
    EXPECT_TRUE(terminal.as_before()) << strsignal(signo);
    EXPECT_NE(terminal.drawn().find(leaves_the_screen), std::string::npos) << strsignal(signo);
  }
}

TEST(Dsmtop, FollowsTheSizeOfTheTerminal) {
  FakeJob job("runresize");
  Terminal terminal(job.name());
  ASSERT_TRUE(terminal.shows("node3:4715"));
  terminal.resize(40, 10);
  EXPECT_TRUE(terminal.shows("0-2 of 4"));
  terminal.resize(30, 5);
  EXPECT_TRUE(terminal.shows("too small"));
  terminal.resize(160, 48);
  EXPECT_TRUE(terminal.shows("node3:4715"));
  terminal.type("q");
  EXPECT_EQ(terminal.end(), 0);
  EXPECT_TRUE(terminal.as_before());
}

TEST(Dsmtop, KeepsTheLastFrameWhenTheJobEnds) {
  FakeJob job("runends");
  Terminal terminal(job.name());
  ASSERT_TRUE(terminal.shows("node3:4715"));
  job.end();
  EXPECT_TRUE(terminal.shows("ENDED"));
  EXPECT_TRUE(terminal.shows("has ended"));
  terminal.resize(81, 24);
  EXPECT_TRUE(terminal.shows("node3:4715")) << "the last frame is kept";
  terminal.type("q");
  EXPECT_EQ(terminal.end(), 0);
  EXPECT_TRUE(terminal.as_before());
}

TEST(Dsmtop, HearsItsKeys) {
  FakeJob job("runkeys");
  Terminal terminal(job.name());
  ASSERT_TRUE(terminal.shows("> 000: exclusive A, home A"));
  terminal.type("\x1bOC");  // kcuf1, the right arrow, in xterm's terminfo
  terminal.type("?");
  EXPECT_TRUE(terminal.shows("Any key but q"));
  terminal.type("x");
  EXPECT_TRUE(terminal.shows("LIVE"));
  terminal.resize(81, 24);  // all is drawn anew, not only the characters that differ
  EXPECT_TRUE(terminal.shows("> 001: exclusive A, home B"));
  terminal.type(" ");
  EXPECT_TRUE(terminal.shows("PAUSED"));
  terminal.type(" ");
  EXPECT_TRUE(terminal.shows("LIVE"));
  terminal.type("q");
  EXPECT_EQ(terminal.end(), 0);
}

TEST(Dsmtop, WaitsForAJobToStart) {
  const std::string program = "runwaits" + std::to_string(::getpid());
  Terminal terminal(program);
  ASSERT_TRUE(terminal.shows("Waiting"));
  FakeJob job(program);
  EXPECT_TRUE(terminal.shows("node3:4715"));
  terminal.type("q");
  EXPECT_EQ(terminal.end(), 0);
  EXPECT_TRUE(terminal.as_before());
}

TEST(Dsmtop, DrawsFinerShapesOnlyWhereTheyCanBeSeen) {
  FakeJob job("runutf");
  {
    Terminal terminal(job.name(), "C.UTF-8");
    EXPECT_TRUE(terminal.shows("\xe2\x94\x80"));
    terminal.type("q");
    EXPECT_EQ(terminal.end(), 0);
  }
  for (const std::string locale : {"C", "C.UTF-8"}) {
    PseudoTerminal terminal({dsmtop(), "--ascii", job.name()}, locale);
    ASSERT_TRUE(terminal.shows("LIVE"));
    terminal.type("q");
    EXPECT_EQ(terminal.end(), 0);
    EXPECT_EQ(terminal.drawn().find('\xe2'), std::string::npos) << locale;
  }
}

TEST(Dsmtop, EndsWhenTheTerminalGoes) {
  FakeJob job("runhangup");
  Terminal terminal(job.name());
  ASSERT_TRUE(terminal.shows("node3:4715"));
  terminal.hang_up();
  EXPECT_NE(terminal.end(), -1);
}

TEST(Dsmtop, EndsEvenWhenTheTerminalTakesNothing) {
  FakeJob job("runstuck", true);
  Terminal terminal(job.name());
  const auto until = Clock::now() + test_deadline;
  while (terminal.unread() < 3500 && Clock::now() < until) (void)::poll(nullptr, 0, 10);
  ASSERT_GE(terminal.unread(), 3500) << "it does not even draw";
  terminal.signal(SIGTERM);
  const int status = terminal.end(false);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM) << status;
  EXPECT_TRUE(terminal.as_before());
}

TEST(Dsmtop, OncePrintsOneFrame) {
  FakeJob job("runonce");
  const Result result = run({"--once", job.name()});
  EXPECT_EQ(result.status, 0);
  EXPECT_EQ(result.err, "");
  EXPECT_NE(result.out.find(job.name()), std::string::npos);
  EXPECT_NE(result.out.find("node3:4715"), std::string::npos);
  EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 24);
  EXPECT_EQ(result.out.find('\x1b'), std::string::npos);
  EXPECT_NE(run({"--once", "--color", "always", job.name()}).out.find('\x1b'), std::string::npos);
}

TEST(Dsmtop, OnceJsonIsForPrograms) {
  FakeJob job("runjson");
  const Result result = run({job.name(), "--once", "--json"});
  EXPECT_EQ(result.status, 0);
  const auto j = nlohmann::json::parse(result.out);
  EXPECT_EQ(j.at("job"), job.name());
  EXPECT_EQ(j.at("ranks").size(), 4u);
  EXPECT_EQ(j.at("pages").size(), 63u);
}

TEST(Dsmtop, BatchPrintsSoManyFrames) {
  FakeJob job("runbatch");
  const Result result = run({"--batch", "2", job.name()});
  EXPECT_EQ(result.status, 0);
  EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 48);
}

TEST(Dsmtop, ListsTheJobs) {
  FakeJob job("runlist");
  const Result result = run({"--list"});
  EXPECT_EQ(result.status, 0);
  EXPECT_NE(result.out.find(job.name() + ' '), std::string::npos);
}

TEST(Dsmtop, NeverWaitsWithoutAScreen) {
  const std::string nobody = "nobody" + std::to_string(::getpid());
  expect_refusal(run({"--once", nobody}), 1);
  expect_refusal(run({"--once", "--json", nobody}), 1);
  expect_refusal(run({"--batch", "2", nobody}), 1);
}

TEST(Dsmtop, MisuseIsOneLine) {
  expect_refusal(run({"--nonsense"}), 2);
  expect_refusal(run({"--once", "a", "b"}), 2);
  expect_refusal(run({"somejob"}), 2);  // no terminal
}

TEST(Dsmtop, HelpAndVersionGoToStandardOutput) {
  for (const char* option : {"--help", "-h", "--version"}) {
    const Result result = run({option});
    EXPECT_EQ(result.status, 0);
    EXPECT_NE(result.out.find("dsmtop"), std::string::npos);
    EXPECT_EQ(result.err, "");
  }
}

}  // namespace
}  // namespace viewer
