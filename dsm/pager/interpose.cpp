// dsm/pager/interpose.cpp - sigaction, signal and the signal mask, in front of the C library's.
//
// A program, or a library in it, that installs its own SIGSEGV handler after the pager would take the pager's away; one
// that blocks SIGSEGV (most often: all signals), or does so while a handler runs, would be ended by the kernel at its
// next touch of a page that is not here. So the program finds these functions first. While a pager stands, its wish for
// SIGSEGV is recorded (disposition.hpp), and SIGSEGV is kept out of masks (mask.hpp); all else goes on to the next in
// line.
//
// Not seen: raw system calls, the obsolete sigset, sigvec and sigblock, and masks for the length of a wait (ppoll,
// sigsuspend; libdshm sees those, dsm/dshm/masks.cpp): a handler that interrupts such a wait with SIGSEGV blocked must
// not touch the region.
//
// async-signal-safe: yes, as POSIX asks of them; dlsym is not, hence the constructor.
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>

#include "dsm/pager/disposition.hpp"
#include "dsm/pager/mask.hpp"

namespace dsm::pager {
namespace {

struct Next {
  int (*action)(int, const struct sigaction*, struct sigaction*);
  int (*mask)(int, const sigset_t*, sigset_t*);
  sighandler_t (*signal)(int, sighandler_t);
  sighandler_t (*sysv_signal)(int, sighandler_t);
};

template <class Function>
void find(Function& function, const char* name) noexcept {
  function = reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

const Next& next() noexcept {
  static const Next found = [] {
    Next all{};
    find(all.action, "sigaction");
    find(all.mask, "pthread_sigmask");
    find(all.signal, "signal");
    find(all.sysv_signal, "__sysv_signal");
    return all;
  }();
  return found;
}

[[gnu::constructor]] void find_early() { next(); }

// signal(2) said by sigaction(2). True if SIGSEGV is the pager's now; `former` is then what signal returns.
bool record_handler(int signo, sighandler_t handler, int flags, sighandler_t& former) noexcept {
  if (signo != SIGSEGV || handler == SIG_ERR) return false;
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  struct sigaction old;
  if (!record(&action, &old)) return false;
  former = old.sa_handler;
  return true;
}

}  // namespace

int next_sigaction(int signo, const struct sigaction* action, struct sigaction* old) noexcept {
  return next().action(signo, action, old);
}

int next_sigmask(int how, const sigset_t* mask, sigset_t* old) noexcept { return next().mask(how, mask, old); }

}  // namespace dsm::pager

extern "C" {

int sigaction(int signo, const struct sigaction* action, struct sigaction* old) noexcept {
  using namespace dsm::pager;
  if (signo == SIGSEGV && record(action, old)) return 0;
  if (action == nullptr || !kept_open()) return next_sigaction(signo, action, old);
  struct sigaction open = *action;
  sigdelset(&open.sa_mask, SIGSEGV);
  return next_sigaction(signo, &open, old);
}

sighandler_t signal(int signo, sighandler_t handler) noexcept {
  sighandler_t former = SIG_ERR;
  if (dsm::pager::record_handler(signo, handler, SA_RESTART, former)) return former;
  return dsm::pager::next().signal(signo, handler);
}

// What `signal` means to a program compiled for strict ISO C: the handler is good for one signal.
sighandler_t __sysv_signal(int signo, sighandler_t handler) noexcept {
  sighandler_t former = SIG_ERR;
  const int flags = static_cast<int>(SA_RESETHAND | SA_NODEFER);
  if (dsm::pager::record_handler(signo, handler, flags, former)) return former;
  return dsm::pager::next().sysv_signal(signo, handler);
}

int pthread_sigmask(int how, const sigset_t* mask, sigset_t* old) noexcept {
  return dsm::pager::set_mask(how, mask, old);
}

int sigprocmask(int how, const sigset_t* mask, sigset_t* old) noexcept {
  const int error = dsm::pager::set_mask(how, mask, old);
  if (error == 0) return 0;
  errno = error;
  return -1;
}

}  // extern "C"
