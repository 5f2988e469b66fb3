#include "dsm/launch/guard.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <exception>

#include "dsm/launch/job.hpp"
#include "dsm/launch/orphan_segments.hpp"
#include "dsm/launch/processes.hpp"
#include "dsm/launch/program.hpp"
#include "dsm/launch/remote.hpp"
#include "dsm/launch/status.hpp"
#include "ipc/error.hpp"
#include "ipc/signals.hpp"
#include "ipc/spawn.hpp"

namespace dsm::launch {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int look_again_ms = 10;  // at /proc, which has no descriptor to wait on
constexpr std::chrono::seconds give_up_after{5};
constexpr std::chrono::milliseconds agent_patience{
    500};  // for an agent whose connection has ended, to end everything itself

pid_t start_agent() {
  ipc::SpawnOptions options;
  options.program = "/proc/self/exe";  // holds even when the file has no name any more
  options.arguments = {"dsmexec", "--agent", "remote"};
  options.new_process_group = true;
  options.parent_death_signal = SIGTERM;
  return ipc::spawn(options);
}

// Its standard output must end with the agent, and not with us. The input, by which we hear of the connection's end,
// may be the same socket (sshd's is): it is to be closed when the agent has ended.
ipc::Fd let_go_of_connection() {
  ipc::Fd input(ipc::check(::fcntl(0, F_DUPFD_CLOEXEC, 3), "dup"));
  const ipc::Fd null(ipc::check(::open("/dev/null", O_RDWR | O_CLOEXEC), "open /dev/null"));
  ipc::check(::dup2(null.get(), 0), "dup2");
  ipc::check(::dup2(null.get(), 1), "dup2");
  return input;
}

// As the shell would go on if nothing lay at our path: nothing has been read or written yet.
[[noreturn]] void make_way_for_copy(const std::string& hash, const CopyScript& copy) {
  ::execlp("sh", "sh", "-c", copy.script.c_str(), "sh", hash.c_str(), copy.size.c_str(), nullptr);
  ipc::throw_errno("exec sh");
}

// The agent's exit code.
int guard(const std::string& hash) {
  const sigset_t signals = ipc::signal_set({SIGCHLD, SIGTERM, SIGINT, SIGHUP});
  ipc::check(::sigprocmask(SIG_BLOCK, &signals, nullptr), "sigprocmask");
  ::signal(SIGPIPE, SIG_IGN);
  become_subreaper();
  ipc::SignalFd heard(signals);
  const std::string ready = ready_line(hash);
  if (ipc::write_full(1, ready.data(), ready.size()) != static_cast<ssize_t>(ready.size())) return 1;
  const pid_t agent = start_agent();
  ipc::Fd connection = let_go_of_connection();

  std::optional<int> status;  // of the agent, as wait(2) has it
  auto give_up_at = Clock::time_point::max();
  auto kill_agent_at = Clock::time_point::max();  // it may be stopped, or hang: then it hears nothing
  for (;;) {
    std::array<pollfd, 2> set = {{{heard.fd(), POLLIN, 0}, {connection ? connection.get() : -1, POLLRDHUP, 0}}};
    const bool waits_for_agent = !status && kill_agent_at != Clock::time_point::max();
    if (::poll(set.data(), set.size(), status || waits_for_agent ? look_again_ms : -1) == -1 && errno != EINTR)
      ipc::throw_errno("poll");
    if (set[1].revents != 0) {
      connection.reset();
      kill_agent_at = Clock::now() + agent_patience;
    }
    if (waits_for_agent && Clock::now() >= kill_agent_at) ::kill(agent, SIGKILL);
    signalfd_siginfo info{};
    while (heard.read(info)) {
      if (info.ssi_signo != SIGCHLD && !status) ::kill(agent, SIGTERM);
    }
    for (const ipc::ChildExit& exit : ipc::reap_children()) {
      if (exit.pid != agent) continue;
      status = exit.status;
      connection.reset();
      give_up_at = Clock::now() + give_up_after;
    }
    if (status && (signal_descendants(::getpid(), SIGKILL) == 0 || Clock::now() >= give_up_at)) break;
  }
  remove_orphan_segments();
  return code_of(*status);  // 128 + signal: ssh and srun pass on no more than a number
}

}  // namespace

int guard_main(const std::string& hash, const std::optional<CopyScript>& copy) {
  try {
    if (copy && own_identity() != hash) make_way_for_copy(hash, *copy);
    const int code = guard(hash);
    return code >= exit_trouble && code <= exit_not_found ? 1 : code;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "dsmexec: guard: %s\n", error.what());
    return 1;
  }
}

}  // namespace dsm::launch
