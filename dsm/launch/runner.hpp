// dsm/launch/runner.hpp - dsmexec at work: the poll loop in which a job's parts meet.
//
//   agents' control connections -> output, job;  coordinator (ranks) -> job;  viewers -> agents -> viewers;
//   signals -> job;  job -> agents (pass a signal, kill)
//
// First one agent is started for each site. When all have said Hello, it is known by which addresses the machines see each
// other; then each agent is told what to start, and where its ranks find the rendezvous. So nothing is started anywhere
// before every machine has been reached. (This machine is: its agent is told without being waited for.)
//
// runner_agents.cpp has what concerns agents, runner.cpp the rest. One thread; nothing in the loop blocks. Made and run
// once by main. Not async-signal-safe.
#pragma once
#include <filesystem>
#include <list>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "dsm/launch/agent_connection.hpp"
#include "dsm/launch/control.hpp"
#include "dsm/launch/control_fifo.hpp"
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
    std::vector<Site> sites;               // where they are
    std::shared_ptr<const Remote> remote;  // how agents come to those that are not local
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
  void start_agents(Time now);
  void give_orders(Time now);  // once all agents have said Hello
  [[nodiscard]] std::filesystem::path folder() const;
  [[nodiscard]] std::string address_for(const AgentConnection& agent) const;
  [[nodiscard]] Start order_for(AgentConnection& agent);
  [[nodiscard]] std::vector<Input::Reader> readers();
  void turn();  // once around the loop
  [[nodiscard]] int timeout_ms(Time now) const;
  [[nodiscard]] bool is_held_by_gdb(int rank);
  void read_signals(Time now);
  void carry_out(Time now);
  void take_stacks(Time now);
  void stop(AgentConnection& agent);
  void hear_agents(Time now);
  void handle(AgentConnection& from, const Link::Frame& frame, Time now);
  void on(AgentConnection& from, const Hello& m, Time now);
  void on(AgentConnection& from, const NeedProgram& m, Time now);
  void on(AgentConnection& from, const NoFolder& m, Time now);
  void on(AgentConnection& from, const Beat& m, Time now);
  void on(AgentConnection& from, const Started& m, Time now);
  void on(AgentConnection& from, const NotStarted& m, Time now);
  void on(AgentConnection& from, const Exited& m, Time now);
  void on(AgentConnection& from, const StacksTaken& m, Time now);
  void on(AgentConnection& from, const InputTaken& m, Time now);
  void on(AgentConnection& from, const InputClosed& m, Time now);
  void on(AgentConnection& from, const Done& m, Time now);
  template <class Other>
  void on(AgentConnection& from, const Other& m, Time now);  // what only dsmexec says
  void check_agents(Time now);
  void begin_sweep(Time now);
  bool sweep(Time now);  // ends what fell to us from a dead agent; true when nothing is left of it
  void serve_viewers(Time now);
  void take_orders(Time now);  // from the control FIFO
  [[nodiscard]] bool all_answered() const;
  [[nodiscard]] telemetry::Snapshot snapshot() const;
  void flush_output(Time now);
  void finish();
  [[nodiscard]] std::uint32_t spin_us() const;
  void say(const std::string& line) { output_.own(line); }
  void log(const std::string& line) {
    if (plan_.options.verbose) say(line);
  }
  [[nodiscard]] AgentConnection& agent_of(int rank);

  Plan plan_;
  Time began_;
  std::set<pid_t> not_ours_;  // children that this process had before it was dsmexec
  ipc::SignalFd signals_;
  std::unique_ptr<ControlFifo> fifo_;  // before files are made: whose FIFO it is, theirs are the files
  Output output_;
  Job job_;
  net::JobKey key_;
  Coordinator coordinator_;
  telemetry::ViewerPort viewers_;
  Input input_;

  OwnFile own_;
  std::list<AgentConnection> agents_;
  bool ordered_ = false, stopping_ = false;
  bool sweeping_ = false;
  Time sweep_until_{}, leaving_until_{}, afterlife_until_{};
  std::string program_file_, program_hash_;  // of the program, if it may have to be sent
  std::uint64_t program_size_ = 0;

  std::vector<std::int64_t> pids_;  // by rank
  std::uint64_t asked_ = 0;         // the id of the last sample that agents were asked for
  bool asking_ = false;             // for viewers that wait
  Time asked_at_{};

  std::uint64_t written_ = 0;  // bytes of output, when it last moved on
  Time moved_at_{};
  bool told_output_ = false;
};

}  // namespace dsm::launch
