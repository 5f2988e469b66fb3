// dsm/launch/srun.hpp - agents by Slurm's srun: the command line, and what srun's complaints mean.
//
// Each agent is a job step of one task, in the Slurm job that dsmexec runs inside of. When srun is killed, as it is
// when dsmexec is, a process that it has forked for that case has Slurm end the step, as thoroughly as the cluster's
// ProctrackType does that. While a step is being started Slurm may forget to: then the agent notices (agent.hpp).
//
// Thread-safety: yes, while nobody changes the environment. Not async-signal-safe.
#pragma once
#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dsm/launch/remote.hpp"

namespace dsm::launch {

class Srun : public Remote {
 public:
  explicit Srun(std::string job) : job_(std::move(job)) {}  // the Slurm job's number

  [[nodiscard]] std::string name() const override { return "srun"; }
  [[nodiscard]] std::vector<std::string> command(const Machine& machine, const std::string& line) const override;
  [[nodiscard]] std::optional<std::vector<std::string>> environment() const override;
  [[nodiscard]] std::string origin() const override { return "install Slurm's commands on this machine"; }
  [[nodiscard]] std::string explain(const Machine& machine, std::string_view said,
                                    const std::string& how) const override;
  [[nodiscard]] std::string connection_ended(int code, std::string_view said) const override;
  // A prolog may take long, and srun waits for one without a word.
  [[nodiscard]] std::chrono::milliseconds start_patience() const override { return std::chrono::minutes(3); }
  // Of the process that has the step ended: it must talk to slurmctld, who passes it on.
  [[nodiscard]] std::chrono::milliseconds afterlife() const override { return std::chrono::seconds(3); }
  [[nodiscard]] std::string first_folder() const override { return "/tmp"; }  // slurmd's choice

 private:
  std::string job_;
};

}  // namespace dsm::launch
