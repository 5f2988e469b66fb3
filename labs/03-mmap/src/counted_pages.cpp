#include "counted_pages.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

// MAP_NORESERVE: pages that nobody touches cost nothing.
CountedPages::CountedPages(std::size_t pages)
    : memory_(nullptr, pages * ipc::page_size(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0,
              "mmap of " + std::to_string(pages) + " pages"),
      is_open_(pages),
      action_(SIGSEGV, on_sigsegv) {
  standing = this;
}

bool CountedPages::open(const siginfo_t& info) {
  //@ solution 03.fault
  // SEGV_ACCERR: there is memory, but it may not be touched so. The address means nothing if somebody sent the signal.
  if (info.si_code != SEGV_ACCERR || !memory_.contains(info.si_addr)) return false;
  const auto offset = static_cast<std::size_t>(static_cast<char*>(info.si_addr) - memory_.data());
  char& is_open = is_open_[offset / ipc::page_size()];
  // A fault in an open page: somebody tried to run it as a program. Opening it again would go on for ever.
  if (is_open != 0) return false;
  if (ipc::protect(memory_.data() + ipc::page_floor(offset), ipc::page_size(), PROT_READ | PROT_WRITE) != 0) {
    constexpr std::string_view line = "fault_counter: mprotect: the kernel has no memory to open one more page\n";
    static_cast<void>(!::write(STDERR_FILENO, line.data(), line.size()));
    ::_exit(1);  // to return would be to fault again; exit() would run destructors in the middle of anything
  }
  is_open = 1;
  faults_ = faults_ + 1;
  return true;
  //@ starter
  // TODO 03.fault: is this a fault of ours (si_code, si_addr)? Then open the page that was touched, count it and return
  // true: the instruction runs again. What may you not call here, and what if you return true without opening anything?
  //| static_cast<void>(info);
  //| return false;
  //@ end
}

void CountedPages::on_sigsegv(int signo, siginfo_t* info, void* /*context*/) {
  const int saved_errno = errno;
  if (!standing->open(*info)) {
    // Not ours. The signal is blocked while we are here: it ends the program at the very instruction, when we return.
    ::signal(signo, SIG_DFL);
    ::raise(signo);
  }
  errno = saved_errno;
}
