// pipeline - 4D: runs `A | B` as a shell does, and returns B's exit code.
//
//   $ build/bin/pipeline 'ls' 'less'
//   $ build/bin/pipeline 'yes' 'head -1'                  B ends early: A gets SIGPIPE
//   $ build/bin/pipeline --tag 'ls /none' 'wc -l'         whole lines with their origin, as dsmexec shows them
//   $ build/bin/pipeline 'echo x' 'exit 3'; echo $?       3
//
// Plain words are executed as they are. Everything else (quotes, $variables, redirections, `exit 3`) is given to `sh -c`, as
// popen(3) and system(3) do, and means what it means there; a program that is not there is 127. Both belong to our own
// process group, so that B may use the terminal.
// Man pages: pipe(7), dup2(2), execve(2), prctl(2) on PR_SET_CHILD_SUBREAPER, waitpid(2), poll(2).
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <iterator>
#include <sstream>

#include "ipc/attentive.hpp"
#include "ipc/line_mux.hpp"
#include "ipc/program.hpp"
#include "ipc/signals.hpp"
#include "ipc/spawn.hpp"

namespace {

class Pipeline {
 public:
  explicit Pipeline(bool tagged) : tagged_(tagged) {
    // Whatever A and B start becomes our child when its own parent ends, so that nothing escapes end_all().
    ipc::check(::prctl(PR_SET_CHILD_SUBREAPER, 1), "prctl");
  }
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;
  ~Pipeline() {
    if (!over_) end_all();
  }

  // B's exit code, or 128 + the signal that ended it. As in a shell, it waits for both.
  int run(const std::string& a, const std::string& b) {
    start_both(a, b);
    while (a_ != -1 || b_ != -1 || !lines_.empty()) wait_for_something();
    over_ = true;
    return WIFSIGNALED(status_of_b_) ? 128 + WTERMSIG(status_of_b_) : WEXITSTATUS(status_of_b_);
  }

 private:
  using Clock = std::chrono::steady_clock;
  enum Stream : ipc::LineMux::Token { a_err, b_out, b_err };

  void start_both(const std::string& a, const std::string& b) {
    //@ solution 04.pipeline
    ipc::Pipe between = ipc::make_pipe();
    ipc::SpawnOptions options;
    options.standard_output = between.write.get();
    a_ = start(a, options, -1, a_err);
    between.write.reset();  // now only A can write: B gets end of file when A ends

    options = {};
    options.standard_input = between.read.get();
    b_ = start(b, options, b_out, b_err);
    between.read.reset();  // now only B reads: A gets SIGPIPE when B ends
    //@ starter
    // TODO 04.pipeline: a pipe, A started with its writing end as standard output, B with its reading end as standard
    // input. When may, and when must, we close our own two ends? Try `pipeline yes 'head -1'` with each of them left open.
    //| static_cast<void>(a), static_cast<void>(b);
    //| b_ = start("exit 1", {}, -1, -1);
    //@ end
  }

  // With --tag, what it prints comes to us first, but for what goes to its neighbour (`out` is -1 then).
  pid_t start(const std::string& command, ipc::SpawnOptions options, int out, int err) {
    ipc::Pipe out_pipe, err_pipe;
    if (tagged_ && out != -1) {
      out_pipe = ipc::make_pipe();
      options.standard_output = out_pipe.write.get();
      lines_.add(std::move(out_pipe.read), static_cast<ipc::LineMux::Token>(out));
    }
    if (tagged_ && err != -1) {
      err_pipe = ipc::make_pipe();
      options.standard_error = err_pipe.write.get();
      lines_.add(std::move(err_pipe.read), static_cast<ipc::LineMux::Token>(err));
    }
    return execute(command, options);  // and our copies of the writing ends are closed
  }

  static pid_t execute(const std::string& command, ipc::SpawnOptions& options) {
    options.parent_death_signal = SIGKILL;
    std::istringstream words(command);
    options.arguments = {std::istream_iterator<std::string>(words), {}};
    if (is_plain(command) && !options.arguments.empty()) {
      try {
        return ipc::spawn(options);
      } catch (const ipc::SpawnError& failure) {
        if (failure.step != "execve") throw;  // else: no program, maybe a word that the shell knows
      }
    }
    options.program = "/bin/sh";
    options.arguments = {"sh", "-c", command};
    return ipc::spawn(options);
  }

  // Nothing in it that means something to a shell.
  static bool is_plain(std::string_view command) {
    return command.find_first_not_of(" \tabcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:,+@%") ==
           std::string_view::npos;
  }

