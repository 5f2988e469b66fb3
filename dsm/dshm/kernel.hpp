// dsm/dshm/kernel.hpp - system calls that go past the C library's functions, and so past the ones that stand in front
// of it.
//
// libdshm puts functions in front of close, mmap, recvmsg ... for the program; what it does itself must not come by
// there, must be no cancellation point, and must be allowed in a signal handler and between clone and exec.
// async-signal-safe: yes. Thread-safe: yes. Results are those of syscall(2): -1 and errno.
#pragma once
#include <poll.h>
#include <signal.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <ctime>

namespace dsm::dshm::kernel {

using Mask = std::uint64_t;  // the kernel's sigset_t, of all architectures that we know

inline int close(int fd) noexcept { return static_cast<int>(::syscall(SYS_close, fd)); }
inline int dup_above(int fd, int lowest) noexcept {
  return static_cast<int>(::syscall(SYS_fcntl, fd, 1030 /* F_DUPFD_CLOEXEC */, lowest));
}
inline ssize_t send(int fd, const msghdr& message, int flags) noexcept {
  return ::syscall(SYS_sendmsg, fd, &message, flags | MSG_NOSIGNAL);
}
inline ssize_t receive(int fd, msghdr& message, int flags) noexcept {
  return ::syscall(SYS_recvmsg, fd, &message, flags | MSG_CMSG_CLOEXEC);
}
inline int poll(pollfd* wanted, nfds_t count, const timespec* limit, const Mask* mask) noexcept {
  timespec left{};  // the kernel writes there
  if (limit != nullptr) left = *limit;
  return static_cast<int>(::syscall(SYS_ppoll, wanted, count, limit != nullptr ? &left : nullptr, mask, sizeof(Mask)));
}
inline void* map(void* at, std::size_t length, int protection, int flags, int fd, off_t offset) noexcept {
  return reinterpret_cast<void*>(::syscall(SYS_mmap, at, length, protection, flags, fd, offset));
}
inline int unmap(void* at, std::size_t length) noexcept { return static_cast<int>(::syscall(SYS_munmap, at, length)); }
inline int protect(void* at, std::size_t length, int protection) noexcept {
  return static_cast<int>(::syscall(SYS_mprotect, at, length, protection));
}
// Whether a child has the memory, too.
inline void let_inherit(void* at, std::size_t length, bool on) noexcept {
  ::syscall(SYS_madvise, at, length, on ? MADV_DOFORK : MADV_DONTFORK);
}
inline void set_mask(const Mask* now, Mask* before) noexcept {
  ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, now, before, sizeof(Mask));
}
inline void yield() noexcept { ::syscall(SYS_sched_yield); }

constexpr Mask bit(int signo) { return Mask{1} << static_cast<unsigned>(signo - 1); }
// Those that an instruction raises.
inline constexpr Mask by_instruction = bit(SIGSEGV) | bit(SIGBUS) | bit(SIGILL) | bit(SIGFPE) | bit(SIGTRAP);

// Signals are blocked as long as it lives.
class Quiet {
 public:
  // `calls`: those that an instruction of the caller raises stay open; so he may touch memory of the program's
  // choosing.
  // `all`: for who holds a lock that a SIGSEGV handler asks for; he touches no such memory.
  enum class Kind { calls, all };
  explicit Quiet(Kind kind) noexcept {
    Mask now = ~Mask{0};
    if (kind == Kind::calls) now &= ~by_instruction;
    set_mask(&now, &before_);
  }
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;
  ~Quiet() { set_mask(&before_, nullptr); }
  [[nodiscard]] const Mask& before() const noexcept { return before_; }

 private:
  Mask before_ = 0;
};

}  // namespace dsm::dshm::kernel
