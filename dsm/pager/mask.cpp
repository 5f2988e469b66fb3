#include "dsm/pager/mask.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

#include "dsm/pager/disposition.hpp"

namespace dsm::pager {
namespace {

struct Wish {
  bool blocked;     // the application wants SIGSEGV blocked ...
  sigset_t beside;  // ... as long as the kernel's mask is this one: siglongjmp and a handler's return restore another
  bool held;        // `signal` waits
  siginfo_t signal;
};

// initial-exec: the first use by a thread may be in a handler, where nothing may be allocated.
[[gnu::tls_model("initial-exec")]] constinit thread_local Wish mine{};

bool equal(const sigset_t& a, const sigset_t& b) noexcept {
  for (int signo = 1; signo <= SIGRTMAX; ++signo) {
    if (sigismember(&a, signo) != sigismember(&b, signo)) return false;
  }
  return true;
}

bool blocked_beside(const sigset_t& now) noexcept { return mine.blocked && equal(mine.beside, now); }

constinit std::atomic<bool> without_pager = false;

}  // namespace

void keep_open() noexcept {
  without_pager = true;
  sigset_t now;
  next_sigmask(SIG_SETMASK, nullptr, &now);
  if (sigismember(&now, SIGSEGV) == 1) (void)set_mask(SIG_SETMASK, &now, nullptr);
}

bool kept_open() noexcept { return captured() || without_pager.load(std::memory_order_relaxed); }

int set_mask(int how, const sigset_t* mask, sigset_t* old) noexcept {
  if (!kept_open()) return next_sigmask(how, mask, old);
  sigset_t open;
  bool named = false;
  if (mask != nullptr) {
    open = *mask;
    named = sigismember(&open, SIGSEGV) == 1;
    if (how != SIG_UNBLOCK) sigdelset(&open, SIGSEGV);
  }
  sigset_t before;
  const int error = next_sigmask(how, mask == nullptr ? nullptr : &open, &before);
  if (error != 0) return error;
  const bool was_blocked = blocked_beside(before);
  if (mask != nullptr) {
    const bool blocked = how == SIG_SETMASK ? named : how == SIG_BLOCK ? was_blocked || named : was_blocked && !named;
    if (blocked) next_sigmask(SIG_BLOCK, nullptr, &mine.beside);
    mine.blocked = blocked;
    // A signal that comes from here on is no longer held back; one that came before is seen below.
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (!blocked && mine.held) {
      mine.held = false;
      send_again(mine.signal);
    }
  }
  if (old != nullptr) {
    if (was_blocked) sigaddset(&before, SIGSEGV);
    *old = before;
  }
  return 0;
}

bool hold_back(const siginfo_t& signal, const sigset_t& interrupted) noexcept {
  if (!blocked_beside(interrupted)) return false;
  mine.signal = signal;  // one is enough: pending standard signals do not queue (signal(7))
  mine.held = true;
  return true;
}

void send_again(const siginfo_t& signal) noexcept {
  siginfo_t copy = signal;
  syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), signal.si_signo, &copy);
}

}  // namespace dsm::pager
