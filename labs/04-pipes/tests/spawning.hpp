// What the tests of spawn() share.
#pragma once
#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <string>

#include "ipc/spawn.hpp"

namespace ipc::testing {

inline int wait_for(pid_t pid) {
  int status = -1;
  while (::waitpid(pid, &status, 0) == -1 && errno == EINTR) continue;
  return status;
}

inline std::string read_all(int fd) {
  std::string result;
  std::array<char, 4096> buffer;
  for (ssize_t n = 0; (n = ipc::read_full(fd, buffer.data(), buffer.size())) > 0;) {
    result.append(buffer.data(), static_cast<std::size_t>(n));
  }
  return result;
}

// Runs a program to its end: what it wrote to standard output. Its wait status goes to `status` if that is asked for.
inline std::string output_of(SpawnOptions options, int* status = nullptr) {
  Pipe out = ipc::make_pipe();
  options.standard_output = out.write.get();
  const pid_t pid = ipc::spawn(options);
  out.write.reset();
  std::string text = read_all(out.read.get());
  const int ended = wait_for(pid);
  if (status != nullptr) *status = ended;
  return text;
}

inline SpawnOptions shell(const std::string& script) {
  SpawnOptions options;
  options.arguments = {"/bin/sh", "-c", script};
  return options;
}

// The SpawnError's step, errno and whole text; "started" if there was none.
struct Failure {
  std::string step = "started";
  int error = 0;
  std::string text;
};
inline Failure failure_of(const SpawnOptions& options) {
  try {
    wait_for(ipc::spawn(options));
  } catch (const SpawnError& failure) {
    return {failure.step, failure.error, failure.what()};
  }
  return {};
}

}  // namespace ipc::testing
