#include "dsm/launch/classroom.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cstring>

#include "ipc/spawn.hpp"

namespace dsm::launch {
namespace {

using std::chrono::milliseconds;

std::string hello(int rank, std::size_t size, const std::string& blob) {
  std::string out(sizeof rank + sizeof size, ' ');
  std::memcpy(out.data(), &rank, sizeof rank);
  std::memcpy(out.data() + sizeof rank, &size, sizeof size);
  return out + blob;
}
std::string hello(int rank, const std::string& blob) { return hello(rank, blob.size(), blob); }

struct Lesson {
  explicit Lesson(int ranks) : room(options(ranks)) {}
  Classroom::Options options(int ranks) {
    Classroom::Options out;
    out.ranks = ranks;
    out.log = [this](const std::string& line) { log += line + "\n"; };
    return out;
  }
  // A client that has said `text`; its first four bytes (or fewer) were read by the door.
  ipc::Fd client(const std::string& text) {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    const int small = 65536;  // bytes that an answer may be ahead of its reader, whatever this machine's usual is
    EXPECT_EQ(::setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    ipc::Fd ours(ends[0]);
    const std::string first = text.substr(0, 4);
    say(ours, text.substr(first.size()));
    room.admit(ipc::Fd(ends[1]), first, "client", now);
    return ours;
  }
  static void say(const ipc::Fd& fd, const std::string& text) {
    EXPECT_EQ(ipc::write_full(fd.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  // Everything until the end of the connection. REQUIRES: serve() has closed it.
  static std::string rest(const ipc::Fd& fd) {
    std::string out(1 << 16, ' ');
    const ssize_t got = ipc::read_full(fd.get(), out.data(), out.size());
    out.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return out;
  }
  static bool silent(const ipc::Fd& fd) {
    char c = 0;
    return ::recv(fd.get(), &c, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN;
  }
  Classroom::Time now = Classroom::Time{} + std::chrono::hours(1);
  std::string log;
  Classroom room;
};

TEST(Classroom, EveryoneGetsAllBlobsInRankOrder) {
  Lesson l(3);
  const ipc::Fd two = l.client(hello(2, "two"));
  const ipc::Fd zero = l.client(hello(0, "zero"));
  l.room.serve(l.now);
  EXPECT_TRUE(Lesson::silent(two));
  const ipc::Fd one = l.client(hello(1, ""));
  l.room.serve(l.now);
  for (const auto* fd : {&zero, &one, &two}) EXPECT_EQ(Lesson::rest(*fd), "zerotwo");
  const ipc::Fd again = l.client(hello(0, "x"));  // another round may follow
  l.room.serve(l.now);
  EXPECT_TRUE(Lesson::silent(again));
}

TEST(Classroom, BytesMayComeInAnyPieces) {
  Lesson l(1);
  const std::string text = hello(0, "slowly");
  const ipc::Fd fd = l.client(text.substr(0, 2));
  for (const char c : text.substr(2)) {
    l.room.serve(l.now);
    Lesson::say(fd, std::string(1, c));
  }
  l.room.serve(l.now);
  EXPECT_EQ(Lesson::rest(fd), "slowly");
}

TEST(Classroom, RanksAndSizesAreBoundedAndDuplicatesRefused) {
  Lesson l(2);
  for (const std::string& bad :
       {hello(2, "x"), hello(-1, "x"), hello(0, std::size_t{1} << 40, ""), hello(0, ~std::size_t{0}, "")}) {
    const ipc::Fd fd = l.client(bad);
    l.room.serve(l.now);
    EXPECT_EQ(Lesson::rest(fd), "");
  }
  const ipc::Fd first = l.client(hello(0, "first"));
  l.room.serve(l.now);
  const ipc::Fd second = l.client(hello(0, "second"));
  l.room.serve(l.now);
  EXPECT_EQ(Lesson::rest(second), "");
  const ipc::Fd other = l.client(hello(1, "!"));
  l.room.serve(l.now);
  EXPECT_EQ(Lesson::rest(first), "first!");
  EXPECT_NE(l.log.find("rank 0 is here already"), std::string::npos);
}

TEST(Classroom, SilentClientsStallNobodyAndGoAfterAWhile) {
  Lesson l(1);
  const ipc::Fd silent = l.client("");
  const ipc::Fd half = l.client(hello(0, 100, "half"));
  const ipc::Fd good = l.client(hello(0, "good"));
  l.room.serve(l.now);
  EXPECT_EQ(Lesson::rest(good), "good");
  l.now += milliseconds(11'000);
  EXPECT_LE(l.room.next_deadline(), l.now);
  l.room.serve(l.now);
  EXPECT_EQ(Lesson::rest(silent), "");
  EXPECT_EQ(Lesson::rest(half), "");
  EXPECT_EQ(l.room.next_deadline(), Classroom::Time::max());
}

TEST(Classroom, ClientThatLeftItsAnswerWasDroppedWithoutAWord) {
  Lesson l(1);
  const std::string blob(1 << 20, 'x');  // more than a socket takes at once
  const ipc::Fd fd = l.client(hello(0, blob.size(), ""));
  for (std::size_t at = 0; at < blob.size(); at += 4096) {
    l.room.serve(l.now);
    Lesson::say(fd, blob.substr(at, 4096));
  }
  l.room.serve(l.now);
  EXPECT_EQ(l.log, "");
  EXPECT_NE(l.room.next_deadline(), Classroom::Time::max());
  l.now += milliseconds(11'000);
  l.room.serve(l.now);
  EXPECT_EQ(l.log, "client: rank 0 did not take its answer\n");
  EXPECT_EQ(l.room.next_deadline(), Classroom::Time::max());
}

}  // namespace
}  // namespace dsm::launch
