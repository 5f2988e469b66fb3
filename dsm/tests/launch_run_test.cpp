// How dsmexec starts programs and what it makes of their ends: arguments, exit codes, signals, refusals.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "dsm/tests/launch_bench.hpp"

namespace dsm::launch::testing {
namespace {

using Words = std::vector<std::string>;

TEST(LaunchRun, ArgumentsArriveByteForByte) {
  Order order;
  order.arguments = {
      "-n",       "2",     "--output", "plain",  "@",  "sh", "-c", "for a; do printf '<%s>' \"$a\"; done; echo",
      "sh",       "-n",    "3",        "--help", "-x", "--", "",   "a b",
      "\xff\xfe", "$HOME*"};
  const Ended end = run(order);
  EXPECT_EQ(end.code(), 0);
  const std::string line = "<-n><3><--help><-x><--><><a b><\xff\xfe><$HOME*>\n";
  EXPECT_EQ(end.out, line + line);
  EXPECT_EQ(end.err, "");
}

TEST(LaunchRun, OneRankForEachSlotOrAsManyAsWanted) {
  Order order;
  order.machines = "# two and one\r\nlocalhost slots=2\r\n127.0.0.1";
  order.arguments = {"@", "true"};
  EXPECT_EQ(run(order).code(), 0);
  order.arguments = {"@", "sh", "-c", "echo $DSMEXEC_RANKID/$DSMEXEC_RANKNUM"};
  const Ended end = run(order);
  for (const char* line : {"[Proc 0 : localhost : stdout] 0/3\n", "[Proc 1 : localhost : stdout] 1/3\n",
                           "[Proc 2 : 127.0.0.1 : stdout] 2/3\n"}) {
    EXPECT_EQ(count(end.out, line), 1u) << line;
  }
  EXPECT_EQ(count(end.out, "\n"), 3u);
  order.arguments = {"-n", "65", "--output=plain", "@", "sh", "-c", "echo $DSMEXEC_RANKID/$DSMEXEC_RANKNUM"};
  EXPECT_EQ(count(run(order).out, "/65\n"), 65u);
}

TEST(LaunchRun, TheEnvironmentIsInheritedAndTheFolderKept) {
  Order order;
  order.environment = {"PLAIN=kept", "DSMEXEC_RANKID=77", "DSMEXEC_TTY=1", "DSMEXEC_OLD=1"};
  order.arguments = {
      "-n",
      "1",
      "--output",
      "plain",
      "@",
      "sh",
      "-c",
      "echo $PLAIN $DSMEXEC_RANKID [$DSMEXEC_TTY] [$DSMEXEC_OLD]; pwd; test -n \"$DSMEXEC_HOSTNAME$DSMEXEC_PORTNUM\""};
  const Ended end = run(order);
  EXPECT_EQ(end.code(), 0);
  EXPECT_EQ(end.out, "kept 0 [] []\n" + std::filesystem::current_path().string() + "\n");
}

TEST(LaunchRun, WorkingDirectory) {
  const Ended end = run_script("pwd", {"-n", "1", "--output", "plain", "--wdir", "/usr"});
  EXPECT_EQ(end.out, "/usr\n");
  EXPECT_EQ(run_script("pwd", {"--wdir", "/no/such"}).code(), 125);
}

TEST(LaunchRun, ProgramsBesideDsmexecComeFirst) {
  Order order;
  order.arguments = {"-n", "1", "--output", "plain", "@", "dsmexec", "--version"};
  order.environment = {"PATH=/no/such"};
  const Ended end = run(order);
  EXPECT_EQ(end.code(), 0) << end.err;
  EXPECT_EQ(end.out.substr(0, 8), "dsmexec ");
}

TEST(LaunchRun, TheExitCodeIsThatOfTheFirstFailureAndItIsNamed) {
  const Ended end = run_script("test $DSMEXEC_RANKID = 2 && exit 3; exec sleep 600");
  EXPECT_EQ(end.code(), 3);
  EXPECT_EQ(end.own_lines(), Words{"rank 2 (localhost) failed: exit code 3; dsmexec stopped ranks 0-1, 3"});
}

TEST(LaunchRun, ASignalIsNamed) {
  const Ended end = run_script("test $DSMEXEC_RANKID = 1 && kill -SEGV $$; exec sleep 600");
  EXPECT_EQ(end.code(), 139);
  ASSERT_EQ(end.own_lines().size(), 1u) << end.err;
  EXPECT_EQ(count(end.err, "rank 1 (localhost) failed: killed by signal 11 (SIGSEGV)"), 1u);
}

TEST(LaunchRun, RanksThatIgnoreTermAreKilled) {
  const Ended end = run_script("trap '' TERM; test $DSMEXEC_RANKID = 0 && exit 7; while :; do sleep 600; done");
  EXPECT_EQ(end.code(), 7);
  EXPECT_EQ(end.own_lines(), Words{"rank 0 (localhost) failed: exit code 7; dsmexec stopped ranks 1-3"});
}

TEST(LaunchRun, AStoppedRankIsEndedToo) {
  const Ended end =
      run_script("test $DSMEXEC_RANKID = 0 && kill -STOP $$; test $DSMEXEC_RANKID = 1 && exit 4; exec sleep 600");
  EXPECT_EQ(end.code(), 4);
}

TEST(LaunchRun, Timeout) {
  const Ended end = run_script("exec sleep 600", {"--timeout", "0.3"});
  EXPECT_EQ(end.code(), 124);
  EXPECT_EQ(end.own_lines().back(), "timeout after 0.3 s; dsmexec stopped ranks 0-3") << end.err;
}

TEST(LaunchRun, WhatCannotBeRunIs126Or127InOneLine) {
  Dsmexec shelf({{"--version"}, "", "", {}, false, true});
  const std::string script = shelf.folder() + "/script", plain = shelf.folder() + "/plain";
  std::ofstream(script) << "#!/no/such/interpreter\n";
  std::ofstream(plain) << "neither\n";
  ::chmod(script.c_str(), 0755);
  ::chmod(plain.c_str(), 0755);
  const std::vector<std::pair<std::string, int>> cases = {{"no-such-program-here", 127},
                                                          {"./no/such", 127},
                                                          {"", 127},
                                                          {"/etc/passwd", 126},
                                                          {"/tmp", 126},
                                                          {script, 126},
                                                          {plain, 126}};
  for (const auto& [program, code] : cases) {
    Order order;
    order.arguments = {"@", program};
    const Ended end = run(order);
    EXPECT_EQ(end.code(), code) << program;
    EXPECT_EQ(end.own_lines().size(), 1u) << end.err;
    EXPECT_EQ(count(end.err, "\n"), 1u) << end.err;
    EXPECT_EQ(end.out, "");
  }
  shelf.wait();
}

TEST(LaunchRun, MisuseIsOneLineAnd125AndNothingIsStarted) {
  const Words program = {"sh", "-c", "echo started"};
  const std::vector<Words> cases = {{"--frobnicate", "@"},
                                    {"-n", "0", "@"},
                                    {"-n", "-3", "@"},
                                    {"-n", "many", "@"},
                                    {"--size", "0", "@"},
                                    {"--size", "1P", "@"},
                                    {"--size", "abc", "@"},
                                    {"-p", "mesi", "@"},
                                    {"--timeout", "0", "@"},
                                    {"/no/such/file"},
                                    {"/"},
                                    {"--output", "/no/such/folder", "@"}};
  for (Words arguments : cases) {
    const std::string shown = ::testing::PrintToString(arguments);
    arguments.insert(arguments.end(), program.begin(), program.end());
    const Ended end = run({arguments, "localhost\n", "", {}, false, true});
    EXPECT_EQ(end.code(), 125) << shown;
    EXPECT_EQ(end.own_lines().size(), 1u) << shown << end.err;
    EXPECT_EQ(count(end.err, "\n"), 1u) << shown << end.err;
    EXPECT_EQ(end.out, "") << shown;
  }
  for (const Words& arguments : {Words{}, Words{"@"}, Words{"-n"}, Words{"-v", "@"}}) {
    EXPECT_EQ(run({arguments, "localhost\n", "", {}, false, true}).code(), 125);
  }
}

TEST(LaunchRun, BadMachineFilesAreNamedByLine) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"localhost\nlocalhost slots=x\n", "machines:2: "},
      {"ok?\n", "machines:1: "},
      {"", "names no machine"},
      {"localhost\n\nelsewhere.example\n", "machines:3: 'elsewhere.example' is another machine"}};
  for (const auto& [text, part] : cases) {
    const Ended end = run({{"--launcher", "local", "@", "sh", "-c", "echo started"}, text, "", {}, false, true});
    EXPECT_EQ(end.code(), 125) << text;
    EXPECT_EQ(count(end.err, part), 1u) << end.err;
    EXPECT_EQ(count(end.err, "\n"), 1u) << end.err;
    EXPECT_EQ(end.out, "");
  }
}

