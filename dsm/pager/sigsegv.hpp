// dsm/pager/sigsegv.hpp - the pager that works everywhere: mprotect and a SIGSEGV handler.
//
// The handler runs with all signals blocked, saves errno, decides by si_code and address whether the fault is ours, and
// reads from the page-fault error code (x86-64) whether it was a write; elsewhere the first fault counts as a read and
// the second as a write. What is not ours goes to whoever was there before or came later (sigaction is interposed, see
// interpose.cpp), so that a wild pointer dies as it would without us. One per process.
//
// The handler runs on the stack of the thread that touched the page, unless the application has a SIGSEGV handler with
// SA_ONSTACK: then on the alternate stack, which must have room for the sink. A thread may block SIGSEGV and touch the
// region all the same (mask.hpp), unless it had blocked it before the pager stood and is not the one that made it.
#pragma once
#include <cstddef>
#include <memory>

#include "dsm/pager/pager.hpp"

namespace dsm::pager {

class SigsegvPager final : public Pager {
 public:
  // Maps `size` bytes (a multiple of page_size) at region_base, all pages inaccessible and zero, and installs the
  // handler. If `own` is not 0, as many bytes more lie behind them, and between the two a page that is nobody's (see
  // Pager::own). `sink` outlives the pager. Throws std::system_error.
  SigsegvPager(std::size_t size, std::size_t page_size, FaultSink& sink, std::size_t own = 0);
  ~SigsegvPager() override;  // restores the disposition; REQUIRES: nobody touches the region any more

  [[nodiscard]] std::size_t page_size() const noexcept override;
  [[nodiscard]] std::size_t size() const noexcept override;
  [[nodiscard]] char* base() const noexcept override;
  [[nodiscard]] char* frame(core::Page page) const noexcept override;
  void protect(core::Page page, core::Access allow) noexcept override;
  // Half of vm.max_map_count: the rest is for the program's own mappings.
  [[nodiscard]] std::size_t runs_max() const noexcept override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dsm::pager
