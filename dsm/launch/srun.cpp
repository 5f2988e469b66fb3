#include "dsm/launch/srun.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

extern char** environ;

namespace dsm::launch {
namespace {

bool says(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

// Of all that srun says, the last line that tells why: not what follows from it.
std::string reason(std::string_view said) {
  constexpr std::array<std::string_view, 6> consequences = {"task 0: Exited with",           "srun: Force Terminated",
                                                            "srun: Job step aborted",        "srun: Terminating",
                                                            "lacks support for cpu binding", "going to /tmp instead"};
  std::string_view last;
  for (const std::string_view line : lines_of(said)) {
    const auto in_line = [line](std::string_view part) { return says(line, part); };
    if (std::none_of(consequences.begin(), consequences.end(), in_line)) last = line;
  }
  for (const std::string_view prefix : {"srun: error: ", "srun: fatal: ", "srun: ", "slurmstepd: error: "}) {
    if (last.substr(0, prefix.size()) == prefix) last.remove_prefix(prefix.size());
  }
  return shown_line(last);
}

// What that means; empty: srun's own words must do.
std::string advice(std::string_view said) {
  if (says(said, "Requested node configuration is not available") || says(said, "Invalid node name")) {
    return "it is not one of the job's nodes, or is one no longer, or has not what is asked for (squeue and sinfo "
           "tell)";
  }
  if (says(said, "Required node not available")) return "the node is down";
  if (says(said, "Invalid job id") || says(said, "has expired") ||
      says(said, "Job/step already completing or completed")) {
    return "the Slurm job has ended";
  }
  if (says(said, "Communication connection failure")) return "no slurmd answers there";
  return {};
}

}  // namespace

std::vector<std::string> Srun::command(const Machine& machine, const std::string& line) const {
  return {
      "srun",
      "--jobid=" + job_,  // never a job of its own
      "--nodes=1",
      "--ntasks=1",
      "--nodelist=" + machine.host,
      // The step has all that the job has on that node, beside any other step: its processors (so not --exact), its
      // memory (which would else be as much as a task gets); and the agent is bound to none of the processors.
      "--overlap",
      "--mem=0",
      "--cpu-bind=none",
      // The control connection: at once (without this, Slurm keeps what has no newline yet), whole, and to this task,
      // whatever SLURM_STDINMODE and the like say.
      "--unbuffered",
      "--input=all",
      "--output=all",
      "--error=all",
      "--export=ALL",  // also after sbatch --export=NONE
      "--mpi=none",    // an agent is no MPI program, and the cluster's usual set-up for these may fail
      "--quiet",
      "sh",
      "-c",
      line,
  };
}

// Settings of srun's that there is no option against, some of them set by salloc and sbatch themselves: a number in
// front of each line of the control connection; fewer processors than the job has there, or for threads of a kind; all
// the job's GPUs on each node; more words than errors; another folder.
std::optional<std::vector<std::string>> Srun::environment() const {
  constexpr std::array<std::string_view, 14> without = {
      "SLURM_LABELIO",          "SRUN_CPUS_PER_TASK",   "SLURM_CPUS_PER_TASK", "SLURM_EXACT",
      "SLURM_EXCLUSIVE",        "SLURM_HINT",           "SLURM_GPUS",          "SLURM_GPUS_PER_TASK",
      "SLURM_GPUS_PER_SOCKET",  "SLURM_NTASKS_PER_GPU", "SLURM_TRES_PER_TASK", "SLURM_DEBUG",
      "SLURM_THREADS_PER_CORE", "SLURM_WORKING_DIR"};
  std::vector<std::string> out;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view variable = *entry;
    const std::string_view name = variable.substr(0, variable.find('='));
    if (std::find(without.begin(), without.end(), name) == without.end()) out.emplace_back(variable);
  }
  return out;
}

std::string Srun::explain(const Machine& machine, std::string_view said, const std::string& how) const {
  const std::string words = reason(said), what = advice(said);
  const std::string line = machine.line != 0 ? fmt::format("machine_file, line {}; ", machine.line) : "";
  return fmt::format("no agent on host {} ({}Slurm job {}): {}{}", machine.host, line, job_,
                     words.empty() ? "srun ended with " + how : words, what.empty() ? "" : ": " + what);
}

// 253: srun(1), out of memory.
std::string Srun::connection_ended(int code, std::string_view said) const {
  const std::string words = reason(said);
  return !words.empty() ? words : code == 253 ? "a process there ran out of memory" : "";
}

}  // namespace dsm::launch
