// hello_signals, from outside.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>

#include "labs/common/handlers.hpp"
#include "labs/common/observing.hpp"

namespace {

using namespace ipc::testing;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;

const std::string hour = "3600000";

// The numbers in "children: 29083 29084".
std::vector<pid_t> pids_in(const std::string& line) {
  std::istringstream words(line);
  std::string heading;
  words >> heading;
  EXPECT_EQ(heading, "children:");
  return {std::istream_iterator<pid_t>(words), std::istream_iterator<pid_t>()};
}
std::vector<pid_t> first_line(Started& program) { return pids_in(program.line().value_or("nothing")); }
std::string greeting_of(pid_t pid) { return "Hello from PID " + std::to_string(pid); }

// The single process that a wrapper (strace, script) has started.
pid_t wrapped(const Started& wrapper) {
  pid_t pid = 0;
  EXPECT_TRUE(wait_until([&] {
    const auto children = children_of(wrapper.pid());
    if (!children.empty()) pid = children.front();
    return pid != 0;
  }));
  return pid;
}

// Does any process of the program still run? The zombies of a killed parent are init's to reap, when it comes to that.
// hello_signals under strace, which lists its calls of kill() and wait4() in `trace`.
std::vector<std::string> traced(const std::string& trace, const std::vector<std::string>& options) {
  std::vector<std::string> arguments = {"/usr/bin/strace", "-f", "-q",  "-e", "trace=kill,wait4",           "-e",
                                        "signal=none",     "-o", trace, "--", program_path("hello_signals")};
  arguments.insert(arguments.end(), options.begin(), options.end());
  return arguments;
}
// LeakSanitizer does not live under ptrace; the rest of it does.
RunOptions under_strace() { return {.environment = {"ASAN_OPTIONS=detect_leaks=0"}}; }

// Which child (0, 1 ...) each SIGUSR1 went to: from the parent's calls, because two greetings of two children may arrive
// in either order.
std::vector<std::size_t> order_of_greetings(const std::vector<std::string>& options) {
  const TempDir folder;
  const Outcome outcome = run(traced(folder.path("trace"), options), under_strace());
  EXPECT_EQ(outcome.code, 0);
  const auto pids = pids_in(outcome.out.empty() ? "" : outcome.out.front());
  std::vector<std::size_t> order;
  std::ifstream trace(folder.path("trace"));
  for (std::string line; std::getline(trace, line);) {
    int target = 0;
    const auto call = line.find("kill(");
    if (call == std::string::npos || std::sscanf(line.c_str() + call, "kill(%d, SIGUSR1", &target) != 1) continue;
    if (line.find("SIGUSR1") == std::string::npos) continue;
    const auto child = std::find(pids.begin(), pids.end(), target);
    EXPECT_NE(child, pids.end()) << line;
    order.push_back(static_cast<std::size_t>(child - pids.begin()));
  }
  return order;
}

TEST(HelloSignals, StartsItsChildrenGreetsThemAndReapsThem) {
  Started program({"hello_signals", "--period-ms", "200", "--count", "20"});
  const auto pids = first_line(program);
  EXPECT_EQ(pids.size(), 5U);
  EXPECT_EQ(children_of(program.pid()), pids);
  std::set<std::string> allowed;
  for (const pid_t pid : pids) allowed.insert(greeting_of(pid));
  const auto greetings = program.lines();
  EXPECT_EQ(greetings.size(), 20U);
  for (const std::string& line : greetings) EXPECT_EQ(allowed.count(line), 1U) << line;
  EXPECT_EQ(program.wait(), 0);
  EXPECT_THAT(program.error_lines(), IsEmpty());
  EXPECT_THAT(program.left_processes(), IsEmpty());
}

TEST(HelloSignals, EachChildIsGreetedAndInNoFixedCycle) {
  const auto order = order_of_greetings({"--period-ms", "1", "--count", "300", "--seed", "20"});
  ASSERT_EQ(order.size(), 300U);
  for (std::size_t child = 0; child < 5; ++child) {
    EXPECT_GE(std::count(order.begin(), order.end(), child), 30) << "child " << child;
  }
  for (std::ptrdiff_t cycle = 1; cycle <= 100; ++cycle) {
    EXPECT_FALSE(std::equal(order.begin() + cycle, order.end(), order.begin())) << "a cycle of " << cycle;
  }
  std::set<std::pair<std::size_t, std::size_t>> pairs;
  for (std::size_t i = 1; i < order.size(); ++i) pairs.insert({order[i - 1], order[i]});
  EXPECT_EQ(pairs.size(), 25U) << "each child follows each, itself too";
}

TEST(HelloSignals, TheSameSeedGivesTheSameSequence) {
  const std::vector<std::string> options = {"--period-ms", "1", "--count", "300", "--seed"};
  const auto with_seed = [&](const std::string& seed) {
    auto all = options;
    all.push_back(seed);
    return order_of_greetings(all);
  };
  const auto order = with_seed("7");
  EXPECT_EQ(with_seed("7"), order);
  EXPECT_NE(with_seed("8"), order);
}

TEST(HelloSignals, EveryChildGreetsAtAPeriodOfOneMillisecond) {
  const Outcome outcome = run({"hello_signals", "--period-ms", "1", "--count", "300"});
  EXPECT_EQ(outcome.code, 0);
  ASSERT_FALSE(outcome.out.empty());
  EXPECT_LE(outcome.out.size(), 301U);
  for (const pid_t pid : pids_in(outcome.out.front())) EXPECT_THAT(outcome.out, ::testing::Contains(greeting_of(pid)));
}

TEST(HelloSignals, AChildGreetsWhoeverSendsTheSignal) {
  Started program({"hello_signals", "--period-ms", hour});
  for (const pid_t pid : first_line(program)) {
    ASSERT_GT(pid, 1);
    ::kill(pid, SIGUSR1);
    EXPECT_EQ(program.line(), greeting_of(pid));
    ::kill(pid, SIGUSR1);
    EXPECT_EQ(program.line(), greeting_of(pid));
  }
}

TEST(HelloSignals, TheParentTakesNoSigusr1ForItself) {
  Started program({"hello_signals", "--children", "1", "--period-ms", "20", "--count", "20"});
  first_line(program);
  for (int i = 0; i < 10; ++i) {
    program.signal(SIGUSR1);
    EXPECT_TRUE(program.line().has_value());
  }
  EXPECT_EQ(program.wait(), 0);
}

// SIGINT has the lower number and is delivered first.
TEST(HelloSignals, AGreetingAskedForBeforeTheEndIsStillGiven) {
  Started program({"hello_signals", "--children", "2", "--period-ms", hour});
  const pid_t child = first_line(program).front();
  ASSERT_GT(child, 1);
  ::kill(child, SIGSTOP);
  ASSERT_TRUE(wait_until([&] { return state_of(child) == 'T'; }));
  ::kill(child, SIGUSR1);
  ::kill(child, SIGINT);
  ::kill(child, SIGCONT);
  EXPECT_EQ(program.line(), greeting_of(child));
  EXPECT_EQ(program.error_line(), "hello_signals: child " + std::to_string(child) + ": exited with code 0");
}

TEST(HelloSignals, AChildKilledFromOutsideIsNoticedAndNotSignalledAgain) {
  const TempDir folder;
  Started strace(traced(folder.path("trace"), {"--period-ms", "5", "--count", "1000000"}), under_strace());
  const auto pids = first_line(strace);
  ASSERT_EQ(pids.size(), 5U);
  const pid_t victim = pids[2];
  ::kill(victim, SIGKILL);
  EXPECT_EQ(strace.error_line(), "hello_signals: child " + std::to_string(victim) + ": was killed by SIGKILL");
  EXPECT_FALSE(exists(victim));
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(strace.line().has_value());
  ::kill(wrapped(strace), SIGTERM);
  strace.wait();

  bool reaped = false;
  std::ifstream trace(folder.path("trace"));
  for (std::string line; std::getline(trace, line);) {
    if (line.find("wait4") != std::string::npos && line.find(" = " + std::to_string(victim)) != std::string::npos) {
      reaped = true;
    }
    EXPECT_FALSE(reaped && line.find("kill(" + std::to_string(victim)) != std::string::npos) << line;
  }
  EXPECT_TRUE(reaped);
}

TEST(HelloSignals, SeveralChildrenThatEndAtOnceAreAllReaped) {
  Started program({"hello_signals", "--period-ms", hour});
  const auto pids = first_line(program);
  ASSERT_EQ(pids.size(), 5U);
  program.signal(SIGSTOP);  // so that one SIGCHLD must do for three
  ASSERT_TRUE(wait_until([&] { return state_of(program.pid()) == 'T'; }));
  for (int i = 0; i < 3; ++i) ::kill(pids[static_cast<std::size_t>(i)], SIGKILL);
  ASSERT_TRUE(wait_until([&] { return std::count_if(pids.begin(), pids.end(), is_alive) == 2; }));
  program.signal(SIGCONT);
  EXPECT_TRUE(wait_until([&] { return children_of(program.pid()) == std::vector<pid_t>{pids[3], pids[4]}; }));
}

TEST(HelloSignals, WithoutChildrenItEndsWithAnError) {
  Started program({"hello_signals", "--children", "2", "--period-ms", hour});
  for (const pid_t pid : first_line(program)) {
    ASSERT_GT(pid, 1);
    ::kill(pid, SIGKILL);
  }
  EXPECT_EQ(program.wait(), 1);
  const auto errors = program.error_lines();
  ASSERT_EQ(errors.size(), 3U);
  EXPECT_EQ(errors.back(), "hello_signals: all children are gone");
  EXPECT_THAT(program.left_processes(), IsEmpty());
}

TEST(HelloSignals, AKilledParentLeavesNoChild) {
  Started program({"hello_signals", "--period-ms", hour});
  EXPECT_EQ(first_line(program).size(), 5U);
  program.signal(SIGKILL);
  EXPECT_EQ(program.wait(), 128 + SIGKILL);
  EXPECT_TRUE(none_alive(program));
}

TEST(HelloSignals, ASignalAtARandomMomentLeavesNothing) {
  for (const Moment& moment : random_moments({SIGTERM, SIGINT, SIGHUP, SIGKILL}, std::chrono::milliseconds(40))) {
    Started program({"hello_signals", "--period-ms", "1", "--count", "1000000"});
    std::this_thread::sleep_for(moment.delay);
    program.signal(moment.signo);
    EXPECT_EQ(program.wait(), 128 + moment.signo);
    EXPECT_TRUE(none_alive(program));
    EXPECT_THAT(program.error_lines(), IsEmpty());
    if (moment.signo == SIGKILL) continue;
    EXPECT_THAT(program.left_processes(), IsEmpty());
  }
}

// A stopped child and one that cannot write must not keep the parent from ending them.
TEST(HelloSignals, EndsChildrenThatDoNotListen) {
  int out[2];  // the smallest pipe there is, which nobody reads
  ASSERT_EQ(::pipe(out), 0);
  ::fcntl(out[0], F_SETFD, FD_CLOEXEC);
  ::fcntl(out[1], F_SETPIPE_SZ, 4096);
  Started program({"/bin/sh", "-c",
                   "exec " + program_path("hello_signals") + " --children 2 --period-ms 1 --count 1000000 >&" +
                       std::to_string(out[1])});
  ::close(out[1]);
  std::vector<pid_t> pids;
  ASSERT_TRUE(wait_until([&] { return (pids = children_of(program.pid())).size() == 2; }));
  ::kill(pids[0], SIGSTOP);
  // Nothing is ever read, so the pipe is full when the other one's greeting does not fit any more.
  const auto greeting = static_cast<int>(("Hello from PID " + std::to_string(pids[1]) + "\n").size());
  int waiting = 0;  // bytes in the pipe
  ASSERT_TRUE(wait_until([&] { return ::ioctl(out[0], FIONREAD, &waiting) == 0 && waiting > 4096 - greeting; }));
  program.signal(SIGTERM);
  EXPECT_EQ(program.wait(), 128 + SIGTERM);
  EXPECT_THAT(program.left_processes(), IsEmpty());
  ::close(out[0]);
}

TEST(HelloSignals, CanBeStoppedBeforeItsFirstLineFits) {
  int out[2];
  ASSERT_EQ(::pipe(out), 0);
  ::fcntl(out[0], F_SETFD, FD_CLOEXEC);
  const std::string pages(static_cast<std::size_t>(::fcntl(out[1], F_SETPIPE_SZ, 4096)), '.');
  ASSERT_EQ(::write(out[1], pages.data(), pages.size()), static_cast<ssize_t>(pages.size()));
  Started program(
      {"/bin/sh", "-c", "exec " + program_path("hello_signals") + " --children 2 >&" + std::to_string(out[1])});
  ::close(out[1]);
  ASSERT_TRUE(wait_until([&] { return children_of(program.pid()).size() == 2; }));
  program.signal(SIGTERM);
  EXPECT_EQ(program.wait(), 128 + SIGTERM);
  EXPECT_THAT(program.left_processes(), IsEmpty());
  ::close(out[0]);
}

TEST(HelloSignals, UsesLittleProcessorTime) {
  const auto begin = std::chrono::steady_clock::now();
  Started program({"hello_signals"});  // at its default speed
  auto all = first_line(program);
  all.push_back(program.pid());
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(program.line().has_value());
  double used = 0;
  for (const pid_t pid : all) used += cpu_seconds(pid);
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begin;
  EXPECT_GE(passed.count(), 3.0) << "a greeting each second";
  EXPECT_LT(used, 0.05 * passed.count());
}

TEST(HelloSignals, ItsLinesArriveOnATerminalAsOnAPipe) {
  const std::string command = program_path("hello_signals") + " --period-ms 200 --count 5";
  Started terminal({"/usr/bin/script", "-qefc", command, "/dev/null"});
  std::vector<std::string> lines;
  for (std::string line : terminal.lines()) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    lines.push_back(line);
  }
  ASSERT_EQ(lines.size(), 6U);
  EXPECT_EQ(pids_in(lines.front()).size(), 5U);
  for (std::size_t i = 1; i < lines.size(); ++i) EXPECT_EQ(lines[i].rfind("Hello from PID ", 0), 0U) << lines[i];
}

