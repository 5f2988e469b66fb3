#include "dsm/pager/sigsegv.hpp"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "dsm/pager/disposition.hpp"
#include "dsm/pager/fault_context.hpp"
#include "dsm/pager/region.hpp"

namespace dsm::pager {

struct SigsegvPager::Impl {
  Region region;
  FaultSink& sink;
  // By page, the core::Access allowed; zero at first. Asked only where the processor does not tell a write from a read.
  ipc::Mapping allowed;
  std::size_t runs_max;

  [[nodiscard]] std::atomic_ref<char> allow(core::Page page) const noexcept {
    return std::atomic_ref<char>(allowed.data()[page]);
  }
  [[nodiscard]] core::Access wanted(core::Page page, FaultContext::By by) const noexcept;

  static void on_sigsegv(int signo, siginfo_t* info, void* context);
  static inline Impl* standing = nullptr;  // whose handler is in front; changes only while none is
};

namespace {

// How many mappings the kernel keeps for a process.
std::size_t max_map_count() {
  std::size_t count = 0;
  std::ifstream file("/proc/sys/vm/max_map_count");
  constexpr std::size_t usual = 65530;  // DEFAULT_MAX_MAP_COUNT, should /proc not be there
  return file >> count && count > 1 ? count : usual;
}

}  // namespace

core::Access SigsegvPager::Impl::wanted(core::Page page, FaultContext::By by) const noexcept {
  if (by == FaultContext::By::unknown) {
    // Two faults: what does not run although it may read, wants to write.
    return allow(page).load() == 0 ? core::Access::read : core::Access::write;
  }
  return by == FaultContext::By::writing ? core::Access::write : core::Access::read;
}

// Runs on the thread that touched the page, in the middle of any instruction, with all signals blocked, until the page
// is here. The kernel says why (info) and where the thread was (context); see sigaction(2).
void SigsegvPager::Impl::on_sigsegv(int signo, siginfo_t* info, void* context) {
  const Impl& pager = *standing;
  const Region& region = pager.region;
  //@ solution 7B.handler
  // SEGV_ACCERR: mapped, but not allowed, which is how a page of the region looks that is not here. A program is never
  // run from the region, so a jump into it is a wild pointer like any other.
  const FaultContext fault = read_context(context);
  if (info->si_code == SEGV_ACCERR && region.has(info->si_addr) && fault.by != FaultContext::By::executing) {
    const int saved_errno = errno;  // the interrupted code may be about to look at its own
    const core::Page page = region.page_of(info->si_addr);
    pager.sink.on_fault(page, pager.wanted(page, fault.by), site_of(::pthread_self(), fault.pc));
    errno = saved_errno;
    return;  // and the instruction runs again
  }
  //@ starter
  // TODO 7B.handler: was it a page of the region that was touched (si_code, si_addr)? To read or to write it
  // (read_context)? Tell the sink and return; what else must be as it was when the interrupted code runs on?
  //@ end
  if (region.missed_in_child(*info)) return let_die();
  forward(signo, info, context);
}

SigsegvPager::SigsegvPager(std::size_t size, std::size_t page_size, FaultSink& sink, std::size_t own)
    : impl_(new Impl{.region = Region(size, page_size, own), .sink = sink, .allowed = {}, .runs_max = max_map_count() / 2}) {
  impl_->allowed = ipc::Mapping(nullptr, impl_->region.pages(), PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, "the pages' permissions");
  // A second pager never comes this far: the first one has the address.
  Impl::standing = impl_.get();
  capture(&Impl::on_sigsegv);
}

SigsegvPager::~SigsegvPager() {
  release();
  Impl::standing = nullptr;
}

std::size_t SigsegvPager::page_size() const noexcept { return impl_->region.page_size; }
std::size_t SigsegvPager::size() const noexcept { return impl_->region.size; }
std::size_t SigsegvPager::runs_max() const noexcept { return impl_->runs_max; }
char* SigsegvPager::base() const noexcept { return impl_->region.at(0); }
char* SigsegvPager::frame(core::Page page) const noexcept { return impl_->region.frame(page); }

void SigsegvPager::protect(core::Page page, core::Access allow) noexcept {
  constexpr int protections[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};
  if (allow != core::Access::none) impl_->region.reserve(page);
  // Never more than the kernel allows: the two-fault rule would take a read for a write.
  impl_->allow(page).store(static_cast<char>(core::Access::none));
  const int error = ipc::protect(impl_->region.at(page), page_size(), protections[static_cast<int>(allow)]);
  if (error == 0) {
    impl_->allow(page).store(static_cast<char>(allow));
    return;
  }
  if (error == ENOMEM) {
    say(
        {"dsm: mprotect: ENOMEM: the region has more runs of equal protection than vm.max_map_count allows; raise it "
         "(sysctl -w "
         "vm.max_map_count=1000000) or use larger pages (dsmexec --page-size)"});
  } else {
    say({"dsm: mprotect of a page of the region: ", strerrorname_np(error)});
  }
  std::abort();
}

}  // namespace dsm::pager
