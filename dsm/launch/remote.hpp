// dsm/launch/remote.hpp - how an agent is started on another machine, whichever program runs a command there.
//
// One process of ours for each machine: ssh (ssh.hpp) or srun (srun.hpp). It runs a line of shell there, whose standard
// input and output are ours, and which starts dsmexec as that machine's agent: the same file, if what lies there at the
// same path has the same build id (program.hpp); else dsmexec sends itself into a private folder, which is removed
// before it runs: a file that is open needs no name. What is started is the guard (guard.hpp), and that starts the
// agent. Whatever a noisy .bashrc or prolog prints comes before the guard's first line, and is skipped.
//
// Thread-safety: yes, while nobody changes the environment. Not async-signal-safe.
#pragma once
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dsm/launch/machine_file.hpp"

namespace dsm::launch {

// The program that runs a command there.
class Remote {
 public:
  Remote() = default;
  Remote(const Remote&) = delete;
  virtual ~Remote() = default;

  [[nodiscard]] virtual std::string name() const = 0;  // for messages: "ssh"
  // argv that runs `line` (remote_line) on that machine.
  [[nodiscard]] virtual std::vector<std::string> command(const Machine& machine, const std::string& line) const = 0;
  // "NAME=value" for that command; absent: inherited.
  [[nodiscard]] virtual std::optional<std::vector<std::string>> environment() const { return std::nullopt; }
  // One clause: what to do if there is no such program here.
  [[nodiscard]] virtual std::string origin() const = 0;
  // One line for the user: why no agent came to be. `said`: what the program wrote on its standard error; `how`: how it
  // ended.
  [[nodiscard]] virtual std::string explain(const Machine& machine, std::string_view said,
                                            const std::string& how) const = 0;
  // Whether to ask once more, a little later, after that.
  [[nodiscard]] virtual bool worth_another_try(std::string_view said) const;
  // What to look at when nothing has come from there for long; empty: nothing in particular.
  [[nodiscard]] virtual std::string silence_advice() const { return {}; }
  // Why an agent that was at work is gone, in one clause, from the exit code and from what was written on standard
  // error; empty: nothing but that the guard there has ended with this code.
  [[nodiscard]] virtual std::string connection_ended(int code, std::string_view said) const = 0;
  // From the first start until all agents have started their ranks.
  [[nodiscard]] virtual std::chrono::milliseconds start_patience() const;
  // How long processes that it leaves here when it is killed may take for what they have to do.
  [[nodiscard]] virtual std::chrono::milliseconds afterlife() const;
  // Where an agent stands that was not told where to: one noun phrase.
  [[nodiscard]] virtual std::string first_folder() const = 0;
};

// The first line that comes from there ends with one of these. `hash`: own_identity() of dsmexec's file.
[[nodiscard]] std::string ready_line(const std::string& hash);  // frames follow (control.hpp)
[[nodiscard]] std::string send_line(const std::string& hash);   // it waits for dsmexec's file on its standard input
inline constexpr std::size_t max_noise = 1u << 20;              // bytes that may come before that line

// What a shell there is to run, whichever shell that is. `path`, `hash`, `size`: of dsmexec's own file.
[[nodiscard]] std::string remote_line(const std::string& path, const std::string& hash, std::uint64_t size);

// In single quotes, for sh, csh and fish alike. REQUIRES: no newline.
[[nodiscard]] std::string quoted(std::string_view text);

// A line of somebody else's, fit for a message: no control characters, no full stop, not too long.
[[nodiscard]] std::string shown_line(std::string_view line);
// Those lines of `text` that are not blank.
[[nodiscard]] std::vector<std::string_view> lines_of(std::string_view text);

}  // namespace dsm::launch
