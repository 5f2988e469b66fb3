// dsm/launch/job.hpp - the life of one job as a value: who failed first, when the others are stopped, the exit code.
//
// No process, socket or clock: the runner (runner.hpp) tells it what happened and when, and carries out its commands.
// Errors of ranks and agents are events here, never exceptions.
//
// Who failed first. Exits come in the order in which the kernel saw them (the agent sees to that). A rank that lost a
// peer is secondary: it says so, and then its own end counts only if the peer turns out to be well. Because a rank's
// last words travel on another connection than the agent's word of its exit, an exit is judged when that connection has
// ended, or after a short moment (`settle`); exits are judged in order.
//
// job.cpp has what it is told and what follows from its verdict, job_judge.cpp the verdict.
//
// Thread-safety: none. Not async-signal-safe.
#pragma once
#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "dsm/launch/status.hpp"
#include "dsm/net/rendezvous.hpp"

namespace dsm::launch {

using Time = std::chrono::steady_clock::time_point;
using std::chrono::milliseconds;

inline constexpr int exit_timeout = 124, exit_trouble = 125, exit_not_executable = 126, exit_not_found = 127;

// How long each phase may take.
struct Limits {
  milliseconds start{30'000};     // until the agent has started all ranks
  milliseconds join{60'000};      // from the first rank in dsm_init until all are
  milliseconds mesh{60'000};      // from then until all ranks are connected to each other
  milliseconds finalize{60'000};  // from the first rank out of dsm_finalize until all are
  milliseconds settle{300};       // for news that explains a failure
  milliseconds grace{1'000};      // between a signal and the next, harder one
  milliseconds stacks{5'000};     // for the ranks' stacks, after a timeout
  milliseconds killed{10'000};    // from SIGKILL until the agent says that all are gone
};

class Job {
 public:
  struct Config {
    std::vector<std::string> hosts;  // by rank
    std::string program;             // as messages show it
    std::string debugger{};          // under which `debugged` runs, or all do; empty: none
    std::optional<int> debugged{};
    std::vector<bool> elsewhere{};  // by rank: on another machine, where nobody has looked for the program; empty: none
    std::string silence_advice{};   // what to look at if no word comes from elsewhere; may be empty
    int agents = 1;                 // which will each be done, or lost, in the end
    std::optional<milliseconds> timeout;
    // A rank that fails does not end the job, as long as no other can wait for it: that is, if it had not joined, and
    // none of the others is in dsm_init.
    bool keep_going = false;
    Limits limits{};
  };
  struct Command {
    // Pass a signal to the ranks; end the ranks and all that they started; let the agents tell where the ranks stand.
    enum class Kind { signal, kill, stacks } kind;
    int signo = 0;
  };

  Job(Config config, Time now);

  // ---- what happened ----
  void agent_reached(const std::vector<int>& ranks);  // something has come from the machine where these are to run
  void started(int rank, pid_t pid);
  // `step` is the call that failed ("execve", "chdir" ...), `error` its errno.
  void not_started(int rank, const std::string& step, int error, Time now);
  // `stopped`: the agent had sent this rank a signal on our behalf before. `out_of_memory`: the kernel has ended it.
  void exited(int rank, int wait_status, bool stopped, bool out_of_memory, Time now);
  void joined(int rank, Time now);
  void welcomed(Time now);  // all ranks have joined and were told so
  void reported(int rank, net::Report report, Time now);
  void channel_ended(int rank, Time now);  // the connection of a rank that joined
  // An agent that was at work; `ranks` are its ranks.
  void agent_lost(const std::string& host, const std::vector<int>& ranks, const std::string& how, Time now);
  void stacks_taken(Time now);                   // an agent has answered that command, or cannot be asked
  void agent_failed(std::string why, Time now);  // none could be started on its machine
  void agent_done();  // all of its ranks and their descendants are gone, all output has been handed over
  void interrupted(int signo, Time now);     // somebody sent dsmexec TERM, INT or HUP
  void abort(std::string line, Time now);    // the user wants it to end, now
  void trouble(std::string line, Time now);  // dsmexec itself failed, or a rank must be refused
  // `held_up`: nothing can be read from agents because nobody reads our output.
  void tick(Time now, bool held_up = false);

  // ---- what follows ----
  [[nodiscard]] std::vector<Command> take_commands();
  [[nodiscard]] Time next_deadline() const;  // when tick() is due; max() if never
  [[nodiscard]] bool over() const;
  [[nodiscard]] bool runs(int rank) const { return at(rank).started && !at(rank).status; }
  // The job has ended for a reason that does not let it wait for whoever reads our output: a signal, a timeout.
  [[nodiscard]] bool hasty() const { return interrupted_by_ != 0 || timed_out_ || aborted_; }
  [[nodiscard]] int exit_code() const;
  [[nodiscard]] int die_of() const { return interrupted_by_; }  // the signal that ended the job; 0: none
  // Lines for stderr, without "dsmexec: "; empty after a success.
  [[nodiscard]] std::vector<std::string> summary() const;
  [[nodiscard]] std::string status() const;  // one line: what the ranks are at

 private:
  struct Rank {
    pid_t pid = 0;
    bool reached = false, started = false, joined = false, running = false, finalized = false, channel_ended = false;
    bool secondary = false;      // it says that another rank is to blame
    int blames = -1;             // which
    bool stopped = false;        // its end was our doing
    bool out_of_memory = false;  // or the kernel's
    std::optional<int> status;   // as wait(2) has it
    Time judge_at{};             // when its exit is judged even if its connection has not ended
  };
  struct Suspicion {
    enum class Kind { lost, bad, silent } kind;  // connection lost; protocol broken; left us while its process goes on
    int suspect, by;
    Time deadline;
  };
  struct Failure {
    int code = 0;
    int rank = -1;  // whose it is; -1: nobody's
    std::string text;
  };

  [[nodiscard]] Rank& at(int rank) { return ranks_[static_cast<std::size_t>(rank)]; }
  [[nodiscard]] const Rank& at(int rank) const { return ranks_[static_cast<std::size_t>(rank)]; }
  [[nodiscard]] std::string who(int rank) const;  // "rank 2 (host)"
  [[nodiscard]] bool is_elsewhere(int rank) const;
  [[nodiscard]] std::string not_started_in_time() const;
  [[nodiscard]] std::string never_joined(int rank, const std::vector<int>& waiting) const;
  [[nodiscard]] bool failed(const Rank& rank) const;
  [[nodiscard]] bool waiting_to_join() const { return first_join_.has_value() && !welcomed_; }
  template <class Test>
  [[nodiscard]] std::vector<int> ranks_that(Test test) const {
    std::vector<int> out;
    for (std::size_t i = 0; i < ranks_.size(); ++i) {
      if (test(ranks_[i])) out.push_back(static_cast<int>(i));
    }
    return out;
  }
  void fail(Failure failure, Time now);
  void note(Failure failure);  // only the first counts
  void name(Failure failure);  // the one that ends the job
  void stop(int signo, Time now);
  void judge(Time now);
  void judge_exit(int rank, Time now);
  void check_phases(Time now);
  void check_suspicions(Time now);
  void blame(const Suspicion& suspicion, Time now);
  void suspect(Suspicion suspicion);

  Config config_;
  std::vector<Rank> ranks_;
  std::vector<int> to_judge_;  // ranks in the order of their exits
  std::vector<Suspicion> suspicions_;
  std::vector<Command> commands_;
  std::optional<Failure> failure_;
  std::optional<Failure> ended_by_;  // why the job was ended, if that is not the first failure
  std::optional<Time> timeout_at_, start_by_, first_join_, join_by_, mesh_by_, finalize_by_, stacks_by_, term_at_,
      kill_at_, gone_by_;
  int first_joined_rank_ = -1;
  bool welcomed_ = false, stopping_ = false, timed_out_ = false, aborted_ = false, gave_up_ = false;
  int agents_ = 0;   // that are neither done nor lost
  int telling_ = 0;  // of them: have not told yet where their ranks stand
  int interrupted_by_ = 0;
};

}  // namespace dsm::launch
