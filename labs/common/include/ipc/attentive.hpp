// ipc/attentive.hpp - writing to what may be full, without going deaf to signals. Given to every lab.
//
// A program that blocks its signals and reads them from a SignalFd sees them only where it looks for them. A plain
// write(2) to a full pipe does not look: for as long as nobody reads, the program could not be stopped.
// Thread-safety: as write(2). async-signal-safe: no. Sources: poll(2), pipe(7) on PIPE_BUF.
#pragma once
#include <limits.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <string>
#include <string_view>

#include "ipc/error.hpp"

namespace ipc {

// Writes all of `bytes`; before each piece it waits until there is room for it, and calls `on_signal` whenever `signals`
// is readable meanwhile (it must read there; what it throws is passed on). `what` is for the message of std::system_error.
inline void write_attentively(int fd, std::string_view bytes, const std::string& what, int signals,
                              const std::function<void()>& on_signal) {
  while (!bytes.empty()) {
    pollfd wanted[] = {{fd, POLLOUT, 0}, {signals, POLLIN, 0}};
    if (::poll(wanted, 2, -1) == -1) {
      if (errno == EINTR) continue;
      throw_errno("poll");
    }
    if (wanted[1].revents != 0) on_signal();
    if (wanted[0].revents == 0) continue;
    // A pipe is ready when it has room for PIPE_BUF bytes: one byte more, and this could block after all.
    const ssize_t put = ::write(fd, bytes.data(), std::min<std::size_t>(bytes.size(), PIPE_BUF));
    if (put >= 0) {
      bytes.remove_prefix(static_cast<std::size_t>(put));
    } else if (errno != EINTR && errno != EAGAIN) {
      throw_errno(what);
    }
  }
}

// say() of ipc/program.hpp, for such a program.
inline void say_attentively(std::string_view line, int signals, const std::function<void()>& on_signal) {
  write_attentively(STDOUT_FILENO, std::string(line) + "\n", "standard output", signals, on_signal);
}

}  // namespace ipc
