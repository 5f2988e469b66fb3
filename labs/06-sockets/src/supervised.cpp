// The child of ipc/watchdog.hpp: started, watched, ended, reaped.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <stdexcept>

#include "ipc/child.hpp"
#include "ipc/error.hpp"
#include "ipc/watchdog.hpp"

namespace ipc {

void Supervised::start(SpawnOptions options) {
  //@ solution 06.start
  policy_.started(BeatClock::now());  // whether it succeeds or not: a failure is not repeated in a tight loop either
  std::array<int, 2> ends{};
  check(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), "socketpair");
  Fd ours(ends[0]);
  const Fd theirs(ends[1]);  // closed when we leave: a copy here would hide the end of file
  options.descriptors.emplace_back(theirs.get(), control_fd);
  options.new_process_group = true;
  options.parent_death_signal = SIGKILL;
  pid_ = spawn(options);
  control_ = std::move(ours);
  monitor_.emplace(control_.get(), silence_limit(beat_), BeatClock::now());
  //@ starter
  // TODO 06.start: a socketpair, one end for us, the other for the child as control_fd; then spawn(). Who must not hold
  // which end any more when it runs?
  //| static_cast<void>(options);
  //| throw std::system_error(ENOSYS, std::generic_category(), "Supervised::start");
  //@ end
}

// waitpid(2) for our child only: others may have children of their own in this program.
int Supervised::reap(int flags) noexcept {
  int result = 0;
  while ((result = ::waitpid(pid_, &status_, flags)) == -1 && errno == EINTR) continue;
  return result;
}

std::optional<std::string> Supervised::look(BeatClock::time_point now) {
  if (!is_running()) return std::nullopt;
  //@ solution 06.look
  const auto verdict = monitor_->check(now);
  if (monitor_->beats() > 0) policy_.came_up();
  const bool was_dead = reap(WNOHANG) != 0;
  if (!was_dead && verdict == HeartbeatMonitor::Verdict::alive) return std::nullopt;
  if (!was_dead) {
    // No mercy: a process that hangs does not hear SIGTERM, and one that is stopped has it pending for ever. For one
    // that is just dying (gone) SIGKILL comes too late to change what it died of.
    ::kill(pid_, SIGKILL);
    reap(0);
  }
  forget();
  const bool was_silent = !was_dead && verdict == HeartbeatMonitor::Verdict::silent;
  return was_silent ? "was silent, so it was killed" : how_it_ended(status_);
  //@ starter
  // TODO 06.look: ask the monitor, and ask the kernel (waitpid, without waiting). If the child is dead or counts as
  // dead: make sure of it, reap it, and say what it died of. Why is SIGTERM not enough for a process that was stopped?
  //| static_cast<void>(now);
  //| return std::nullopt;
  //@ end
}

std::optional<BeatClock::time_point> Supervised::next_step() const {
  return is_running() ? monitor_->deadline() : policy_.next_start();
}

void Supervised::end() noexcept {
  if (!is_running()) return;
  //@ solution 06.end
  ::kill(pid_, SIGTERM);
  // Its end of the socketpair closes when it dies, so this is a wait for its death, with a limit.
  const auto limit = BeatClock::now() + std::min(silence_limit(beat_), farewell);
  for (auto now = BeatClock::now(); now < limit; now = BeatClock::now()) {
    pollfd wait{control_.get(), POLLIN, 0};
    ::poll(&wait, 1, milliseconds_until(limit, now));
    if (monitor_->check(now) == HeartbeatMonitor::Verdict::gone) break;
  }
  // It is dead, or it does not listen; this makes sure, and changes nothing for one that is just dying.
  ::kill(pid_, SIGKILL);
  reap(0);
  //@ starter
  // TODO 06.end: ask it to end, give it some time, then do not ask any more. What is it before you have reaped it?
  //| ::kill(pid_, SIGKILL);
  //| reap(0);
  //@ end
  forget();
}

void Supervised::forget() noexcept {
  pid_ = 0;
  control_.reset();
  monitor_.reset();
}

Fd inherited_socket(int fd, int type) {
  int domain = 0, its_type = 0;
  socklen_t domain_size = sizeof domain, type_size = sizeof its_type;
  if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &domain_size) == -1 ||
      ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &its_type, &type_size) == -1 || domain != AF_UNIX || its_type != type) {
    throw std::runtime_error("descriptor " + std::to_string(fd) +
                             " is not the socket that a watchdog gives: this program is not started by hand");
  }
  check(::fcntl(fd, F_SETFD, FD_CLOEXEC), "fcntl F_SETFD");
  return Fd(fd);
}

}  // namespace ipc
