#include "dsm/pager/sigsegv.hpp"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <string>
#include <string_view>
#include <system_error>

#include "dsm/pager/disposition.hpp"
#include "dsm/pager/fault_context.hpp"
#include "ipc/mapping.hpp"

namespace dsm::pager {

struct SigsegvPager::Impl {
  std::size_t size;  // of what the application is told of; the views have more if there are pages of our own
  std::size_t page_size;
  FaultSink& sink;
  ipc::TwoViews views;
  // By page, the core::Access allowed; zero at first. Asked only where the processor does not tell a write from a read.
  ipc::Mapping allowed;

  [[nodiscard]] core::Page page_of(const void* address) const noexcept {
    const auto offset = static_cast<const char*>(address) - views.application.data();
    return static_cast<core::Page>(static_cast<std::size_t>(offset) / page_size);
  }
  [[nodiscard]] bool has(const void* address) const noexcept {
    return views.application.contains(address) && page_of(address) != size / page_size;
  }
  [[nodiscard]] std::atomic_ref<char> allow(core::Page page) const noexcept {
    return std::atomic_ref<char>(allowed.data()[page]);
  }
  [[nodiscard]] core::Access wanted(core::Page page, FaultContext::By by) const noexcept;

  static void on_sigsegv(int signo, siginfo_t* info, void* context);
  static inline Impl* standing = nullptr;  // whose handler is in front; changes only while none is
};

namespace {

// One line on stderr, by one system call. async-signal-safe: yes.
void say(std::initializer_list<std::string_view> words) noexcept {
  char line[256];
  std::size_t length = 0;
  for (const std::string_view word : words) {
    length += word.copy(line + length, sizeof line - length);
  }
  line[std::min(length, sizeof line - 1)] = '\n';
  if (::write(STDERR_FILENO, line, std::min(length + 1, sizeof line)) < 0) return;  // nobody is left to be told
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
  const Impl& region = *standing;
  //@ solution 7B.handler
  // SEGV_ACCERR: mapped, but not allowed, which is how a page of the region looks that is not here. A program is never
  // run from the region, so a jump into it is a wild pointer like any other.
  const FaultContext fault = read_context(context);
  if (info->si_code == SEGV_ACCERR && region.has(info->si_addr) && fault.by != FaultContext::By::executing) {
    const int saved_errno = errno;  // the interrupted code may be about to look at its own
    const core::Page page = region.page_of(info->si_addr);
    region.sink.on_fault(page, region.wanted(page, fault.by), site_of(::pthread_self(), fault.pc));
    errno = saved_errno;
    return;  // and the instruction runs again
  }
  //@ starter
  // TODO 7B.handler: was it a page of the region that was touched (si_code, si_addr)? To read or to write it
  // (read_context)? Tell the sink and return; what else must be as it was when the interrupted code runs on?
  //@ end
  if (info->si_code == SEGV_MAPERR && region.views.application.contains(info->si_addr)) {
    // A hole where the region was: fork does not hand it down.
    say(
        {"dsm: the shared region does not exist in a forked child; touch it in the parent only (to exec another "
         "program is fine)"});
    let_die();
    return;
  }
  forward(signo, info, context);
}

SigsegvPager::SigsegvPager(std::size_t size, std::size_t page_size, FaultSink& sink, std::size_t own) {
  if (page_size == 0 || page_size % ipc::page_size() != 0 || size == 0 || size % page_size != 0 ||
      own % page_size != 0) {
    throw std::system_error(
        EINVAL, std::generic_category(),
        "a region of " + std::to_string(size) + " bytes in pages of " + std::to_string(page_size) + " bytes");
  }
  const std::size_t mapped = own == 0 ? size : size + page_size + own;
  impl_.reset(
      new Impl{.size = size,
               .page_size = page_size,
               .sink = sink,
               .views = ipc::map_two_views(mapped, reinterpret_cast<void*>(region_base)),
               .allowed = ipc::Mapping(nullptr, mapped / page_size, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, "the pages' permissions")});
  // A second pager never comes this far: the first one has the address.
  Impl::standing = impl_.get();
  capture(&Impl::on_sigsegv);
}

SigsegvPager::~SigsegvPager() {
  release();
  Impl::standing = nullptr;
}

std::size_t SigsegvPager::page_size() const noexcept { return impl_->page_size; }
std::size_t SigsegvPager::size() const noexcept { return impl_->size; }
char* SigsegvPager::base() const noexcept { return impl_->views.application.data(); }

char* SigsegvPager::frame(core::Page page) const noexcept {
  return impl_->views.alias.data() + static_cast<std::size_t>(page) * impl_->page_size;
}

void SigsegvPager::protect(core::Page page, core::Access allow) noexcept {
  constexpr int protections[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};
  char* const address = base() + static_cast<std::size_t>(page) * impl_->page_size;
  // Never more than the kernel allows: the two-fault rule would take a read for a write.
  impl_->allow(page).store(static_cast<char>(core::Access::none));
  const int error = ipc::protect(address, impl_->page_size, protections[static_cast<int>(allow)]);
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
