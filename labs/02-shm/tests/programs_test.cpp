// shm_random, from outside.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>

#include "labs/common/handlers.hpp"
#include "labs/common/observing.hpp"

namespace {

using namespace ipc::testing;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Words = std::vector<std::string>;

const std::string hour = "3600000";

// "parent 29082 wrote 71"
struct Fact {
  std::string who;
  pid_t pid = 0;
  std::string did;
  int value = -1;
};
Fact fact_in(const std::string& line) {
  Fact fact;
  std::istringstream words(line);
  words >> fact.who >> fact.pid >> fact.did >> fact.value;
  EXPECT_TRUE(words && words.eof()) << line;
  return fact;
}

// All values, in order, once it is certain that each was written by the parent and then read by the child.
std::vector<int> values_handed_over(const Words& lines) {
  std::vector<int> values;
  EXPECT_EQ(lines.size() % 2, 0U);
  pid_t parent = 0, child = 0;
  for (std::size_t i = 0; i + 1 < lines.size(); i += 2) {
    const Fact wrote = fact_in(lines[i]), read = fact_in(lines[i + 1]);
    if (i == 0) parent = wrote.pid, child = read.pid;
    EXPECT_EQ(wrote.who + wrote.did + read.who + read.did, "parentwrotechildread") << lines[i] << "\n" << lines[i + 1];
    EXPECT_TRUE(wrote.pid == parent && read.pid == child && parent != child) << lines[i] << "\n" << lines[i + 1];
    EXPECT_EQ(wrote.value, read.value) << lines[i];
    values.push_back(read.value);
    if (::testing::Test::HasFailure()) break;
  }
  return values;
}

std::vector<ListedSegment> segments_of(pid_t creator) {
  auto segments = system_v_segments();
  std::erase_if(segments, [creator](const ListedSegment& segment) { return segment.creator != creator; });
  return segments;
}
// Names in /dev/shm of POSIX objects made by a process.
Words objects_of(pid_t creator) {
  Words names;
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) {
    const std::string name = entry.path().filename().string();
    if (name.rfind("shm_random-" + std::to_string(creator) + "-", 0) == 0) names.push_back(name);
  }
  return names;
}
// Nothing of it is left anywhere. The zombies of a killed parent are init's.
void expect_nothing_left(const Started& program) {
  EXPECT_TRUE(none_alive(program));
  EXPECT_TRUE(wait_until([&] { return segments_of(program.pid()).empty(); }));
  EXPECT_THAT(objects_of(program.pid()), IsEmpty());
}

// Both kinds of shared memory behave alike.
class ShmRandom : public ::testing::TestWithParam<std::string> {
 protected:
  static Words command(const Words& options) {
    Words all = {"shm_random"};
    if (!GetParam().empty()) all.push_back(GetParam());
    all.insert(all.end(), options.begin(), options.end());
    return all;
  }
  // One that has handed over one value and now waits for an hour; the child's number, too.
  static pid_t first_pair(Started& program) {
    const Fact wrote = fact_in(program.line().value_or("")), read = fact_in(program.line().value_or(""));
    EXPECT_EQ(wrote.pid, program.pid());
    EXPECT_EQ(children_of(program.pid()), std::vector<pid_t>{read.pid});
    return read.pid;
  }
};
INSTANTIATE_TEST_SUITE_P(OverEach, ShmRandom, ::testing::Values("", "--posix"),
                         [](const auto& kind) { return kind.param.empty() ? "SystemV" : "Posix"; });

TEST_P(ShmRandom, TheChildReadsWhatTheParentWrote) {
  Started program(command({}));
  EXPECT_EQ(program.wait(), 0);
  EXPECT_EQ(values_handed_over(program.lines()).size(), 5U);
  EXPECT_THAT(program.error_lines(), IsEmpty());
  EXPECT_THAT(program.left_processes(), IsEmpty());
  expect_nothing_left(program);
}

