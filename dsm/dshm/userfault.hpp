// dsm/dshm/userfault.hpp - a userfaultfd of this process's, for the agent to serve.
//
// Thread-safe. async-signal-safe: yes.
#pragma once

namespace dsm::dshm {

// With all features that serving System V segments takes already asked for, close-on-exec, non-blocking. -1 and errno: EPERM
// without the privilege, ENOSYS or EOPNOTSUPP where the kernel is too old (before Linux 6.4).
[[nodiscard]] int open_userfault() noexcept;

// Lets those go on who sleep for pages in the range. Nobody else will: the range is mapped anew since they went to sleep.
void wake_userfault(int fd, const void* from, unsigned long length) noexcept;

}  // namespace dsm::dshm
