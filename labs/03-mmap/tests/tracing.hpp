// labs/03-mmap/tests/tracing.hpp - a program that is held after each of its system calls, by ptrace(2), so that a test can
// do something at exactly that moment. For tests only.
#pragma once
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "labs/common/observing.hpp"

namespace ipc::testing {

struct SystemCall {
  std::uint64_t number;  // SYS_mmap ...
  std::array<std::uint64_t, 6> arguments;
  std::int64_t result;  // negative: minus the errno
};

struct Traced {
  int code = -1;  // as in Outcome; -1: it could not be traced
  std::vector<std::string> out, err;
  int faults = 0;  // how often SIGSEGV or SIGBUS came
};

namespace detail {

[[noreturn]] inline void exec_traced(const std::vector<std::string>& arguments, int out, int err) {
  // The leak sanitizer traces, too, and there can be only one.
  const char* const former = ::getenv("ASAN_OPTIONS");
  ::setenv("ASAN_OPTIONS", ((former != nullptr ? former : "") + std::string(":detect_leaks=0")).c_str(), 1);
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const int none = ::open("/dev/null", O_RDONLY);
  if (::dup2(none, 0) != -1 && ::dup2(out, 1) != -1 && ::dup2(err, 2) != -1 &&
      ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) == 0) {
    ::raise(SIGSTOP);  // until our parent is ready
    ::execv(argv.front(), argv.data());
  }
  ::_exit(127);
}

inline std::vector<std::string> all_lines(const Fd& fd) {
  std::string text;
  char buffer[4096];
  for (ssize_t n = 0; (n = ::read(fd.get(), buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<std::size_t>(n));
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

}  // namespace detail

// Runs a program of build/bin; `after` is called after each of its system calls, while it stands still. It must not print
// more than a pipe holds.
inline Traced run_traced(std::vector<std::string> arguments, const std::function<void(const SystemCall&)>& after) {
  arguments.front() = program_path(arguments.front());
  int out[2], err[2];
  if (::pipe2(out, O_CLOEXEC) == -1 || ::pipe2(err, O_CLOEXEC) == -1) throw std::runtime_error("pipe2");
  const Fd out_read(out[0]), err_read(err[0]);
  Fd out_write(out[1]), err_write(err[1]);
  const pid_t pid = ::fork();
  if (pid == -1) throw std::runtime_error("fork");
  if (pid == 0) detail::exec_traced(arguments, out_write.get(), err_write.get());
  out_write.reset(), err_write.reset();

  Traced result;
  SystemCall call{};
  int status = 0, signo = 0;
  bool running = false;
  while (::waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) {
    signo = WSTOPSIG(status);
    if (!running && signo == SIGSTOP) {
      const auto options = PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL | PTRACE_O_TRACEEXEC;
      ::ptrace(PTRACE_SETOPTIONS, pid, nullptr, reinterpret_cast<void*>(static_cast<std::uintptr_t>(options)));
      running = true;
      signo = 0;
    } else if (signo == (SIGTRAP | 0x80)) {
      __ptrace_syscall_info info{};
      ::ptrace(static_cast<__ptrace_request>(PTRACE_GET_SYSCALL_INFO), pid, reinterpret_cast<void*>(sizeof info),
               &info);
      if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
        call.number = info.entry.nr;
        std::copy(std::begin(info.entry.args), std::end(info.entry.args), call.arguments.begin());
      } else if (info.op == PTRACE_SYSCALL_INFO_EXIT) {
        call.result = info.exit.rval;
        after(call);
      }
      signo = 0;
    } else if (signo == SIGTRAP) {
      signo = 0;  // exec
    } else if (signo == SIGSEGV || signo == SIGBUS) {
      ++result.faults;
    }
    ::ptrace(PTRACE_SYSCALL, pid, nullptr, reinterpret_cast<void*>(static_cast<std::uintptr_t>(signo)));
  }
  if (running) result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result.out = detail::all_lines(out_read);
  result.err = detail::all_lines(err_read);
  return result;
}

}  // namespace ipc::testing
