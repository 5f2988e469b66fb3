// dsm/launch/stacks.hpp - where the threads of a host's ranks stand, as gdb(1) tells it: for a job that takes too long.
//
// For the agent, whose children the debuggers are: each attaches to one rank, prints its stacks into a pipe and lets go
// of it. One that is killed lets go, too (ptrace(2)). Without a gdb on the host there is nothing to tell.
// Thread-safety: none. Not async-signal-safe.
#pragma once
#include <sys/types.h>

#include <functional>
#include <string_view>
#include <utility>
#include <vector>

#include "ipc/fd.hpp"

namespace dsm::launch {

class Stacks {
 public:
  // Takes the read end of what gdb prints about a rank.
  using Sink = std::function<void(int rank, ipc::Fd out)>;
  explicit Stacks(int at_once) : at_once_(at_once) {}

  void want(int rank, pid_t pid) { waiting_.emplace_back(rank, pid); }
  // Starts gdb for who is next, as long as not too many are at work.
  void start(const Sink& sink);
  // What gdb printed about one is at its end.
  void told() { --open_; }
  // A child of ours has been reaped: perhaps a debugger, or who waits for one.
  void reaped(pid_t pid);
  void stop();  // forgets who waits, and kills who is at work
  [[nodiscard]] bool done() const { return waiting_.empty() && open_ == 0; }

  // Whether a line of gdb's says where a thread stands, or why that cannot be told.
  [[nodiscard]] static bool tells(std::string_view line);
  [[nodiscard]] static bool lacks_gdb(std::string_view line) { return line.starts_with("env: "); }

 private:
  std::vector<std::pair<int, pid_t>> waiting_;
  std::vector<pid_t> debuggers_;
  int at_once_, open_ = 0;
};

}  // namespace dsm::launch
