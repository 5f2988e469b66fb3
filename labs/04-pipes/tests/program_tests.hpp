// What the tests of this lab's programs share.
#pragma once
#include <gtest/gtest.h>
#include <sys/prctl.h>

#include <set>

#include "labs/common/observing.hpp"

using ipc::testing::Outcome;
using ipc::testing::program_path;
using ipc::testing::run;
using ipc::testing::Started;
using ipc::testing::state_of;
using ipc::testing::wait_until;
using Lines = std::vector<std::string>;

// Whom a program leaves behind without having reaped him comes to us, and stays to be seen.
inline const int subreaper = ::prctl(PR_SET_CHILD_SUBREAPER, 1);

// An end of a pipe that a process has opened: none of standard input, output and errors, and none that it got from us.
struct End {
  int fd;
  std::string pipe;  // "pipe:[1234]"
  bool writes;
};
inline bool writes(pid_t pid, int fd) {
  std::istringstream info(ipc::testing::read_text("/proc/" + std::to_string(pid) + "/fdinfo/" + std::to_string(fd)));
  std::string word;
  unsigned flags = 0;
  while (info >> word && word != "flags:") continue;
  info >> std::oct >> flags;
  return (flags & O_ACCMODE) != O_RDONLY;
}
inline std::vector<End> ends_of(pid_t pid) {
  std::vector<End> ends;
  std::set<std::string> ours;
  for (const auto& [fd, what] : ipc::testing::open_descriptors()) ours.insert(what);
  for (const auto& [fd, what] : ipc::testing::open_descriptors(std::to_string(pid))) {
    if (fd > 2 && what.rfind("pipe:", 0) == 0 && ours.count(what) == 0) ends.push_back({fd, what, writes(pid, fd)});
  }
  return ends;
}
