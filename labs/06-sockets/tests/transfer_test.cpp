// The fault path: bytes and frames.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "ipc/socket.hpp"
#include "labs/common/testing.hpp"

namespace {
thread_local int allocations = 0;
}

// Counted, so that a test can say that there were none.
void* operator new(std::size_t size) {
  ++allocations;
  if (void* const memory = std::malloc(size > 0 ? size : 1)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

using ipc::Fd;
using ipc::Transfer;

struct Pair {
  Fd a, b;
};
Pair make_pair(int type = SOCK_STREAM) {
  std::array<int, 2> ends{};
  EXPECT_EQ(::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends.data()), 0);
  return {Fd(ends[0]), Fd(ends[1])};
}

iovec part_of(std::string& text) { return {text.data(), text.size()}; }

Transfer send_text(int fd, std::string text) {
  const iovec part = part_of(text);
  return ipc::send_all(fd, {&part, 1});
}

std::string received(int fd, std::size_t size) {
  std::string text(size, '\0');
  const iovec part = part_of(text);
  const Transfer result = ipc::receive_all(fd, {&part, 1});
  text.resize(result.bytes);
  return text;
}

std::string pattern(std::size_t size) {
  std::string text(size, '\0');
  for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 31 + i / 251);
  return text;
}

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

void expect(const Transfer& got, std::size_t bytes, int error, bool end) {
  EXPECT_EQ(got.bytes, bytes);
  EXPECT_EQ(got.error, error) << std::strerror(got.error);
  EXPECT_EQ(got.end, end);
}

// Holds SIGPIPE back for as long as it lives, and knows whether one came: whatever the disposition is, and even in a
// process that no signal can end (the first one of a container).
class PipeSignal {
 public:
  PipeSignal() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &set_, &former_);
  }
  PipeSignal(const PipeSignal&) = delete;
  PipeSignal& operator=(const PipeSignal&) = delete;
  ~PipeSignal() {
    static_cast<void>(came());
    ::pthread_sigmask(SIG_SETMASK, &former_, nullptr);
  }
  [[nodiscard]] bool came() const {
    const timespec now{};
    return ::sigtimedwait(&set_, nullptr, &now) == SIGPIPE;
  }

 private:
  sigset_t set_, former_;
};

TEST(ReceiveSome, TellsBytesNothingYetAndTheEndApart) {
  Pair pair = make_pair();
  std::array<char, 10> buffer{};
  const iovec part{buffer.data(), buffer.size()};
  expect(ipc::receive_some(pair.b.get(), {&part, 1}), 0, EAGAIN, false);
  send_text(pair.a.get(), "abc");
  expect(ipc::receive_some(pair.b.get(), {&part, 1}), 3, 0, false);
  expect(ipc::receive_some(pair.b.get(), {}), 0, 0, false);  // nothing asked for is not the end
  pair.a.reset();
  expect(ipc::receive_some(pair.b.get(), {&part, 1}), 0, 0, true);
  expect(ipc::receive_some(-1, {&part, 1}), 0, EBADF, false);
}

TEST(ReceiveSome, SaysThatARecordWasCut) {
  const Pair pair = make_pair(SOCK_SEQPACKET);
  send_text(pair.a.get(), "a record");
  std::array<char, 3> buffer{};
  const iovec part{buffer.data(), buffer.size()};
  expect(ipc::receive_some(pair.b.get(), {&part, 1}), 3, EMSGSIZE, false);
}

TEST(SendSome, DoesNotWaitAndRaisesNoSignal) {
  const PipeSignal signal;
  Pair pair = make_pair();
  std::string text = pattern(1 << 16);
  const iovec part = part_of(text);
  Transfer last;
  for (int i = 0; i < 1000 && last.error == 0; ++i) last = ipc::send_some(pair.a.get(), {&part, 1});
  EXPECT_EQ(last.error, EAGAIN);
  pair.b.reset();
  expect(ipc::send_some(pair.a.get(), {&part, 1}), 0, EPIPE, false);
  EXPECT_FALSE(signal.came());
}

