#include "dsm/dshm/guarded.hpp"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "dsm/dshm/faults.hpp"
#include "dsm/dshm/kernel.hpp"
#include "dsm/dshm/process.hpp"

namespace dsm::dshm {
namespace {

// The kernel copies, and says EFAULT where an instruction of our own would raise a signal. Of attached pages that are
// not here it says so too, unless it asks the agent: so they are brought, and brought again should they leave in
// between.
bool copy(void* to, const void* from, std::size_t size, bool in) noexcept {
  constexpr int tries = 1000;
  const int before = errno;
  bool well = true;
  auto* const inside = static_cast<char*>(in ? to : const_cast<void*>(from));
  auto* const outside = static_cast<char*>(in ? const_cast<void*>(from) : to);
  const core::Access want = in ? core::Access::read : core::Access::write;
  std::size_t done = 0;
  for (int i = 0; done < size && i < tries; ++i) {
    iovec near{inside + done, size - done};
    iovec far{outside + done, size - done};
    // By the thread's number: that of the process has no memory once its main thread has called pthread_exit.
    const long got =
        ::syscall(in ? SYS_process_vm_readv : SYS_process_vm_writev, ::gettid(), &near, 1UL, &far, 1UL, 0UL);
    if (got > 0) {
      done += static_cast<std::size_t>(got);
      continue;
    }
    if (errno == ENOSYS || errno == EPERM) {  // forbidden in this container: then a bad address is the program's end
      ::memcpy(inside + done, outside + done, in ? size - done : 0);
      ::memcpy(outside + done, inside + done, in ? 0 : size - done);
      done = size;
    } else if (errno != EFAULT || process().asked.load() ||
               !process().attaches.maybe(reinterpret_cast<Address>(outside),
                                         reinterpret_cast<Address>(outside) + size) ||
               !bring(outside + done, size - done, want)) {
      well = false;
      break;
    }
  }
  errno = before;
  return well && done == size;
}

}  // namespace

bool copy_in(void* to, const void* from, std::size_t size) noexcept { return copy(to, from, size, true); }
bool copy_out(void* to, const void* from, std::size_t size) noexcept { return copy(to, from, size, false); }

}  // namespace dsm::dshm
