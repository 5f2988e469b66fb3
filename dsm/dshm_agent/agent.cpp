#include "dsm/dshm_agent/agent.hpp"

#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "ipc/error.hpp"
#include "ipc/socket.hpp"

namespace dsm::dshm_agent {
namespace {

constexpr std::int64_t second_ns = 1'000'000'000;
constexpr std::int64_t nobody_came_ns = 10 * second_ns;
constexpr std::int64_t close_patience_ns = 2 * second_ns;
constexpr std::int64_t last_words_ns = second_ns / 4;  // for processes to say that it is over
constexpr int letters_a_turn = 64;                     // of one connection: then others are heard, too
constexpr std::size_t fresh_max = 512;                 // connections whose process has said nothing yet
constexpr unsigned source_shift = 56;

sigset_t take_signals() {
  const sigset_t set = ipc::signal_set({SIGTERM, SIGINT});
  ipc::check(::sigprocmask(SIG_BLOCK, &set, nullptr), "sigprocmask");
  return set;
}

void drain(int fd) {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(fd, &count, sizeof count);  // EAGAIN: it was set anew meanwhile
}

}  // namespace

Agent::Agent(ipc::Fd listener, Upstream upstream)
    : signals_(take_signals()),
      listener_(std::move(listener)),
      upstream_(std::move(upstream)),
      epoll_(ipc::check(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")),
      exits_(ipc::check(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")),
      timer_(ipc::check(::timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK), "timerfd_create")),
      next_beat_ns_(boot_ns()),
      next_probe_ns_(boot_ns() + second_ns),
      alone_until_ns_(boot_ns() + nobody_came_ns) {
  lease_.heard(upstream_.greeted_ns());
  ipc::set_nonblocking(listener_.get());
  ask_for_senders(listener_.get());
  watch(signals_.fd(), Source::signals, 0);
  watch(timer_.get(), Source::timer, 0);
  watch(listener_.get(), Source::listener, 0);
  watch(upstream_.fd(), Source::upstream, 0);
  watch(exits_.get(), Source::exits, 0);
  watch(closer_.closed(), Source::closed, 0);
}

void Agent::watch(int fd, Source source, std::uint64_t number, std::uint32_t events, int operation) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = static_cast<std::uint64_t>(source) << source_shift | number;
  ipc::check(::epoll_ctl(epoll_.get(), operation, fd, &event), "epoll_ctl");
}

// Not left to close(2): what a process has a descriptor of, too, stays in the set as long as that is open.
void Agent::unwatch(int fd) { ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr); }

void Agent::run() {
  while (!ending_) {
    turn();
    // Whoever has just connected is not left alone: it is found in the backlog.
    if (has_nobody() && !ending_) {
      accept_all();
      ending_ = has_nobody();
    }
  }
  listener_.reset();
  if (!over_) upstream_.close(close_patience_ns);
}

bool Agent::has_nobody() {
  if (!processes_.empty() || !connections_.empty()) return false;
  return over_ || next_process_ > 1 || boot_ns() >= alone_until_ns_;
}

// The lease comes first: after a stop (SIGSTOP, a machine that slept) nothing may be handed out that is ours no more.
void Agent::turn() {
  flush_dsmd();
  arm_timer();
  std::array<epoll_event, 64> events{};
  const int ready = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
  if (ready < 0 && errno != EINTR) ipc::throw_errno("epoll_wait");
  if (!over_ && boot_ns() >= lease_.until_ns()) dsmd_has_gone();
  for (int i = 0; i < ready && !ending_; ++i) dispatch(events[static_cast<std::size_t>(i)]);
  if (ending_) return;
  on_time();
  send_away();
}

// What an event is about may have gone by an earlier one of the same turn: so it is looked up, by numbers that are
// never used twice.
void Agent::dispatch(const epoll_event& event) {
  const std::uint64_t number = event.data.u64 & ((std::uint64_t{1} << source_shift) - 1);
  switch (static_cast<Source>(event.data.u64 >> source_shift)) {
    case Source::listener:
      return accept_all();
    case Source::signals:
      for (signalfd_siginfo info{}; signals_.read(info);) ending_ = true;
      if (ending_) retire();
      return;
    case Source::timer:
      armed_ns_ = 0;
      return drain(timer_.get());
    case Source::upstream:
      return hear_dsmd();
    case Source::connection:
      if (const auto at = connections_.find(number); at != connections_.end() && (event.events & EPOLLOUT) != 0) {
        if (const auto process = processes_.find(at->second.process); process != processes_.end()) {
          send_orders(process->second);
        }
      }
      return hear(number);
    case Source::exits:
      return end_exited();
    case Source::faults:
      if ((event.events & EPOLLERR) == 0) return read_faults(number);
      // Before Linux 6.10 reading would wait: its process is sent away at the end of this turn.
      if (const auto at = processes_.find(number); at != processes_.end() && at->second.userfault) {
        at->second.userfault->is_blocking();
      }
      return;
    case Source::closed:
      drain(closer_.closed());
      return listen_again();
  }
}

// ---- time -----------------------------------------------------------------------------------------------------------

void Agent::arm_timer() {
  std::int64_t next = next_probe_ns_;
  if (!over_) next = std::min({next, next_beat_ns_, lease_.until_ns()});
  if (next_process_ == 1) next = std::min(next, alone_until_ns_);
  if (expire_at_ns_) next = std::min(next, *expire_at_ns_);
  for (const auto& [id, segment] : segments_) {
    const auto due = over_ ? std::nullopt : segment->hosted().deadline();
    if (due) next = std::min(next, static_cast<std::int64_t>(*due) * 1000);
  }
  next = std::max<std::int64_t>(next, 1);  // 0 would disarm it
  if (next == std::exchange(armed_ns_, next)) return;
  const itimerspec when{{}, {next / second_ns, next % second_ns}};
  ipc::check(::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr), "timerfd_settime");
}

void Agent::on_time() {
  const std::int64_t now = boot_ns();
  if (!over_ && now >= next_beat_ns_) {
    next_beat_ns_ = now + beat_ns;
    sysv::Question beat;
    beat.call = sysv::Call::beat;
    beat.size = static_cast<std::uint64_t>(now);
    beat.request = new_request();
    pending_.emplace(beat.request, Pending{.call = sysv::Call::beat});
    // Not behind the pages of a segment that is given up: the lease must not end while they go.
    upstream_.send_first(beat);
  }
  if (now >= next_probe_ns_) {
    next_probe_ns_ = now + second_ns;
    probe();
    listen_again();
  }
  if (expire_at_ns_ && now >= *expire_at_ns_) expire_all();
  if (over_) return;
  for (auto& [id, segment] : segments_) segment->hosted().tick(static_cast<Micros>(now / 1000));
}

// ---- connections ----------------------------------------------------------------------------------------------------

// Where there are no descriptors left, those who wait wait until there are: and nobody looks at the listener, which
// would be ready all the time.
void Agent::accept_all() {
  while (listener_ && listening_) {
    ipc::Fd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (fd) {
      if (admits(fd.get())) {
        add_connection(std::move(fd));
      } else {
        closer_.close(std::move(fd));
      }
      continue;
    }
    if (errno == EINTR || errno == ECONNABORTED) continue;
    if (errno == EAGAIN) return;
    unwatch(listener_.get());
    listening_ = false;
  }
}

// With nobody left in the queue, so that no more than a name is closed.
void Agent::stop_listening() {
  unwatch(listener_.get());
  while (ipc::Fd fd{::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)}) closer_.close(std::move(fd));
  listener_.reset();
}

