// Listeners and connections. Bytes and frames: transfer_test.cpp.
#include "ipc/socket.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <fstream>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "labs/common/testing.hpp"

namespace {

using ipc::Fd;
using ipc::UnixListener;
using ipc::testing::Child;
using ipc::testing::error_of;
using ipc::testing::TempDir;

template <class Make>
int refused(Make&& make) {
  return error_of([&] { static_cast<void>(make()); });
}

bool is_socket(const std::string& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode);
}

int option(int fd, int level, int name) {
  int value = -1;
  socklen_t length = sizeof value;
  EXPECT_EQ(::getsockopt(fd, level, name, &value, &length), 0);
  return value;
}

Fd accept_from(int listener) { return Fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC)); }

// One byte from here to there and back.
void expect_connected(int a, int b) {
  char byte = 'x';
  ASSERT_EQ(::send(a, &byte, 1, MSG_NOSIGNAL), 1);
  byte = 0;
  ASSERT_EQ(::recv(b, &byte, 1, 0), 1);
  EXPECT_EQ(byte, 'x');
  ASSERT_EQ(::send(b, &byte, 1, MSG_NOSIGNAL), 1);
  ASSERT_EQ(::recv(a, &byte, 1, 0), 1);
}

// A socket file on which nobody listens any more.
void leave_stale(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  ASSERT_LT(path.size(), sizeof address.sun_path);
  std::strcpy(address.sun_path, path.c_str());
  const Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_TRUE(is_socket(path));
}

class UnixSocket : public ::testing::TestWithParam<int> {
 protected:
  TempDir folder;
  const std::string path = folder.path("socket");
};
INSTANTIATE_TEST_SUITE_P(Types, UnixSocket, ::testing::Values(SOCK_STREAM, SOCK_SEQPACKET));

TEST_P(UnixSocket, ConnectsAndLeavesNothing) {
  {
    const UnixListener listener(path, GetParam());
    EXPECT_TRUE(is_socket(path));
    const Fd client = ipc::connect_unix(path, GetParam());
    const Fd server = accept_from(listener.fd());
    expect_connected(client.get(), server.get());
    EXPECT_EQ(option(client.get(), SOL_SOCKET, SO_TYPE), GetParam());
    EXPECT_TRUE(::fcntl(listener.fd(), F_GETFD) & FD_CLOEXEC);
    EXPECT_TRUE(::fcntl(client.get(), F_GETFD) & FD_CLOEXEC);
    EXPECT_EQ(ipc::peer_uid(client.get()), ::getuid());
    EXPECT_EQ(ipc::peer_uid(server.get()), ::getuid());
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  EXPECT_EQ(refused([&] { return ipc::connect_unix(path, GetParam()); }), ENOENT);
}

TEST_P(UnixSocket, IsForItsUserOnly) {
  const UnixListener listener(path, GetParam());
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0077, 0U);
}

TEST_P(UnixSocket, AStalePathIsReplaced) {
  leave_stale(path);
  EXPECT_EQ(refused([&] { return ipc::connect_unix(path, SOCK_SEQPACKET); }), ECONNREFUSED);
  const UnixListener listener(path, GetParam());
  EXPECT_TRUE(ipc::connect_unix(path, GetParam()));
}

