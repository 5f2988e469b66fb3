// dsm/pager/own_thread.hpp - what a thread of the library's own does before anything else.
//
// Used by the pager's threads and by node's service thread. Each speaks of the calling thread only.
// async-signal-safe: yes.
#pragma once

namespace dsm::pager {

// SIGSEGV too, past the pager that keeps it open in all other threads: this one takes part in no fault, and a signal sent
// to the process must not run the application's handler here, perhaps under a lock.
void block_all_signals() noexcept;

// The fair scheduler lets a thread that becomes runnable wait behind computing ones for the rest of their slice, 3 ms and
// more. Who asks for a shorter slice of its own (sched_setattr(2), since Linux 6.12; needs no privilege) is let in
// sooner. Older kernels take the value and do nothing with it.
void ask_for_short_waits() noexcept;

}  // namespace dsm::pager
