// ipc/signals.hpp - signals as resources: a disposition, a mask, a descriptor, and children that are always reaped.
//
// Used by dsmexec and its agent (SIGCHLD and TERM by descriptor), by the pager (SIGSEGV) and by dsmtop (TERM, WINCH).
// Thread-safety: dispositions and children belong to the whole process, so one thread should look after them; a mask
// belongs to the thread that calls. Fault path: ScopedMask, signal_set, all_signals; their signatures are frozen.
// Sources: sigaction(2), signalfd(2), waitpid(2), signal(7), signal-safety(7).
#pragma once
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/types.h>

#include <initializer_list>
#include <vector>

#include "ipc/fd.hpp"

namespace ipc {

using SignalHandler = void (*)(int, siginfo_t*, void*);

// Installs a handler and puts the former disposition back when it goes. Objects for one signal must go in the reverse
// of the order in which they came. The handler may do only what signal-safety(7) lists, and must leave errno as it was.
// async-signal-safe: no.
class ScopedAction {
 public:
  // `flags`: SA_RESTART, SA_ONSTACK ...; SA_SIGINFO is always added. The signal itself is blocked while its handler
  // runs (unless SA_NODEFER), no other is. Throws std::system_error: EINVAL for SIGKILL, SIGSTOP and what is no signal.
  ScopedAction(int signo, SignalHandler handler, int flags = SA_RESTART);
  // As above; while the handler runs the signals in `masked` are blocked too.
  ScopedAction(int signo, SignalHandler handler, int flags, const sigset_t& masked);
  ScopedAction(const ScopedAction&) = delete;
  ScopedAction& operator=(const ScopedAction&) = delete;
  ~ScopedAction();
  // What was there before: for a handler that passes on what is not its own.
  [[nodiscard]] const struct sigaction& previous() const noexcept { return previous_; }

 private:
  int signo_;
  struct sigaction previous_ {};
};

// Fault path: yes. What is no signal is left out.
[[nodiscard]] sigset_t signal_set(std::initializer_list<int> signals) noexcept;
[[nodiscard]] sigset_t all_signals() noexcept;  // but the two that the C library keeps for itself, see sigfillset(3)

// Blocks signals, in addition to those that are blocked, in the calling thread, and puts the former mask back when it
// goes: what came meanwhile is delivered then. SIGKILL and SIGSTOP cannot be blocked. async-signal-safe: yes (fault
// path).
class ScopedMask {
 public:
  explicit ScopedMask(const sigset_t& blocked) noexcept;
  ScopedMask(const ScopedMask&) = delete;
  ScopedMask& operator=(const ScopedMask&) = delete;
  ~ScopedMask();
  // The mask before: what to give to ppoll(2) or sigsuspend(2).
  [[nodiscard]] const sigset_t& previous() const noexcept { return previous_; }

 private:
  sigset_t previous_;
};

// A descriptor that is readable when one of the signals is pending. REQUIRES: they are blocked in every thread (block
// them before the first thread starts), else a handler or the default action takes them first.
class SignalFd {
 public:
  explicit SignalFd(const sigset_t& signals);  // non-blocking, close-on-exec. Throws std::system_error
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  // The next pending signal; false when there is none now. An ordinary signal that came five times may be given once.
  bool read(signalfd_siginfo& out) noexcept;

 private:
  Fd fd_;
};

struct ChildExit {
  pid_t pid;
  int status;  // as wait(2) says it: WIFEXITED, WTERMSIG ...
};

// All children that have ended, now; never waits. Five exits may arrive as one SIGCHLD, so the loop goes on until none
// is left. It takes every child of the process: not for programs in which somebody else waits for children of his own.
[[nodiscard]] std::vector<ChildExit> reap_children();

}  // namespace ipc
