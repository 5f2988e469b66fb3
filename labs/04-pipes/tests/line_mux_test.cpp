#include "ipc/line_mux.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "ipc/spawn.hpp"
#include "labs/common/testing.hpp"

namespace {

using ipc::Fd;
using ipc::LineMux;
using ipc::LineSplitter;
using ipc::Pipe;
using Lines = std::vector<std::string>;

// What came out: a whole line ends with "$", a part of one with "~".
LineSplitter::Sink into(Lines& lines) {
  return [&](std::string_view text, bool complete) { lines.push_back(std::string(text) + (complete ? "$" : "~")); };
}

Lines split(const std::vector<std::string>& pieces, std::size_t max_line = 1 << 20) {
  Lines lines;
  LineSplitter splitter(max_line);
  for (const std::string& piece : pieces) splitter.feed(piece, into(lines));
  splitter.finish(into(lines));
  return lines;
}

TEST(LineSplitter, GivesTheSameLinesHoweverTheBytesCome) {
  const std::string text("one\n\ntwo \r\n\0zero\nlast", 21);
  const Lines expected{"one$", "$", "two \r$", std::string("\0zero$", 6), "last$"};
  for (std::size_t i = 0; i <= text.size(); ++i) {
    for (std::size_t j = i; j <= text.size(); ++j) {
      EXPECT_EQ(split({text.substr(0, i), text.substr(i, j - i), text.substr(j)}), expected) << i << " " << j;
    }
  }
}

TEST(LineSplitter, HoldsTheUnfinishedLine) {
  Lines lines;
  LineSplitter splitter;
  splitter.feed("abc", into(lines));
  splitter.feed("de", into(lines));
  EXPECT_TRUE(lines.empty());
  EXPECT_EQ(splitter.held(), 5U);
  splitter.feed("f\n", into(lines));
  EXPECT_EQ(lines, Lines{"abcdef$"});
  EXPECT_EQ(splitter.held(), 0U);
}

TEST(LineSplitter, NothingIsNoLine) {
  EXPECT_EQ(split({}), Lines{});
  EXPECT_EQ(split({"", ""}), Lines{});
  EXPECT_EQ(split({"a\n"}), Lines{"a$"}) << "the newline ends the line, it does not begin another";
  EXPECT_EQ(split({"\n"}), Lines{"$"});
}

TEST(LineSplitter, ATooLongLineComesInParts) {
  for (const std::vector<std::string>& pieces :
       {std::vector<std::string>{"abcdefghij\nk\n"}, {"abc", "defghij", "\nk", "\n"}, {"abcdefghij", "\nk\n"}}) {
    EXPECT_EQ(split(pieces, 4), (Lines{"abcd~", "efgh~", "ij$", "k$"}));
  }
  EXPECT_EQ(split({"abcd\nabcd"}, 4), (Lines{"abcd$", "abcd$"})) << "as long as allowed is not too long";
  EXPECT_EQ(split({"abcde"}, 4), (Lines{"abcd~", "e$"}));
  EXPECT_EQ(split({"abc"}, 0), (Lines{"a~", "b~", "c$"})) << "no length is taken for one byte";
}

TEST(LineSplitter, ALineShownEarlyIsCompletedLater) {
  Lines lines;
  LineSplitter splitter;
  splitter.flush(into(lines));
  EXPECT_TRUE(lines.empty());
  splitter.feed("Name: ", into(lines));
  splitter.flush(into(lines));
  splitter.flush(into(lines));
  EXPECT_EQ(lines, Lines{"Name: ~"});
  splitter.feed("Ada\n", into(lines));
  splitter.feed("? ", into(lines));
  splitter.flush(into(lines));
  splitter.finish(into(lines));
  EXPECT_EQ(lines, (Lines{"Name: ~", "Ada$", "? ~", "$"})) << "every line is completed, the last one too";
  splitter.finish(into(lines));
  EXPECT_EQ(lines.size(), 4U);
}

// A LineMux, and all that it said.
struct Collector {
  explicit Collector(std::size_t max_line = 1 << 20) : mux(max_line) {}
  LineMux mux;
  std::map<LineMux::Token, Lines> lines;
  std::vector<LineMux::Token> closed;
  LineMux::Sink sink = [this](LineMux::Token token, std::string_view text, bool complete) {
    lines[token].push_back(std::string(text) + (complete ? "$" : "~"));
  };
  LineMux::Closed on_closed = [this](LineMux::Token token) { closed.push_back(token); };