// One entry for each of its 22 million slots was made, 2 GB of them, before they were counted.
TEST(LaunchRun, AMachineFileOfTooManySlotsIsRefusedBeforeAnythingIsMadeOfIt) {
  std::string machines;
  while (machines.size() < 1'048'000) machines += "a slots=256\n";
  Order order{{"@", "sh", "-c", "echo started"}, machines, "", {}, false, true};
#ifndef __SANITIZE_ADDRESS__  // which takes terabytes of addresses
  order.before = {"sh", "-c", "ulimit -v 1000000 && exec \"$0\" \"$@\""};
#endif
  const Ended end = run(order);
  EXPECT_EQ(end.code(), 125) << end.err;
  EXPECT_EQ(count(end.err, " ranks, more than 256: say -n\n"), 1u) << end.err;
  EXPECT_EQ(count(end.err, "\n"), 1u) << end.err;
  EXPECT_EQ(end.out, "");
}

TEST(LaunchRun, HelpAndVersion) {
  const Ended help = run({{"--help"}, "", "", {}, false, true});
  EXPECT_EQ(help.code(), 0);
  EXPECT_EQ(count(help.out, "usage: dsmexec"), 1u);
  EXPECT_EQ(run({{"--version"}, "", "", {}, false, true}).code(), 0);
}

