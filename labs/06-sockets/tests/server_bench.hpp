// labs/06-sockets/tests/server_bench.hpp - a server at a path of its own, and clients that a test
// plays itself. For tests only.
#pragma once
#include <gtest/gtest.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <string_view>
#include <vector>

#include "ipc/socket.hpp"
#include "labs/common/observing.hpp"

namespace ipc::testing {

using Lines = std::vector<std::string>;

class Server : public ::testing::Test {
 protected:
  Server() { ::signal(SIGPIPE, SIG_IGN); }

  [[nodiscard]] Lines server_with(Lines options) const {
    options.insert(options.begin(), "server");
    options.insert(options.end(), {"--socket", path});
    return options;
  }
  [[nodiscard]] Outcome client(const std::string& number) const { return run({"client", number, "--socket", path}); }
  [[nodiscard]] bool socket_is_there() const {
    struct stat status {};
    return ::lstat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode);
  }
  // A client of our own, once the server listens.
  [[nodiscard]] Fd connect() const {
    Fd fd;
    EXPECT_TRUE(wait_until([&] {
      try {
        fd = ipc::connect_unix(path, SOCK_SEQPACKET);
      } catch (const std::system_error&) {
        return false;
      }
      return true;
    }));
    return fd;
  }
  void wait_until_it_listens() const { static_cast<void>(connect()); }
  // How many descriptors it has while nobody is connected.
  [[nodiscard]] std::size_t descriptors_alone(const Started& server) const;

  TempDir folder;
  const std::string path = folder.path("socket");
};

inline void say_to(const Fd& fd, std::string_view text) {
  EXPECT_EQ(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
}
// The next record; "end" for the end; "silence" if nothing comes.
inline std::string hear_from(const Fd& fd) {
  timeval deadline{30, 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof deadline);
  char text[1000];
  const ssize_t size = ::recv(fd.get(), text, sizeof text, 0);
  if (size < 0) return errno == EAGAIN ? "silence" : std::string("error ") + std::strerror(errno);
  return size == 0 ? "end" : std::string(text, static_cast<std::size_t>(size));
}
// Waits until the other side has taken all that was said to it.
inline bool is_heard(const Fd& fd) {
  return wait_until([&] {
    int unread = -1;
    return ::ioctl(fd.get(), SIOCOUTQ, &unread) == 0 && unread == 0;
  });
}
// How many descriptors a process has.
inline std::size_t descriptors_of(const Started& program) {
  return open_descriptors(std::to_string(program.pid())).size();
}
inline bool has_descriptors(const Started& program, std::size_t count) {
  return wait_until([&] { return descriptors_of(program) == count; });
}
// It does nothing until SIGCONT.
inline bool suspend(const Started& program) {
  program.signal(SIGSTOP);
  return wait_until([&] { return state_of(program.pid()) == 'T'; });
}

inline std::size_t Server::descriptors_alone(const Started& server) const {
  const Fd first = connect();
  say_to(first, "x");
  EXPECT_EQ(hear_from(first).rfind("error: ", 0), 0U);
  EXPECT_EQ(hear_from(first), "end");
  return descriptors_of(server);
}

}  // namespace ipc::testing
