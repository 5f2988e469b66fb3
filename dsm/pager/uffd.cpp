// The kernel's side of it: userfaultfd(2), ioctl_userfaultfd(2), Documentation/admin-guide/mm/userfaultfd.rst.
//
// What a page is allowed, and what the page table of the application's view then holds for it:
//   none    nothing. MADV_DONTNEED takes it away; the frame stays in the memfd, and the alias does not notice. A touch is
//           a "minor" fault, or a "missing" one if the memfd has no frame either.
//   read    an entry with the write-protect bit (UFFDIO_CONTINUE_MODE_WP, UFFDIO_WRITEPROTECT). A write is a fault.
//   write   an entry like any other (UFFDIO_CONTINUE).
// The kernel makes no entry in such a mapping by itself, not even around a fault ("fault-around" is off in it).
//
// Why nothing is written, or read, behind protect()'s back. The frame is reached through the page table only: by
// instructions, and by the kernel's own copying in a system call, which uses the same addresses and takes the same
// faults. Both calls that lower the protection change the entries under the page table's lock and flush the TLBs of all
// processors before they return; a store that was under way has then been done, or it faults. (Who pins the frame, as
// O_DIRECT does, does not come this way; see uffd.hpp.) A fault that is being handled meanwhile makes no entry, it only
// asks here; and what is asked here is answered under `mutex`, by what is allowed at that moment.
//
// Who wakes whom. A sleeping thread is told by one UFFDIO_WAKE of its page, after its fault has been seen through, and by
// nothing else: protect() wakes nobody (..._MODE_DONTWAKE), because the sink's last words are that the instruction's turn
// begins now, and only then may it begin. No wake-up is lost: each message that is read is followed by a wake-up, a
// message that nobody has read yet stays readable, and before a thread goes to sleep the kernel looks at the entry once
// more. One too many does no harm: the instruction is tried again, and faults again.
//
// How many threads. A sink waits for other ranks' service threads, and for nothing that another fault of this rank would
// have to bring; so one thread is enough to come to an end. But the faults of other threads would wait behind it: there
// is always one more than are busy, up to a bound. It is made by a thread that does nothing else, because that takes
// malloc, whose lock the faulting thread may hold; until it is there, faults wait for those that are being served.
#include "dsm/pager/uffd.hpp"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <semaphore>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "dsm/core/zeros.hpp"
#include "dsm/pager/disposition.hpp"
#include "dsm/pager/own_thread.hpp"
#include "dsm/pager/region.hpp"
#include "ipc/error.hpp"
#include "ipc/signals.hpp"

