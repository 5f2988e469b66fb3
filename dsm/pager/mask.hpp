// dsm/pager/mask.hpp - SIGSEGV's place in the signal masks of the application.
//
// A synchronous signal that is blocked ends the process (sigprocmask(2), NOTES), and while a pager stands every touch
// of the region may be one. So the kernel never gets to block SIGSEGV; that a thread wished it is remembered here, told
// when it asks, and honoured for the one kind of SIGSEGV that can wait: that sent by another process.
//
// Thread-safe: all is kept by thread. async-signal-safe: yes.
#pragma once
#include <signal.h>

namespace dsm::pager {

// As pthread_sigmask(3), in front of it.
int set_mask(int how, const sigset_t* mask, sigset_t* old) noexcept;

// From now on SIGSEGV stays out of masks even while no pager stands, so that no thread has it blocked when one comes.
// That this thread has it blocked counts as a wish from now on. Until a pager stands, nobody holds a signal back.
void keep_open() noexcept;

// Whether SIGSEGV stays out of masks.
[[nodiscard]] bool kept_open() noexcept;

// For the handler of a SIGSEGV that another process sent: true if the thread, interrupted with this mask, has it
// blocked. The signal is then kept and comes again when set_mask() opens it.
[[nodiscard]] bool hold_back(const siginfo_t& signal, const sigset_t& interrupted) noexcept;

// To this thread, with the same origin; at once, or when it is no longer blocked.
void send_again(const siginfo_t& signal) noexcept;

}  // namespace dsm::pager
