#include "ipc/child.hpp"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <utility>

#include "ipc/error.hpp"

namespace ipc {
namespace {

// The child's whole life.
[[noreturn]] void live(const std::function<int()>& body, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);  // it ended before we asked: no signal will come
  int code = 1;
  try {
    code = body();
  } catch (const std::exception& failure) {
    // Standard error has no buffer: one call, one write(), so that the lines of several children do not mix.
    std::fprintf(stderr, "%s: child %d: %s\n", program_invocation_short_name, ::getpid(), failure.what());
  }
  ::_exit(code);
}

}  // namespace

Child::Child(const std::function<int()>& body) {
  //@ solution 01.fork
  const pid_t parent = ::getpid();
  pid_ = check(::fork(), "fork");
  if (pid_ == 0) live(body, parent);
  //@ starter
  // TODO 01.fork: fork, and in the child call live(). What does fork() return, and to whom? What is there twice when the
  // child is allowed to run on past this constructor?
  //| static_cast<void>(body), static_cast<void>(live);
  //@ end
}

Child::Child(Child&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}

Child& Child::operator=(Child&& other) noexcept {
  std::swap(pid_, other.pid_);
  Child former(std::move(other));  // what was ours ends now, not whenever `other` goes
  return *this;
}

Child::~Child() {
  if (pid_ <= 0) return;
  signal(SIGKILL);
  //@ solution 01.wait
  while (::waitpid(pid_, nullptr, 0) == -1 && errno == EINTR) continue;
  //@ starter
  // TODO 01.wait: reap the child. What would ps(1) show if nobody did?
  //@ end
}

void Child::signal(int signo) const noexcept {
  if (pid_ > 0) ::kill(pid_, signo);  // 0 and -1 would mean a whole group, and everybody
}

std::string how_it_ended(int status) {
  if (WIFEXITED(status)) return "exited with code " + std::to_string(WEXITSTATUS(status));
  const char* const name = ::sigabbrev_np(WTERMSIG(status));
  return "was killed by " + (name != nullptr ? "SIG" + std::string(name) : std::to_string(WTERMSIG(status)));
}

}  // namespace ipc
