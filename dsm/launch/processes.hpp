// dsm/launch/processes.hpp - who descends from whom, so that nothing that a job started is left behind.
//
// A process can leave its group and its session, but not its ancestors: when a parent ends, its children go to the
// nearest subreaper above (prctl(2), PR_SET_CHILD_SUBREAPER), and dsmexec and its agents are subreapers. So all that
// descends from an agent is the job's, and nothing else is. Not async-signal-safe.
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <iosfwd>
#include <set>
#include <string>
#include <vector>

namespace dsm::launch {

void become_subreaper();  // throws std::system_error

// The processes below `root` now, zombies left out, as /proc says; those in `except`, and what is below them, are left
// out too.
[[nodiscard]] std::vector<pid_t> descendants(pid_t root, const std::set<pid_t>& except = {});

// Sends a signal to each of them. How many there were.
std::size_t signal_descendants(pid_t root, int signo, const std::set<pid_t>& except = {});

// Whether a process has ended, reaped or not.
[[nodiscard]] bool is_gone(pid_t pid);

[[nodiscard]] int usable_cores();  // on which this process may run

// How many processes the kernel has ended for want of memory (the OOM killer): in this process's memory cgroup, or, where
// there is none to be read, on this machine. Only differences matter.
[[nodiscard]] std::uint64_t oom_kills();
// The file that counts them, for a process of which /proc/PID/cgroup says `cgroups` (cgroups(7)): of version 2 or 1. Empty:
// it is in no memory cgroup.
[[nodiscard]] std::string oom_file(const std::string& cgroups);
// The number behind "oom_kill" in such a file; 0 if there is none.
[[nodiscard]] std::uint64_t oom_kills_in(std::istream& file);

}  // namespace dsm::launch
