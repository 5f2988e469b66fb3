// ipc/spawn.hpp - pipes, and programs started with their standard descriptors where you want them.
//
// Used by dsmexec (to start agents) and by the agent (to start ranks).
// Thread-safety: all of it may be called by several threads at once. Fault path: read_full and write_full; their
// signatures are frozen. The rest allocates and throws.
// Sources: pipe(7), fork(2), vfork(2), execve(2), dup(2), prctl(2), signal-safety(7).
#pragma once
#include <sys/types.h>

#include <cstddef>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "ipc/fd.hpp"

namespace ipc {

struct Pipe {
  Fd read, write;
};
[[nodiscard]] Pipe make_pipe();  // both ends close-on-exec. Throws std::system_error

// All `size` bytes, however many calls it takes; fewer only at end of file. -1 and errno on error: how far it came is
// then not known. EINTR is retried; a non-blocking descriptor is waited for by poll(2). Writing to a pipe that nobody
// reads raises SIGPIPE, or is EPIPE if that is ignored. async-signal-safe: yes (fault path).
ssize_t read_full(int fd, void* buffer, std::size_t size) noexcept;
ssize_t write_full(int fd, const void* buffer, std::size_t size) noexcept;

struct SpawnOptions {
  std::vector<std::string> arguments;  // argv, [0] included. REQUIRES: not empty
  // Path to execute; empty: arguments[0], looked up on the caller's PATH if it has no '/'. A relative path starts at
  // working_directory.
  std::string program;
  std::optional<std::vector<std::string>> environment;                 // "NAME=value"; absent: inherited
  std::string working_directory;                                       // empty: inherited
  int standard_input = -1, standard_output = -1, standard_error = -1;  // -1: inherited; else dup2'ed
  // More to pass on: (ours, number in the child). Numbers may overlap in any way, also with the three above and with
  // ours; REQUIRES: no number in the child is given twice.
  std::vector<std::pair<int, int>> descriptors;
  bool new_process_group = false;  // the child leads a group of its own, which exists when spawn() returns
  // PR_SET_PDEATHSIG; 0: none. "Parent" is the *thread* that called spawn(): it must live as long as the process.
  int parent_death_signal = 0;
  // Who called spawn(), and whatever descends from it, may trace the child (PR_SET_PTRACER). Without, some kernels (Yama,
  // ptrace(2)) allow only the child's ancestors to: a debugger that we start is none.
  bool parent_may_trace = false;
};

// What kept the program from starting: `step` is "setpgid", "prctl", "chdir", "dup", "dup2" or "execve", `error` its
// errno. what() has both and the object. For execve, ENOENT: there is no such program; EACCES: there is, but it may not
// be executed (a shell's 127 and 126).
struct SpawnError : std::runtime_error {
  SpawnError(std::string step, int error, const std::string& object);
  std::string step;
  int error;
};

// Starts a program: default signal dispositions, empty mask, no descriptor but 0, 1, 2 and those asked for. Returns its
// pid when exec has succeeded: the child reports a failure over a close-on-exec pipe, and has then been reaped. A child
// that is killed before exec is returned as if it had started: waiting for it tells. Throws SpawnError;
// std::system_error if pipe or fork failed; std::invalid_argument if a REQUIRES is not kept. Only async-signal-safe
// calls between fork and exec, and none of our signal handlers runs there: all signals are blocked from before fork()
// until they are reset.
[[nodiscard]] pid_t spawn(const SpawnOptions& options);

// spawn() in two steps, for who starts many programs: with the first step done for all of them before the second is
// done for any, each gets ready while the next one is begun. begin_spawn() throws what spawn() throws, but for
// SpawnError; finish_spawn() throws only that. REQUIRES: each that has begun is finished, with the same options; then
// the pid is what spawn() would have returned.
struct Starting {
  pid_t pid = 0;
  Fd errors;  // read end of the pipe over which the child reports
};
[[nodiscard]] Starting begin_spawn(const SpawnOptions& options);
pid_t finish_spawn(const Starting& starting, const SpawnOptions& options);

}  // namespace ipc
