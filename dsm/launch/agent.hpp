// dsm/launch/agent.hpp - the agent: one process on each host, which starts that host's ranks and answers for them.
//
// `dsmexec --agent`, with its control connection (control.hpp) on descriptors 0 and 1: a socketpair when dsmexec forked
// it, what ssh or srun gives on another machine (`--agent remote`). It starts the ranks, hands over their output line
// by line, reports their exits in the kernel's order, and sees to it that nothing is left of them: ranks lead process
// groups and die with the agent (PR_SET_PDEATHSIG), whatever they start falls to the agent (a subreaper), and when the
// control connection ends everything is killed. Slurm does not always end a connection of which the other end was
// killed while the agent was being started: so one that came by srun ends, too, if it hears nothing before it has ranks.
//
// agent_start.cpp has how ranks are started, agent.cpp the rest. One thread, one poll loop, nothing that blocks. Not
// async-signal-safe.
#pragma once
#include <chrono>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dsm/launch/control.hpp"
#include "dsm/launch/feed.hpp"
#include "dsm/launch/output.hpp"
#include "dsm/launch/stacks.hpp"
#include "dsm/telemetry/sampler.hpp"
#include "ipc/line_mux.hpp"
#include "ipc/signals.hpp"
#include "ipc/spawn.hpp"
#include "ipc/watchdog.hpp"

namespace dsm::launch {

class Agent {
 public:
  // `in`, `out`: the control connection. `remote`: dsmexec runs on another machine.
  Agent(ipc::Fd in, ipc::Fd out, bool remote);
  // Until everything has ended and been told. The exit code: 0, or 1 if dsmexec went away or something could not be
  // killed.
  int run();

 private:
  using Clock = std::chrono::steady_clock;
  struct Rank {
    int number = 0;
    pid_t pid = 0;         // 0: has been reaped
    bool stopped = false;  // we have sent it a signal
  };
  struct Beginning {  // a rank that has been forked; whether its program runs is not known yet
    int rank = 0;
    ipc::SpawnOptions options;
    ipc::Starting starting;
    ipc::Fd out, err, in;  // our ends; `in` only if it gets the input
  };
  struct Held {  // an unfinished line
    std::size_t bytes = 0;
    Clock::time_point since;
  };

  void handle(const Link::Frame& frame);
  void on(const Start& start);
  void on(const PassSignal& signal);
  void on(const Interrupt& interrupt);
  void on(const KillAll&);
  void on(const InputEnd&);
  void on(const Watch& watch);
  void on(const Ask& ask);
  void on(const TakeStacks&);
  void on(const Beat&) {}
  template <class Other>
  void on(const Other&);  // an agent's own messages, sent to an agent

  void take_program(std::string_view piece);
  void start_ranks();
  [[nodiscard]] bool start_some(std::span<const int> ranks, const std::vector<std::string>& environment);
  [[nodiscard]] Beginning begin_rank(int rank, const std::vector<std::string>& environment) const;
  [[nodiscard]] bool is_debugged(int rank) const;
  [[nodiscard]] static ipc::LineMux::Token token_of(int rank, Stream stream) {
    return static_cast<ipc::LineMux::Token>(rank) * 4 + static_cast<ipc::LineMux::Token>(stream);
  }
  void reap(pid_t first_to_end);
  [[nodiscard]] bool ended_by_kernel(int wait_status);
  void read_signals();
  void take_output(const std::vector<pollfd>& set);
  void take_line(ipc::LineMux::Token token, std::string_view line, bool complete);
  void ship();
  void show_prompts();
  void write_input();
  void send_sample(std::uint64_t id);
  void take_more_stacks();
  void beat();
  bool finish();  // the steps from the last rank's end, or an order to kill, to the end; true when all is done
  [[nodiscard]] int timeout_ms() const;
  [[nodiscard]] bool room() const;

  Link link_;
  ipc::SignalFd signals_;
  ipc::LineMux lines_;
  telemetry::Sampler sampler_;
  std::vector<Rank> ranks_;
  bool remote_, by_srun_;
  ipc::BeatTimer beats_{beat_period};
  ipc::SilenceTimer silence_{silence, Clock::now()};
  Start start_;                      // what dsmexec has ordered
  ipc::Fd program_;                  // a file in memory, if dsmexec sends the program
  std::uint64_t program_bytes_ = 0;  // that are still to come
  bool started_ = false;             // dsmexec has said what is to be started
  bool begun_ = false;               // no more ranks will come
  bool lost_ = false;                // dsmexec has gone
  bool killing_ = false;
  bool hushed_ = false;  // leftovers have had their SIGTERM
  bool watching_ = false;
  std::size_t running_ = 0;
  std::uint64_t oom_kills_ = 0;  // when it was last looked at
  std::string batch_;            // whole lines of one stream, on their way to dsmexec
  ipc::LineMux::Token batch_of_ = 0;
  bool prompts_ = false, showing_ = false;
  std::map<ipc::LineMux::Token, Held> held_;
  Stacks stacks_;
  bool telling_ = false;  // dsmexec waits for stacks
  bool without_gdb_ = false;
  Feed feed_;         // into the standard input of ranks
  bool fed_ = false;  // some rank wants it, or dsmexec has not been told yet that none does
  Clock::time_point ended_at_{}, kill_at_{};
};

// What `dsmexec --agent` does.
int agent_main(bool remote);

}  // namespace dsm::launch