TEST(HelloSignals, DoesItsJobWhateverItInherits) {
  for (const char* const inherited :
       {"--ignore-signal=INT", "--ignore-signal=CHLD", "--ignore-signal=USR1", "--block-signal=INT,USR1,CHLD,TERM"}) {
    const Outcome outcome =
        run({"/usr/bin/env", inherited, program_path("hello_signals"), "--period-ms", "200", "--count", "6"});
    EXPECT_EQ(outcome.code, 0) << inherited;
    EXPECT_EQ(outcome.out.size(), 7U) << inherited;
    EXPECT_THAT(outcome.err, IsEmpty()) << inherited;
  }
}

TEST(HelloSignals, LeavesSigintIgnoredIfItWas) {
  Started program(
      {"/usr/bin/env", "--ignore-signal=INT", program_path("hello_signals"), "--period-ms", "20", "--count", "30"});
  first_line(program);
  program.signal(SIGINT);
  EXPECT_EQ(program.wait(), 0);
}

TEST(HelloSignals, FailsIfAChildDidThoughOthersAreWell) {
  Started program({"hello_signals", "--children", "2", "--period-ms", "100", "--count", "1"});
  first_line(program);
  program.close_output();
  EXPECT_EQ(program.wait(), 1);
  EXPECT_EQ(program.error_lines().size(), 2U) << "the child says why, the parent that";
}

