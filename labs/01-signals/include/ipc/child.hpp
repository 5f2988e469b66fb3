// ipc/child.hpp - a forked child that does not outlive us, and is always reaped.
//
// Used by the programs of the labs. Thread-safety: for a process of one thread; in one with more, the child's body may
// make async-signal-safe calls only, and "we" is the thread that made the child. async-signal-safe: no.
// Sources: fork(2), prctl(2) on PR_SET_PDEATHSIG, waitpid(2), kill(2).
#pragma once
#include <sys/types.h>

#include <functional>
#include <string>

namespace ipc {

class Child {
 public:
  // Forks. The child runs `body` and exits with what it returns; after an exception it says so in one line on standard
  // error and exits with 1. It leaves by _exit(): nothing of ours is destroyed in it, no stream is flushed. It has our
  // signal mask and dispositions, and is killed when we end, even by SIGKILL. Throws std::system_error (EAGAIN).
  explicit Child(const std::function<int()>& body);
  Child(Child&& other) noexcept;
  Child& operator=(Child&& other) noexcept;
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child();  // kills it (SIGKILL) and reaps it

  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  // Until it is reaped the number stays its own: a signal to a child that has ended goes nowhere, never to a stranger.
  void signal(int signo) const noexcept;
  // Somebody has reaped it: reap_children(), for instance. From now on its number may be another process's.
  void forget() noexcept { pid_ = -1; }

 private:
  pid_t pid_ = -1;
};

// A status of wait(2) in words: "was killed by SIGKILL", "exited with code 1".
[[nodiscard]] std::string how_it_ended(int status);

}  // namespace ipc
