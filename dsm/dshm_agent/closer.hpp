// dsm/dshm_agent/closer.hpp - closes descriptors that others have made, or that may have such in them.
//
// close(2) of a descriptor that somebody has sent by SCM_RIGHTS may wait as long as he likes, if it is the last one: a
// TCP socket that lingers, a file of his own file system (FUSE). The same goes for a Unix socket in whose queue there
// is such a message, unread: and there anybody may put one who can connect. So a few threads wait in the agent's place.
// When all of them do, what is to be closed stays open until one is free.
//
// Thread-safety: one thread calls close(). Not async-signal-safe.
#pragma once
#include <memory>

#include "ipc/fd.hpp"

namespace dsm::dshm_agent {

class Closer {
 public:
  Closer();  // throws std::system_error
  Closer(const Closer&) = delete;
  // Returns at once. Its threads have the signal mask of who calls.
  void close(ipc::Fd fd);
  // An eventfd(2), which counts what has been closed.
  [[nodiscard]] int closed() const noexcept;

 private:
  struct Shared;  // with the threads, which may outlive us
  static void work(std::shared_ptr<Shared> shared);
  std::shared_ptr<Shared> shared_;
};

}  // namespace dsm::dshm_agent
