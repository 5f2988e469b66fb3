// watchdog - 6C: starts a dispatcher and a worker, and sees to it that there always is one of each.
//
//   $ build/bin/watchdog --socket s &
//   listening on s
//   worker 29082 started
//   dispatcher 29083 started
//   $ kill -9 29082                                   # a crash
//   worker 29082 was killed by SIGKILL
//   worker 29091 started
//   $ kill -STOP 29083                                # one that hangs
//   dispatcher 29083 was silent, so it was killed
//   dispatcher 29092 started
//   $ build/bin/request --socket s 'to be or not to be'
//   words=6 bytes=18
//
//                          watchdog  <- poll: signalfd, both socketpairs; until the next moment when one is overdue
//      listening socket |  beats ^ | links     beats ^ | links (link.hpp)
//                       v        | v                 | v
//   request ========> dispatcher ==== pipes, segment ==== worker
//
// It does as little as possible, because nobody watches the watchdog: it handles no request and reads nothing from any
// client. The listening socket is its own, and outlives every dispatcher: who connects while there is none waits in the
// backlog. What dies is reaped, and gets a successor and both sides a new link. What it says goes out when somebody
// reads it (outbox.hpp), so a full pipe does not hold it up.
//
// SIGTERM, SIGINT, SIGHUP: the dispatcher ends first, then the worker, then the watchdog. Users end before what they
// use: the dispatcher takes in work and hands it to the worker, so the other way round requests would still be let in
// with nobody there to do them; and the parent comes last, because only it can reap. If it is killed (SIGKILL), the
// kernel kills both (PR_SET_PDEATHSIG); the socket's path stays, and the next one to listen there replaces it.
// Man pages: unix(7), socketpair(2), signalfd(2), poll(2), waitpid(2), prctl(2).
#include "ipc/watchdog.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "beside.hpp"
#include "ipc/error.hpp"
#include "ipc/program.hpp"
#include "ipc/signals.hpp"
#include "ipc/socket.hpp"
#include "ipc/spawn.hpp"
#include "link.hpp"
#include "outbox.hpp"
#include "record.hpp"

namespace {

using ipc::BeatClock;

struct Settings {
  std::string socket, worker;
  std::int64_t beat_ms = 200;
  int max_restarts = 5;
};

class Watchdog {
 public:
  explicit Watchdog(const Settings& settings)
      : settings_(settings),
        stop_mask_(signals_of_interest()),
        signals_(signals_of_interest()),
        listener_(settings.socket, SOCK_STREAM, backlog),
        worker_("worker", ipc::Milliseconds(settings.beat_ms), settings.max_restarts),
        dispatcher_("dispatcher", ipc::Milliseconds(settings.beat_ms), settings.max_restarts) {
    ipc::set_nonblocking(listener_.fd());
    tell("listening on " + settings.socket);
  }

  [[noreturn]] void run() {
    for (;;) {
      for (ipc::Supervised* child : both()) look_after(*child);
      start_who_is_due();
      wait();
      outbox_.flush();
      for (signalfd_siginfo signal{}; signals_.read(signal);) {
        if (signal.ssi_signo != SIGCHLD) stop(static_cast<int>(signal.ssi_signo));
      }
    }
  }

 private:
  static constexpr int backlog = 128;               // who may wait while there is no dispatcher
  static constexpr std::size_t outbox_size = 1000;  // lines

  // SIGCHLD only wakes us: one may stand for several deaths, and look() asks the kernel itself.
  static sigset_t signals_of_interest() {
    sigset_t set = ipc::stop_signals();
    sigaddset(&set, SIGCHLD);
    return set;
  }

  std::array<ipc::Supervised*, 2> both() { return {&worker_, &dispatcher_}; }

  static std::string title(const ipc::Supervised& child, pid_t pid) { return child.name() + " " + std::to_string(pid); }

  void tell(const std::string& line) {
    outbox_.put(line);
    outbox_.flush();
  }

  void look_after(ipc::Supervised& child) {
    const pid_t pid = child.pid();
    const auto ended = child.look(BeatClock::now());
    if (!ended) return;
    tell(title(child, pid) + " " + *ended);
    give_up_if_hopeless(child, *ended);
  }

  void give_up_if_hopeless(const ipc::Supervised& child, const std::string& what_it_did) const {
    if (child.next_step()) return;
    throw std::runtime_error("giving up: the " + child.name() + " died at its start " +
                             std::to_string(settings_.max_restarts + 1) + " times in a row; at last it " + what_it_did);
  }

