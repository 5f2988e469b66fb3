#include "dsm/launch/slurm.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <system_error>

#include "dsm/launch/remote.hpp"
#include "dsm/launch/status.hpp"
#include "ipc/error.hpp"
#include "ipc/spawn.hpp"
#include "ipc/watchdog.hpp"

namespace dsm::launch {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds scontrol_patience{20};  // it may have to ask another machine for its configuration
constexpr std::size_t max_answer = 1u << 20;           // bytes

std::string variable(const char* name) {
  const char* const value = std::getenv(name);
  return value != nullptr ? value : "";
}

// What a descriptor gives until its end; false if that does not come in time, or is too much.
bool read_all(const ipc::Fd& fd, std::string& to) {
  const auto until = Clock::now() + scontrol_patience;
  std::array<char, 4096> buffer{};
  while (to.size() <= max_answer) {
    pollfd one{fd.get(), POLLIN, 0};
    const int ready = ::poll(&one, 1, ipc::milliseconds_until(until, Clock::now()));
    if (ready == -1 && errno != EINTR) ipc::throw_errno("poll");
    if (ready == 0) return false;
    if (ready < 0) continue;
    const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
    if (got == 0) return true;
    if (got > 0) to.append(buffer.data(), static_cast<std::size_t>(got));
    if (got < 0 && errno != EINTR) ipc::throw_errno("read");
  }
  return false;
}

// The names that a node list stands for, one a line.
std::string expanded(const std::string& nodes) {
  ipc::Pipe pipe = ipc::make_pipe();
  const ipc::Fd errors(ipc::check(::memfd_create("scontrol", MFD_CLOEXEC), "memfd_create"));
  ipc::SpawnOptions options;
  options.arguments = {"scontrol", "show", "hostnames", nodes};
  options.standard_output = pipe.write.get();
  options.standard_error = errors.get();  // what it only warns of is no name of a node
  pid_t pid = 0;
  try {
    pid = ipc::spawn(options);
  } catch (const ipc::SpawnError& error) {
    throw SlurmError(
        fmt::format("machine_file '-' needs Slurm's scontrol: {} (install Slurm's commands on this machine)",
                    std::generic_category().message(error.error)));
  }
  pipe.write.reset();
  std::string text;
  const bool whole = read_all(pipe.read, text);
  if (!whole) ::kill(pid, SIGKILL);
  int status = 0;
  while (::waitpid(pid, &status, 0) == -1 && errno == EINTR) {
  }
  if (!whole) throw SlurmError("scontrol show hostnames: no answer within 20 s, or one without end (try it by hand)");
  if (status != 0) {
    std::string said(max_answer, '\0');
    const ssize_t got = ::pread(errors.get(), said.data(), said.size(), 0);
    said.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    const auto lines = lines_of(said);
    throw SlurmError(fmt::format("scontrol show hostnames {}: {}", nodes,
                                 lines.empty() ? describe_status(status) : shown_line(lines.back())));
  }
  return text;
}

[[noreturn]] void refuse_tasks(std::string_view text) {
  throw SlurmError(fmt::format(
      "SLURM_TASKS_PER_NODE='{}' is not understood: such as '2(x3),1' is needed, as salloc and sbatch set it",
      shown_line(text)));
}

// A number from 1 on at the beginning of `rest`, which is taken away.
std::size_t take_number(std::string_view& rest, std::string_view text) {
  std::size_t value = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
  if (error != std::errc() || value == 0) refuse_tasks(text);
  rest.remove_prefix(static_cast<std::size_t>(end - rest.data()));
  return value;
}

bool take(std::string_view& rest, std::string_view word) {
  if (!rest.starts_with(word)) return false;
  rest.remove_prefix(word.size());
  return true;
}

}  // namespace

std::string slurm_job(const std::string& asker) {
  const std::string job = variable("SLURM_JOB_ID");
  if (job.empty()) {
    throw SlurmError(asker + " is for use inside a Slurm job, and this is none: start dsmexec by salloc or sbatch");
  }
  return job;
}

std::vector<Machine> slurm_machines() {
  const std::string job = slurm_job("machine_file '-'"), nodes = variable("SLURM_JOB_NODELIST");
  if (nodes.empty()) throw SlurmError(fmt::format("Slurm job {} has no nodes: SLURM_JOB_NODELIST is not set", job));
  return machines_of_nodes(expanded(nodes), variable("SLURM_TASKS_PER_NODE"));
}

// Counts are cut off rather than refused: a node may have more processors than a job may have ranks, and -n be less.
std::vector<int> parse_tasks_per_node(std::string_view text, std::size_t most) {
  std::vector<int> tasks;
  std::string_view rest = text;
  do {
    const auto count = static_cast<int>(std::min<std::size_t>(take_number(rest, text), max_slots));
    std::size_t times = 1;
    if (take(rest, "(x")) {
      times = take_number(rest, text);
      if (!take(rest, ")")) refuse_tasks(text);
    }
    if (times > most - tasks.size()) {
      throw SlurmError(fmt::format("SLURM_TASKS_PER_NODE='{}' is for more than the {} nodes of SLURM_JOB_NODELIST",
                                   shown_line(text), most));
    }
    tasks.insert(tasks.end(), times, count);
  } while (take(rest, ","));
  if (!rest.empty()) refuse_tasks(text);
  return tasks;
}

std::vector<Machine> machines_of_nodes(std::string_view hostnames, std::string_view tasks_per_node) {
  std::vector<Machine> machines = parse_machine_file(hostnames, "SLURM_JOB_NODELIST");
  const std::vector<int> tasks = parse_tasks_per_node(tasks_per_node, machines.size());
  if (tasks.size() != machines.size()) {
    throw SlurmError(fmt::format(
        "SLURM_TASKS_PER_NODE='{}' is for {} of the {} nodes of SLURM_JOB_NODELIST: name a machine_file instead of '-'",
        shown_line(tasks_per_node), tasks.size(), machines.size()));
  }
  for (std::size_t i = 0; i < machines.size(); ++i) {
    machines[i].slots = tasks[i];
    machines[i].line = 0;  // of no file
  }
  return machines;
}

}  // namespace dsm::launch
