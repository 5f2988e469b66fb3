// dsm/launch/feed.hpp - dsmexec's standard input at the end of its way: in an agent, into the pipes of its ranks.
//
// All get the same bytes. What a pipe has no room for waits here; "taken" is what the slowest has in its pipe, so that
// dsmexec never sends more than the window (input_window) ahead of it. A rank that does not want any more (EPIPE) is
// left out. For a poll loop; nothing here blocks. Thread-safety: none. Not async-signal-safe.
#pragma once
#include <poll.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ipc/fd.hpp"

namespace dsm::launch {

class Feed {
 public:
  // The writing end of a rank's pipe; it is made non-blocking. REQUIRES: SIGPIPE is ignored; before the first write()
  // and taken().
  void add(ipc::Fd pipe);
  void put(std::string_view bytes) { waiting_.append(bytes); }
  void end() { ended_ = true; }  // the pipes are closed when all is in them
  void write();                  // what they take
  void add_to(std::vector<pollfd>& set) const;
  // Bytes that have been taken since this was asked last. When nobody wants any, all are.
  [[nodiscard]] std::uint64_t taken();
  [[nodiscard]] bool wanted() const { return !pipes_.empty(); }

 private:
  struct Pipe {
    ipc::Fd fd;
    std::size_t written = 0;  // of `waiting_`
  };
  [[nodiscard]] bool write(Pipe& pipe) const;  // false: it does not want any more

  std::vector<Pipe> pipes_;
  std::string waiting_;
  bool ended_ = false;
};

}  // namespace dsm::launch
