// dsm/launch/slurm.hpp - the Slurm job that dsmexec runs inside of: its number, and its nodes as machines.
//
// salloc and sbatch say it all in the environment. Called once by main before anything is started. What is wrong is a
// SlurmError whose text is one line for the user. Thread-safety: none (getenv). Not async-signal-safe.
#pragma once
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "dsm/launch/machine_file.hpp"

namespace dsm::launch {

struct SlurmError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// SLURM_JOB_ID. `asker`: who wants a job, for the message if there is none ("--launcher slurm").
[[nodiscard]] std::string slurm_job(const std::string& asker);

// What the machine_file "-" stands for: the nodes of SLURM_JOB_NODELIST in its order, as `scontrol show hostnames`
// expands it, each with as many slots as SLURM_TASKS_PER_NODE says.
[[nodiscard]] std::vector<Machine> slurm_machines();

// "2(x3),1" -> 2 2 2 1: tasks of each node, at most max_slots, for not more than `most` nodes.
[[nodiscard]] std::vector<int> parse_tasks_per_node(std::string_view text, std::size_t most);

// `hostnames`: one a line.
[[nodiscard]] std::vector<Machine> machines_of_nodes(std::string_view hostnames, std::string_view tasks_per_node);

}  // namespace dsm::launch
