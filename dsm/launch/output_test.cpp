#include "dsm/launch/output.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "ipc/spawn.hpp"

namespace dsm::launch {
namespace {

struct TemporaryFolder {
  TemporaryFolder() { EXPECT_NE(::mkdtemp(path.data()), nullptr); }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  [[nodiscard]] std::string content(const char* name) const {
    std::ostringstream text;
    text << std::ifstream(path + "/" + name).rdbuf();
    return text.str();
  }
  std::string path = ::testing::TempDir() + "dsmexec-output-XXXXXX";
};

// An Output into pipes, and what has come out of them.
struct Bench {
  explicit Bench(const std::string& mode = "tag", bool shared = false, std::function<std::string()> time = {})
      : output({mode, {"one", "two"}, out.write.get(), shared ? out.write.get() : err.write.get(), std::move(time)}) {
    for (const auto* pipe : {&out, &err}) ::fcntl(pipe->read.get(), F_SETFL, O_NONBLOCK);
  }
  static std::string take(const ipc::Pipe& pipe) {
    std::string text;
    char buffer[65536];
    for (ssize_t n = 0; (n = ::read(pipe.read.get(), buffer, sizeof buffer)) > 0;) {
      text.append(buffer, static_cast<std::size_t>(n));
    }
    return text;
  }
  std::string from_out() {
    std::string text;
    do {
      output.flush();
      text += take(out);
    } while (!output.empty());
    return text;
  }
  std::string from_err() {
    output.flush();
    return take(err);
  }
  ipc::Pipe out = ipc::make_pipe(), err = ipc::make_pipe();
  Output output;
};

TEST(Output, EveryLineHasItsTagOnItsStream) {
  Bench b;
  b.output.lines(0, Stream::out, "a\nb\n");
  b.output.lines(1, Stream::err, "c\n\n");
  EXPECT_EQ(b.from_out(), "[Proc 0 : one : stdout] a\n[Proc 0 : one : stdout] b\n");
  EXPECT_EQ(b.from_err(), "[Proc 1 : two : stderr] c\n[Proc 1 : two : stderr] \n");
}

TEST(Output, PlainHasNoTags) {
  Bench b("plain");
  const std::string bytes = {'a', 0, 'b', '\n'};
  b.output.lines(0, Stream::out, bytes);
  EXPECT_EQ(b.from_out(), bytes);
}

TEST(Output, PartsOfALineAreHeldUntilItIsWhole) {
  Bench b;
  b.output.part(0, Stream::out, "lo");
  b.output.lines(1, Stream::out, "other\n");
  b.output.part(0, Stream::out, "ng");
  EXPECT_EQ(b.from_out(), "[Proc 1 : two : stdout] other\n");
  b.output.lines(0, Stream::out, " line\nnext\n");
  EXPECT_EQ(b.from_out(), "[Proc 0 : one : stdout] long line\n[Proc 0 : one : stdout] next\n");
}

TEST(Output, ALineThatWouldFillMemoryComesInPieces) {
  Bench b("plain");
  const std::string mega(1u << 20, 'x');
  for (std::size_t i = 0; i < Output::max_held / mega.size(); ++i) b.output.part(0, Stream::out, mega);
  EXPECT_TRUE(b.from_out() == std::string(Output::max_held, 'x') + "\n");
  b.output.lines(0, Stream::out, "end\n");
  EXPECT_EQ(b.from_out(), "end\n");
}

TEST(Output, APromptIsShownAndItsLineGoesOn) {
  Bench b;
  b.output.shown(0, Stream::out, "name? ");
  EXPECT_EQ(b.from_out(), "[Proc 0 : one : stdout] name? ");
  b.output.lines(0, Stream::out, "thanks\nbye\n");
  EXPECT_EQ(b.from_out(), "thanks\n[Proc 0 : one : stdout] bye\n");
}

TEST(Output, WhatComesBetweenStartsALineOfItsOwn) {
  Bench b("tag", /*shared=*/true);
  b.output.shown(0, Stream::out, "name? ");
  b.output.own("note");
  b.output.lines(0, Stream::out, "rest\n");
  b.output.shown(0, Stream::out, "again? ");
  b.output.lines(1, Stream::err, "e\n");
  EXPECT_EQ(b.from_out(),
            "[Proc 0 : one : stdout] name? \ndsmexec: note\n[Proc 0 : one : stdout] rest\n"
            "[Proc 0 : one : stdout] again? \n[Proc 1 : two : stderr] e\n");
}

TEST(Output, AReaderThatDoesNotReadFillsNothingButABoundedQueue) {
  Bench b;
  std::string text;
  for (int i = 0; i < 1000; ++i) text += std::string(99, 'x') + "\n";
  std::size_t sent = 0;
  while (!b.output.full()) {
    b.output.lines(0, Stream::out, text);
    b.output.flush();
    ++sent;
    ASSERT_LT(sent, 1000u);
  }
  const std::string all = b.from_out();
  EXPECT_FALSE(b.output.full());
  EXPECT_EQ(all.size(), sent * (text.size() + 1000 * std::string("[Proc 0 : one : stdout] ").size()));
}

TEST(Output, AReaderThatHasGoneIsTold) {
  ::signal(SIGPIPE, SIG_IGN);
  Bench b;
  b.out.read.reset();
  b.output.lines(0, Stream::out, "a\n");
  b.output.flush();
  EXPECT_EQ(b.output.trouble(), "cannot write standard output: Broken pipe");
  b.output.lines(0, Stream::out, "b\n");
  EXPECT_TRUE(b.output.empty());
  b.output.own("still heard");
  EXPECT_EQ(b.from_err(), "dsmexec: still heard\n");
}

TEST(Output, TheTimeStandsInFrontOfEachLineAndNeverWithinOne) {
  int count = 0;
  const auto time = [&count] { return "t" + std::to_string(++count) + " "; };
  {
    Bench b("tag", true, time);
    b.output.lines(0, Stream::out, "a\nb\n");
    b.output.part(1, Stream::out, "long ");
    b.output.lines(1, Stream::out, "line\n");
    b.output.shown(0, Stream::out, "name? ");
    b.output.lines(0, Stream::out, "me\n");
    b.output.own("not the ranks'");
    EXPECT_EQ(b.from_out(),
              "t1 [Proc 0 : one : stdout] a\nt2 [Proc 0 : one : stdout] b\nt3 [Proc 1 : two : stdout] long line\n"
              "t4 [Proc 0 : one : stdout] name? me\ndsmexec: not the ranks'\n");
  }
  const TemporaryFolder folder;
  {
    Bench b(folder.path, false, time);
    b.output.part(1, Stream::out, "long ");
    b.output.lines(1, Stream::out, "line\nnext\n");
    b.output.lines(1, Stream::err, "\n");
  }
  EXPECT_EQ(folder.content("rank-1.stdout"), "t5 long line\nt6 next\n");
  EXPECT_EQ(folder.content("rank-1.stderr"), "t7 \n");
}

TEST(Output, TheTimeOfDayHasMilliseconds) {
  const std::string now = time_of_day();
  ASSERT_EQ(now.size(), std::string("23:59:59.999 ").size()) << now;
  for (const std::size_t colon : {2U, 5U}) EXPECT_EQ(now[colon], ':') << now;
  EXPECT_EQ(now[8], '.') << now;
}

TEST(Output, OneFileForEachRankAndStream) {
  const TemporaryFolder temporary;
  const std::string& folder = temporary.path;
  {
    Bench b(folder);
    b.output.lines(1, Stream::out, "a\n");
    b.output.part(1, Stream::out, "b");
    b.output.lines(1, Stream::out, "c\n");
    b.output.lines(0, Stream::err, "d\n");
    EXPECT_EQ(b.from_out(), "");
  }
  EXPECT_EQ(temporary.content("rank-1.stdout"), "a\nbc\n");
  EXPECT_EQ(temporary.content("rank-0.stderr"), "d\n");
  EXPECT_TRUE(std::filesystem::exists(folder + "/rank-0.stdout"));
  EXPECT_THROW(Output({folder + "/gone", {"one"}, 1, 2}), std::system_error);
}

}  // namespace
}  // namespace dsm::launch
