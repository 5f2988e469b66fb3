#include "ipc/signals.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "ipc/error.hpp"

namespace ipc {

ScopedAction::ScopedAction(int signo, SignalHandler handler, int flags)
    : ScopedAction(signo, handler, flags, signal_set({})) {}

ScopedAction::ScopedAction(int signo, SignalHandler handler, int flags, const sigset_t& masked) : signo_(signo) {
  //@ solution 01.action
  struct sigaction action {};
  action.sa_sigaction = handler;
  action.sa_flags = flags | SA_SIGINFO;
  action.sa_mask = masked;
  if (::sigaction(signo, &action, &previous_) == -1) throw_errno("sigaction " + std::to_string(signo));
  //@ starter
  // TODO 01.action: install the handler by sigaction(2) and keep the former disposition. Which fields must be set?
  //| static_cast<void>(handler), static_cast<void>(flags), static_cast<void>(masked);
  //| if (::sigaction(signo, nullptr, &previous_) == -1) throw_errno("sigaction " + std::to_string(signo));
  //@ end
}

ScopedAction::~ScopedAction() { ::sigaction(signo_, &previous_, nullptr); }

sigset_t signal_set(std::initializer_list<int> signals) noexcept {
  sigset_t set;
  sigemptyset(&set);
  for (const int signo : signals) sigaddset(&set, signo);
  return set;
}

sigset_t all_signals() noexcept {
  sigset_t set;
  sigfillset(&set);
  return set;
}

ScopedMask::ScopedMask(const sigset_t& blocked) noexcept {
  //@ solution 01.mask
  ::pthread_sigmask(SIG_BLOCK, &blocked, &previous_);
  //@ starter
  // TODO 01.mask: block these signals in addition to those that are blocked, and keep the former mask. sigprocmask(2)
  // says why it is not the right call in a program with threads.
  //| ::pthread_sigmask(SIG_BLOCK, nullptr, &previous_);
  //| static_cast<void>(blocked);
  //@ end
}

ScopedMask::~ScopedMask() { ::pthread_sigmask(SIG_SETMASK, &previous_, nullptr); }

SignalFd::SignalFd(const sigset_t& signals)
    : fd_(check(::signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC), "signalfd")) {}

bool SignalFd::read(signalfd_siginfo& out) noexcept {
  //@ solution 01.signalfd
  for (;;) {
    if (::read(fd_.get(), &out, sizeof out) == sizeof out) return true;  // the kernel gives whole records only
    if (errno != EINTR) return false;
  }
  //@ starter
  // TODO 01.signalfd: read one record. What does read() say when no signal is pending?
  //| static_cast<void>(out);
  //| return false;
  //@ end
}

std::vector<ChildExit> reap_children() {
  std::vector<ChildExit> exits;
  //@ solution 01.reap
  for (;;) {
    ChildExit child{};
    child.pid = ::waitpid(-1, &child.status, WNOHANG);
    if (child.pid > 0) {
      exits.push_back(child);
    } else if (child.pid == 0 || errno == ECHILD) {
      return exits;  // the others still run, or there are none
    } else if (errno != EINTR) {
      throw_errno("waitpid");
    }
  }
  //@ starter
  // TODO 01.reap: collect every child that has ended, without waiting for those that have not. Why is one waitpid() for
  // one SIGCHLD not enough?
  //| return exits;
  //@ end
}

}  // namespace ipc
