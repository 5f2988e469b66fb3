// dsm/launch/ssh.hpp - how an agent is started on another machine: the command line, and what ssh's complaints mean.
//
// One ssh for each machine. It logs in without asking anything (BatchMode) and runs a line of shell there, which starts
// dsmexec as that machine's agent: the same file, if it lies there at the same path and is the same to the last bit;
// else dsmexec sends itself into a private folder, which is removed before it runs: a file that is open needs no name.
// What is started is the guard (guard.hpp), and that starts the agent. Whatever a noisy .bashrc prints comes before the
// guard's first line, and is skipped.
//
// Pure functions. Thread-safety: yes. Not async-signal-safe.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "dsm/launch/machine_file.hpp"

namespace dsm::launch {

// The first line that comes from there ends with one of these. `hash`: of dsmexec's file.
[[nodiscard]] std::string ready_line(const std::string& hash);  // frames follow (control.hpp)
[[nodiscard]] std::string send_line(const std::string& hash);   // it waits for dsmexec's file on its standard input
inline constexpr std::size_t max_noise = 1u << 20;              // bytes that may come before that line

// argv. `ssh`: the command and options of the user's; those that are put behind them do not override them.
[[nodiscard]] std::vector<std::string> ssh_command(const std::vector<std::string>& ssh, const Machine& machine,
                                                   const std::string& remote);

// What the login shell there is to run, whichever shell that is. `path`, `hash`, `size`: of dsmexec's own file.
[[nodiscard]] std::string remote_line(const std::string& path, const std::string& hash, std::uint64_t size);

// In single quotes, for sh, csh and fish alike. REQUIRES: no newline.
[[nodiscard]] std::string quoted(std::string_view text);

// One line for the user: why no agent came to be. `said`: what ssh wrote on its standard error; `how`: how it ended.
[[nodiscard]] std::string explain(const Machine& machine, std::string_view said, const std::string& how);

// An sshd that is asked by many at one time drops some before they have said a word (sshd_config(5), MaxStartups).
[[nodiscard]] bool worth_another_try(std::string_view said);

}  // namespace dsm::launch