TEST_P(UnixSocket, ALivePathIsNot) {
  const UnixListener listener(path, GetParam(), 1);
  for (const int type : {SOCK_STREAM, SOCK_SEQPACKET}) {
    EXPECT_EQ(error_of([&] { UnixListener second(path, type); }), EADDRINUSE);
  }
  // Nor if its backlog is full and it answers nobody.
  std::vector<Fd> waiting;
  int error = 0;
  while (error == 0) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, path.c_str());
    waiting.emplace_back(::socket(AF_UNIX, GetParam() | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (::connect(waiting.back().get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == -1)
      error = errno;
  }
  ASSERT_EQ(error, EAGAIN);
  EXPECT_EQ(error_of([&] { UnixListener second(path, GetParam()); }), EADDRINUSE);
  EXPECT_TRUE(is_socket(path));
}

TEST_P(UnixSocket, WhatIsNoSocketIsLeftAlone) {
  std::ofstream(path) << "precious";
  EXPECT_EQ(error_of([&] { UnixListener listener(path, GetParam()); }), EADDRINUSE);
  EXPECT_EQ(ipc::testing::read_text(path), "precious");
  const std::string link = folder.path("link");
  ASSERT_EQ(::symlink("nowhere", link.c_str()), 0);
  EXPECT_EQ(error_of([&] { UnixListener listener(link, GetParam()); }), EADDRINUSE);
  EXPECT_TRUE(std::filesystem::is_symlink(link));
}

TEST_P(UnixSocket, APathHasAtMost107Bytes) {
  const std::string longest = path + std::string(ipc::max_unix_path - path.size(), 'x');
  ASSERT_EQ(longest.size(), 107U);
  {
    const UnixListener listener(longest, GetParam());
    EXPECT_TRUE(is_socket(longest));
    EXPECT_TRUE(ipc::connect_unix(longest, GetParam()));
  }
  EXPECT_THROW(UnixListener(longest + "x", GetParam()), std::length_error);
  EXPECT_THROW(static_cast<void>(ipc::connect_unix(longest + "x", GetParam())), std::length_error);
  try {
    const UnixListener listener(longest + "x", GetParam());
  } catch (const std::length_error& failure) {
    EXPECT_NE(std::string(failure.what()).find("has 108 bytes"), std::string::npos) << failure.what();
  }
}

TEST_P(UnixSocket, OddPathsAreErrors) {
  EXPECT_EQ(error_of([&] { UnixListener listener("", GetParam()); }), EINVAL);
  EXPECT_EQ(error_of([&] { UnixListener listener(std::string("a\0b", 3), GetParam()); }), EINVAL);
  EXPECT_EQ(error_of([&] { UnixListener listener(folder.path("no/such"), GetParam()); }), ENOENT);
  EXPECT_EQ(error_of([&] { UnixListener listener(path, GetParam(), -1), second(path, GetParam()); }), EADDRINUSE);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST_P(UnixSocket, OnlyItsMakerUnlinksIt) {
  auto listener = std::make_unique<UnixListener>(path, GetParam());
  Child child([&] {
    listener.reset();
    return 0;
  });
  EXPECT_EQ(child.wait(), 0);
  EXPECT_TRUE(is_socket(path));
  // Somebody removes it and puts another thing there: that is not ours.
  ASSERT_EQ(::unlink(path.c_str()), 0);
  std::ofstream(path) << "another";
  listener.reset();
  EXPECT_EQ(ipc::testing::read_text(path), "another");
}

TEST_P(UnixSocket, OfManyThatStartOnAStalePathOneWins) {
  for (int round = 0; round < 30; ++round) {
    leave_stale(path);
    std::mutex mutex;
    std::vector<std::unique_ptr<UnixListener>> winners;
    std::atomic<int> losers{0}, others{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 6; ++t) {
      threads.emplace_back([&] {
        try {
          auto listener = std::make_unique<UnixListener>(path, GetParam());
          const std::lock_guard lock(mutex);
          winners.push_back(std::move(listener));
        } catch (const std::system_error& failure) {
          (failure.code().value() == EADDRINUSE ? losers : others)++;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    ASSERT_EQ(winners.size(), 1U);
    ASSERT_EQ(losers, 5);
    ASSERT_EQ(others, 0);
    const Fd client = ipc::connect_unix(path, GetParam());  // and it is the winner who is reached,
    char byte = 'x';
    ASSERT_EQ(::send(client.get(), &byte, 1, MSG_NOSIGNAL), 1);
    for (byte = 0; byte == 0;) {  // after those who asked whether it lives, and left
      const Fd server = accept_from(winners[0]->fd());
      ASSERT_TRUE(server);
      static_cast<void>(::recv(server.get(), &byte, 1, 0));
    }
    ASSERT_EQ(byte, 'x');
  }
}

TEST_P(UnixSocket, AbstractNamesHaveNoFile) {
  const std::string name = folder.path().substr(1) + std::string("\0x", 2);  // unique, and a zero byte counts
  const Fd listener = ipc::listen_abstract(name, GetParam());
  const Fd client = ipc::connect_abstract(name, GetParam());
  const Fd server = accept_from(listener.get());
  expect_connected(client.get(), server.get());
  EXPECT_EQ(ipc::peer_uid(server.get()), ::getuid());
  EXPECT_TRUE(::fcntl(listener.get(), F_GETFD) & FD_CLOEXEC);
  EXPECT_TRUE(::fcntl(client.get(), F_GETFD) & FD_CLOEXEC);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  EXPECT_EQ(refused([&] { return ipc::connect_abstract(folder.path().substr(1), GetParam()); }), ECONNREFUSED);
  EXPECT_EQ(refused([&] { return ipc::listen_abstract(name, GetParam()); }), EADDRINUSE);
  EXPECT_THROW(static_cast<void>(ipc::listen_abstract(std::string(108, 'x'), GetParam())), std::length_error);
}

// ---- TCP ----

class Tcp : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Addresses, Tcp, ::testing::Values("127.0.0.1", "localhost"));

TEST_P(Tcp, ConnectsToThePortTheKernelChose) {
  const Fd listener = ipc::listen_tcp(GetParam(), 0);
  const std::uint16_t port = ipc::local_port(listener.get());
  ASSERT_NE(port, 0);
  const Fd client = ipc::connect_tcp(GetParam(), port, 10'000);
  const Fd server = accept_from(listener.get());
  expect_connected(client.get(), server.get());
  EXPECT_EQ(option(client.get(), IPPROTO_TCP, TCP_NODELAY), 1);
  EXPECT_FALSE(::fcntl(client.get(), F_GETFL) & O_NONBLOCK);
  EXPECT_TRUE(::fcntl(client.get(), F_GETFD) & FD_CLOEXEC);
  EXPECT_TRUE(::fcntl(listener.get(), F_GETFD) & FD_CLOEXEC);
  EXPECT_EQ(ipc::local_port(server.get()), port);
}

TEST(TcpConnect, SpeaksIpv6WhereTheMachineDoes) {
  const Fd probe(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in6 loopback{};
  loopback.sin6_family = AF_INET6;
  loopback.sin6_addr = in6addr_loopback;
  if (!probe || ::bind(probe.get(), reinterpret_cast<const sockaddr*>(&loopback), sizeof loopback) == -1) {
    EXPECT_NE(refused([] { return ipc::listen_tcp("::1", 0); }), 0);
    return;
  }
  const Fd listener = ipc::listen_tcp("::1", 0);
  const Fd client = ipc::connect_tcp("::1", ipc::local_port(listener.get()), 10'000);
  const Fd server = accept_from(listener.get());
  expect_connected(client.get(), server.get());
}

TEST(TcpConnect, AClosedPortIsRefused) {
  const Fd listener = ipc::listen_tcp("127.0.0.1", 0);
  const Fd bound(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));  // holds a port on which nobody listens
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::bind(bound.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  const std::uint16_t port = ipc::local_port(bound.get());
  EXPECT_EQ(refused([&] { return ipc::connect_tcp("127.0.0.1", port, 10'000); }), ECONNREFUSED);
  EXPECT_EQ(refused([&] { return ipc::listen_tcp("127.0.0.1", ipc::local_port(listener.get())); }), EADDRINUSE);
}

TEST(TcpConnect, SilenceEndsWithTheDeadline) {
  const Fd listener = ipc::listen_tcp("127.0.0.1", 0, 0);
  const std::uint16_t port = ipc::local_port(listener.get());
  std::vector<Fd> waiting;  // fill the backlog; then the kernel drops the next one's knocking
  int error = 0;
  const auto begin = std::chrono::steady_clock::now();
  auto last = begin;
  for (int i = 0; i < 100 && error == 0; ++i) {
    last = std::chrono::steady_clock::now();
    error = error_of([&] { waiting.push_back(ipc::connect_tcp("127.0.0.1", port, 200)); });
  }
  EXPECT_EQ(error, ETIMEDOUT);
  EXPECT_GE(std::chrono::steady_clock::now() - last, std::chrono::milliseconds(200));
}

TEST(TcpConnect, AClosedPortNeverMeetsItself) {
  // The kernel draws our end's port from a range; if it draws the very port we call, the socket connects to itself. It
  // draws even ones for connect(), some fourteen thousand, with random gaps: so many calls meet it in most runs.
  std::uint16_t port = 0;
  {
    const Fd listener = ipc::listen_tcp("127.0.0.1", 0);
    port = static_cast<std::uint16_t>(ipc::local_port(listener.get()) & ~1);
  }
  for (int i = 0; i < 20'000; ++i) {
    ASSERT_EQ(refused([&] { return ipc::connect_tcp("127.0.0.1", port, 10'000); }), ECONNREFUSED) << "call " << i;
  }
}

TEST(TcpConnect, AnUnknownNameIsOneClearLine) {
  for (const char* name : {"", "no such host"}) {
    try {
      static_cast<void>(ipc::connect_tcp(name, 1, 1000));
      FAIL() << "connected to '" << name << "'";
    } catch (const std::system_error& failure) {
      EXPECT_STREQ(failure.code().category().name(), "getaddrinfo");
      EXPECT_EQ(std::string(failure.what()).rfind("resolve ", 0), 0U) << failure.what();
    }
  }
}

TEST(TcpConnect, AnErrorNamesAddressAndPort) {
  try {
    const Fd listener = ipc::listen_tcp("127.0.0.1", 0);
    const std::uint16_t port = ipc::local_port(listener.get());
    try {
      static_cast<void>(ipc::listen_tcp("127.0.0.1", port));
      FAIL() << "two on one port";
    } catch (const std::system_error& failure) {
      EXPECT_NE(std::string(failure.what()).find("127.0.0.1:" + std::to_string(port)), std::string::npos);
    }
  } catch (const std::system_error& failure) {
    FAIL() << failure.what();
  }
}

TEST(Options, NonblockingGoesOnAndOff) {
  const Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ipc::set_nonblocking(fd.get());
  EXPECT_TRUE(::fcntl(fd.get(), F_GETFL) & O_NONBLOCK);
  ipc::set_nonblocking(fd.get(), false);
  EXPECT_FALSE(::fcntl(fd.get(), F_GETFL) & O_NONBLOCK);
  EXPECT_EQ(error_of([] { ipc::set_nonblocking(-1); }), EBADF);
  EXPECT_EQ(error_of([] { ipc::set_nodelay(-1); }), EBADF);
  EXPECT_EQ(error_of([] { static_cast<void>(ipc::local_port(-1)); }), EBADF);
  EXPECT_EQ(error_of([] { static_cast<void>(ipc::peer_uid(-1)); }), EBADF);
}

}  // namespace
