// dsm/pager/uffd.hpp - the pager that needs privilege: userfaultfd(2), and threads that serve the faults.
//
// Who touches a page that is not here sleeps in the kernel, in the middle of an instruction or of a system call, until a
// thread of this pager has got the page. So read(2), recv(2) and write(2) work on pages that are elsewhere, where they
// fail with EFAULT under SigsegvPager; no signal is raised, and the region stays one mapping however its pages are
// protected. The price is a hand-over from thread to thread, there and back.
//
// A thread's turn begins with its wake-up. Should it get no processor while its page is held, it faults again, and nobody
// counts the grant as wasted.
//
// Not held up: what pins pages and then goes around the page table (O_DIRECT, vmsplice, MSG_ZEROCOPY, io_uring's
// registered buffers). Such I/O may see, or write, a page that has left.
//
// Needs Linux 6.4, and one of: root (CAP_SYS_PTRACE), access to /dev/userfaultfd, vm.unprivileged_userfaultfd=1.
// A SIGSEGV handler is there only for those who touch the region in a forked child. One pager per process.
#pragma once
#include <cstddef>
#include <memory>

#include "dsm/pager/pager.hpp"

namespace dsm::pager {

class UffdPager final : public Pager {
 public:
  // As SigsegvPager's; `sink` is called on threads of the pager's. Throws std::system_error; if the kernel or the
  // privilege is lacking, its text says which, and what to do about it.
  UffdPager(std::size_t size, std::size_t page_size, FaultSink& sink, std::size_t own = 0);
  // Ends its threads. REQUIRES: nobody touches the region any more.
  ~UffdPager() override;

  [[nodiscard]] std::size_t page_size() const noexcept override;
  [[nodiscard]] std::size_t size() const noexcept override;
  [[nodiscard]] char* base() const noexcept override;
  [[nodiscard]] char* frame(core::Page page) const noexcept override;
  // When it returns no instruction and no system call can do more than is allowed: see uffd.cpp.
  void protect(core::Page page, core::Access allow) noexcept override;
  void settle() noexcept override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dsm::pager