namespace dsm::pager {

using core::Access;
using core::Page;

namespace {

// What headers older than Linux 6.4 do not have.
constexpr __u64 feature_wp_shmem = __u64{1} << 12U;         // UFFD_FEATURE_WP_HUGETLBFS_SHMEM, Linux 5.19
constexpr __u64 feature_wp_unpopulated = __u64{1} << 13U;   // Linux 6.4, as is what it stands for here:
constexpr __u64 continue_wp = __u64{1} << 1U;               // UFFDIO_CONTINUE_MODE_WP, which has no feature of its own
constexpr unsigned long new_from_device = _IO(0xAA, 0x00);  // USERFAULTFD_IOC_NEW
constexpr int dontneed_locked = 24;                         // MADV_DONTNEED_LOCKED: also after mlockall(2)

constexpr std::size_t first_threads = 2;
constexpr std::size_t most_threads = 64;  // as many faults as node has seats for

constexpr const char* needs_privilege =
    "--pager uffd needs privilege: be root, or have an administrator give you access to /dev/userfaultfd or set "
    "vm.unprivileged_userfaultfd=1; or use --pager sigsegv";

[[noreturn]] void needs_kernel(int error) {
  utsname name{};
  ::uname(&name);
  throw std::system_error(error, std::generic_category(),
                          "--pager uffd needs Linux 6.4 or newer, with userfaultfd, and this is " +
                              std::string(name.release) + "; use --pager sigsegv");
}

ipc::Fd open_userfaultfd() {
  constexpr int flags = O_CLOEXEC | O_NONBLOCK;
  ipc::Fd fd(static_cast<int>(::syscall(SYS_userfaultfd, flags)));
  if (fd) return fd;
  if (errno == ENOSYS) needs_kernel(errno);
  if (errno != EPERM) ipc::throw_errno("userfaultfd");
  const ipc::Fd device(::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));  // Linux 6.1
  if (device) fd = ipc::Fd(::ioctl(device.get(), new_from_device, flags));
  if (!fd) throw std::system_error(EPERM, std::generic_category(), needs_privilege);
  return fd;
}

// Checked on what the kernel says it has, too: before Linux 6.10 it did not mind being asked for what it has not.
void ask_for_features(const ipc::Fd& fd) {
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_PAGEFAULT_FLAG_WP |
                 UFFD_FEATURE_THREAD_ID | feature_wp_shmem | feature_wp_unpopulated;
  const __u64 needed = api.features;
  if (::ioctl(fd.get(), UFFDIO_API, &api) != 0) {
    if (errno == EINVAL) needs_kernel(EOPNOTSUPP);
    ipc::throw_errno("UFFDIO_API");
  }
  if ((api.features & needed) != needed) needs_kernel(EOPNOTSUPP);
}

[[noreturn]] void end_for(const char* what) noexcept {
  say({"dsm: ", what, " of a page of the region: ", strerrorname_np(errno)});
  std::abort();
}

uffdio_range range_of(const char* address, std::size_t length) noexcept {
  return {reinterpret_cast<std::uintptr_t>(address), length};
}

}  // namespace

struct UffdPager::Impl {
  Region region;
  FaultSink& sink;
  core::Zeros<Access> allowed{region.pages()};  // mutex; by page
  // Of `allowed` and the view's entries. Nobody holds it in a signal handler's reach: whoever protects has signals blocked.
  std::mutex mutex{};

