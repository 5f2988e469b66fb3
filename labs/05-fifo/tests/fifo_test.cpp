#include "ipc/fifo.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

#include "ipc/signals.hpp"
#include "labs/common/testing.hpp"

namespace {

using ipc::Fd;
using ipc::testing::error_of;
using ipc::testing::TempDir;
using ipc::testing::wait_until;

class Fifo : public ::testing::Test {
 protected:
  TempDir folder;
  const std::string path = folder.path("fifo");
};

int refused_to_open(const std::string& path) {
  const int reading = error_of([&] { static_cast<void>(ipc::open_fifo_for_reading(path, 1)); });
  const int writing = error_of([&] { static_cast<void>(ipc::open_fifo_for_writing(path, 1)); });
  const int serving = error_of([&] { static_cast<void>(ipc::open_fifo_to_serve(path)); });
  EXPECT_EQ(reading, writing);
  EXPECT_EQ(reading, serving);
  return reading;
}

TEST_F(Fifo, IsMadeForItsUserOnlyAndTakenAsItIsTheSecondTime) {
  ipc::make_fifo(path);
  struct stat first {
  }, second{};
  ASSERT_EQ(::lstat(path.c_str(), &first), 0);
  EXPECT_TRUE(S_ISFIFO(first.st_mode));
  EXPECT_EQ(first.st_mode & 0777, 0600U);
  ipc::make_fifo(path);
  ASSERT_EQ(::lstat(path.c_str(), &second), 0);
  EXPECT_EQ(first.st_ino, second.st_ino);
}

TEST_F(Fifo, AnythingElseInTheWayIsRefusedAndLeftAlone) {
  const std::string file = folder.path("file"), link = folder.path("link"), socket = folder.path("socket");
  std::ofstream(file) << "precious";
  ipc::make_fifo(path);
  ASSERT_EQ(::symlink(path.c_str(), link.c_str()), 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  ASSERT_LT(socket.size(), sizeof address.sun_path);
  socket.copy(address.sun_path, socket.size());
  const Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  for (const std::string& taken : {file, link, socket, folder.path()}) {
    EXPECT_EQ(error_of([&] { ipc::make_fifo(taken); }), EEXIST) << taken;
    EXPECT_EQ(refused_to_open(taken), EEXIST) << taken;
  }
  EXPECT_EQ(ipc::testing::read_text(file), "precious");
}

TEST_F(Fifo, AnotherUsersIsRefused) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can give a file away";
  ipc::make_fifo(path);
  ASSERT_EQ(::chown(path.c_str(), 65534, 65534), 0);
  EXPECT_EQ(error_of([&] { ipc::make_fifo(path); }), EPERM);
  EXPECT_EQ(refused_to_open(path), EPERM);
}

TEST_F(Fifo, AMissingOneOrFolderIsAnError) {
  EXPECT_EQ(error_of([&] { ipc::make_fifo(folder.path("no/where")); }), ENOENT);
  EXPECT_EQ(error_of([&] { ipc::make_fifo(folder.path(std::string(256, 'x'))); }), ENAMETOOLONG);
  EXPECT_EQ(refused_to_open(path), ENOENT);
}

TEST_F(Fifo, EachSideWaitsForTheOther) {
  ipc::make_fifo(path);
  for (const int timeout_ms : {-1, 30'000}) {
    for (const bool reader_first : {true, false}) {
      std::atomic<bool> open{false};
      Fd first;
      std::thread waiting([&] {
        first =
            reader_first ? ipc::open_fifo_for_reading(path, timeout_ms) : ipc::open_fifo_for_writing(path, timeout_ms);
        open = true;
      });
      // That it does not go on too early can be seen only by giving it time to do so.
      EXPECT_FALSE(wait_until([&] { return open.load(); }, std::chrono::milliseconds(20)));
      const Fd second =
          reader_first ? ipc::open_fifo_for_writing(path, timeout_ms) : ipc::open_fifo_for_reading(path, timeout_ms);
      waiting.join();
      const int from = reader_first ? first.get() : second.get(), to = reader_first ? second.get() : first.get();
      ipc::write_record(to, "x");
      char byte = 0;
      EXPECT_EQ(::read(from, &byte, 1), 1);
      EXPECT_EQ(byte, 'x');
      for (const int fd : {from, to}) {
        EXPECT_TRUE(::fcntl(fd, F_GETFD) & FD_CLOEXEC);
        EXPECT_FALSE(::fcntl(fd, F_GETFL) & O_NONBLOCK);
      }
    }
  }
}

TEST_F(Fifo, TheWaitEndsInTimeAndLeavesNoTrace) {
  ipc::make_fifo(path);
  // Blocked and handled by somebody else: both must be put back.
  const ipc::ScopedAction own(SIGALRM, [](int, siginfo_t*, void*) {});
  const ipc::ScopedMask mask(ipc::signal_set({SIGALRM}));
  const auto descriptors = ipc::testing::open_descriptors();
  for (const int timeout_ms : {0, 1, 50}) {
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_EQ(error_of([&] { static_cast<void>(ipc::open_fifo_for_reading(path, timeout_ms)); }), ETIMEDOUT);
    EXPECT_EQ(error_of([&] { static_cast<void>(ipc::open_fifo_for_writing(path, timeout_ms)); }), ETIMEDOUT);
    EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(2 * timeout_ms));
  }
  EXPECT_EQ(ipc::testing::open_descriptors(), descriptors);
  EXPECT_TRUE(ipc::testing::has_signal("thread-self", "SigBlk", SIGALRM));
  EXPECT_FALSE(ipc::testing::has_signal("thread-self", "SigPnd", SIGALRM));
  EXPECT_EQ(ipc::testing::read_text("/proc/self/timers"), "");
  struct sigaction now {};
  ASSERT_EQ(::sigaction(SIGALRM, nullptr, &now), 0);
  EXPECT_TRUE(now.sa_flags & SA_RESTART) << "our own handler is back";
}

TEST_F(Fifo, AnotherSignalDoesNotEndTheWait) {
  ipc::make_fifo(path);
  const ipc::ScopedAction handled(
      SIGUSR1, [](int, siginfo_t*, void*) {}, 0);
  std::atomic<bool> open{false};
  std::thread waiting([&] {
    const Fd fd = ipc::open_fifo_for_writing(path);
    open = true;
  });
  for (int i = 0; i < 100; ++i) {
    ::pthread_kill(waiting.native_handle(), SIGUSR1);
    std::this_thread::yield();
  }
  EXPECT_FALSE(open);
  const Fd reader = ipc::open_fifo_for_reading(path);
  waiting.join();
}

TEST_F(Fifo, AServerOpensAtOnceAndHearsOneSenderAfterTheOther) {
  ipc::make_fifo(path);
  const Fd server = ipc::open_fifo_to_serve(path);
  EXPECT_TRUE(::fcntl(server.get(), F_GETFD) & FD_CLOEXEC);
  char text[16];
  for (const char* word : {"one", "two", "three"}) {
    EXPECT_EQ(::read(server.get(), text, sizeof text), -1);
    EXPECT_EQ(errno, EAGAIN) << "no end of file between two senders";
    ipc::write_record(ipc::open_fifo_for_writing(path, 30'000).get(), word);
    pollfd ready{server.get(), POLLIN, 0};
    ASSERT_EQ(::poll(&ready, 1, 30'000), 1);
    const ssize_t size = ::read(server.get(), text, sizeof text);
    ASSERT_GT(size, 0);
    EXPECT_EQ(std::string(text, static_cast<std::size_t>(size)), word);
  }
}

TEST_F(Fifo, RecordsOfTwoSendersAreNotMixed) {
  ipc::make_fifo(path);
  constexpr int count = 200;
  std::vector<std::thread> senders;
  for (const char letter : {'a', 'b'}) {
    senders.emplace_back([this, letter] {
      const Fd fd = ipc::open_fifo_for_writing(path);
      for (int i = 0; i < count; ++i) ipc::write_record(fd.get(), std::string(ipc::max_record, letter));
    });
  }
  int records = 0;
  {
    // Two readers' ends would share what comes; one of a server lets no sender end the stream for the other.
    const Fd server = ipc::open_fifo_to_serve(path);
    std::string got;
    while (records < 2 * count) {
      pollfd ready{server.get(), POLLIN, 0};
      if (::poll(&ready, 1, 30'000) != 1) break;
      char piece[1000];  // reads that fit no record
      const ssize_t size = ::read(server.get(), piece, sizeof piece);
      if (size > 0) got.append(piece, static_cast<std::size_t>(size));
      for (; got.size() >= ipc::max_record; got.erase(0, ipc::max_record), ++records) {
        ASSERT_EQ(got.substr(0, ipc::max_record), std::string(ipc::max_record, got.front()));
      }
    }
  }
  EXPECT_EQ(records, 2 * count);
  for (std::thread& sender : senders) sender.join();
}

TEST_F(Fifo, ARecordThatWouldNotBeOnePieceIsRefused) {
  ipc::make_fifo(path);
  const Fd server = ipc::open_fifo_to_serve(path);
  EXPECT_THROW(ipc::write_record(server.get(), std::string(ipc::max_record + 1, 'x')), std::length_error);
  char byte = 0;
  EXPECT_EQ(::read(server.get(), &byte, 1), -1) << "nothing of it was written";
}

TEST_F(Fifo, WritingWithoutRoomOrWithoutReaderIsAnError) {
  const ipc::ScopedAction ignored(SIGPIPE, [](int, siginfo_t*, void*) {});
  ipc::make_fifo(path);
  Fd server = ipc::open_fifo_to_serve(path);
  const Fd sender = ipc::open_fifo_for_writing(path);
  const std::string record(ipc::max_record, 'x');
  EXPECT_EQ(error_of([&] {
              for (;;) ipc::write_record(server.get(), record);
            }),
            EAGAIN);
  server.reset();
  EXPECT_EQ(error_of([&] { ipc::write_record(sender.get(), record); }), EPIPE);
}

}  // namespace
