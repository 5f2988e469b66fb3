#include "dsm/net/channel.hpp"

#include <dlfcn.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <numeric>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "dsm/net/testing.hpp"
#include "ipc/signals.hpp"

namespace {
// System calls of the calling thread, counted by standing in front of libc's.
thread_local int sends = 0, receives = 0;

template <class Function>
Function next_in_line(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}
}  // namespace

extern "C" ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  static const auto real = next_in_line<ssize_t (*)(int, const msghdr*, int)>("sendmsg");
  ++sends;
  return real(fd, message, flags);
}

extern "C" ssize_t recvmsg(int fd, msghdr* message, int flags) {
  static const auto real = next_in_line<ssize_t (*)(int, msghdr*, int)>("recvmsg");
  ++receives;
  return real(fd, message, flags);
}

namespace dsm::net {
namespace {

using namespace dsm::net::testing;

// Returns when that thread of this process sleeps in recvmsg(2); see proc(5), /proc/PID/syscall.
void await_sleep_in_recvmsg(pid_t thread) {
  const std::string path = "/proc/self/task/" + std::to_string(thread) + "/syscall";
  for (long number = -1; number != SYS_recvmsg; std::this_thread::yield()) {
    if (!(std::ifstream(path) >> number)) number = -1;  // "running"
  }
}

int option(int fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  EXPECT_EQ(::getsockopt(fd, level, name, &value, &size), 0);
  return value;
}

TEST(Channel, SetsItsOptionsOnBothEnds) {
  Pair pair;
  for (const int fd : {pair.one.fd(), pair.other.fd()}) {
    EXPECT_NE(option(fd, IPPROTO_TCP, TCP_NODELAY), 0);
    EXPECT_EQ(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 3500);
    EXPECT_NE(option(fd, SOL_SOCKET, SO_KEEPALIVE), 0);
    EXPECT_NE(::fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
    EXPECT_EQ(::fcntl(fd, F_GETFL) & O_NONBLOCK, 0) << "who waits could not sleep in recvmsg";
  }
}

// Nagle's algorithm and delayed acknowledgements together hold the second small send of a pair for 40 ms. The two sends
// are made by hand here, to have them whatever Channel::send() does.
TEST(Channel, TwoSmallSendsAreNotHeldBackForFortyMilliseconds) {
  Pair pair;
  constexpr int rounds = 40;
  std::thread echo([&] {
    FrameHeader header;
    std::array<std::uint8_t, 16> body{};
    for (int i = 0; i < rounds; ++i) {
      ASSERT_EQ(pair.other.receive_header(header), Io::done);
      ASSERT_EQ(pair.other.receive_body(body.data()), Io::done);
      write_bytes(pair.other.fd(), &header, sizeof header);
      write_bytes(pair.other.fd(), body.data(), body.size());
    }
  });
  std::vector<std::chrono::steady_clock::duration> times;
  std::array<std::uint8_t, 16> body{};
  for (int i = 0; i < rounds; ++i) {
    const auto start = std::chrono::steady_clock::now();
    FrameHeader header = bytes_frame(1, body.size());
    write_bytes(pair.one.fd(), &header, sizeof header);
    write_bytes(pair.one.fd(), body.data(), body.size());
    EXPECT_EQ(pair.one.receive_header(header), Io::done);
    EXPECT_EQ(pair.one.receive_body(body.data()), Io::done);
    times.push_back(std::chrono::steady_clock::now() - start);
  }
  echo.join();
  std::nth_element(times.begin(), times.begin() + rounds / 2, times.end());
  EXPECT_LT(times[rounds / 2], std::chrono::milliseconds(20));
}

TEST(Channel, CarriesHeaderAndBody) {
  Pair pair;
  const PageBytes page = pattern(1);
  ASSERT_EQ(pair.one.send(bytes_frame(7, page_size), page.data()), Io::done);
  ASSERT_EQ(pair.one.send(bytes_frame(8), nullptr), Io::done);
  FrameHeader header;
  PageBytes got(page_size);
  ASSERT_EQ(pair.other.receive_header(header), Io::done);
  EXPECT_EQ(header.a, 7u);
  ASSERT_EQ(pair.other.receive_body(got.data()), Io::done);
  EXPECT_EQ(got, page);
  ASSERT_EQ(pair.other.receive_header(header, {50}), Io::done);
  EXPECT_EQ(header.a, 8u);
  EXPECT_EQ(pair.other.receive_body(nullptr), Io::done);
  EXPECT_EQ(pair.one.counters().frames_out, 2u);
  EXPECT_EQ(pair.one.counters().bytes_out, 2 * sizeof(FrameHeader) + page_size);
  EXPECT_EQ(pair.other.counters().frames_in, 2u);
  EXPECT_EQ(pair.other.counters().bytes_in, 2 * sizeof(FrameHeader) + page_size);
}

TEST(Channel, SpinningReceiverGetsWhatComesDuringAndAfterTheSpin) {
  Pair pair;
  for (const std::uint32_t spin_us : {1u, 100'000u}) {
    std::atomic<bool> waiting{false};
    std::thread sender([&] {
      while (!waiting) std::this_thread::yield();
      EXPECT_EQ(pair.one.send(bytes_frame(3), nullptr), Io::done);
    });
    FrameHeader header;
    waiting = true;
    EXPECT_EQ(pair.other.receive_header(header, {spin_us}), Io::done);
    EXPECT_EQ(header.a, 3u);
    sender.join();
  }
}

// The figure that a page miss is made of: one call out, one call in, when the answer is there.
TEST(Channel, RequestAndPageTakeOneSystemCallEach) {
  Pair pair;
  const PageBytes page = pattern(2);
  sends = receives = 0;
  ASSERT_EQ(pair.one.send(bytes_frame(1), nullptr), Io::done);
  EXPECT_EQ(sends, 1);
  FrameHeader header;
  const std::uint8_t* body = nullptr;
  ASSERT_EQ(next_frame(pair.other, header, body), Io::done);
  receives = 0;
  EXPECT_EQ(pair.other.receive(header, body), Io::again);
  EXPECT_EQ(receives, 0);  // it knows that the socket is empty
  sends = 0;
  ASSERT_TRUE(pair.other.queue(bytes_frame(2, page_size), page.data()));
  ASSERT_EQ(pair.other.flush(), Io::done);
  EXPECT_EQ(sends, 1);
  ASSERT_TRUE(wait_for(pair.one.fd(), POLLIN));
  PageBytes got(page_size);
  receives = 0;
  ASSERT_EQ(pair.one.receive_into(header, got.data(), page_size), Io::done);
  EXPECT_EQ(receives, 1);
  EXPECT_EQ(got, page);
}

// Sleeping costs no look in vain and no poll(2) before it: a look more each is 2 to 3 us of every page miss.
TEST(Channel, AnAnswerThatIsSleptForTakesOneSystemCall) {
  Pair pair;
  const PageBytes body = pattern(4);
  const pid_t sleeper = ::gettid();
  std::thread answer([&] {
    await_sleep_in_recvmsg(sleeper);
    EXPECT_EQ(pair.one.send(bytes_frame(4, page_size), body.data()), Io::done);
  });
  FrameHeader header;
  PageBytes place(page_size);
  receives = 0;
  EXPECT_EQ(pair.other.receive_into(header, place.data(), page_size), Io::done);
  EXPECT_EQ(receives, 1);
  EXPECT_EQ(place, body);
  answer.join();
}

TEST(Channel, ASignalDoesNotEndTheWait) {
  Pair pair;
  const ipc::ScopedAction heard(
      SIGUSR1, [](int, siginfo_t*, void*) {}, 0);  // no SA_RESTART
  const pid_t sleeper = ::gettid();
  std::thread disturber([&] {
    for (int i = 0; i < 3; ++i) {
      await_sleep_in_recvmsg(sleeper);
      ::syscall(SYS_tgkill, ::getpid(), sleeper, SIGUSR1);
    }
    EXPECT_EQ(pair.one.send(bytes_frame(5), nullptr), Io::done);
  });
  FrameHeader header;
  EXPECT_EQ(pair.other.receive_header(header), Io::done);
  EXPECT_EQ(header.a, 5u);
  disturber.join();
}

TEST(Channel, ReceiveIntoTakesAHeaderOnlyAnswerWithNothingBehindIt) {
  Pair pair;
  PageBytes place(page_size);
  FrameHeader header;
  for (std::uint64_t i = 0; i < 3; ++i) {
    ASSERT_EQ(pair.one.send(bytes_frame(i), nullptr), Io::done);
    ASSERT_EQ(pair.other.receive_into(header, place.data(), page_size), Io::done);
    EXPECT_EQ(header.a, i);
    EXPECT_EQ(header.length, 0u);
  }
}

// Whatever comes in whatever pieces, receive_into gives the same frames.
TEST(Channel, ReceiveIntoLosesNothingWhateverTheLengthsAndThePieces) {
  const std::size_t lengths[] = {0, page_size, 0, 0, 100, page_size, page_size, 1, 0, 33, page_size - 1, 0, page_size};
  std::vector<std::uint8_t> stream;
  for (std::size_t i = 0; i < std::size(lengths); ++i) {
    const FrameHeader header = bytes_frame(i, lengths[i]);
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(&header);
    stream.insert(stream.end(), bytes, bytes + sizeof header);
    const PageBytes body = pattern(static_cast<unsigned>(i), lengths[i]);
    stream.insert(stream.end(), body.begin(), body.end());
  }
  for (const std::size_t piece : {std::size_t{1}, std::size_t{31}, std::size_t{33}, std::size_t{1000}, stream.size()}) {
    Pair pair;
    std::thread sender([&] {
      for (std::size_t at = 0; at < stream.size(); at += piece)
        write_bytes(pair.one.fd(), stream.data() + at, std::min(piece, stream.size() - at));
    });
    for (std::size_t i = 0; i < std::size(lengths); ++i) {
      FrameHeader header;
      PageBytes body(page_size);
      ASSERT_EQ(pair.other.receive_into(header, body.data(), page_size), Io::done);
      ASSERT_EQ(header.a, i);
      ASSERT_EQ(header.length, lengths[i]);
      if (header.length != page_size) {
        ASSERT_EQ(pair.other.receive_body(body.data()), Io::done);
      }
      body.resize(lengths[i]);
      ASSERT_EQ(body, pattern(static_cast<unsigned>(i), lengths[i]));
    }
    sender.join();
  }
}

TEST(Channel, NonBlockingReceiveGivesWholeFramesFromAnyPieces) {
  for (const Ahead ahead : {Ahead::no, Ahead::yes}) {
    Pair pair;
    std::thread sender([&] {
      for (unsigned i = 0; i < 200; ++i) {
        const PageBytes body = pattern(i, i % 3 == 0 ? page_size : i);
        const FrameHeader header = bytes_frame(i, body.size());
        write_bytes(pair.one.fd(), &header, 5);
        write_bytes(pair.one.fd(), reinterpret_cast<const char*>(&header) + 5, sizeof header - 5);
        write_bytes(pair.one.fd(), body.data(), body.size() / 2);
        write_bytes(pair.one.fd(), body.data() + body.size() / 2, body.size() - body.size() / 2);
      }
    });
    for (unsigned i = 0; i < 200;) {
      FrameHeader header;
      const std::uint8_t* body = nullptr;
      const Io io = pair.other.receive(header, body, ahead);
      if (io == Io::again) {
        ASSERT_TRUE(wait_for(pair.other.fd(), POLLIN));
        continue;
      }
      ASSERT_EQ(io, Io::done);
      ASSERT_EQ(header.a, i);
      ASSERT_EQ(PageBytes(body, body + header.length), pattern(i, i % 3 == 0 ? page_size : i));
      ++i;
    }
    sender.join();
  }
}

// A frame that receive(Ahead::no) leaves behind stays where poll sees it.
TEST(Channel, WithoutAheadTheNextFrameStaysInTheSocket) {
  Pair pair;
  ASSERT_EQ(pair.one.send(bytes_frame(1), nullptr), Io::done);
  ASSERT_EQ(pair.one.send(bytes_frame(2), nullptr), Io::done);
  FrameHeader header;
  const std::uint8_t* body = nullptr;
  ASSERT_TRUE(wait_for(pair.other.fd(), POLLIN));
  ASSERT_EQ(pair.other.receive(header, body, Ahead::no), Io::done);
  EXPECT_TRUE(wait_for(pair.other.fd(), POLLIN));
  ASSERT_EQ(pair.other.receive_header(header), Io::done);
  EXPECT_EQ(header.a, 2u);
}

TEST(Channel, FramesInTheBufferAreNotForgottenByTheBlockingCalls) {
  Pair pair;
  const PageBytes page = pattern(4);
  for (std::uint64_t i = 0; i < 3; ++i) ASSERT_EQ(pair.one.send(bytes_frame(i), nullptr), Io::done);
  ASSERT_EQ(pair.one.send(bytes_frame(3, page_size), page.data()), Io::done);
  FrameHeader header;
  const std::uint8_t* body = nullptr;
  ASSERT_EQ(next_frame(pair.other, header, body), Io::done);
  EXPECT_EQ(header.a, 0u);
  for (std::uint64_t i = 1; i < 3; ++i) {
    ASSERT_EQ(pair.other.receive_header(header), Io::done);
    EXPECT_EQ(header.a, i);
  }
  PageBytes got(page_size);
  ASSERT_EQ(pair.other.receive_into(header, got.data(), page_size), Io::done);
  EXPECT_EQ(header.a, 3u);
  EXPECT_EQ(got, page);
}

TEST(Channel, AFrameLongerThanAgreedBreaksTheConnection) {
  const FrameHeader huge = bytes_frame(1, 0xffffffff);
  const FrameHeader one_too_long = bytes_frame(1, page_size + 1);
  for (const FrameHeader& bad : {huge, one_too_long}) {
    for (int how = 0; how < 3; ++how) {
      Pair pair;
      write_bytes(pair.one.fd(), &bad, sizeof bad);
      FrameHeader header;
      PageBytes place(page_size);
      const std::uint8_t* body = nullptr;
      const auto receive = [&] {
        if (how == 0) return next_frame(pair.other, header, body);
        if (how == 1) return pair.other.receive_header(header);
        return pair.other.receive_into(header, place.data(), page_size);
      };
      EXPECT_EQ(receive(), Io::broken);
      EXPECT_EQ(receive(), Io::broken);  // and stays so
    }
  }
}

TEST(Channel, EndOfFileIsClosedAlsoInsideAFrameAndAfterTheLastWholeOne) {
  for (const std::size_t cut : {std::size_t{0}, std::size_t{10}, std::size_t{40}}) {
    Pair pair;
    ASSERT_EQ(pair.one.send(bytes_frame(5), nullptr), Io::done);
    std::vector<std::uint8_t> frame(32 + 100);
    const FrameHeader announced = bytes_frame(6, 100);
    std::memcpy(frame.data(), &announced, sizeof announced);
    write_bytes(pair.one.fd(), frame.data(), cut);
    ASSERT_EQ(::shutdown(pair.one.fd(), SHUT_WR), 0);
    FrameHeader header;
    const std::uint8_t* body = nullptr;
    ASSERT_EQ(next_frame(pair.other, header, body), Io::done);
    EXPECT_EQ(header.a, 5u);
    EXPECT_EQ(next_frame(pair.other, header, body), Io::closed);
    EXPECT_EQ(next_frame(pair.other, header, body), Io::closed);
  }
}

TEST(Channel, SendingToOneWhoIsGoneIsClosedAndRaisesNoSignal) {
  SocketPair sockets = tcp_pair();
  Channel one(std::move(sockets.one), page_size);
  sockets.other.reset();
  Io io = Io::done;
  for (const Deadline end = soon(); io == Io::done && std::chrono::steady_clock::now() < end;)
    io = one.send(bytes_frame(1), nullptr);
  EXPECT_EQ(io, Io::closed);
  ASSERT_TRUE(one.queue(bytes_frame(1), nullptr));
  EXPECT_EQ(one.flush(), Io::closed);
}

TEST(Channel, SmallQueuedFramesGoOutTogether) {
  Pair pair;
  for (std::uint64_t i = 0; i < 8; ++i) ASSERT_TRUE(pair.one.queue(bytes_frame(i), nullptr));
  sends = 0;
  ASSERT_EQ(pair.one.flush(), Io::done);
  EXPECT_EQ(sends, 1);
}

TEST(Channel, WorksOverASocketPairToo) {
  int fds[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  Channel one(ipc::Fd{fds[0]}, page_size), other(ipc::Fd{fds[1]}, page_size);
  ASSERT_EQ(one.send(bytes_frame(9), nullptr), Io::done);
  FrameHeader header;
  ASSERT_EQ(other.receive_header(header), Io::done);
  EXPECT_EQ(header.a, 9u);
}

TEST(ChannelDeathTest, AHeaderBeforeTheBodyWasTakenIsABrokenInvariant) {
  Pair pair;
  const PageBytes page = pattern(1);
  ASSERT_EQ(pair.one.send(bytes_frame(1, page_size), page.data()), Io::done);
  FrameHeader header;
  ASSERT_EQ(pair.other.receive_header(header), Io::done);
  EXPECT_DEATH(static_cast<void>(pair.other.receive_header(header)), "before the body of the last frame");
}

}  // namespace
}  // namespace dsm::net
