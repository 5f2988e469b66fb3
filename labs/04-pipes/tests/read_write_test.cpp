// make_pipe, read_full, write_full.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <string>
#include <thread>

#include "ipc/spawn.hpp"
#include "labs/common/testing.hpp"

namespace {

using ipc::Pipe;

void set_nonblocking(int fd) { ASSERT_EQ(::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK), 0); }

// Counts up, so that a byte lost, doubled or moved is seen.
std::string pattern(std::size_t size) {
  std::string text(size, '\0');
  for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 31 + i / 251);
  return text;
}

TEST(MakePipe, BothEndsAreCloseOnExec) {
  const Pipe pipe = ipc::make_pipe();
  EXPECT_TRUE(::fcntl(pipe.read.get(), F_GETFD) & FD_CLOEXEC);
  EXPECT_TRUE(::fcntl(pipe.write.get(), F_GETFD) & FD_CLOEXEC);
  EXPECT_EQ(::fcntl(pipe.read.get(), F_GETFL) & O_ACCMODE, O_RDONLY);
  EXPECT_EQ(::fcntl(pipe.write.get(), F_GETFL) & O_ACCMODE, O_WRONLY);
}

TEST(ReadFull, CollectsWhatComesByteByByte) {
  Pipe pipe = ipc::make_pipe();
  const std::string text = pattern(500);
  std::thread writer([&] {
    for (const char byte : text) EXPECT_EQ(::write(pipe.write.get(), &byte, 1), 1);
  });
  std::string got(500, '\0');
  EXPECT_EQ(ipc::read_full(pipe.read.get(), got.data(), got.size()), 500);
  writer.join();
  EXPECT_EQ(got, text);
}

TEST(ReadFull, GivesFewerOnlyAtTheEnd) {
  Pipe pipe = ipc::make_pipe();
  ASSERT_EQ(ipc::write_full(pipe.write.get(), "abc", 3), 3);
  pipe.write.reset();
  std::array<char, 10> buffer{};
  EXPECT_EQ(ipc::read_full(pipe.read.get(), buffer.data(), buffer.size()), 3);
  EXPECT_EQ(ipc::read_full(pipe.read.get(), buffer.data(), buffer.size()), 0);
  EXPECT_EQ(ipc::read_full(pipe.read.get(), buffer.data(), 0), 0);
}

TEST(ReadFull, TakesNoByteTooMany) {
  Pipe pipe = ipc::make_pipe();
  ASSERT_EQ(ipc::write_full(pipe.write.get(), "abcdef", 6), 6);
  std::array<char, 6> buffer{};
  ASSERT_EQ(ipc::read_full(pipe.read.get(), buffer.data(), 4), 4);
  ASSERT_EQ(ipc::read_full(pipe.read.get(), buffer.data(), 2), 2);
  EXPECT_EQ(std::string(buffer.data(), 2), "ef");
}

TEST(WriteFull, SendsMoreThanAPipeHolds) {
  for (const bool nonblocking : {false, true}) {
    Pipe pipe = ipc::make_pipe();
    if (nonblocking) {
      set_nonblocking(pipe.read.get());
      set_nonblocking(pipe.write.get());
    }
    const std::string text = pattern(1 << 20);
    std::string got(text.size(), '\0');
    std::thread reader(
        [&] { EXPECT_EQ(ipc::read_full(pipe.read.get(), got.data(), got.size()), static_cast<ssize_t>(got.size())); });
    EXPECT_EQ(ipc::write_full(pipe.write.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
    reader.join();
    EXPECT_EQ(got, text);
  }
}

volatile sig_atomic_t alarms = 0;
void on_alarm(int) { alarms = alarms + 1; }

TEST(ReadFull, IsNotDisturbedBySignals) {
  struct sigaction handle {
  }, former{};
  handle.sa_handler = on_alarm;  // without SA_RESTART: read() and write() fail with EINTR
  ::sigaction(SIGUSR1, &handle, &former);
  alarms = 0;
  Pipe pipe = ipc::make_pipe();
  const pthread_t reader = ::pthread_self();
  std::thread writer([&] {
    for (int i = 0; i < 200; ++i) {
      ::pthread_kill(reader, SIGUSR1);
      const char byte = static_cast<char>(i);
      EXPECT_EQ(::write(pipe.write.get(), &byte, 1), 1);
    }
  });
  std::array<char, 200> got{};
  EXPECT_EQ(ipc::read_full(pipe.read.get(), got.data(), got.size()), 200);
  writer.join();
  EXPECT_GT(alarms, 0);
  for (int i = 0; i < 200; ++i) EXPECT_EQ(got[static_cast<std::size_t>(i)], static_cast<char>(i));
  ::sigaction(SIGUSR1, &former, nullptr);
}

TEST(Transfer, ErrorsAreMinusOneAndErrno) {
  char byte = 0;
  EXPECT_EQ(ipc::read_full(-1, &byte, 1), -1);
  EXPECT_EQ(errno, EBADF);
  EXPECT_EQ(ipc::write_full(-1, &byte, 1), -1);
  EXPECT_EQ(errno, EBADF);

  struct sigaction ignore {
  }, former{};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignore, &former);
  Pipe pipe = ipc::make_pipe();
  pipe.read.reset();
  EXPECT_EQ(ipc::write_full(pipe.write.get(), &byte, 1), -1);
  EXPECT_EQ(errno, EPIPE);
  ::sigaction(SIGPIPE, &former, nullptr);
}

}  // namespace
