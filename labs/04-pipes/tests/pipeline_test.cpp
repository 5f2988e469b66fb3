// pipeline from outside: exit codes, who has which end of the pipe, the terminal, and what is left when it is stopped.
#include <gtest/gtest.h>
#include <pty.h>
#include <stdlib.h>

#include "program_tests.hpp"

namespace {

Outcome pipeline(const std::string& a, const std::string& b) { return run({"pipeline", a, b}); }

// Waits until so many processes run besides the pipeline itself, and gives them.
std::vector<pid_t> wait_for_members(const Started& program, std::size_t count) {
  std::vector<pid_t> members;
  EXPECT_TRUE(wait_until([&] {
    members = ipc::testing::session_members(program.pid());
    std::erase(members, program.pid());
    return members.size() == count;
  })) << members.size();
  return members;
}

// ---- what it does ----

TEST(Pipeline, SendsTheOutputOfAToB) {
  EXPECT_EQ(pipeline("printf 'b\\na\\n'", "sort").out, (Lines{"a", "b"}));
  EXPECT_EQ(pipeline("seq 100000", "tail -n 1").out, Lines{"100000"});
  EXPECT_EQ(pipeline("head -c 20000000 /dev/zero", "wc -c").out, Lines{"20000000"});
  EXPECT_EQ(run({"pipeline", "cat", "tr a-z A-Z"}, {.input = "from standard input"}).out, Lines{"FROM STANDARD INPUT"});
}

TEST(Pipeline, UnderstandsACommandAsAShellDoes) {
  EXPECT_EQ(pipeline("printf '%s.' 'a  b' \"c d\" e\\ f", "cat; echo").out, Lines{"a  b.c d.e f."});
  EXPECT_EQ(pipeline("X=5; echo $X; { echo two >&2; } 2>&1", "cat").out, (Lines{"5", "two"}));
}

TEST(Pipeline, ReturnsTheExitCodeOfB) {
  EXPECT_EQ(pipeline("true", "true").code, 0);
  EXPECT_EQ(pipeline("true", "exit 3").code, 3);
  EXPECT_EQ(pipeline("exit 3", "true").code, 0);
  EXPECT_EQ(pipeline("echo x", "cat; exit 255").code, 255);
  EXPECT_EQ(pipeline("exit 3", "sleep 0.05; exit 4").code, 4);
  EXPECT_EQ(pipeline("sleep 0.05; exit 4", "exit 3").code, 3);
}

TEST(Pipeline, SaysWithWhichSignalBDied) {
  EXPECT_EQ(pipeline("true", "kill -9 $$").code, 128 + SIGKILL);
  EXPECT_EQ(pipeline("true", "kill -15 $$").code, 128 + SIGTERM);
  EXPECT_EQ(pipeline("kill -9 $$", "true").code, 0);
}

TEST(Pipeline, SaysWhichProgramIsNotThere) {
  const Outcome no_b = pipeline("true", "there-is-no-such-program");
  EXPECT_EQ(no_b.code, 127);
  ASSERT_EQ(no_b.err.size(), 1U);
  EXPECT_NE(no_b.err.front().find("there-is-no-such-program: not found"), std::string::npos) << no_b.err.front();
  const Outcome no_a = pipeline("there-is-no-such-program", "wc -c");
  EXPECT_EQ(no_a.code, 0);
  EXPECT_EQ(no_a.out, Lines{"0"});
  EXPECT_EQ(no_a.err.size(), 1U);
  EXPECT_EQ(pipeline("true", "/").code, 126);
}

TEST(Pipeline, EndsWhenBEndsEarly) {
  Started program({"pipeline", "yes", "head -1"});
  EXPECT_EQ(program.lines(), Lines{"y"});
  EXPECT_EQ(program.wait(), 0);
  EXPECT_EQ(program.error_lines(), Lines{});
  EXPECT_TRUE(program.left_processes().empty());
  EXPECT_EQ(pipeline("yes", "exit 5").code, 5);
}

TEST(Pipeline, WaitsForATooAndReapsBoth) {
  EXPECT_EQ(pipeline("exec >&-; sleep 0.2; echo late >&2", "true").err, Lines{"late"});
  Started program({"pipeline", "kill -STOP $$", "true"});
  ASSERT_TRUE(wait_until([&] {
    const auto children = ipc::testing::children_of(program.pid());
    return children.size() == 1 && state_of(children.front()) == 'T';
  })) << "B is reaped as soon as it has ended";
  ::kill(ipc::testing::children_of(program.pid()).front(), SIGCONT);
  EXPECT_EQ(program.wait(), 0);
  EXPECT_TRUE(program.left_processes().empty());
}

// ---- descriptors ----

TEST(Pipeline, GivesEachItsEndAndKeepsNone) {
  const Started program({"pipeline", "sleep 1000", "sleep 2000"});
  const std::vector<pid_t> members = wait_for_members(program, 2);
  ASSERT_EQ(members.size(), 2U);
  const auto now_is = [](pid_t pid, const std::string& argument) {
    return ipc::testing::read_text("/proc/" + std::to_string(pid) + "/cmdline")
               .find("sleep" + std::string(1, '\0') + argument) == 0;
  };
  ASSERT_TRUE(wait_until([&] { return now_is(members[0], "1000") && now_is(members[1], "2000"); }));
  // While a program is being loaded it has its libraries open.
  std::map<int, std::string> in_a, in_b;
  EXPECT_TRUE(wait_until([&] {
    in_a = ipc::testing::open_descriptors(std::to_string(members[0]));
    in_b = ipc::testing::open_descriptors(std::to_string(members[1]));
    return in_a.size() == 3 && in_b.size() == 3;
  })) << "0, 1, 2 and nothing else: the original of a dup2() is closed";
  EXPECT_EQ(in_a[1], in_b[0]);
  EXPECT_EQ(in_a[1].rfind("pipe:", 0), 0U);
  EXPECT_TRUE(writes(members[0], 1));
  EXPECT_FALSE(writes(members[1], 0));
  // It closes its own ends when it has seen that B has started.
  EXPECT_TRUE(wait_until([&] {
    const auto own = ipc::testing::open_descriptors(std::to_string(program.pid()));
    return std::none_of(own.begin(), own.end(), [&](const auto& entry) { return entry.second == in_a[1]; });
  })) << "an end of its own is still open";
}

TEST(Pipeline, WorksWhateverItInherits) {
  const auto after = [](const std::string& preparation) {
    return run(
        {"/bin/bash", "-c", preparation + "; exec \"$1\" 'yes 2>&1' 'head -1'", "bash", program_path("pipeline")});
  };
  for (const std::string preparation : {"trap '' INT", "trap '' CHLD", "trap '' PIPE", "exec <&-", "exec 2>&-"}) {
    const Outcome outcome = after(preparation);
    EXPECT_EQ(outcome.code, 0) << preparation;
    EXPECT_EQ(outcome.out, Lines{"y"}) << preparation;
  }
}

// ---- stopped ----

TEST(Pipeline, ThatIsStoppedLeavesNothingOfWhatWasStarted) {
  for (const int signo : {SIGTERM, SIGINT, SIGHUP}) {
    // Each shell has a child; one of them will not hear of SIGTERM, and one is in a session of its own.
    Started program({"pipeline", "sleep 1000; true", "trap '' TERM; setsid sleep 1000 & sleep 1000; true"});
    std::vector<pid_t> sleepers;
    ASSERT_TRUE(wait_until([&] {
      sleepers.clear();
      for (const pid_t shell : ipc::testing::children_of(program.pid())) {
        const auto below = ipc::testing::children_of(shell);
        sleepers.insert(sleepers.end(), below.begin(), below.end());
      }
      return sleepers.size() == 3;
    }));
    program.signal(signo);
    EXPECT_EQ(program.wait(), 128 + signo);
    EXPECT_EQ(program.error_lines(), Lines{});
    EXPECT_TRUE(program.left_processes().empty());
    for (const pid_t sleeper : sleepers) EXPECT_FALSE(ipc::testing::exists(sleeper));
  }
}

TEST(Pipeline, ThatIsStoppedAtAnyMomentLeavesNothing) {
  for (const auto& moment : ipc::testing::random_moments({SIGTERM, SIGINT}, std::chrono::milliseconds(30))) {
    Started program({"pipeline", "yes; true", "cat > /dev/null; true"});
    std::this_thread::sleep_for(moment.delay);
    program.signal(moment.signo);
    EXPECT_EQ(program.wait(), 128 + moment.signo);
    EXPECT_EQ(program.error_lines(), Lines{});
    EXPECT_TRUE(program.left_processes().empty());
  }
}

TEST(Pipeline, ThatIsKilledTakesAAndBWithIt) {
  const Started program({"pipeline", "sleep 1000", "sleep 1000"});
  const std::vector<pid_t> members = wait_for_members(program, 2);
  program.signal(SIGKILL);
  for (const pid_t pid : members) EXPECT_TRUE(wait_until([&] { return !ipc::testing::is_alive(pid); }));
}

// ---- at a terminal ----

// pipeline, started by us as a login shell starts a job: it has a terminal, and is in its foreground.
class AtTerminal {
 public:
  AtTerminal(const std::string& a, const std::string& b) {
    const std::string path = program_path("pipeline");
    pid_ = ::forkpty(&terminal_, nullptr, nullptr, nullptr);
    if (pid_ == 0) {
      ::execl(path.c_str(), "pipeline", a.c_str(), b.c_str(), static_cast<char*>(nullptr));
      ::_exit(127);
    }
  }
  AtTerminal(const AtTerminal&) = delete;
  AtTerminal& operator=(const AtTerminal&) = delete;
  ~AtTerminal() {
    ::close(terminal_);
    if (!ended_) ipc::testing::kill_child(pid_, SIGKILL), ::waitpid(pid_, nullptr, 0);
  }
  void type(const std::string& keys) const {
    EXPECT_EQ(::write(terminal_, keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
  }
  // Reads until `text` has been seen.
  bool sees(const std::string& text) {
    return wait_until([&] {
      pollfd readable{terminal_, POLLIN, 0};
      char buffer[1024];
      if (::poll(&readable, 1, 10) == 1) {
        const ssize_t count = ::read(terminal_, buffer, sizeof buffer);
        if (count > 0) seen_.append(buffer, static_cast<std::size_t>(count));
      }
      return seen_.find(text) != std::string::npos;
    });
  }
  int wait() {
    int status = -1;
    if (wait_until([&] { return ::waitpid(pid_, &status, WNOHANG) == pid_; })) ended_ = true;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  int terminal_ = -1;
  pid_t pid_ = -1;
  bool ended_ = false;
  std::string seen_;
};

TEST(PipelineAtATerminal, LetsBReadTheKeyboardAsLessDoes) {
  AtTerminal job("echo page", "cat; read key < /dev/tty; echo got $key");
  EXPECT_TRUE(job.sees("page"));
  job.type("q\n");
  EXPECT_TRUE(job.sees("got q"));
  EXPECT_EQ(job.wait(), 0);
}

TEST(PipelineAtATerminal, EndsByControlCWhenItsProgramsDo) {
  AtTerminal job("sleep 1000", "echo ready; cat");
  EXPECT_TRUE(job.sees("ready"));
  job.type("\003");
  EXPECT_EQ(job.wait(), 128 + SIGINT);
}

TEST(PipelineAtATerminal, GoesOnAfterControlCAsLongAsBDoes) {
  AtTerminal job("true",
                 "trap 'echo interrupted' INT; echo ready; while ! read key < /dev/tty; do :; done; echo got $key");
  EXPECT_TRUE(job.sees("ready"));
  job.type("\003");
  EXPECT_TRUE(job.sees("interrupted"));
  job.type("q\n");
  EXPECT_TRUE(job.sees("got q"));
  EXPECT_EQ(job.wait(), 0);
}

// ---- --tag ----

TEST(TaggedPipeline, ShowsWholeLinesWithTheirOrigin) {
  const Outcome outcome = run({"pipeline", "--tag", "echo x; echo a >&2", "cat; printf 'half'; echo b >&2"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.out, (Lines{"[B : stdout] x", "[B : stdout] half"}));
  Lines errors = outcome.err;
  std::sort(errors.begin(), errors.end());
  EXPECT_EQ(errors, (Lines{"[A : stderr] a", "[B : stderr] b"}));
}

TEST(TaggedPipeline, DoesNotMixLinesThatComeInPieces) {
  const Outcome outcome = run({"pipeline", "--tag", "for i in 1 2 3; do printf a$i- >&2; sleep 0.01; done",
                               "for i in 1 2 3; do printf b$i- >&2; sleep 0.01; done"});
  Lines errors = outcome.err;
  std::sort(errors.begin(), errors.end());
  EXPECT_EQ(errors, (Lines{"[A : stderr] a1-a2-a3-", "[B : stderr] b1-b2-b3-"}));
}

TEST(TaggedPipeline, ThatIsStoppedWhileNobodyReadsLeavesNothing) {
  Started program({"pipeline", "--tag", "yes", "cat"});
  ASSERT_EQ(wait_for_members(program, 2).size(), 2U);
  // Nobody reads. Once all four pipes are full nothing of it runs any more.
  ASSERT_TRUE(wait_until([&] {
    const auto members = ipc::testing::session_members(program.pid());
    return std::all_of(members.begin(), members.end(), [](pid_t pid) { return state_of(pid) == 'S'; });
  }));
  program.signal(SIGTERM);
  EXPECT_TRUE(wait_until([&] { return program.ended(); })) << "it must not wait for a reader";
  EXPECT_EQ(program.wait(), 128 + SIGTERM);
  EXPECT_TRUE(program.left_processes().empty());
}

TEST(TaggedPipeline, SaysWhenNobodyTakesItsLines) {
  Started program({"pipeline", "--tag", "yes", "cat"});
  ASSERT_TRUE(program.line());
  program.close_output();
  EXPECT_EQ(program.wait(), 1);
  EXPECT_EQ(program.error_lines(), Lines{"pipeline: standard output: Broken pipe"});
  EXPECT_TRUE(program.left_processes().empty());
}

// ---- the rest ----

TEST(Pipeline, SaysWhatIsWrongWithTheCommandLine) {
  expect_error(run({"pipeline"}), "pipeline: CMD_A is missing", 2);
  expect_error(run({"pipeline", "ls"}), "pipeline: CMD_B is missing", 2);
  expect_error(run({"pipeline", "ls", "cat", "wc"}), "pipeline: too many arguments", 2);
  expect_error(run({"pipeline", "", "cat"}), "pipeline: an empty command", 2);
  expect_error(run({"pipeline", "ls", "cat", "--tags"}), "pipeline: unrecognised option '--tags'", 2);
  EXPECT_EQ(run({"pipeline", "--help"}).code, 0);
}

TEST(Pipeline, LeaksNothingUnderValgrind) {
  if (!ipc::testing::sanitizer().empty()) GTEST_SKIP() << "a sanitizer and valgrind do not go together";
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"pipeline", "seq 10", "tail -n 1"}, {"pipeline", "--tag", "seq 10", "tail -n 1"}}) {
    const auto checked = ipc::testing::run_under_valgrind(arguments);
    EXPECT_EQ(checked.outcome.code, 0);
    EXPECT_EQ(checked.complaints, Lines{});
  }
  EXPECT_EQ(ipc::testing::stop_under_valgrind({"pipeline", "--tag", "yes", "cat"}).complaints, Lines{});
}

}  // namespace
