#include "dsm/launch/guard.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>

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

pid_t start_agent() {
  ipc::SpawnOptions options;
  options.program = "/proc/self/exe";  // holds even when the file has no name any more
  options.arguments = {"dsmexec", "--agent", "remote"};
  options.new_process_group = true;
  options.parent_death_signal = SIGTERM;
  return ipc::spawn(options);
}

// Its standard output must end with the agent, and not with us.
void let_go_of_connection() {
  const ipc::Fd null(ipc::check(::open("/dev/null", O_RDWR | O_CLOEXEC), "open /dev/null"));
  ipc::check(::dup2(null.get(), 0), "dup2");
  ipc::check(::dup2(null.get(), 1), "dup2");
}

// As the shell would go on if nothing lay at our path: nothing has been read or written yet.
[[noreturn]] void make_way_for_copy(const std::string& hash, const CopyScript& copy) {
  ::execlp("sh", "sh", "-c", copy.script.c_str(), "sh", hash.c_str(), copy.size.c_str(), nullptr);
  ipc::throw_errno("exec sh");
}

}  // namespace

int guard_main(const std::string& hash, const std::optional<CopyScript>& copy) {
  if (copy && own_identity() != hash) make_way_for_copy(hash, *copy);
  const sigset_t signals = ipc::signal_set({SIGCHLD, SIGTERM, SIGINT, SIGHUP});
  ipc::check(::sigprocmask(SIG_BLOCK, &signals, nullptr), "sigprocmask");
  ::signal(SIGPIPE, SIG_IGN);
  become_subreaper();
  ipc::SignalFd heard(signals);
  const std::string ready = ready_line(hash);
  if (ipc::write_full(1, ready.data(), ready.size()) != static_cast<ssize_t>(ready.size())) return 1;
  const pid_t agent = start_agent();
  let_go_of_connection();

  std::optional<int> status;  // of the agent, as wait(2) has it
  auto give_up_at = Clock::time_point::max();
  for (;;) {
    pollfd one{heard.fd(), POLLIN, 0};
    if (::poll(&one, 1, status ? look_again_ms : -1) == -1 && errno != EINTR) ipc::throw_errno("poll");
    signalfd_siginfo info{};
    while (heard.read(info)) {
      if (info.ssi_signo != SIGCHLD && !status) ::kill(agent, SIGTERM);
    }
    for (const ipc::ChildExit& exit : ipc::reap_children()) {
      if (exit.pid != agent) continue;
      status = exit.status;
      give_up_at = Clock::now() + give_up_after;
    }
    if (status && (signal_descendants(::getpid(), SIGKILL) == 0 || Clock::now() >= give_up_at)) break;
  }
  remove_orphan_segments();
  return code_of(*status);  // 128 + signal: ssh and srun pass on no more than a number
}

}  // namespace dsm::launch