void Agent::listen_again() {
  if (listener_ && !std::exchange(listening_, true)) watch(listener_.get(), Source::listener, 0);
}

// This user's processes, and root's; and those that are served already, and have become another user since.
bool Agent::admits(int fd) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
  return peer.uid == ::geteuid() || peer.uid == 0 || process_of(peer.pid) != nullptr;
}

void Agent::add_connection(ipc::Fd fd) {
  ask_for_senders(fd.get());
  const ConnectionId id = next_connection_++;
  watch(fd.get(), Source::connection, id);
  Connection connection;
  connection.id = id;
  connection.fd = std::move(fd);
  connections_.emplace(id, std::move(connection));
  fresh_.insert(id);
  if (fresh_.size() <= fresh_max) return;
  const ConnectionId oldest = *fresh_.begin();
  hear(oldest);  // many may have come at once, and have spoken
  if (fresh_.contains(oldest)) drop(oldest);
}

void Agent::hear(ConnectionId id) {
  for (int i = 0; i < letters_a_turn; ++i) {
    const auto at = connections_.find(id);
    if (at == connections_.end()) return;
    Letter letter;
    const Post post = receive(at->second.fd.get(), letter);
    if (post == Post::later) return;
    if (at->second.role == Connection::Role::call) {
      end_exited();  // whoever has waited for a process's end sees what came of it
      if (!connections_.contains(id)) return;
    }
    const bool well = post != Post::ended && understands(at->second, letter);
    closer_.close(std::move(letter.descriptor));
    for (ipc::Fd& one : letter.surplus) closer_.close(std::move(one));
    if (!well) return drop(id);
  }
}

