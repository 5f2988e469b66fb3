// dsm/launch/input.hpp - dsmexec's own standard input, on its way to the agents whose ranks read it.
//
// Read only when something is there and room for it (agents say how much their ranks have taken), and, at a terminal,
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

  // How far an agent is behind.
  struct Reader {
    Link* link = nullptr;
    std::uint64_t* under_way = nullptr;  // bytes sent to it and not yet taken
  };

  void add_to(std::vector<pollfd>& set, const std::vector<Reader>& readers, Time now);
  [[nodiscard]] Time next_deadline()
      const;  // when to look again whether we are in the foreground; max() if that is no question
  void serve(const std::vector<Reader>& readers);  // sends on what there is: all get the same

 private:
  // Bytes; 0 also if nobody reads, or all has been read.
  [[nodiscard]] std::size_t room(const std::vector<Reader>& readers) const;
  [[nodiscard]] bool in_foreground() const;

  int fd_;
  ipc::Fd own_;  // the same pipe or terminal, opened anew to be non-blocking
  bool terminal_ = false, ended_ = false;
  Time look_again_ = Time::max();
};

}  // namespace dsm::launch
