// dsm/net/testing.hpp - what the tests of this folder share: connected sockets and channels, waiting with a deadline.
#pragma once
#include <gtest/gtest.h>
#include <poll.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "dsm/net/channel.hpp"
#include "ipc/socket.hpp"

namespace dsm::net::testing {

inline constexpr int wait_ms = 30'000;  // far beyond what anything takes, even on a loaded machine

inline Deadline soon() { return std::chrono::steady_clock::now() + std::chrono::milliseconds(wait_ms); }

struct SocketPair {
  ipc::Fd one, other;
};

// Two ends of a TCP connection over loopback.
inline SocketPair tcp_pair() {
  const ipc::Fd listener = ipc::listen_tcp("127.0.0.1", 0);
  SocketPair pair;
  pair.one = ipc::connect_tcp("127.0.0.1", ipc::local_port(listener.get()), wait_ms);
  pair.other = ipc::Fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  EXPECT_TRUE(pair.other);
  return pair;
}

inline bool wait_for(int fd, short events) {
  pollfd one{fd, events, 0};
  return ::poll(&one, 1, wait_ms) == 1;
}

inline void write_bytes(int fd, const void* data, std::size_t size) {
  const iovec part{const_cast<void*>(data), size};
  const ipc::Transfer sent = ipc::send_all(fd, {&part, 1});
  EXPECT_EQ(sent.error, 0);
  EXPECT_EQ(sent.bytes, size);
}

inline void write_text(int fd, const std::string& text) { write_bytes(fd, text.data(), text.size()); }

// The next whole frame, waited for.
inline Io next_frame(Channel& channel, FrameHeader& header, const std::uint8_t*& body) {
  for (;;) {
    const Io io = channel.receive(header, body);
    if (io != Io::again) return io;
    if (!wait_for(channel.fd(), POLLIN)) return Io::again;
  }
}

inline FrameHeader bytes_frame(std::uint64_t a, std::size_t length = 0) {
  FrameHeader header{};
  header.kind = static_cast<std::uint8_t>(FrameKind::bytes);
  header.length = static_cast<std::uint32_t>(length);
  header.a = a;
  return header;
}

inline constexpr std::size_t page_size = 4096;
using PageBytes = std::vector<std::uint8_t>;

inline PageBytes pattern(unsigned seed, std::size_t size = page_size) {
  PageBytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::uint8_t>(seed * 31 + i * 7 + i / 256);
  return bytes;
}

struct Pair {
  explicit Pair(std::size_t queue = 64) : Pair(tcp_pair(), queue) {}
  Pair(SocketPair sockets, std::size_t queue)
      : one(std::move(sockets.one), page_size, queue), other(std::move(sockets.other), page_size, queue) {}
  Channel one, other;
};

}  // namespace dsm::net::testing
