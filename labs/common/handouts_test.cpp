// Does what the hand-outs say: every `$` line of every README.md below labs/ is given to a shell, and what comes must be
// what stands there. What a line of expected output may hold besides text: labs/common/README.md.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "labs/common/observing.hpp"
#include "labs/common/session.hpp"

namespace {

namespace fs = std::filesystem;
using ipc::testing::Session;
using ipc::testing::Shell;

std::vector<std::string> handouts() {
  std::vector<std::string> files;
  std::error_code elsewhere;  // then no file is found, and the one test there is fails
  for (const auto& entry : fs::recursive_directory_iterator("labs", elsewhere)) {
    const bool for_students = entry.path().parent_path() != "labs/common";
    if (for_students && entry.path().filename() == "README.md") files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// A sanitizer's run-time library lives neither under valgrind nor under ptrace.
bool can_run(const Session& session) {
  if (ipc::testing::sanitizer().empty()) return true;
  for (const auto& step : session.steps) {
    if (step.command.find("valgrind") != std::string::npos || step.command.find("strace") != std::string::npos) {
      return false;
    }
  }
  return true;
}

class Handout : public ::testing::TestWithParam<std::string> {};

TEST_P(Handout, ShowsWhatReallyHappens) {
  for (const Session& session : ipc::testing::read_sessions(GetParam())) {
    if (!can_run(session)) continue;
    Shell shell;
    ipc::testing::Matcher matcher;  // a process number stands for the same one all through a session
    for (const auto& step : session.steps) {
      const auto printed = shell.run(step);
      ASSERT_TRUE(printed) << GetParam() << ":" << step.line << ": does not end: " << step.command;
      ASSERT_TRUE(matcher.match(step.expected, *printed))
          << GetParam() << ":" << step.line << ": $ " << step.command << "\n--- the hand-out says\n"
          << ipc::testing::join(step.expected) << "--- what came\n"
          << ipc::testing::join(*printed);
    }
    EXPECT_TRUE(shell.end()) << GetParam() << ":" << session.steps.front().line
                             << ": this session leaves processes behind";
  }
}

std::string name_of(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = fs::path(info.param).parent_path().string();
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  }
  return name;
}
INSTANTIATE_TEST_SUITE_P(Labs, Handout, ::testing::ValuesIn(handouts()), name_of);

// ---- the matcher itself ----

using Lines = std::vector<std::string>;

TEST(Matcher, TakesAProcessNumberForAnyNumberButAlwaysTheSame) {
  ipc::testing::Matcher matcher;
  EXPECT_TRUE(matcher.match({"child 29082 of 29081"}, {"child 7 of 12345"}));
  EXPECT_TRUE(matcher.match({"29082"}, {"7"}));
  EXPECT_FALSE(matcher.match({"29082"}, {"8"}));
  EXPECT_FALSE(matcher.match({"29083"}, {"7"})) << "two numbers in the hand-out are two processes";
  EXPECT_FALSE(matcher.match({"29084"}, {"x"}));
}

TEST(Matcher, TakesOtherNumbersAsTheyAre) {
  ipc::testing::Matcher matcher;
  EXPECT_TRUE(matcher.match({"sum: 35"}, {"sum: 35"}));
  EXPECT_FALSE(matcher.match({"sum: 35"}, {"sum: 36"}));
  EXPECT_FALSE(matcher.match({"129082"}, {"5"}));
}

TEST(Matcher, TakesDotsForAnyLines) {
  EXPECT_TRUE(ipc::testing::Matcher().match({"a", "...", "z"}, {"a", "b", "c", "z"}));
  EXPECT_TRUE(ipc::testing::Matcher().match({"..."}, {}));
  EXPECT_FALSE(ipc::testing::Matcher().match({"a", "...", "z"}, {"a", "b"}));
  EXPECT_FALSE(ipc::testing::Matcher().match({}, {"a"}));
  EXPECT_FALSE(ipc::testing::Matcher().match({"a"}, {}));
}

TEST(Matcher, LeavesOutTheShellsJobLines) { EXPECT_TRUE(ipc::testing::Matcher().match({"[1] 29082", "a"}, {"a"})); }

TEST(Sessions, AreTheIndentedBlocksWithDollars) {
  const ipc::testing::TempDir folder;
  std::ofstream(folder.path("x.md"))
      << "text\n\n    $ a | b\n    one\n    two\n    $ c\n\ntext $ d\n\n    no dollar\n\n"
         "    $ e\n";
  const auto sessions = ipc::testing::read_sessions(folder.path("x.md"));
  ASSERT_EQ(sessions.size(), 2U);
  ASSERT_EQ(sessions[0].steps.size(), 2U);
  EXPECT_EQ(sessions[0].steps[0].command, "a | b");
  EXPECT_EQ(sessions[0].steps[0].expected, (Lines{"one", "two"}));
  EXPECT_EQ(sessions[0].steps[0].line, 3);
  EXPECT_TRUE(sessions[0].steps[1].expected.empty());
  EXPECT_EQ(sessions[1].steps[0].command, "e");
}

TEST(Shell, KeepsItsStateAndTellsBothStreams) {
  Shell shell;
  EXPECT_EQ(shell.run({1, "x=5; echo out; echo err >&2; printf unfinished", {}}), (Lines{"out", "err", "unfinished"}));
  EXPECT_EQ(shell.run({2, "false", {}}), Lines{});
  EXPECT_EQ(shell.run({3, "echo $? $x", {}}), Lines{"1 5"});
  EXPECT_TRUE(shell.end());
}

TEST(Shell, NoticesWhatASessionLeavesBehind) {
  Shell shell;
  EXPECT_EQ(shell.run({1, "sleep 1000 &", {}}), Lines{});
  EXPECT_FALSE(shell.end());
}

TEST(Shell, ReadsABackgroundProgramsLinesBeforeItGoesOn) {
  Shell shell;
  EXPECT_EQ(shell.run({1, "mkfifo gate", {}}), Lines{});
  EXPECT_EQ(shell.run({2, "{ read word < gate; echo late $word; } &", {}}), Lines{});
  EXPECT_EQ(shell.run({3, "echo go > gate; wait", {}}), Lines{"late go"});
  EXPECT_EQ(shell.run({4, "(echo a; echo b) &", {"a", "b"}}), (Lines{"a", "b"}));
  EXPECT_TRUE(shell.end());
}

}  // namespace
