// dsm/dshm_agent/userfault.hpp - the userfaultfd of another process, by a copy of its descriptor: userfaultfd(2).
//
// As dsm/pager/uffd.cpp, which says why nothing is written or read behind a protection's back; but the memory is
// another process's, there is one thread, and what is not here is no entry in any page table because the frame was
// punched out of the memfd, which takes it from all processes at once.
//
// The process may end, exec, unmap or remap at any time. Then its memory, or that part of it, is not ours to protect
// any more: none of that is an error. It may do worse, by a copy of the descriptor (ask for events that nobody here
// answers, take away O_NONBLOCK, register anew), or name memory that is not the segment's; and the kernel may have no
// memory for its page tables. All that is trouble(): the process is to be sent away. Nothing here waits. Thread-safety:
// none. Not async-signal-safe.
#pragma once
#include <errno.h>
#include <linux/userfaultfd.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "dsm/core/types.hpp"
#include "ipc/fd.hpp"

namespace dsm::dshm_agent {

class Userfault {
 public:
  // Whether it is a userfaultfd. Of anything else even ioctl(2) and close(2) may wait: on a FUSE file they are its
  // owner's to answer.
  [[nodiscard]] static bool is_one(int fd);
  // Throws std::system_error if it is none that can do what is needed: Linux 6.4 or newer. REQUIRES: is_one(fd).
  explicit Userfault(ipc::Fd fd);

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  // Why its pages can be kept from the process no more: an errno value, the first one; 0: they can.
  [[nodiscard]] int trouble() const noexcept { return trouble_; }
  // From now on faults there are told. 0, or an errno value: no such mapping; not a writable memfd's.
  [[nodiscard]] int watch(std::uint64_t address, std::uint64_t length);
  // What has been told: as many messages as there are, and fit; faults only, all else is trouble. Before Linux 6.10 a
  // process that takes away O_NONBLOCK, and the message, at the right moment makes it wait; see SECURITY.md.
  [[nodiscard]] std::size_t read(std::span<uffd_msg> out);
  // epoll(7) has said EPOLLERR of it: it is not O_NONBLOCK any more.
  void is_blocking() { note(EWOULDBLOCK); }

  // One page at `address`. map(): `memory` has a frame for it, at `offset`.
  void map(std::uint64_t address, core::Access access, int memory, std::uint64_t offset);
  void write_protect(std::uint64_t address);
  // Whoever sleeps there tries again.
  void wake(std::uint64_t address);
  // The same for a range that a process has named, right or wrong: what it has unmapped.
  void wake(std::uint64_t address, std::uint64_t size);
  // False: the process has ended, or is another program by now. `address`: a page that is watched, or was.
  [[nodiscard]] bool alive(std::uint64_t address) const;

 private:
  void note(int error);
  void change_protection(std::uint64_t address, std::uint64_t mode);

  ipc::Fd fd_;
  int trouble_ = 0;
};

}  // namespace dsm::dshm_agent
