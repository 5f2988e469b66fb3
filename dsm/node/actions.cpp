// What the cores want done, done: under the lock, in order. And what follows when the lock has been let go.
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <utility>

#include "dsm/node/node.hpp"

namespace dsm::node {

using core::Access;
using telemetry::Counters;

namespace {

// Perhaps on the service thread, while a thread of the program holds stderr's lock: so not by stdio.
[[noreturn]] void end_for(const core::Differ& differ) noexcept {
  std::array<char, 200> line{};
  const int length = std::snprintf(line.data(), line.size(),
                                   "dsm: ranks %d and %d have called dsm_alloc, dsm_broadcast or dsm_reduce with "
                                   "different arguments; all ranks must "
                                   "call them alike\n",
                                   differ.one, differ.other);
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), static_cast<std::size_t>(length));
  std::abort();
}

}  // namespace

void Node::carry_out(Errand& errand) noexcept {
  carry_out_step(errand);
  if (borders_ > borders_max_) shed(errand);
}

void Node::carry_out_step(Errand& errand) noexcept {
  for (const core::Action& action : actions_) {
    if (const auto* send_action = std::get_if<core::Send>(&action)) {
      core::Message m = send_action->msg;
      using Kind = core::Message::Kind;
      if (m.kind == Kind::performed && m.atomic.state == core::Atomic::State::asked) {
        m.atomic.value = perform_now(m.page, m.atomic);
        m.atomic.state = core::Atomic::State::done;
      }
      const bool request = core::is_question(m.kind);
      if (m.kind == Kind::want && errand.self < core::max_waiters) seats_[errand.self].asking = true;
      if (m.kind == Kind::invalidated) publisher_.count(&Counters::invalidations);
      if (m.kind == Kind::recalled) publisher_.count(&Counters::recalls);
      send(send_action->to, send_action->lane, request, net::encode(m, options_.page_size),
           m.carries_page ? pager_->frame(m.page) : nullptr, errand);
      publish(m.page);
    } else if (const auto* install = std::get_if<core::Install>(&action)) {
      if (!errand.in_place) std::memcpy(pager_->frame(install->page), errand.body, options_.page_size);
      publish(install->page);
    } else if (const auto* change = std::get_if<core::Protect>(&action)) {
      protect(change->page, change->allow);
      publish(change->page);
    } else if (const auto* woken = std::get_if<core::Wake>(&action)) {
      wake(woken->who, errand);
    } else if (const auto* performed = std::get_if<core::Performed>(&action)) {
      const core::Atomic& atomic = performed->atomic;
      seats_[performed->who].value =
          atomic.state == core::Atomic::State::asked ? perform_now(performed->page, atomic) : atomic.value;
      wake(performed->who, errand);
    } else if (const auto* timer = std::get_if<core::Timer>(&action)) {
      const itimerspec when{
          {}, {static_cast<time_t>(timer->at / 1000000), static_cast<long>(timer->at % 1000000) * 1000 + 1}};
      ::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr);
    } else if (const auto* abort = std::get_if<core::Abort>(&action)) {
      errand.failed = true;
      errand.failure = *abort;
    }
  }
  actions_.clear();
}

void Node::carry_out_sync(Errand& errand) noexcept {
  for (const core::SyncAction& action : sync_actions_) {
    if (const auto* send_action = std::get_if<core::SyncSend>(&action)) {
      const bool request = core::is_question(send_action->msg.kind);
      send(send_action->to, send_action->lane, request, net::encode(send_action->msg), nullptr, errand);
    } else if (const auto* done = std::get_if<core::Done>(&action)) {
      seats_[done->who].result = done->result;
      wake(done->who, errand);
    } else if (const auto* differ = std::get_if<core::Differ>(&action)) {
      end_for(*differ);
    } else if (const auto* abort = std::get_if<core::Abort>(&action)) {
      errand.failed = true;
      errand.failure = *abort;
    }
  }
  sync_actions_.clear();
}

// A request on a call lane is left to the thread that holds the lane: it is the one that steps the core here, because the
// cores name a call lane for requests only in the step that its own event started. All else goes into a port's queue.
void Node::send(core::Node to, core::Lane lane, bool request, const net::FrameHeader& header, const void* body,
                Errand& errand) noexcept {
  publisher_.count(&Counters::messages);
  publisher_.count(&Counters::bytes_out, sizeof header + header.length);
  if (request && lane != 0) {
    requests_[lane][to] = header;
    errand.calls |= std::uint64_t{1} << to;
    return;
  }
  Port& port = port_to(to, lane);
  port.sending.lock();
  const bool queued = port.channel->queue(header, body);
  port.sending.unlock();
  if (!queued) {  // it asks, and never reads the answers
    errand.failed = true;
    errand.failure = core::Abort{core::Abort::Why::bad_message, to};
  }
  for (std::size_t i = 0; i < errand.port_count; ++i) {
    if (errand.ports[i] == &port) return;
  }
  if (errand.port_count < errand.ports.size()) {
    errand.ports[errand.port_count++] = &port;
  } else {
    errand.all_ports = true;
  }
}

