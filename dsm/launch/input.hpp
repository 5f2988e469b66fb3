// dsm/launch/input.hpp - dsmexec's own standard input, on its way to one rank.
//
// Read only when something is there and room for it (the agent says how much the rank has taken), and, at a terminal,
// only while dsmexec is in its foreground: a job in the background is not stopped for reading what it may never need.
// Thread-safety: none. Not async-signal-safe.
#pragma once
#include <poll.h>

#include <chrono>
#include <cstdint>
#include <vector>

#include "dsm/launch/control.hpp"
#include "ipc/fd.hpp"

namespace dsm::launch {

class Input {
 public:
  using Time = std::chrono::steady_clock::time_point;
  // Does not own `fd`. REQUIRES: SIGTTIN is blocked (a read at the wrong moment is then refused with EIO).
  explicit Input(int fd);

  void add_to(std::vector<pollfd>& set, Time now);
  [[nodiscard]] Time next_deadline()
      const;               // when to look again whether we are in the foreground; max() if that is no question
  void serve(Link& link);  // sends on what there is
  void taken(std::uint64_t bytes) { under_way_ -= bytes < under_way_ ? bytes : under_way_; }
  void close() { ended_ = true; }  // the rank does not want any more

 private:
  [[nodiscard]] bool wants() const { return !ended_ && under_way_ < input_window; }
  [[nodiscard]] bool in_foreground() const;

  int fd_;
  ipc::Fd own_;  // the same pipe or terminal, opened anew to be non-blocking
  bool terminal_ = false, ended_ = false;
  std::uint64_t under_way_ = 0;  // bytes
  Time look_again_ = Time::max();
};

}  // namespace dsm::launch
