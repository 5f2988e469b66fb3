// dsm/pager/test_handlers.hpp - SIGSEGV handlers as an application may have them, for the pager's tests in children.
#pragma once
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>

#include "dsm/pager/disposition.hpp"
#include "dsm/pager/test_region.hpp"

namespace dsm::pager::testing {

// What the application's handler saw; the children are single-threaded.
inline volatile int calls = 0;
inline void* volatile seen_address = nullptr;
inline volatile int seen_code = 0;
inline volatile pid_t seen_sender = 0;
inline sigset_t seen_mask;
inline sigjmp_buf way_out;

inline void note(int signo, siginfo_t* info, void*) {
  calls = calls + 1;
  if (signo != SIGSEGV) _exit(99);
  seen_address = info->si_addr;
  seen_code = info->si_code;
  if (info->si_code <= 0) seen_sender = info->si_pid;
  pthread_sigmask(SIG_SETMASK, nullptr, &seen_mask);
}

// A handler that mends what was wrong, as a garbage collector's does.
inline void note_and_open(int signo, siginfo_t* info, void* context) {
  note(signo, info, context);
  mprotect(const_cast<char*>(forbidden_page()), ipc::page_size(), PROT_READ | PROT_WRITE);
}

inline void note_and_leave(int signo, siginfo_t* info, void* context) {
  note(signo, info, context);
  siglongjmp(way_out, 1);
}

inline struct sigaction action_of(SignalHandler handler, int flags = 0) {
  struct sigaction action = {};
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO | flags;
  return action;
}

inline bool install(const struct sigaction& action, struct sigaction* old = nullptr) {
  return sigaction(SIGSEGV, &action, old) == 0;
}

// Fails a child's body, by line.
#define REQUIRE(condition)                                           \
  do {                                                               \
    if (!(condition)) {                                              \
      dprintf(STDERR_FILENO, "line %d: %s\n", __LINE__, #condition); \
      return 1;                                                      \
    }                                                                \
  } while (false)

}  // namespace dsm::pager::testing