TEST_P(ShmRandom, LosesNoneOfTenThousandValuesAndDrawsBothEnds) {
  const Outcome outcome = run(command({"--count", "10000"}));
  EXPECT_EQ(outcome.code, 0);
  const auto values = values_handed_over(outcome.out);
  EXPECT_EQ(values.size(), 10000U);
  std::map<int, int> drawn;
  for (const int value : values) ++drawn[value];
  EXPECT_EQ(drawn.size(), 101U);
  EXPECT_EQ(drawn.begin()->first, 0);
  EXPECT_EQ(drawn.rbegin()->first, 100);
}

TEST_P(ShmRandom, TheSameSeedGivesTheSameValues) {
  const auto values = [](const std::string& seed) {
    return values_handed_over(run(command({"--count", "100", "--period-ms", "1", "--seed", seed})).out);
  };
  const auto first = values("1");
  EXPECT_EQ(first.size(), 100U);
  EXPECT_EQ(values("1"), first);
  EXPECT_NE(values("2"), first);
}

TEST_P(ShmRandom, TwoSideBySideDoNotMix) {
  const Words one = command({"--count", "3000", "--seed", "1"}), other = command({"--count", "3000", "--seed", "2"});
  Started first(one), second(other);
  EXPECT_EQ(first.wait(), 0);
  EXPECT_EQ(second.wait(), 0);
  EXPECT_EQ(values_handed_over(first.lines()), values_handed_over(run(one).out));
  EXPECT_EQ(values_handed_over(second.lines()), values_handed_over(run(other).out));
}

// Signals only say "look". Those of a stranger may make a line come before another, but lose no value.
TEST_P(ShmRandom, SignalsOfAStrangerDoNoHarm) {
  Started program(command({"--count", "1000000"}));
  const pid_t child = first_pair(program);
  ASSERT_GT(child, 1);
  Words lines;
  while (lines.size() < 6000) {
    const auto line = program.line();
    ASSERT_TRUE(line.has_value());
    lines.push_back(*line);
    program.signal(SIGUSR1);
    ::kill(child, SIGUSR1);
  }
  program.signal(SIGTERM);
  EXPECT_EQ(program.wait(), 128 + SIGTERM);
  for (const std::string& line : program.lines()) lines.push_back(line);
  std::vector<int> wrote, read;
  for (const std::string& line : lines) {
    const Fact fact = fact_in(line);
    (fact.who == "parent" ? wrote : read).push_back(fact.value);
  }
  ASSERT_GE(wrote.size(), 2999U);
  ASSERT_LE(wrote.size() - read.size(), 2U) << "the last one or two may not have been printed yet";
  wrote.resize(read.size());
  EXPECT_EQ(read, wrote);
}

