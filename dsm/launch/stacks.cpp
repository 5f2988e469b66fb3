#include "dsm/launch/stacks.hpp"

#include <fcntl.h>
#include <signal.h>

#include <cstdlib>
#include <string>

#include "ipc/error.hpp"
#include "ipc/spawn.hpp"

namespace dsm::launch {
namespace {

ipc::SpawnOptions debugger_for(pid_t pid) {
  ipc::SpawnOptions options;
  // -nx: nobody's own settings. Symbols that would have to be fetched from the network take too long.
  options.arguments = {"env",
                       "-u",
                       "DEBUGINFOD_URLS",
                       "gdb",
                       "-nx",
                       "-q",
                       "-batch",
                       "-p",
                       std::to_string(pid),
                       "-ex",
                       "thread apply all backtrace 24"};
  options.new_process_group = true;
  options.parent_death_signal = SIGKILL;
  return options;
}

}  // namespace

void Stacks::start(const Sink& sink) {
  while (open_ < at_once_ && !waiting_.empty()) {
    const auto [rank, pid] = waiting_.front();
    waiting_.erase(waiting_.begin());
    ipc::Pipe out = ipc::make_pipe();
    const ipc::Fd null(ipc::check(::open("/dev/null", O_RDONLY | O_CLOEXEC), "open /dev/null"));
    ipc::SpawnOptions options = debugger_for(pid);
    options.standard_input = null.get();
    options.standard_output = options.standard_error = out.write.get();
    debuggers_.push_back(ipc::spawn(options));
    ++open_;
    sink(rank, std::move(out.read));
  }
}

void Stacks::reaped(pid_t pid) {
  std::erase(debuggers_, pid);
  std::erase_if(waiting_, [pid](const auto& each) { return each.second == pid; });
}

void Stacks::stop() {
  waiting_.clear();
  for (const pid_t pid : debuggers_) ::kill(-pid, SIGKILL);
}

bool Stacks::tells(std::string_view line) {
  return line.starts_with('#') || line.starts_with("Thread ") || line.starts_with("ptrace: ");
}

}  // namespace dsm::launch