  // The one place where we wait while they run: for their lines and for signals.
  void wait_for_something() {
    std::vector<pollfd> wanted{{signals_.fd(), POLLIN, 0}};
    lines_.add_to(wanted);
    if (::poll(wanted.data(), wanted.size(), -1) == -1 && errno != EINTR) ipc::throw_errno("poll");
    if (wanted.front().revents != 0) take_signals();
    lines_.handle(
        wanted, [this](ipc::LineMux::Token stream, std::string_view line, bool) { print(stream, line); },
        [](ipc::LineMux::Token) {});
  }

  void print(ipc::LineMux::Token stream, std::string_view text) {
    static constexpr const char* tags[] = {"[A : stderr] ", "[B : stdout] ", "[B : stderr] "};
    const bool is_out = stream == b_out;
    ipc::write_attentively(is_out ? STDOUT_FILENO : STDERR_FILENO, tags[stream] + std::string(text) + "\n",
                           is_out ? "standard output" : "standard error", signals_.fd(), [this] { take_signals(); });
  }

  void take_signals() {
    signalfd_siginfo signal{};
    while (signals_.read(signal)) {
      if (signal.ssi_signo == SIGCHLD) continue;
      // Ctrl-C at the terminal went to A and B as well. Whether they end of it is their business (less does not).
      if (signal.ssi_signo == SIGINT && signal.ssi_code == SI_KERNEL) continue;
      throw ipc::Stopped{static_cast<int>(signal.ssi_signo)};
    }
    reap();
  }

  void reap() {
    for (const ipc::ChildExit& gone : ipc::reap_children()) {
      if (gone.pid == a_) a_ = -1;
      if (gone.pid == b_) b_ = -1, status_of_b_ = gone.status;
    }
  }

  // Ends and reaps A, B and whatever they have started. Each round ends a generation: its children become ours.
  void end_all() {
    //@ solution 04.end
    const auto patience = Clock::now() + std::chrono::milliseconds(500);  // to put a terminal back in order, say
    for (;;) {
      reap();
      std::vector<pid_t> left = children();
      if (left.empty()) return;
      for (const pid_t pid : left) ::kill(pid, Clock::now() < patience ? SIGTERM : SIGKILL);
      pollfd readable{signals_.fd(), POLLIN, 0};
      ::poll(&readable, 1, 50);  // until SIGCHLD comes, or for a moment
      signalfd_siginfo taken{};
      while (signals_.read(taken)) continue;
    }
    //@ starter
    // TODO 04.end: end and reap what children() lists, until nothing is left. What if one of them ignores SIGTERM?
    //| static_cast<void>(&Pipeline::children);
    //@ end
  }

  // Not yet reaped, so no number of these can have become a stranger's. See proc(5).
  std::vector<pid_t> children() const {
    std::ifstream list("/proc/thread-self/children");
    std::vector<pid_t> result{std::istream_iterator<pid_t>(list), {}};
    for (const pid_t pid : {a_, b_}) {
      if (pid > 0 && std::find(result.begin(), result.end(), pid) == result.end()) result.push_back(pid);
    }
    return result;
  }

  const bool tagged_;
  const sigset_t watched_ = ipc::stop_signals_and({SIGCHLD});
  const ipc::ScopedMask mask_{watched_};  // from before the first spawn(): no SIGCHLD comes unseen
  ipc::SignalFd signals_{watched_};
  ipc::LineMux lines_;
  pid_t a_ = -1, b_ = -1;
  int status_of_b_ = 0;
  bool over_ = false;
};

}  // namespace

int main(int argc, char** argv) {
  ipc::Program about{
      "pipeline CMD_A CMD_B [options]\nRuns CMD_A | CMD_B and returns CMD_B's exit code.", {}, {"CMD_A", "CMD_B"}};
  about.options.add_options()("tag", "show A's errors and all of B's output by lines, each with its origin");
  return ipc::run_program(argc, argv, about, [](const ipc::po::variables_map& values) {
    const auto a = values["CMD_A"].as<std::string>(), b = values["CMD_B"].as<std::string>();
    const auto is_blank = [](const std::string& command) {
      return command.find_first_not_of(" \t\n") == std::string::npos;
    };
    if (is_blank(a) || is_blank(b)) throw ipc::UsageError("an empty command");
    return Pipeline(values.count("tag") != 0).run(a, b);
  });
}