TEST(All, MovesManyPartsHoweverTheyAreCut) {
  for (const bool nonblocking : {false, true}) {
    const Pair pair = make_pair();
    if (nonblocking) {
      ipc::set_nonblocking(pair.a.get());
      ipc::set_nonblocking(pair.b.get());
    }
    // More parts than one call takes, empty ones among them, and far more bytes than the kernel holds.
    const std::string text = pattern(3'000'000);
    std::string to_send = text, got(text.size(), '\0');
    const auto cut = [](std::string& whole, std::size_t step) {
      std::vector<iovec> parts;
      for (std::size_t begin = 0; begin < whole.size(); begin += step) {
        parts.push_back({whole.data() + begin, std::min(step, whole.size() - begin)});
        if (parts.size() % 5 == 0) parts.push_back({nullptr, 0});
      }
      return parts;
    };
    const std::vector<iovec> out = cut(to_send, 7919), in = cut(got, 104'729);
    std::thread reader([&] { expect(ipc::receive_all(pair.b.get(), in), text.size(), 0, false); });
    expect(ipc::send_all(pair.a.get(), out), text.size(), 0, false);
    reader.join();
    EXPECT_TRUE(got == text);
    EXPECT_TRUE(to_send == text) << "the caller's parts are only read";
  }
}

TEST(All, NothingIsDoneAtOnce) {
  const Pair pair = make_pair();
  expect(ipc::send_all(pair.a.get(), {}), 0, 0, false);
  expect(ipc::receive_all(pair.b.get(), {}), 0, 0, false);
  const std::array<iovec, 3> empty{};
  expect(ipc::receive_all(pair.b.get(), empty), 0, 0, false);
}

TEST(All, SaysHowFarItCame) {
  Pair pair = make_pair();
  send_text(pair.a.get(), "abc");
  pair.a.reset();
  std::array<char, 10> buffer{};
  const iovec part{buffer.data(), buffer.size()};
  expect(ipc::receive_all(pair.b.get(), {&part, 1}), 3, 0, true);
  std::string text = "x";
  const iovec out = part_of(text);
  expect(ipc::send_all(pair.b.get(), {&out, 1}), 0, EPIPE, false);
}

TEST(All, APeerThatGoesEndsTheWait) {
  Pair pair = make_pair();
  std::thread peer([&] {
    std::string got(1000, '\0');
    EXPECT_EQ(received(pair.b.get(), 1000).size(), 1000U);
    pair.b.reset();
  });
  const Transfer result = send_text(pair.a.get(), std::string(4 << 20, 'x'));
  peer.join();
  EXPECT_TRUE(result.error == EPIPE || result.error == ECONNRESET) << result.error;
  EXPECT_LT(result.bytes, std::size_t{4} << 20);
}

volatile sig_atomic_t interruptions = 0;
void on_signal(int) { interruptions = interruptions + 1; }

TEST(All, IsNotDisturbedBySignals) {
  struct sigaction handle {
  }, former{};
  handle.sa_handler = on_signal;  // without SA_RESTART; poll() is never restarted anyway
  ::sigaction(SIGUSR1, &handle, &former);
  interruptions = 0;
  const Pair pair = make_pair();
  const pthread_t reader = ::pthread_self();
  std::thread writer([&] {
    for (int i = 0; i < 200; ++i) {
      ::pthread_kill(reader, SIGUSR1);
      send_text(pair.a.get(), std::string(1, static_cast<char>(i)));
    }
  });
  const std::string got = received(pair.b.get(), 200);
  writer.join();
  EXPECT_GT(interruptions, 0);
  ASSERT_EQ(got.size(), 200U);
  for (std::size_t i = 0; i < 200; ++i) EXPECT_EQ(got[i], static_cast<char>(i));
  ::sigaction(SIGUSR1, &former, nullptr);
}

// ---- frames ----

TEST(Frame, IsALittleEndianLengthAndTheBody) {
  const Pair pair = make_pair();
  const std::string body = pattern(0x010203);
  std::thread sender([&] { expect(ipc::send_frame(pair.a.get(), bytes_of(body)), body.size() + 4, 0, false); });
  EXPECT_EQ(received(pair.b.get(), 4), std::string("\x03\x02\x01\x00", 4));
  EXPECT_TRUE(received(pair.b.get(), body.size()) == body);
  sender.join();
}

TEST(Frame, ComesWholeThoughItsBytesComeOneByOne) {
  const Pair pair = make_pair();
  const std::string stream("\x03\0\0\0abc\0\0\0\0\x01\0\0\0z", 16);
  std::thread sender([&] {
    for (const char byte : stream) send_text(pair.a.get(), std::string(1, byte));
  });
  std::array<std::byte, 8> buffer{};
  for (const std::string expected : {"abc", "", "z"}) {
    expect(ipc::receive_frame(pair.b.get(), buffer), expected.size(), 0, false);
    EXPECT_EQ(std::memcmp(buffer.data(), expected.data(), expected.size()), 0);
  }
  sender.join();
}

TEST(Frame, ManyKeepTheirBorders) {
  Pair pair = make_pair();
  std::thread sender([&] {
    for (std::size_t size = 0; size < 3000; size += 7)
      static_cast<void>(ipc::send_frame(pair.a.get(), bytes_of(pattern(size))));
    pair.a.reset();
  });
  std::vector<std::byte> buffer(3000);
  std::size_t size = 0;
  Transfer got;
  for (; !(got = ipc::receive_frame(pair.b.get(), buffer)).end; size += 7) {
    ASSERT_EQ(got.error, 0);
    ASSERT_EQ(got.bytes, size);
    ASSERT_EQ(std::memcmp(buffer.data(), pattern(size).data(), size), 0);
  }
  EXPECT_EQ(size, 3003U);
  sender.join();
}

TEST(Frame, TheEndBetweenFramesIsNotTheEndInsideOne) {
  std::array<std::byte, 8> buffer{};
  const std::string frame("\x03\0\0\0abc", 7);
  for (std::size_t sent = 0; sent <= frame.size(); ++sent) {
    Pair pair = make_pair();
    if (sent > 0) send_text(pair.a.get(), frame.substr(0, sent));
    pair.a.reset();
    const Transfer got = ipc::receive_frame(pair.b.get(), buffer);
    const bool whole = sent == frame.size();
    EXPECT_EQ(got.error, sent == 0 || whole ? 0 : EPROTO) << sent;
    EXPECT_EQ(got.end, sent == 0) << sent;
    EXPECT_EQ(got.bytes, whole ? 3U : sent > 4 ? sent - 4 : 0U) << sent;
  }
}

TEST(Frame, OneThatDoesNotFitIsRefusedBeforeItIsBelieved) {
  for (const std::string& prefix : {std::string("\x09\0\0\0", 4), std::string("\xff\xff\xff\xff", 4)}) {
    const Pair pair = make_pair();
    send_text(pair.a.get(), prefix + "123456789");
    std::array<std::byte, 9> memory{};
    const Transfer got = ipc::receive_frame(pair.b.get(), std::span(memory).first(8));
    expect(got, 0, EMSGSIZE, false);
    EXPECT_EQ(memory, (std::array<std::byte, 9>{})) << "nothing was stored";
  }
  const Pair pair = make_pair();
  send_text(pair.a.get(), std::string("\x08\0\0\0"
                                      "12345678",
                                      12));
  std::array<std::byte, 8> exact{};
  expect(ipc::receive_frame(pair.b.get(), exact), 8, 0, false);
}

TEST(Frame, ToNobodyIsAnErrorAndNoSignal) {
  const PipeSignal signal;
  Pair pair = make_pair();
  pair.b.reset();
  expect(ipc::send_frame(pair.a.get(), bytes_of("abc")), 0, EPIPE, false);
  EXPECT_FALSE(signal.came());
}

TEST(FaultPath, DoesNotAllocate) {
  const Pair pair = make_pair();
  const std::string body = pattern(4096);
  std::array<std::byte, 4096> buffer{};
  std::array<iovec, 40> parts;
  for (std::size_t i = 0; i < parts.size(); ++i) parts[i] = {buffer.data() + i, 1};
  const int before = allocations;
  const Transfer sent = ipc::send_frame(pair.a.get(), bytes_of(body));
  const Transfer got = ipc::receive_frame(pair.b.get(), buffer);
  const Transfer many = ipc::send_all(pair.a.get(), parts);
  const Transfer all = ipc::receive_all(pair.b.get(), parts);
  const Transfer none = ipc::receive_frame(-1, buffer);
  EXPECT_EQ(allocations, before);
  expect(sent, 4100, 0, false);
  expect(got, 4096, 0, false);
  expect(many, 40, 0, false);
  expect(all, 40, 0, false);
  expect(none, 0, EBADF, false);
  const std::string counted(100, 'x');
  EXPECT_GT(allocations, before) << "the counter counts";
}

}  // namespace