TEST(LaunchRun, SignalsArePassedOnAndDsmexecDiesOfThem) {
  for (const int signo : {SIGTERM, SIGINT, SIGHUP}) {
    Order order;
    order.arguments = {"@", "sh", "-c",
                       "trap 'echo got-it; exit 0' TERM INT HUP; echo ready; while :; do sleep 0.05; done"};
    Dsmexec one(order);
    ASSERT_TRUE(wait_until([&] { return one.agent() != 0; }));
    for (const int rank : {0, 1, 2, 3})
      ASSERT_TRUE(one.shows("[Proc " + std::to_string(rank) + " : localhost : stdout] ready"));
    ASSERT_EQ(::kill(one.pid(), signo), 0);
    const Ended end = one.wait();
    EXPECT_EQ(end.signal(), signo);
    EXPECT_EQ(count(end.out, "got-it\n"), 4u) << end.out;
    EXPECT_EQ(end.own_lines().size(), 1u) << end.err;
    EXPECT_TRUE(wait_until([&] { return one.left().empty(); }));
  }
}

TEST(LaunchRun, StandardInputGoesToRankZeroOnly) {
  Order order;
  for (int i = 0; i < 200'000; ++i) order.input += "line " + std::to_string(i) + "\n";
  order.arguments = {"@", "wc", "-c"};
  const Ended end = run(order);
  EXPECT_EQ(end.code(), 0);
  EXPECT_EQ(count(end.out, "[Proc 0 : localhost : stdout] " + std::to_string(order.input.size()) + "\n"), 1u)
      << end.out;
  EXPECT_EQ(count(end.out, "stdout] 0\n"), 3u) << end.out;
  order.arguments = {"@", "true"};  // which reads nothing of it
  EXPECT_EQ(run(order).code(), 0);
  order.arguments = {"-n", "1", "@", "sh", "-c", "exec <&-; exec sleep 0.2"};
  EXPECT_EQ(run(order).code(), 0);
}

TEST(LaunchRun, TheKeyIsInNoArgumentAndNoEnvironment) {
  const Ended end = run_script(
      "key=$(od -An -v -tx1 <&3 | tr -d ' \\n'); echo key=$key;"
      "for p in $$ $PPID $(ps -o ppid= -p $PPID); do tr '\\0' '\\n' </proc/$p/cmdline; tr '\\0' '\\n' "
      "</proc/$p/environ;"
      "od -An -v -tx1 /proc/$p/environ /proc/$p/cmdline | tr -d ' \\n'; echo; done",
      {"-n", "1", "--output", "plain"});
  ASSERT_EQ(end.code(), 0) << end.err;
  const std::string key = end.out.substr(4, 64);
  ASSERT_EQ(end.out.substr(0, 4), "key=");
  ASSERT_EQ(key.find_first_not_of("0123456789abcdef"), std::string::npos) << key;
  EXPECT_EQ(count(end.out, key), 1u) << "only where the rank itself has printed it";
  EXPECT_GE(count(end.out, "--agent"), 1u) << "the agent's command line was looked at";
}

}  // namespace
}  // namespace dsm::launch::testing
