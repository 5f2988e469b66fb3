// dsm/launch/status.hpp - how a process ended, and how dsmexec says so. Functions without state; not async-signal-safe.
#pragma once
#include <string>
#include <vector>

namespace dsm::launch {

// A wait(2) status as an exit code: 128 + signal if a signal ended the process.
[[nodiscard]] int code_of(int wait_status);
// Ended by a signal that a program brings upon itself (SIGSEGV, SIGABRT ...), unlike those by which dsmexec stops ranks.
[[nodiscard]] bool is_crash(int wait_status);
// "exit code 3", "killed by signal 9 (SIGKILL)". `out_of_memory`: it was the kernel's doing, which had no memory left.
[[nodiscard]] std::string describe_status(int wait_status, bool out_of_memory = false);
[[nodiscard]] std::string signal_name(int signo);  // "SIGKILL"
// "rank 2", "ranks 0-2, 5". REQUIRES: ascending.
[[nodiscard]] std::string rank_list(const std::vector<int>& ranks);

}  // namespace dsm::launch