// What one process says ends its connection, and not the agent: a frame that grows too long by what is added to it, a
// descriptor that is none of a socket.
bool Agent::understands(Connection& connection, Letter& letter) {
  try {
    return take(connection, letter);
  } catch (const std::exception&) {
    return false;
  }
}

void Agent::drop(ConnectionId id) {
  auto node = connections_.extract(id);
  if (node.empty()) return;
  fresh_.erase(id);
  Connection& gone = node.mapped();
  unwatch(gone.fd.get());
  ::shutdown(gone.fd.get(), SHUT_RDWR);
  closer_.close(std::move(gone.fd));
  if (const auto pending = pending_.find(gone.request); pending != pending_.end()) {
    on_cancel(gone);
    pending->second.connection = 0;
  }
  const auto process = processes_.find(gone.process);
  if (gone.role != Connection::Role::service || process == processes_.end()) return;
  if (process->second.service != id) return;
  process->second.service = 0;
  process->second.unsent.clear();
  if (!process->second.pidfd) return exited(gone.process);  // a child that never was, or ended at once
  if (!is_still_there(process->second)) executed(process->second);
}

// ---- dsmd -----------------------------------------------------------------------------------------------------------

void Agent::to_dsmd(const sysv::Frame& frame) {
  if (!over_) upstream_.send(frame);
}

void Agent::flush_dsmd() {
  if (over_) return;
  if (!upstream_.flush()) return dsmd_has_gone();
  const bool wants = upstream_.wants_output();
  if (wants == std::exchange(watching_output_, wants)) return;
  watch(upstream_.fd(), Source::upstream, 0, wants ? EPOLLIN | EPOLLOUT : EPOLLIN, EPOLL_CTL_MOD);
}

void Agent::hear_dsmd() {
  while (!over_) {
    sysv::Frame frame;
    const Upstream::Heard heard = upstream_.receive(frame);
    if (heard == Upstream::Heard::nothing) return;
    if (heard == Upstream::Heard::ended || !take(frame)) return dsmd_has_gone();
  }
}

bool Agent::take(sysv::Frame& frame) {
  if (auto* answer = std::get_if<sysv::Answer>(&frame)) {
    answered(std::move(*answer));
    return true;
  }
  const auto* page = std::get_if<sysv::PageFrame>(&frame);
  if (page == nullptr || page->last) return false;
  for (auto& [id, segment] : segments_) {
    if (segment->tenure() != page->tenure) continue;
    return segment->hosted().received(page->message, page->bytes, static_cast<Micros>(boot_ns() / 1000));
  }
  return true;  // of a tenure that has ended
}

// The end of everything here. Processes are told, and put something empty over what they have attached, after a line on
// stderr. They are given a moment for that; then those that have not done it (they are stopped, or slow) find their
// segments empty, too. The moment is part of the margin: dsmd has not given our pages to others before it is over.
// Later calls get EIDRM. The name is free from now on: programs that begin later have an agent of their own, if dsmd is
// there again.
void Agent::dsmd_has_gone() {
  if (std::exchange(over_, true)) return;
  unwatch(upstream_.fd());
  stop_listening();
  expire_at_ns_ = std::min(boot_ns() + last_words_ns, lease_.until_ns() + margin_ns / 2);
  tell_all_it_is_over();
  for (auto& [request, pending] : std::exchange(pending_, {})) {
    if (pending.call == sysv::Call::local_fork) exited(pending.child);
    const auto at = connections_.find(pending.connection);
    if (at == connections_.end()) continue;
    at->second.request = 0;
    tell(at->second, {.request = pending.request, .error = EIDRM});
  }
}

void Agent::tell_all_it_is_over() {
  lease_.end();
  for (auto& [number, process] : processes_) order(process, {.kind = Order::Kind::over});
}

void Agent::expire_all() {
  expire_at_ns_.reset();
  for (auto& [id, segment] : segments_) segment->expire();
  for (const auto& [number, address] : std::exchange(sleepers_, {})) {
    const auto process = processes_.find(number);
    if (process != processes_.end() && process->second.userfault) process->second.userfault->wake(address);
  }
}

// Told to end while there are processes: what they have written goes home, and they lose their segments.
void Agent::retire() {
  if (over_) return;
  lease_.end();
  for (auto& [id, segment] : segments_) {
    segment->freeze();
    segment->say_last();
    closed_.push_back(segment->tenure());
  }
  for (auto& [number, process] : processes_) {
    sysv::Question exit;
    exit.call = sysv::Call::exit;
    exit.process = number;
    exit.caller = process.caller;
    to_dsmd(exit);
  }
  leave_closed();
  tell_all_it_is_over();
  expire_all();
}

}  // namespace dsm::dshm_agent