TEST(HelloSignals, EndsWhenNobodyReads) {
  Started program({"hello_signals", "--period-ms", "5", "--count", "1000000"});
  first_line(program);
  program.close_output();
  EXPECT_EQ(program.wait(), 1);
  EXPECT_THAT(program.left_processes(), IsEmpty());

  const Outcome full = run({"/bin/sh", "-c", "exec " + program_path("hello_signals") + " >/dev/full"});
  EXPECT_EQ(full.code, 1);
  EXPECT_THAT(full.err, ElementsAre("hello_signals: standard output: No space left on device"));
}

TEST(HelloSignals, MisuseIsOneLineAndExitCodeTwo) {
  const std::vector<std::vector<std::string>> misuses = {{"--children", "0"},
                                                         {"--children", "-1"},
                                                         {"--children", "five"},
                                                         {"--period-ms", "0"},
                                                         {"--count", "0"},
                                                         {"--count", "99999999999"},
                                                         {"--count"},
                                                         {"--seed", "-1"},
                                                         {"--sneed", "1"},
                                                         {"word"},
                                                         {"--count", ""}};
  for (auto arguments : misuses) {
    arguments.insert(arguments.begin(), "hello_signals");
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.code, 2) << arguments[1];
    EXPECT_EQ(outcome.err.size(), 1U) << arguments[1];
    EXPECT_THAT(outcome.out, IsEmpty()) << arguments[1];
  }
  const Outcome help = run({"hello_signals", "--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_THAT(help.err, IsEmpty());
}

// ---- what its handlers do --------------------------------------------------------------------------------------------

TEST(HelloSignals, NoSystemCallIsMadeInAHandler) {
  if (!sanitizer().empty()) GTEST_SKIP() << "strace and a sanitizer";
  const auto seen = trace_handlers({"hello_signals", "--period-ms", "20", "--count", "20"});
  EXPECT_EQ(seen.outcome.code, 0);
  EXPECT_GE(seen.deliveries.at("SIGUSR1"), 15);
  EXPECT_EQ(seen.deliveries.at("SIGINT"), 5);
  EXPECT_THAT(seen.offences, IsEmpty());
}

TEST(HelloSignals, NothingUnsafeIsCalledInAHandler) {
  if (!sanitizer().empty()) GTEST_SKIP() << "preloading and a sanitizer";
  const auto seen = watch_handlers({"hello_signals", "--period-ms", "20", "--count", "20"});
  EXPECT_EQ(seen.outcome.code, 0);
  EXPECT_GE(seen.deliveries.at("SIGUSR1"), 15);
  EXPECT_EQ(seen.deliveries.at("SIGINT"), 5);
  EXPECT_THAT(seen.offences, IsEmpty());
}

TEST(HandlerWatch, SeesPrintfCoutAndMalloc) {
  if (!sanitizer().empty()) GTEST_SKIP() << "preloading and a sanitizer";
  const std::map<std::string, std::string> expected = {{"printf", "printf"},
                                                       {"cout", "std::ostream"},
                                                       {"cout-without-stdio", "std::ostream"},
                                                       {"malloc", "malloc"},
                                                       {"new", "malloc"}};
  for (const auto& [what, call] : expected) {
    const auto seen = watch_handlers({build_folder() + "/tests/unsafe_handler", what});
    EXPECT_EQ(seen.outcome.code, 0) << what;
    EXPECT_THAT(seen.offences, IsSupersetOf({"inside SIGUSR1: " + call})) << what;
  }
  const auto seen = watch_handlers({build_folder() + "/tests/unsafe_handler", "nothing"});
  EXPECT_EQ(seen.deliveries.at("SIGUSR1"), 1);
  EXPECT_THAT(seen.offences, IsEmpty());
}

TEST(HandlerTrace, SeesASystemCall) {
  if (!sanitizer().empty()) GTEST_SKIP() << "strace and a sanitizer";
  const auto seen = trace_handlers({build_folder() + "/tests/unsafe_handler", "endl"});
  ASSERT_FALSE(seen.offences.empty());
  EXPECT_EQ(seen.offences.back().rfind("inside SIGUSR1: write(1, ", 0), 0U) << seen.offences.back();
}

TEST(HelloSignals, LosesNoMemoryAndNoDescriptor) {
  if (!sanitizer().empty()) GTEST_SKIP() << "valgrind and a sanitizer";
  const auto checked = run_under_valgrind({"hello_signals", "--period-ms", "100", "--count", "10"});
  EXPECT_EQ(checked.outcome.code, 0);
  EXPECT_THAT(checked.complaints, IsEmpty());
  EXPECT_THAT(stop_under_valgrind({"hello_signals", "--period-ms", hour}).complaints, IsEmpty());
}

}  // namespace
