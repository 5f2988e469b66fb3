// The thread that waits: one fault from the event to the answer, and what all who wait have in common (sync.cpp: the rest).
#include <signal.h>
#include <time.h>

#include <limits>

#include "dsm/node/node.hpp"

namespace dsm::node {

using telemetry::Counters;
using telemetry::RankState;

core::Micros now_us() noexcept {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<core::Micros>(t.tv_sec) * 1000000U + static_cast<core::Micros>(t.tv_nsec) / 1000U;
}

// ---- a page fault ----

void Node::on_fault(core::Page page, core::Access want, core::Site site) noexcept {
  const Uncancelled uncancelled;
  publisher_.count(want == core::Access::write ? &Counters::write_faults : &Counters::read_faults);
  publisher_.begin_wait(RankState::fault, page);
  Errand errand;
  errand.in_handler = true;
  fetch(errand, page, want, site);
  publisher_.end_wait();
  resume(errand, page, want);
  leave_place(errand);
}

void Node::fetch(Errand& errand, core::Page page, core::Access want, core::Site site) noexcept {
  if (!take_place(errand, For::fault)) stuck();
  begin(errand, [&] {
    Seat& seat = seats_[errand.self];
    seat.page = page;
    seat.asking = seat.away = false;
    core_.step(core::Fault{page, want, errand.self, errand.lane, site, now_us()}, actions_);
    carry_out(errand);
  });
  see_through(errand);
}

// ---- an atomic operation where the page is ----

void Node::find_home(core::Page page) noexcept {
  bool known = false;
  Errand errand;
  begin(errand, [&] { known = core_.home(page) != core::nowhere; });
  if (known) return;
  publisher_.begin_wait(RankState::fault, page);
  fetch(errand, page, core::Access::read, 0);
  publisher_.end_wait();
  resume(errand, page, core::Access::read);
  leave_place(errand);
}

std::uint64_t Node::perform(core::Page page, const core::Atomic& atomic) noexcept {
  const Uncancelled uncancelled;
  if (options_.placement == core::Placement::first_touch) find_home(page);
  Errand errand;
  if (!take_place(errand, For::fault)) stuck();  // it waits for service threads alone, as a fault does
  publisher_.begin_wait(RankState::fault, page);
  begin(errand, [&] {
    Seat& seat = seats_[errand.self];
    seat.asking = seat.away = false;
    core_.step(core::Perform{page, atomic, errand.self, errand.lane, now_us()}, actions_);
    carry_out(errand);
  });
  see_through(errand);
  publisher_.end_wait();
  const std::uint64_t value = seats_[errand.self].value;
  leave_place(errand);
  return value;
}

// The instruction's turn begins: from here on the page must stay for the hold, and no longer.
void Node::resume(Errand& errand, core::Page page, core::Access want) noexcept {
  begin(errand, [&] {
    if (access_[page] < want) return;
    use(page);
    core_.step(core::Resumed{page, now_us()}, actions_);
    carry_out(errand);
  });
}

// The page's grant was not wasted: somebody is here to use it.
void Node::use(core::Page page) noexcept {
  for_each_seat([&](Seat& seat) {
    if (seat.page == page) seat.asking = false;
  });
}

// ---- what all who wait have in common ----

void Node::see_through(Errand& errand) noexcept {
  if (errand.calls != 0) do_calls(errand);
  // Somebody else may need the lane while this thread waits for what another thread, or the service thread, will be told.
  if (errand.lane != 0) lanes_free_.fetch_or(1U << errand.lane, std::memory_order_release);
  errand.lane = 0;
  if (!seats_[errand.self].gate.wait(lost_)) stuck();
}

// Requests first, all of them; then the answers. An answer can make the core ask again (a grant that was revoked before
// it came): then there is one more call to do.
void Node::do_calls(Errand& errand) noexcept {
  while (errand.calls != 0) {
    const std::uint64_t peers = std::exchange(errand.calls, 0);
    for (std::uint64_t left = peers; left != 0; left &= left - 1) {
      const auto peer = static_cast<core::Node>(__builtin_ctzll(left));
      net::Channel& channel = *mesh_.links[peer].calls[errand.lane - 1U];
      if (channel.send(requests_[errand.lane][peer], nullptr) != net::Io::done) {
        declare_lost({core::Abort::Why::peer_lost, peer});
        stuck();
      }
    }
    for (std::uint64_t left = peers; left != 0; left &= left - 1) {
      await_answer(static_cast<core::Node>(__builtin_ctzll(left)), errand);
    }
  }
}

// In both kinds of message an answer's number follows its question's (for the other kind sync.hpp says so).
static_assert(static_cast<int>(core::Message::Kind::grant) == static_cast<int>(core::Message::Kind::want) + 1 &&
              static_cast<int>(core::Message::Kind::recalled) == static_cast<int>(core::Message::Kind::recall) + 1 &&
              static_cast<int>(core::Message::Kind::invalidated) ==
                  static_cast<int>(core::Message::Kind::invalidate) + 1 &&
              static_cast<int>(core::Message::Kind::performed) == static_cast<int>(core::Message::Kind::perform) + 1 &&
              static_cast<int>(core::Message::Kind::located) == static_cast<int>(core::Message::Kind::locate) + 1);

void Node::await_answer(core::Node peer, Errand& errand) noexcept {
  using Op = core::Message::Kind;
  net::Channel& channel = *mesh_.links[peer].calls[errand.lane - 1U];
  const net::FrameHeader asked = requests_[errand.lane][peer];
  const auto op = static_cast<Op>(asked.op);
  const bool coherence = asked.kind == static_cast<std::uint8_t>(net::FrameKind::coherence);
  const bool page_expected = coherence && (op == Op::want || op == Op::recall);
  net::FrameHeader answer{};
  // Straight into the frame: until the answer has been judged nobody looks at it, because the page is not here. (When it is
  // here for reading, and this is an upgrade, the home sends no page; or it sends one because the copy has gone.)
  const net::Io io =
      page_expected ? channel.receive_into(answer, pager_->frame(asked.page), options_.page_size, options_.patience)
                    : channel.receive_header(answer, options_.patience);
  if (io == net::Io::closed) {
    declare_lost({core::Abort::Why::peer_lost, peer});
    stuck();
  }
  errand.in_place = true;
  const bool fits = io == net::Io::done && answer.kind == asked.kind && answer.op == asked.op + 1 &&
                    answer.page == asked.page &&
                    (answer.length == 0 || (page_expected && answer.length == options_.page_size));
  const Undisturbed undisturbed(*this, errand);
  const bool understood = fits && (coherence ? receive_coherence(peer, errand.lane, answer, errand)
                                             : receive_sync(peer, errand.lane, answer, errand));
  if (!understood) {
    declare_lost({core::Abort::Why::bad_message, peer});
    stuck();
  }
  send_off(errand);
}

bool Node::receive_coherence(core::Node from, core::Lane lane, const net::FrameHeader& header,
                             Errand& errand) noexcept {
  core::Message message;
  if (!net::decode(header, options_.page_size, message)) return false;
  publisher_.count(&Counters::bytes_in, sizeof header + header.length);
  if (message.kind == core::Message::Kind::grant) publisher_.count(&Counters::grants);
  lock_.lock();
  if (message.kind == core::Message::Kind::invalidated) withdraw_grants(from, message.page);
  core_.step(core::Received{from, lane, message, now_us()}, actions_);
  carry_out(errand);
  lock_.unlock();
  return true;
}

bool Node::receive_sync(core::Node from, core::Lane lane, const net::FrameHeader& header, Errand& errand) noexcept {
  core::SyncMessage message;
  if (!net::decode(header, message)) return false;
  publisher_.count(&Counters::bytes_in, sizeof header + header.length);
  lock_.lock();
  sync_.step(core::SyncReceived{from, lane, message}, sync_actions_);
  carry_out_sync(errand);
  lock_.unlock();
  return true;
}

bool Node::take_place(Errand& errand, For what) noexcept {
  for (;;) {
    const std::uint32_t left = seats_left_.load(std::memory_order_acquire);
    for (std::size_t word = what == For::sync ? 1 : 0; word < seats_free_.size(); ++word) {
      std::uint64_t free = seats_free_[word].load(std::memory_order_relaxed);
      while (free != 0) {
        const std::uint64_t lowest = free & (~free + 1);
        if (!seats_free_[word].compare_exchange_weak(free, free & ~lowest, std::memory_order_acquire)) continue;
        errand.self = static_cast<core::Waiter>(word * 64 + static_cast<std::size_t>(__builtin_ctzll(lowest)));
        seats_[errand.self].gate.close();
        std::uint32_t lanes = lanes_free_.load(std::memory_order_relaxed);
        while (lanes != 0 &&
               !lanes_free_.compare_exchange_weak(lanes, lanes & (lanes - 1), std::memory_order_acquire)) {
        }
        errand.lane = lanes == 0 ? core::Lane{0} : static_cast<core::Lane>(__builtin_ctz(lanes));
        return true;
      }
    }
    if (what == For::sync || lost_.load(std::memory_order_acquire)) return false;
    futex_wait(seats_left_, left);  // more threads wait than there are seats: until one leaves
  }
}

void Node::leave_place(Errand& errand) noexcept {
  const std::size_t word = errand.self / 64U;
  const std::uint64_t before =
      seats_free_[word].fetch_or(std::uint64_t{1} << (errand.self % 64U), std::memory_order_release);
  if (before != 0) return;  // somebody who found no seat found this word empty, and was woken when it became less so
  seats_left_.fetch_add(1, std::memory_order_release);
  futex_wake(seats_left_, std::numeric_limits<int>::max());
}

// A peer is gone. This rank is not the first failure, and must not look like it: it has told the coordinator, and waits to
// be ended; open to the signals that end a process, even inside the handler.
void Node::stuck() noexcept {
  publisher_.set_state(RankState::lost);
  sigset_t closed = all_signals_;
  for (const int signo : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGABRT, SIGSEGV}) ::sigdelset(&closed, signo);
  for (;;) ::sigsuspend(&closed);
}

}  // namespace dsm::node