  Fd add_pipe(LineMux::Token token) {  // the end to write to
    Pipe pipe = ipc::make_pipe();
    mux.add(std::move(pipe.read), token);
    return std::move(pipe.write);
  }
  bool run_once(int timeout_ms = 0) { return mux.run_once(timeout_ms, sink, on_closed); }
  void run() {
    while (run_once(-1)) continue;
  }
};

void put(const Fd& fd, const std::string& text) {
  ASSERT_EQ(ipc::write_full(fd.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
}

TEST(LineMux, LosesNoByteOfManyStreams) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  Collector all(100);
  constexpr std::size_t streams = 20;
  std::vector<Fd> ends;
  std::vector<std::string> sent(streams);
  for (std::size_t i = 0; i < streams; ++i) ends.push_back(all.add_pipe(i));
  for (int round = 0; round < 2000; ++round) {
    const std::size_t i = random() % streams;
    std::string piece(random() % 60, 'x');
    for (char& byte : piece) byte = random() % 20 == 0 ? '\n' : static_cast<char>('a' + random() % 26);
    put(ends[i], piece);
    sent[i] += piece;
    if (random() % 8 == 0) {
      EXPECT_TRUE(all.run_once());
    }
  }
  ends.clear();
  all.run();
  for (std::size_t i = 0; i < streams; ++i) {
    std::string got;
    for (const std::string& line : all.lines[i]) {
      got += line.substr(0, line.size() - 1);
      if (line.back() == '$') got += '\n';
    }
    if (!sent[i].empty() && sent[i].back() != '\n') sent[i] += '\n';
    EXPECT_EQ(got, sent[i]) << "stream " << i;
  }
  EXPECT_EQ(all.closed.size(), streams);
  EXPECT_TRUE(all.mux.empty());
}

TEST(LineMux, ClosesAfterTheLastLine) {
  Collector all;
  std::vector<std::string> order;
  all.sink = [&](LineMux::Token, std::string_view text, bool) { order.emplace_back(text); };
  all.on_closed = [&](LineMux::Token token) { order.push_back("closed " + std::to_string(token)); };
  Fd end = all.add_pipe(7);
  put(end, "a\nb");
  end.reset();
  EXPECT_FALSE(all.run_once(-1));
  EXPECT_EQ(order, (Lines{"a", "b", "closed 7"}));
}

TEST(LineMux, AStreamThatSaysNothingJustCloses) {
  Collector all;
  all.add_pipe(1).reset();
  all.run();
  EXPECT_TRUE(all.lines.empty());
  EXPECT_EQ(all.closed, std::vector<LineMux::Token>{1});
}

TEST(LineMux, ANoisyStreamDoesNotStarveAQuietOne) {
  Collector all;
  const Fd noisy = all.add_pipe(1), quiet = all.add_pipe(2);
  put(noisy, std::string(60000, 'n'));
  put(quiet, "here\n");
  std::vector<pollfd> set;
  all.mux.add_to(set);
  ASSERT_EQ(::poll(set.data(), set.size(), -1), 2);
  all.mux.handle(set, all.sink, all.on_closed, 1000);
  EXPECT_EQ(all.mux.held(1), 1000U) << "not more than its share";
  EXPECT_EQ(all.lines[2], Lines{"here$"});
}

TEST(LineMux, LooksOnlyAtItsOwnReadyDescriptors) {
  Collector all;
  const Pipe foreign = ipc::make_pipe();
  put(foreign.write, "not for us\n");
  const Fd end = all.add_pipe(1);
  put(end, "unread\n");
  std::vector<pollfd> set{{foreign.read.get(), POLLIN, POLLIN}, {-1, POLLIN, POLLIN}};
  all.mux.add_to(set);
  ASSERT_EQ(set.size(), 3U);
  all.mux.handle(set, all.sink, all.on_closed);
  EXPECT_TRUE(all.lines.empty()) << "nobody has polled ours yet";
  std::array<char, 11> buffer{};
  EXPECT_EQ(ipc::read_full(foreign.read.get(), buffer.data(), buffer.size()), 11);
}

TEST(LineMux, ReadyThatIsNotIsNoEnd) {
  Collector all;
  const Fd end = all.add_pipe(1);
  std::vector<pollfd> set;
  all.mux.add_to(set);
  set[0].revents = POLLIN;
  all.mux.handle(set, all.sink, all.on_closed);
  EXPECT_TRUE(all.closed.empty());
  put(end, "later\n");
  EXPECT_TRUE(all.run_once(-1));
  EXPECT_EQ(all.lines[1], Lines{"later$"});
}

TEST(LineMux, AnErrorThatStaysIsAnEnd) {
  Collector all;
  Fd memory(::open("/proc/self/mem", O_RDONLY | O_CLOEXEC));  // at offset 0 nothing is mapped: EIO, as a pty says it
  std::array<char, 1> byte{};
  ASSERT_EQ(::read(memory.get(), byte.data(), 1), -1);
  ASSERT_EQ(errno, EIO);
  all.mux.add(std::move(memory), 1);
  EXPECT_FALSE(all.run_once(-1));
  EXPECT_EQ(all.closed, std::vector<LineMux::Token>{1});
}

TEST(LineMux, TheEndOfATerminalIsAnEnd) {
  Fd master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!master) {
    EXPECT_FALSE(std::filesystem::exists("/dev/ptmx")) << "only a machine without terminals may have none to give";
    return;
  }
  ASSERT_EQ(::grantpt(master.get()), 0);
  ASSERT_EQ(::unlockpt(master.get()), 0);
  Fd slave(::open(::ptsname(master.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
  ASSERT_TRUE(slave);
  termios raw{};
  ASSERT_EQ(::tcgetattr(slave.get(), &raw), 0);
  ::cfmakeraw(&raw);
  ASSERT_EQ(::tcsetattr(slave.get(), TCSANOW, &raw), 0);
  Collector all;
  all.mux.add(std::move(master), 1);
  put(slave, "on a terminal\nlast");
  slave.reset();  // from now on read() of the master gives what is left, then EIO
  all.run();
  EXPECT_EQ(all.lines[1], (Lines{"on a terminal$", "last$"}));
  EXPECT_EQ(all.closed, std::vector<LineMux::Token>{1});
}

TEST(LineMux, DrainTakesWhatIsThereThoughTheWriterLivesOn) {
  Collector all;
  const Fd end = all.add_pipe(1);
  const Fd other = all.add_pipe(2);
  put(end, "one\ntwo");
  all.mux.drain(1, all.sink);
  EXPECT_EQ(all.lines[1], (Lines{"one$", "two$"}));
  EXPECT_TRUE(all.closed.empty()) << "the caller knows";
  EXPECT_EQ(all.mux.size(), 1U);
  all.mux.drain(1, all.sink);
  EXPECT_EQ(all.lines[1].size(), 2U);
}

TEST(LineMux, DrainEndsThoughTheStreamDoesNot) {
  Collector all;
  all.mux.add(Fd(::open("/dev/zero", O_RDONLY | O_CLOEXEC)), 1);
  all.mux.drain(1, all.sink);
  EXPECT_TRUE(all.mux.empty());
  EXPECT_EQ(all.lines[1].size(), 1U);
}

TEST(LineMux, DrainTakesAllThatAPipeHolds) {
  Collector all;
  const Fd end = all.add_pipe(1);
  const int capacity = ::fcntl(end.get(), F_GETPIPE_SZ);
  const std::string line(99, 'x');
  std::size_t lines = 0;
  for (; (lines + 1) * 100 <= static_cast<std::size_t>(capacity) - 8192; ++lines) put(end, line + "\n");
  all.mux.drain(1, all.sink);
  EXPECT_EQ(all.lines[1], Lines(lines, line + "$"));
}

TEST(LineMux, AnUnfinishedLineCanBeShown) {
  Collector all;
  Fd end = all.add_pipe(5);
  put(end, "Name: ");
  EXPECT_TRUE(all.run_once(-1));
  EXPECT_EQ(all.mux.held(5), 6U);
  EXPECT_EQ(all.mux.held(6), 0U);
  all.mux.flush(5, all.sink);
  all.mux.flush(6, all.sink);
  EXPECT_EQ(all.mux.held(5), 0U);
  end.reset();
  all.run();
  EXPECT_EQ(all.lines[5], (Lines{"Name: ~", "$"}));
}

TEST(LineMux, AStreamMayBeAddedWhenAnotherCloses) {
  Collector all;
  Fd second;
  all.on_closed = [&](LineMux::Token token) {
    if (token == 1) second = all.add_pipe(2);  // most likely with the number that has just become free
  };
  all.add_pipe(1).reset();
  EXPECT_TRUE(all.run_once(-1));
  put(second, "next\n");
  second.reset();
  all.run();
  EXPECT_EQ(all.lines[2], Lines{"next$"});
}

TEST(LineMux, RunOnceSaysWhetherAnythingIsLeft) {
  Collector all;
  EXPECT_FALSE(all.run_once(-1)) << "nothing to wait for";
  Fd end = all.add_pipe(1);
  EXPECT_TRUE(all.run_once(0)) << "nothing yet";
  end.reset();
  EXPECT_FALSE(all.run_once(-1));
}

TEST(LineMux, ATokenIsTakenOnce) {
  Collector all;
  const Fd end = all.add_pipe(1);
  EXPECT_THROW(all.add_pipe(1), std::invalid_argument);
  EXPECT_EQ(all.mux.size(), 1U);
  EXPECT_EQ(ipc::testing::error_of([&] { all.mux.add(Fd(), 2); }), EBADF);
}

}  // namespace
