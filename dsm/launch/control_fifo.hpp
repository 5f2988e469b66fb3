// dsm/launch/control_fifo.hpp - dsmexec --control FIFO: a job that is asked and told things while it runs, by a shell's
// echo.
//
//   $ echo status > FIFO          each line is one order: status, abort
//
// Only this user can write there (ipc/fifo.hpp). One that is there is taken, and stays, as does that of a dsmexec that
// was killed. Whoever reads, reads for nobody else: two jobs cannot share one. For a poll loop; nothing here blocks.
// Thread-safety: none. Not async-signal-safe.
#pragma once
#include <poll.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "ipc/fd.hpp"

namespace dsm::launch {

class ControlFifo {
 public:
  enum class Order : std::uint8_t { status, abort };

  // Makes the FIFO if it is not there. Throws std::system_error, as make_fifo() and open_fifo_to_serve(); EBUSY:
  // another job reads it; EPERM: others may write there.
  explicit ControlFifo(std::string path);
  ControlFifo(const ControlFifo&) = delete;
  ControlFifo& operator=(const ControlFifo&) = delete;
  ~ControlFifo();  // and removes it if it was made here

  void add_to(std::vector<pollfd>& set) const { set.push_back({fd_.get(), POLLIN, 0}); }
  // Calls `order` for each whole line that has come, `unknown` for what is none.
  void serve(const std::function<void(Order)>& order, const std::function<void(std::string_view)>& unknown);
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
  bool ours_ = false;
  ipc::Fd fd_;
  std::string line_;  // what has come of the next one
};

}  // namespace dsm::launch
