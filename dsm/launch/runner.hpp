// dsm/launch/runner.hpp - dsmexec at work: the poll loop in which a job's parts meet.
//
//   agent's control connection -> output, job;  coordinator (ranks) -> job;  viewers -> agent -> viewers;
//   signals -> job;  job -> agent (pass a signal, kill)
//
// One thread; nothing in the loop blocks. Made and run once by main. Not async-signal-safe.
#pragma once
#include <set>
#include <string>
#include <vector>

#include "dsm/launch/control.hpp"
#include "dsm/launch/coordinator.hpp"
#include "dsm/launch/input.hpp"
#include "dsm/launch/job.hpp"
#include "dsm/launch/options.hpp"
#include "dsm/launch/output.hpp"
#include "dsm/telemetry/viewer_port.hpp"
#include "ipc/signals.hpp"

namespace dsm::launch {

class Runner {
 public:
  struct Plan {
    Options options;
    std::vector<std::string> hosts;        // by rank
    std::string program;                   // path to execute
    std::optional<std::uint32_t> spin_us;  // instead of what this host's cores suggest
  };
  // Takes the signals that matter to dsmexec into its own hands. Throws std::system_error if the job cannot be begun.
  explicit Runner(Plan plan);
  Runner(const Runner&) = delete;
  // Runs the job to its end. Its exit code; die_of() is a signal by which the caller should then end itself, or 0.
  int run();
  [[nodiscard]] int die_of() const { return job_.die_of(); }

 private:
  void start_agent();
  void send_start();
  void turn();  // once around the loop
  [[nodiscard]] int timeout_ms(Time now) const;
  void read_signals(Time now);
  void carry_out();
  void hear_agent(Time now);
  void handle(const Link::Frame& frame, Time now);
  void on(const Hello& m, Time now);
  void on(const Started& m, Time now);
  void on(const NotStarted& m, Time now);
  void on(const Exited& m, Time now);
  void on(const InputTaken& m, Time now);
  void on(const InputClosed& m, Time now);
  void on(const Done& m, Time now);
  template <class Other>
  void on(const Other& m, Time now);  // what only dsmexec says
  void check_agent(Time now);
  bool sweep(Time now);  // ends what fell to us from a dead agent; true when nothing is left of it
  void serve_viewers(Time now);
  [[nodiscard]] telemetry::Snapshot snapshot() const;
  void flush_output(Time now);
  void finish();
  [[nodiscard]] std::uint32_t spin_us() const;
  void say(const std::string& line) { output_.own(line); }
  void log(const std::string& line) {
    if (plan_.options.verbose) say(line);
  }
  [[nodiscard]] bool known(int rank) const { return rank >= 0 && static_cast<std::size_t>(rank) < plan_.hosts.size(); }

  Plan plan_;
  Time began_;
  std::set<pid_t> not_ours_;  // children that this process had before it was dsmexec
  ipc::SignalFd signals_;
  Output output_;
  Job job_;
  net::JobKey key_;
  Coordinator coordinator_;
  telemetry::ViewerPort viewers_;
  Input input_;

  pid_t agent_ = 0;
  std::optional<Link> link_;         // until the agent is done or lost
  std::optional<int> agent_status_;  // as wait(2) has it, once it has ended
  bool agent_done_ = false, agent_told_lost_ = false;
  std::optional<Time> lost_at_;  // its connection ended too early
  int agent_cores_ = 1;
  bool sweeping_ = false;
  Time sweep_until_{};

  telemetry::Snapshot seen_;                // what the agent said last
  std::vector<std::int64_t> pids_;          // by rank
  std::uint64_t asked_ = 0, answered_ = 0;  // ids of samples
  bool asking_ = false;                     // for viewers that wait
  Time asked_at_{};

  std::uint64_t written_ = 0;  // bytes of output, when it last moved on
  Time moved_at_{};
  bool told_output_ = false;
};

}  // namespace dsm::launch
