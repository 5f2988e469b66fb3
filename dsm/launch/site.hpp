// dsm/launch/site.hpp - where a job runs: the machines that its ranks are on, each with one agent.
//
// Called once by dsmexec before anything is started. Thread-safety: functions without state. Not async-signal-safe.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "dsm/launch/machine_file.hpp"

namespace dsm::launch {

// How an agent comes to its machine. `automatic`: by fork on this machine, by ssh on others. `ssh`, `slurm`: on all by
// ssh, by srun.
enum class Launcher : std::uint8_t { automatic, local, ssh, slurm };

// False if `text` ("auto", "local", "ssh", "slurm") names none; `out` is then untouched.
[[nodiscard]] bool parse(std::string_view text, Launcher& out);

struct Site {
  Machine machine;         // as the first line says it that names it
  bool local = false;      // started by fork
  std::vector<int> ranks;  // ascending
};

// The names by which this machine knows itself: host name (long and short) and the addresses of its interfaces. And those
// long forms of its name in `machines` that stand for one of these addresses: "node1.example.org" on node1; for that the
// resolver is asked.
[[nodiscard]] std::vector<std::string> own_names(const std::vector<Machine>& machines);

// This machine, as whom dsmexec runs: own_names() and the name of its user.
struct Self {
  std::vector<std::string> names;
  std::string user;
};

// The sites of the ranks, in the order of their first ranks: machines of one name, user and port are one, and so is all
// that is started by fork. `file`: the machine_file's name for messages. Throws MachineFileError, naming the line, when
// the launcher is `local` and a machine is another one, or somebody else's; or when it is `slurm`, and a user or port
// is given.
[[nodiscard]] std::vector<Site> sites_of(const std::vector<Machine>& placed, Launcher launcher, const Self& self,
                                         const std::string& file);

}  // namespace dsm::launch