Node::Port& Node::port_to(core::Node peer, core::Lane lane) noexcept {
  const std::size_t lanes = mesh_.welcome.lanes;
  return *ports_[lane == 0 ? peer : static_cast<std::size_t>(ranks_) + peer * lanes + lane - 1U];
}

void Node::withdraw_grants(core::Node peer, core::Page page) noexcept {
  if (page >= options_.pages) return;  // the core will say so
  for (std::uint32_t lane = 0; lane <= mesh_.welcome.lanes; ++lane) {
    Port& port = port_to(peer, static_cast<core::Lane>(lane));
    if (port.channel->queued() == 0) continue;
    port.sending.lock();
    port.channel->withdraw(pager_->frame(page), &nothing_[0]);
    port.sending.unlock();
  }
}

void Node::protect(core::Page page, Access allow) noexcept {
  const Access before = access_[page];
  access_[page] = allow;
  count_borders(page, before, allow);
  publisher_.access_changed(before, allow);
  pager_->protect(page, allow);
  if (allow >= before) return;
  count_waste(page);
}

std::uint64_t Node::perform_now(core::Page page, const core::Atomic& atomic) noexcept {
  auto* const word = reinterpret_cast<std::uint64_t*>(pager_->frame(page)) + atomic.word;
  if (atomic.kind == core::Atomic::Kind::add) return __atomic_fetch_add(word, atomic.value, __ATOMIC_SEQ_CST);
  std::uint64_t held = atomic.expected;
  __atomic_compare_exchange_n(word, &held, atomic.value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  return held;
}

// A grant was wasted if the page leaves before any thread that waited for it is back in the application: whoever comes
// back and finds it here clears `asking` (Node::resume).
void Node::count_waste(core::Page page) noexcept {
  for_each_seat([&](Seat& seat) {
    if (!seat.asking || seat.page != page || !seat.away) return;
    seat.asking = false;
    publisher_.count(&Counters::wasted_grants);
  });
}

void Node::wake(core::Waiter waiter, const Errand& errand) noexcept {
  Seat& seat = seats_[waiter];
  seat.away = true;
  if (waiter == errand.self) {
    seat.gate.open_for_self();
  } else {
    seat.gate.open();
  }
}

void Node::publish(core::Page page) noexcept {
  if (core_.home(page) != mesh_.rank) return;
  const core::View view = core_.view(page);
  publisher_.page(page, view.state, view.owner);
}

void Node::declare_lost(core::Abort why) noexcept {
  if (lost_.exchange(true, std::memory_order_acq_rel)) return;
  tell(
      {why.why == core::Abort::Why::peer_lost ? net::Report::Phase::lost_peer : net::Report::Phase::bad_peer, why.who});
  for (Seat& seat : seats_) seat.gate.nudge();
  seats_left_.fetch_add(1, std::memory_order_release);
  futex_wake(seats_left_, std::numeric_limits<int>::max());
  // Threads that wait for an answer of a rank that is well, and itself waits for the lost one: for them it ends, too. The
  // other end notices nothing.
  for (const net::Link& link : mesh_.links) {
    for (const auto& channel : link.calls) ::shutdown(channel->fd(), SHUT_RD);
  }
}

void Node::send_off(Errand& errand) noexcept {
  for (std::size_t i = 0; i < errand.port_count; ++i) flush(*errand.ports[i]);
  errand.port_count = 0;
  if (std::exchange(errand.all_ports, false)) {
    for (const auto& port : ports_) {
      if (port != nullptr) flush(*port);
    }
  }
  if (std::exchange(errand.failed, false)) declare_lost(errand.failure);
}

void Node::flush(Port& port) noexcept {
  port.sending.lock();
  const net::Io result = port.channel->flush();
  const bool blocked = result == net::Io::again;
  if (blocked != port.watching_output) watch(port, blocked);
  if (result == net::Io::broken) ::shutdown(port.channel->fd(), SHUT_RDWR);  // the service thread will find its end
  port.sending.unlock();
}

void Node::tell(net::Report report) noexcept {
  if (mesh_.coordinator == nullptr) return;
  const ipc::ScopedMask mask(all_signals_);
  telling_.lock();
  net::report(*mesh_.coordinator, report);
  telling_.unlock();
}

}  // namespace dsm::node