  ipc::Fd faults = open_userfaultfd();
  ipc::Fd poll_set{ipc::check(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")};
  ipc::Fd stop{ipc::check(::eventfd(0, EFD_CLOEXEC), "eventfd")};
  std::atomic<std::size_t> threads = 0;
  std::atomic<std::size_t> busy = 0;  // of them: those that may have a fault to serve
  std::atomic<bool> stopping = false;
  std::counting_semaphore<> recruits{0};
  std::vector<std::thread> crew{};  // the recruiter's, while there is one
  std::thread recruiter{};

  ~Impl();  // ends the threads

  static void on_sigsegv(int signo, siginfo_t* info, void* context);
  static inline Impl* standing = nullptr;  // whose handler is in front; changes only while none is

  void register_view();
  void start_threads();
  void recruit() noexcept;
  void enlist();

  // the pager's threads
  void serve() noexcept;
  void serve_fault(const uffd_msg& message) noexcept;
  void watch(int operation) noexcept;
  bool restore(const char* address, Page page, Access want) noexcept;
  void wake(Page page) noexcept;

  // the view's entries; under `mutex`
  void map(char* address, std::size_t length, Access allow) noexcept;
  void reserve(const char* address, std::size_t length) noexcept;
  void write_protect(Page page, bool on) noexcept;
  void take_away(Page page) noexcept;
};

// ---- the view's entries ---------------------------------------------------------------------------------------------

// Makes the entries that are not there yet.
void UffdPager::Impl::map(char* address, std::size_t length, Access allow) noexcept {
  bool reserved = false;
  const char* const end = address + length;
  while (address < end) {
    uffdio_continue request{};
    request.range = range_of(address, static_cast<std::size_t>(end - address));
    request.mode = UFFDIO_CONTINUE_MODE_DONTWAKE | (allow == Access::read ? continue_wp : 0);
    if (::ioctl(faults.get(), UFFDIO_CONTINUE, &request) == 0) return;
    if (request.mapped > 0) {  // so far; then something was in the way: again from there
      address += request.mapped;
    } else if (errno == EEXIST) {
      address += ipc::page_size();
    } else if (errno == EFAULT && !reserved) {  // no frame: nobody has written there yet
      reserve(address, static_cast<std::size_t>(end - address));
      reserved = true;
    } else if (errno != EAGAIN) {
      end_for("UFFDIO_CONTINUE");
    }
  }
}

void UffdPager::Impl::reserve(const char* address, std::size_t length) noexcept {
  const auto offset = static_cast<off_t>(address - region.at(0));
  if (::fallocate(region.views.memory.get(), 0, offset, static_cast<off_t>(length)) != 0) end_for("fallocate");
}

void UffdPager::Impl::write_protect(Page page, bool on) noexcept {
  uffdio_writeprotect request{};
  request.range = range_of(region.at(page), region.page_size);
  request.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : UFFDIO_WRITEPROTECT_MODE_DONTWAKE;
  while (::ioctl(faults.get(), UFFDIO_WRITEPROTECT, &request) != 0) {
    if (errno != EAGAIN) end_for("UFFDIO_WRITEPROTECT");
  }
}

void UffdPager::Impl::take_away(Page page) noexcept {
  if (::madvise(region.at(page), region.page_size, dontneed_locked) != 0) end_for("madvise");
}

// ---- the pager's threads --------------------------------------------------------------------------------------------

void UffdPager::Impl::wake(Page page) noexcept {
  uffdio_range range = range_of(region.at(page), region.page_size);
  if (::ioctl(faults.get(), UFFDIO_WAKE, &range) != 0) end_for("UFFDIO_WAKE");
}

// Whether the page is there already: the thread looked just before it was; or the kernel has taken an entry away, as it
// may when it needs memory. The sink would only be told what it knows.
bool UffdPager::Impl::restore(const char* address, Page page, Access want) noexcept {
  const std::scoped_lock lock(mutex);
  if (allowed[page] < want) return false;
  const auto inside = static_cast<std::size_t>(address - region.at(page));
  map(region.at(page) + ipc::page_floor(inside), ipc::page_size(), allowed[page]);
  return true;
}

void UffdPager::Impl::serve_fault(const uffd_msg& message) noexcept {
  const auto* address = reinterpret_cast<const char*>(message.arg.pagefault.address);
  const Page page = region.page_of(address);
  const Access want = (message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE) != 0 ? Access::write : Access::read;
  if (!restore(address, page, want)) sink.on_fault(page, want, site_of(message.arg.pagefault.feat.ptid, 0));
  wake(page);
}

// One event wakes one thread; no other is woken until the next call.
void UffdPager::Impl::watch(int operation) noexcept {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLONESHOT;
  event.data.fd = faults.get();
  if (::epoll_ctl(poll_set.get(), operation, faults.get(), &event) != 0) end_for("epoll_ctl");
}

void UffdPager::Impl::serve() noexcept {
  block_all_signals();
  ask_for_short_waits();
  while (!stopping.load(std::memory_order_acquire)) {
    epoll_event event{};
    if (::epoll_wait(poll_set.get(), &event, 1, -1) != 1 || event.data.fd != faults.get()) continue;
    if (busy.fetch_add(1) + 1 == threads.load()) recruits.release();
    uffd_msg message{};
    const bool fault = ::read(faults.get(), &message, sizeof message) == sizeof message &&
                       message.event == UFFD_EVENT_PAGEFAULT;  // or somebody has woken the thread meanwhile
    watch(EPOLL_CTL_MOD);
    if (fault) serve_fault(message);
    if (busy.fetch_sub(1) == 1) busy.notify_all();
  }
}

// Throws std::system_error.
void UffdPager::Impl::enlist() {
  const ipc::ScopedMask mask(ipc::all_signals());  // inherited: signals are the application's
  threads.fetch_add(1);
  try {
    crew.emplace_back([this] { serve(); });
  } catch (...) {
    threads.fetch_sub(1);
    throw;
  }
}

void UffdPager::Impl::recruit() noexcept {
  block_all_signals();
  for (;;) {
    recruits.acquire();
    if (stopping.load(std::memory_order_acquire)) return;
    if (crew.size() == most_threads) continue;
    try {
      enlist();
    } catch (const std::system_error&) {  // the user may have no more threads: then faults wait for each other
    }
  }
}

// ---- beginning and end ----------------------------------------------------------------------------------------------

// Opens the view to the processor only when the kernel asks us first.
void UffdPager::Impl::register_view() {
  ask_for_features(faults);
  const ipc::Mapping& view = region.views.application;
  uffdio_register request{};
  request.range = range_of(view.data(), view.size());
  request.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR | UFFDIO_REGISTER_MODE_WP;
  ipc::check(::ioctl(faults.get(), UFFDIO_REGISTER, &request), "UFFDIO_REGISTER");
  constexpr __u64 needed = __u64{1} << _UFFDIO_CONTINUE | __u64{1} << _UFFDIO_WRITEPROTECT | __u64{1} << _UFFDIO_WAKE;
  if ((request.ioctls & needed) != needed) needs_kernel(EOPNOTSUPP);
  ipc::check(::mprotect(view.data(), region.size, PROT_READ | PROT_WRITE), "mprotect of the region");
  if (view.size() == region.size) return;
  const std::size_t own = region.size + region.page_size;  // the page between stays closed: it is nobody's
  ipc::check(::mprotect(view.data() + own, view.size() - own, PROT_READ | PROT_WRITE), "mprotect of the own pages");
}

void UffdPager::Impl::start_threads() {
  epoll_event event{};
  event.events = EPOLLIN;  // never taken: all threads see it, one after the other
  event.data.fd = stop.get();
  ipc::check(::epoll_ctl(poll_set.get(), EPOLL_CTL_ADD, stop.get(), &event), "epoll_ctl");
  watch(EPOLL_CTL_ADD);
  crew.reserve(most_threads);
  for (std::size_t i = 0; i < first_threads; ++i) enlist();
  const ipc::ScopedMask mask(ipc::all_signals());
  recruiter = std::thread([this] { recruit(); });
}

UffdPager::Impl::~Impl() {
  stopping.store(true, std::memory_order_release);
  ::eventfd_write(stop.get(), 1);
  recruits.release();
  if (recruiter.joinable()) recruiter.join();
  for (std::thread& thread : crew) thread.join();
}

void UffdPager::Impl::on_sigsegv(int signo, siginfo_t* info, void* context) {
  if (standing->region.missed_in_child(*info)) return let_die();
  forward(signo, info, context);
}

UffdPager::UffdPager(std::size_t size, std::size_t page_size, FaultSink& sink, std::size_t own)
    : impl_(new Impl{.region = Region(size, page_size, own), .sink = sink}) {
  impl_->register_view();
  impl_->start_threads();
  // A second pager never comes this far: the first one has the address.
  Impl::standing = impl_.get();
  capture(&Impl::on_sigsegv);
}

UffdPager::~UffdPager() {
  // Who touches the region all the same shall die of it, and not find what the kernel finds in the memfd.
  [[maybe_unused]] const int error = ipc::protect(base(), impl_->region.views.application.size(), PROT_NONE);
  release();
  Impl::standing = nullptr;
}

std::size_t UffdPager::page_size() const noexcept { return impl_->region.page_size; }
std::size_t UffdPager::size() const noexcept { return impl_->region.size; }
char* UffdPager::base() const noexcept { return impl_->region.at(0); }
char* UffdPager::frame(Page page) const noexcept { return impl_->region.frame(page); }

// A thread that faults is woken by whoever serves a fault of its page; another that has read its own message may be at
// work for it still when it has gone on long since.
void UffdPager::settle() noexcept {
  for (std::size_t now = 0; (now = impl_->busy.load()) != 0;) impl_->busy.wait(now);
}

void UffdPager::protect(Page page, Access allow) noexcept {
  const std::scoped_lock lock(impl_->mutex);
  const Access before = std::exchange(impl_->allowed[page], allow);
  if (allow == Access::none) {
    impl_->take_away(page);
  } else if (before == Access::none) {
    impl_->map(base() + page * page_size(), page_size(), allow);
  } else {
    impl_->write_protect(page, allow == Access::read);
  }
}

}  // namespace dsm::pager
