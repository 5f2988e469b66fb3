// labs/06-sockets/src/outbox.hpp - lines for somebody who may not be reading just now, without waiting for him.
//
// Used by the watchdog: what it says must never hold up what it does. A plain write(2) to a pipe that is full would,
// for as long as nobody reads; so lines are kept here until there is room, the newest of them if there are too many.
// Thread-safety: none. async-signal-safe: no. Sources: poll(2), pipe(7) on PIPE_BUF.
#pragma once
#include <limits.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <deque>
#include <string>
#include <string_view>
#include <utility>

#include "ipc/error.hpp"

class Outbox {
 public:
  // `fd`: the caller's; `what` is for the message of std::system_error.
  Outbox(int fd, std::string what, std::size_t capacity) : fd_(fd), what_(std::move(what)), capacity_(capacity) {}

  // Keeps the line. If there are `capacity` already, the oldest goes, and the reader is told how many went.
  void put(std::string_view line) {
    if (lines_.size() == capacity_) {
      lines_.pop_front();
      ++dropped_;
    }
    lines_.push_back(std::string(line) + "\n");
  }

  // Writes what there is room for now. Throws std::system_error if nobody will ever read it (EPIPE).
  //
  // Never waits, as long as nobody else writes to the same pipe: one that is ready has room for PIPE_BUF bytes, unless
  // another writer takes it between poll and write. (O_NONBLOCK would hold for all who share the open file, for the
  // shell that started us as well; so it is not ours to set.)
  void flush() {
    while (next()) {
      pollfd ready{fd_, POLLOUT, 0};
      if (::poll(&ready, 1, 0) != 1) return;
      const ssize_t put = ::write(fd_, current_.data(), std::min<std::size_t>(current_.size(), PIPE_BUF));
      if (put >= 0) {
        current_.erase(0, static_cast<std::size_t>(put));
      } else if (errno == EAGAIN) {
        return;
      } else if (errno != EINTR) {
        ipc::throw_errno(what_);
      }
    }
  }

  // To be polled for POLLOUT; -1 (which poll passes over) if there is nothing to write.
  [[nodiscard]] int waiting_for() const { return current_.empty() && lines_.empty() ? -1 : fd_; }

 private:
  // Sees to it that there is something in current_. False: there is nothing left.
  bool next() {
    if (!current_.empty()) return true;
    if (lines_.empty()) return false;
    if (dropped_ > 0) {
      current_ = "(" + std::to_string(std::exchange(dropped_, 0)) + " lines were dropped: nobody read them)\n";
    } else {
      current_ = std::move(lines_.front());
      lines_.pop_front();
    }
    return true;
  }

  int fd_;
  std::string what_;
  std::size_t capacity_;
  std::deque<std::string> lines_;
  std::size_t dropped_ = 0;  // older than those in lines_
  std::string current_;      // what is left of the one that is being written: it is never dropped in its middle
};
