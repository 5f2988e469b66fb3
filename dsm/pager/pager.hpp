// dsm/pager/pager.hpp - the region: one memory seen twice, and the faults of the application's view.
//
// A Pager owns a memfd mapped two times. The application's view has, page by page, the protection that the coherence
// protocol says; touching it otherwise is a fault, which the pager hands to its FaultSink. The alias is always
// writable: through it the runtime sends and receives pages and never faults itself.
//
// Used by dsm/node. Implementations: SigsegvPager (sigsegv.hpp), UffdPager (uffd.hpp); a fake one in node's tests.
#pragma once
#include <cstddef>
#include <cstdint>

#include "dsm/core/types.hpp"

namespace dsm::pager {

// What is called, with all signals blocked, when the application's view is touched.
class FaultSink {
 public:
  // Returns when the instruction should be tried again; `site` says whose it is, and which. Called on the faulting
  // thread or on one of the pager's. async-signal-safe: must be.
  virtual void on_fault(core::Page page, core::Access want, core::Site site) noexcept = 0;

 protected:
  ~FaultSink() = default;
};

// `thread`: whatever the pager tells threads apart by; `pc`: the address of the instruction, 0 if it is not known.
[[nodiscard]] constexpr core::Site site_of(std::uint64_t thread, std::uintptr_t pc) noexcept {
  return thread * 0x9e3779b97f4a7c15U ^ pc;
}

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
  // How many runs of pages of equal protection it bears. Above that the node gives pages up (dsm/node/evict.cpp).
  [[nodiscard]] virtual std::size_t runs_max() const noexcept { return SIZE_MAX; }
  // Returns when no thread of the pager's own serves a fault any more. REQUIRES: nobody faults.
  virtual void settle() noexcept {}
};

}  // namespace dsm::pager
