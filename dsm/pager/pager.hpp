// dsm/pager/pager.hpp - the region: one memory seen twice, and the faults of the application's view.
//
// A Pager owns a memfd mapped two times. The application's view has, page by page, the protection that the coherence
// protocol says; touching it otherwise is a fault, which the pager hands to its FaultSink. The alias is always
// writable: through it the runtime sends and receives pages and never faults itself.
//
// Used by dsm/node. Implementations: SigsegvPager (sigsegv.hpp); a fake one in node's tests.
#pragma once
#include <cstddef>
#include <cstdint>

#include "dsm/core/types.hpp"

namespace dsm::pager {

// What is called, on the faulting thread and with all signals blocked, when the application's view is touched.
class FaultSink {
 public:
  // Returns when the instruction should be tried again. async-signal-safe: must be.
  virtual void on_fault(core::Page page, core::Access want, std::uintptr_t pc) noexcept = 0;

 protected:
  ~FaultSink() = default;
};

class Pager {
 public:
  virtual ~Pager() = default;
  [[nodiscard]] virtual std::size_t page_size() const noexcept = 0;  // bytes; a multiple of the machine's page size
  [[nodiscard]] virtual std::size_t size() const noexcept = 0;       // bytes; a multiple of page_size()
  [[nodiscard]] virtual char* base() const noexcept = 0;             // the application's view
  // The library's own pages: shared like all others, but no part of size(), and behind a page that is nobody's, so that
  // who runs over the end of the region is told so by a signal. Where they begin in the application's view.
  [[nodiscard]] char* own() const noexcept { return base() + size() + page_size(); }
  // The page's bytes in the alias. async-signal-safe: yes.
  [[nodiscard]] virtual char* frame(core::Page page) const noexcept = 0;
  // Sets what the application may do with the page. async-signal-safe: yes. Ends the process with a clear line if the
  // kernel refuses (vm.max_map_count).
  virtual void protect(core::Page page, core::Access allow) noexcept = 0;
};

}  // namespace dsm::pager
