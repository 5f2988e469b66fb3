// dsm/pager/disposition.hpp - what the application wants done with SIGSEGV, while the pager's handler sits in front.
// (After dsm_finalize a handler of libdsm's API takes that place until the process ends; see node/api.cpp.)
//
// From capture() to release() the kernel knows the pager's handler only. What the application had before, and what it
// asks for later (its calls of sigaction and signal come here, see interpose.cpp), is recorded; forward() gives it the
// faults that are not the pager's, as if the pager were not there.
//
// Thread-safe. async-signal-safe: yes, all but capture().
#pragma once
#include <signal.h>

namespace dsm::pager {

using SignalHandler = void (*)(int, siginfo_t*, void*);

// Puts `handler` in front of the present disposition; it runs with all signals blocked. From now on SIGSEGV stays out
// of signal masks: of this thread's, of handlers', and of those set later (other threads keep the mask that they have).
// Throws std::system_error: EBUSY if one is in front already.
void capture(SignalHandler handler);

// Whether a handler is in front.
[[nodiscard]] bool captured() noexcept;

// Gives SIGSEGV back to the application, with the disposition that it has asked for last.
void release() noexcept;

// As sigaction(2) for SIGSEGV. False, and nothing done, if no handler is in front.
[[nodiscard]] bool record(const struct sigaction* action, struct sigaction* old) noexcept;

// Called by the handler in front, as its last deed, for a signal that is not the pager's:
//  - default (or, if the signal comes from an instruction, ignored): the process dies by SIGSEGV once the handler has
//    returned, with the core that it would have left;
//  - a handler of the application: called here, with the mask that it would have had; it may leave by siglongjmp.
//    As SIGSEGV is blocked meanwhile, it may touch the region only if it was installed with SA_NODEFER.
void forward(int signo, siginfo_t* info, void* context) noexcept;

// Restores the default: the faulting instruction, run again when the handler returns, ends the process by SIGSEGV.
void let_die() noexcept;

// ---- interpose.cpp
// ----------------------------------------------------------------------------------------------------

// The C library's sigaction (or a sanitizer's in front of it), past our own.
int next_sigaction(int signo, const struct sigaction* action, struct sigaction* old) noexcept;
// Likewise pthread_sigmask: it can block SIGSEGV even while a handler is in front.
int next_sigmask(int how, const sigset_t* mask, sigset_t* old) noexcept;

}  // namespace dsm::pager
