#include "dsm/pager/disposition.hpp"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <ucontext.h>

#include <atomic>
#include <system_error>

#include "dsm/pager/mask.hpp"

namespace dsm::pager {
namespace {

// One spin lock covers both records. It is held with all signals blocked and for a few instructions and system calls,
// none of which touches memory of the application's choosing; so neither a handler on the same thread nor a fault can
// ask for it again, and whoever spins waits for a thread that runs on. Nothing else is ever locked under it.
std::atomic_flag locked = ATOMIC_FLAG_INIT;
std::atomic<SignalHandler> in_front = nullptr;  // the pager's handler; nullptr: the kernel has the application's
struct sigaction application = {};              // the application's disposition, while in_front

// Blocks all signals, then locks. The mask that was there before is for unlock().
sigset_t lock() noexcept {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  next_sigmask(SIG_SETMASK, &all, &before);
  while (locked.test_and_set(std::memory_order_acquire)) sched_yield();
  return before;
}

void unlock(sigset_t mask) noexcept {
  locked.clear(std::memory_order_release);
  next_sigmask(SIG_SETMASK, &mask, nullptr);
}

class Locked {
 public:
  Locked() noexcept : before_(lock()) {}
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;
  ~Locked() { unlock(before_); }

 private:
  const sigset_t before_;
};

// A fork by one thread while another holds the lock would leave it held in the child for ever.
sigset_t mask_at_fork;  // under the lock
void lock_before_fork() {
  const sigset_t before = lock();
  mask_at_fork = before;
}
void unlock_after_fork() { unlock(mask_at_fork); }

bool has_handler(const struct sigaction& action) {
  return action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN;  // a union with sa_sigaction: same word
}

// The handler in front, with those flags of the application's disposition that the kernel acts upon before any handler
// runs: whether it runs on the alternate stack, and whether the system call that it interrupts is restarted.
struct sigaction front_action() {
  struct sigaction action = {};
  action.sa_sigaction = in_front;
  action.sa_flags = SA_SIGINFO;
  if (has_handler(application)) action.sa_flags |= application.sa_flags & (SA_ONSTACK | SA_RESTART);
  if (application.sa_handler == SIG_IGN) action.sa_flags |= SA_RESTART;
  sigfillset(&action.sa_mask);
  return action;
}

// mask.hpp keeps SIGSEGV out of masks from here on. This mends what is older: the mask of this thread, and those of
// handlers already installed.
void open_older_masks() {
  sigset_t faults;
  sigemptyset(&faults);
  sigaddset(&faults, SIGSEGV);
  next_sigmask(SIG_UNBLOCK, &faults, nullptr);
  for (int signo = 1; signo <= SIGRTMAX; ++signo) {
    struct sigaction action;
    if (signo == SIGSEGV || next_sigaction(signo, nullptr, &action) != 0 || !has_handler(action)) continue;
    if (sigismember(&action.sa_mask, SIGSEGV) != 1) continue;
    sigdelset(&action.sa_mask, SIGSEGV);
    next_sigaction(signo, &action, nullptr);
  }
}

bool sent_by_a_process(const siginfo_t* info) { return info->si_code <= 0; }  // kill, tgkill, sigqueue (sigaction(2))

}  // namespace

void capture(SignalHandler handler) {
  static const int registered = pthread_atfork(lock_before_fork, unlock_after_fork, unlock_after_fork);
  if (registered != 0) throw std::system_error(registered, std::generic_category(), "pthread_atfork");
  int error = 0;
  {
    const Locked guard;
    if (in_front != nullptr) {
      error = EBUSY;
    } else {
      next_sigaction(SIGSEGV, nullptr, &application);
      in_front = handler;
      const struct sigaction action = front_action();
      next_sigaction(SIGSEGV, &action, nullptr);
    }
  }
  if (error != 0) throw std::system_error(error, std::generic_category(), "SIGSEGV has a pager already");
  open_older_masks();
}

bool captured() noexcept { return in_front.load(std::memory_order_relaxed) != nullptr; }

void release() noexcept {
  const Locked guard;
  if (in_front == nullptr) return;
  in_front = nullptr;
  next_sigaction(SIGSEGV, &application, nullptr);
}

bool record(const struct sigaction* action, struct sigaction* old) noexcept {
  // The caller's memory may be shared, or wild: it is touched only outside the lock.
  struct sigaction wanted = {};
  if (action != nullptr) wanted = *action;
  struct sigaction former;
  {
    const Locked guard;
    if (in_front == nullptr) return false;
    former = application;
    if (action != nullptr) {
      application = wanted;
      const struct sigaction front = front_action();
      next_sigaction(SIGSEGV, &front, nullptr);
    }
  }
  if (old != nullptr) *old = former;
  return true;
}

void let_die() noexcept {
  struct sigaction standard = {};
  standard.sa_handler = SIG_DFL;
  next_sigaction(SIGSEGV, &standard, nullptr);
}

void forward(int signo, siginfo_t* info, void* context) noexcept {
  const int saved_errno = errno;
  const sigset_t& interrupted = static_cast<const ucontext_t*>(context)->uc_sigmask;
  if (sent_by_a_process(info) && hold_back(*info, interrupted)) return;
  struct sigaction wanted;
  {
    const Locked guard;
    wanted = application;
    if (has_handler(wanted) && (wanted.sa_flags & static_cast<int>(SA_RESETHAND)) != 0)
      application.sa_handler = SIG_DFL;
  }
  if (!has_handler(wanted)) {
    if (!sent_by_a_process(info)) {
      let_die();  // the kernel lets nobody ignore a fault
    } else if (wanted.sa_handler == SIG_DFL) {
      let_die();
      send_again(*info);  // blocked until the handler in front returns
    }
    errno = saved_errno;
    return;
  }
  // The mask that the kernel would have given it: a siglongjmp, or a second fault inside, finds what it expects.
  sigset_t mask;
  sigorset(&mask, &interrupted, &wanted.sa_mask);
  if ((wanted.sa_flags & SA_NODEFER) == 0) sigaddset(&mask, signo);
  next_sigmask(SIG_SETMASK, &mask, nullptr);
  errno = saved_errno;
  if ((wanted.sa_flags & SA_SIGINFO) != 0) {
    wanted.sa_sigaction(signo, info, context);
  } else {
    wanted.sa_handler(signo);
  }
}

}  // namespace dsm::pager