TEST_P(ShmRandom, SleepsWhileItWaits) {
  Started program(command({"--period-ms", hour}));
  const pid_t child = first_pair(program);
  const auto used = [&] { return cpu_seconds(program.pid()) + cpu_seconds(child); };
  const double before = used();
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(700);
  while (std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_LT(used() - before, 0.05);
}

TEST_P(ShmRandom, ASignalAtARandomMomentLeavesNothing) {
  for (const Moment& moment : random_moments({SIGTERM, SIGINT, SIGHUP}, std::chrono::milliseconds(40))) {
    Started program(command({"--count", "1000000"}));
    std::this_thread::sleep_for(moment.delay);
    program.signal(moment.signo);
    EXPECT_EQ(program.wait(), 128 + moment.signo);
    EXPECT_THAT(program.left_processes(), IsEmpty());
    expect_nothing_left(program);
    EXPECT_THAT(program.error_lines(), IsEmpty());
  }
}

TEST_P(ShmRandom, AKilledParentLeavesNothing) {
  Started program(command({"--period-ms", hour}));
  first_pair(program);
  program.signal(SIGKILL);
  EXPECT_EQ(program.wait(), 128 + SIGKILL);
  expect_nothing_left(program);
}

TEST_P(ShmRandom, AChildKilledFromOutsideIsReported) {
  for (const int signo : {SIGKILL, SIGTERM}) {
    Started program(command({"--period-ms", hour}));
    const pid_t child = first_pair(program);
    ASSERT_GT(child, 1);
    ::kill(child, signo);
    EXPECT_EQ(program.wait(), 1);
    const std::string how = signo == SIGKILL ? "was killed by SIGKILL" : "exited with code 0";
    EXPECT_THAT(program.error_lines(), ElementsAre("shm_random: child " + std::to_string(child) + ": " + how));
    EXPECT_THAT(program.left_processes(), IsEmpty());
    expect_nothing_left(program);
  }
}

// A child that is stopped takes nothing, and the parent waits for it; it can be told to stop all the same.
TEST_P(ShmRandom, EndsAChildThatDoesNotListen) {
  Started program(command({"--count", "1000000"}));
  const pid_t child = first_pair(program);
  ASSERT_GT(child, 1);
  ::kill(child, SIGSTOP);
  ASSERT_TRUE(wait_until([&] { return state_of(child) == 'T' && state_of(program.pid()) == 'S'; }));
  program.signal(SIGTERM);
  EXPECT_EQ(program.wait(), 128 + SIGTERM);
  EXPECT_THAT(program.left_processes(), IsEmpty());
  expect_nothing_left(program);
}

TEST_P(ShmRandom, CanBeStoppedWhenThePipeIsFull) {
  int out[2];  // a small pipe, which nobody reads
  ASSERT_EQ(::pipe(out), 0);
  ::fcntl(out[0], F_SETFD, FD_CLOEXEC);
  ::fcntl(out[1], F_SETPIPE_SZ, 8192);
  std::string line = "exec " + program_path("shm_random") + " --count 1000000 >&" + std::to_string(out[1]);
  Started program({"/bin/sh", "-c", line + " " + GetParam()});
  ::close(out[1]);
  int waiting = 0;  // bytes in the pipe: all of one page of it, and some of the other
  ASSERT_TRUE(wait_until([&] { return ::ioctl(out[0], FIONREAD, &waiting) == 0 && waiting > 4096; }));
  program.signal(SIGTERM);
  EXPECT_EQ(program.wait(), 128 + SIGTERM);
  EXPECT_THAT(program.left_processes(), IsEmpty());
  expect_nothing_left(program);
  ::close(out[0]);
}

TEST_P(ShmRandom, EndsWhenNobodyReads) {
  Started program(command({"--count", "1000000"}));
  first_pair(program);
  program.close_output();
  EXPECT_EQ(program.wait(), 1);
  EXPECT_THAT(program.left_processes(), IsEmpty());
  expect_nothing_left(program);

  const Outcome full = run({"/bin/sh", "-c", "exec " + program_path("shm_random") + " " + GetParam() + " >/dev/full"});
  EXPECT_EQ(full.code, 1);
  EXPECT_THAT(full.err, ElementsAre("shm_random: standard output: No space left on device"));
}

TEST_P(ShmRandom, DoesItsJobWhateverItInherits) {
  for (const char* const inherited : {"--ignore-signal=INT,TERM", "--ignore-signal=CHLD", "--ignore-signal=USR1",
                                      "--block-signal=INT,USR1,CHLD,TERM"}) {
    Words all = command({"--count", "10"});
    all.front() = program_path(all.front());
    all.insert(all.begin(), {"/usr/bin/env", inherited});
    const Outcome outcome = run(all);
    EXPECT_EQ(outcome.code, 0) << inherited;
    EXPECT_EQ(values_handed_over(outcome.out).size(), 10U) << inherited;
  }
}

TEST_P(ShmRandom, LeavesNoSegmentWhenItCannotFork) {
  const ipc::testing::TempDir folder;
  // Root may fork however many there are; nobody may not.
  const Words all = ipc::testing::as_ordinary_user(folder, command({}), {"/usr/bin/prlimit", "--nproc=1", "--"});
  Started program(all, {.environment = {"ASAN_OPTIONS=detect_leaks=0"}});  // which cannot fork either
  EXPECT_EQ(program.wait(), 1);
  EXPECT_THAT(program.error_lines(), ElementsAre("shm_random: fork: Resource temporarily unavailable"));
  expect_nothing_left(program);
}

TEST_P(ShmRandom, NoSystemCallIsMadeInAHandler) {
  if (!sanitizer().empty()) GTEST_SKIP() << "strace and a sanitizer";
  const auto seen = trace_handlers(command({"--count", "50"}));
  EXPECT_EQ(seen.outcome.code, 0);
  EXPECT_GE(seen.deliveries.at("SIGUSR1"), 50);
  EXPECT_EQ(seen.deliveries.at("SIGTERM"), 1);
  EXPECT_THAT(seen.offences, IsEmpty());
}

TEST_P(ShmRandom, NothingUnsafeIsCalledInAHandler) {
  if (!sanitizer().empty()) GTEST_SKIP() << "preloading and a sanitizer";
  const auto seen = watch_handlers(command({"--count", "50"}));
  EXPECT_EQ(seen.outcome.code, 0);
  EXPECT_GE(seen.deliveries.at("SIGUSR1"), 50);
  EXPECT_EQ(seen.deliveries.at("SIGTERM"), 1);
  EXPECT_THAT(seen.offences, IsEmpty());
}

TEST_P(ShmRandom, LosesNoMemoryAndNoDescriptor) {
  if (!sanitizer().empty()) GTEST_SKIP() << "valgrind and a sanitizer";
  const auto checked = run_under_valgrind(command({"--count", "50"}));
  EXPECT_EQ(checked.outcome.code, 0);
  EXPECT_EQ(values_handed_over(checked.outcome.out).size(), 50U);
  EXPECT_THAT(checked.complaints, IsEmpty());
  EXPECT_THAT(stop_under_valgrind(command({"--period-ms", hour})).complaints, IsEmpty());
}

// ---- which table lists it --------------------------------------------------------------------------------------------

TEST(ShmRandomSystemV, TheSegmentIsMarkedForRemovalWhileBothUseIt) {
  Started program({"shm_random", "--period-ms", hour});
  ASSERT_TRUE(program.line() && program.line());
  const auto segments = segments_of(program.pid());
  ASSERT_EQ(segments.size(), 1U);
  EXPECT_TRUE(segments.front().removed);
  EXPECT_EQ(segments.front().attached, 2U);
  EXPECT_THAT(objects_of(program.pid()), IsEmpty());
  program.signal(SIGTERM);
  program.wait();
  expect_nothing_left(program);
}

TEST(ShmRandomPosix, TheObjectHasNoNameAndIsInNoTableButBothMapIt) {
  Started program({"shm_random", "--posix", "--period-ms", hour});
  ASSERT_TRUE(program.line() && program.line());
  EXPECT_THAT(segments_of(program.pid()), IsEmpty());
  EXPECT_THAT(objects_of(program.pid()), IsEmpty());
  const std::string mapped = "/dev/shm/shm_random-" + std::to_string(program.pid());
  for (const pid_t pid : {program.pid(), children_of(program.pid()).front()}) {
    const std::string maps = read_text("/proc/" + std::to_string(pid) + "/maps");
    EXPECT_NE(maps.find(mapped), std::string::npos) << maps;
  }
}

TEST(ShmRandomCommandLine, MisuseIsOneLineAndExitCodeTwo) {
  const std::vector<Words> misuses = {
      {"--count", "0"},   {"--count", "-1"},  {"--count", "five"}, {"--period-ms", "-1"},
      {"--count", "1e3"}, {"--posix", "yes"}, {"--posix=1"},       {"--seed", "x"},
      {"--nonsense"},     {"word"},           {"--count"}};
  for (Words arguments : misuses) {
    arguments.insert(arguments.begin(), "shm_random");
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.code, 2) << arguments[1];
    EXPECT_EQ(outcome.err.size(), 1U) << arguments[1];
    EXPECT_THAT(outcome.out, IsEmpty()) << arguments[1];
  }
  const Outcome help = run({"shm_random", "--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_THAT(help.err, IsEmpty());
}

}  // namespace