  // False: not now. The machine may be full for a moment, and a watchdog that dies of that is none: what could not be
  // started counts as dead at its start. A program that is not there will not come by waiting: that error ends us.
  bool start(ipc::Supervised& child) {
    const std::string why_not = try_to_start(child);
    if (why_not.empty()) {
      tell(title(child, child.pid()) + " started");
      return true;
    }
    tell(child.name() + " could not be started: " + why_not);
    give_up_if_hopeless(child, "could not be started: " + why_not);
    return false;
  }
  std::string try_to_start(ipc::Supervised& child) {
    try {
      child.start(&child == &worker_ ? worker_options(settings_.worker, settings_.beat_ms) : dispatcher_options());
    } catch (const ipc::SpawnError& failure) {
      if (!is_full(failure.error)) throw;
      return failure.what();
    } catch (const std::system_error& failure) {
      return failure.what();
    }
    return {};
  }
  static bool is_full(int error) { return error == EAGAIN || error == ENOMEM || error == EMFILE || error == ENFILE; }

  void start_who_is_due() {
    //@ solution 06.start_due
    std::vector<ipc::Supervised*> started;
    for (ipc::Supervised* child : both()) {
      if (child->is_running() || *child->next_step() > BeatClock::now()) continue;
      if (start(*child)) started.push_back(child);
    }
    if (started.empty()) return;
    try {
      NewLink made = make_link();
      for (ipc::Supervised* child : both()) {
        const Link& side = child == &worker_ ? made.worker : made.dispatcher;
        // Who does not even take a link is killed; look() then finds it dead.
        if (child->is_running() && !send_link(child->control(), side, made.segment.id())) ::kill(child->pid(), SIGKILL);
      }
      segment_ = std::move(made.segment);  // the pipe ends are closed here, and the former segment goes
    } catch (const std::system_error& failure) {
      // Full for a moment, here too: without a link they are of no use, so it is as if they had not come up.
      tell(std::string("no link: ") + failure.what());
      for (const ipc::Supervised* child : started) ::kill(child->pid(), SIGKILL);
    }
    //@ starter
    // TODO 06.start_due: start() who does not run and is due. If anybody was started, make a new link and send each
    // side what is its own. Why does the one that went on running get a new one too? Who closes which descriptors, and
    // when? And what if there is no room for a link just now?
    //| for (ipc::Supervised* child : both()) {
    //|   if (!child->is_running()) throw std::runtime_error("cannot start the " + child->name() + " yet");
    //| }
    //| static_cast<void>(&Watchdog::start), static_cast<void>(segment_);
    //@ end
  }

  [[nodiscard]] ipc::SpawnOptions dispatcher_options() const {
    ipc::SpawnOptions options;
    options.arguments = {program_beside("dispatcher"), "--supervised", "--beat-ms", std::to_string(settings_.beat_ms)};
    options.descriptors = {{listener_.fd(), listening_fd}};
    return options;
  }

  // Until somebody beats, dies, tells us to stop, reads what we said, or there is something to do: somebody is overdue,
  // or may be started.
  void wait() {
    const auto next = std::min(*worker_.next_step(), *dispatcher_.next_step());
    std::array<pollfd, 4> set{{{signals_.fd(), POLLIN, 0}, {outbox_.waiting_for(), POLLOUT, 0}}};
    set[2] = {worker_.control(), POLLIN, 0}, set[3] = {dispatcher_.control(), POLLIN, 0};
    const int timeout_ms = ipc::milliseconds_until(next, BeatClock::now());
    if (::poll(set.data(), set.size(), timeout_ms) == -1 && errno != EINTR) ipc::throw_errno("poll");
  }

  [[noreturn]] void stop(int signo) {
    for (ipc::Supervised* child : {&dispatcher_, &worker_}) {
      if (!child->is_running()) continue;
      const pid_t pid = child->pid();
      child->end();
      outbox_.put(title(*child, pid) + " ended");
    }
    outbox_.flush();  // what nobody reads now stays unsaid
    throw ipc::Stopped{signo};
  }

  Settings settings_;
  Outbox outbox_{STDOUT_FILENO, "standard output", outbox_size};
  ipc::ScopedMask stop_mask_;
  ipc::SignalFd signals_;
  // Destroyed from the last to the first, also if we give up: dispatcher, worker, segment, socket.
  ipc::UnixListener listener_;
  std::optional<ipc::SysvSegment> segment_;
  ipc::Supervised worker_, dispatcher_;
};

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  ipc::Program about{"watchdog [options]: starts dispatcher and worker, and starts them again when they crash or hang",
                     ipc::po::options_description("options")};
  add_socket_path(about.options, settings.socket);
  add_worker(about.options, settings.worker);
  ipc::add_number<std::int64_t>(about.options, "beat-ms", settings.beat_ms, 20, 3'600'000,
                                "from beat to beat; who is silent for two and a half is dead");
  ipc::add_number(about.options, "max-restarts", settings.max_restarts, 0, 1'000'000,
                  "give up after so many restarts in a row of what dies at its start");
  return ipc::run_program(argc, argv, about, [&](const auto&) -> int { Watchdog(settings).run(); });
}
