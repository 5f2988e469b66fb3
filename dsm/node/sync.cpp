// The thread that waits for other threads: locks, condition variables, semaphores, the barrier.
#include "dsm/node/node.hpp"

namespace dsm::node {

using core::Result;
using telemetry::Counters;
using telemetry::RankState;

// Not gettid(2): the kernel gives the number of a thread that has ended to another one, which would then hold its locks.
core::Thread Node::this_thread() noexcept {
  static std::atomic<core::Thread> last{0};
  thread_local const core::Thread mine = last.fetch_add(1, std::memory_order_relaxed) + 1;
  return mine;
}

template <class Begin>
Result Node::wait_for_sync(RankState state, std::uint64_t on, Errand& errand, const Begin& begin_with) noexcept {
  publisher_.begin_wait(state, on);
  begin(errand, [&] {
    Seat& seat = seats_[errand.self];
    seat.gate.close();
    seat.asking = seat.away = false;
    begin_with();
    carry_out_sync(errand);
  });
  see_through(errand);
  publisher_.end_wait();
  return seats_[errand.self].result;
}

// ---- locks ----

int Node::take(core::Key lock, bool attempt, For what) noexcept {
  const core::Thread self = this_thread();
  const Uncancelled uncancelled;
  Errand errand;
  if (!take_place(errand, what)) return EAGAIN;
  bool mine = false;
  const Result result = wait_for_sync(RankState::lock, lock, errand, [&] {
    mine = sync_.holder(lock) == self;
    if (mine) {
      seats_[errand.self].gate.open_for_self();
    } else if (attempt) {
      sync_.step(core::LockTry{lock, errand.self, self, errand.lane}, sync_actions_);
    } else {
      sync_.step(core::LockWant{lock, errand.self, self}, sync_actions_);
    }
  });
  leave_place(errand);
  if (mine) return attempt ? EBUSY : EDEADLK;
  return result == Result::ok ? 0 : result == Result::busy ? EBUSY : ENOLCK;
}

int Node::acquire(core::Key lock) noexcept {
  publisher_.count(&Counters::lock_waits);
  return take(lock, false, For::sync);
}
int Node::try_acquire(core::Key lock) noexcept {
  publisher_.count(&Counters::lock_waits);
  return take(lock, true, For::sync);
}

// Without a seat of its kind, a thread takes one that is kept for faults. It is the only one of this rank to do so, and
// whom it waits for needs only other faults' seats: so nobody waits in a circle.
int Node::acquire_own(core::Key lock) noexcept {
  const int error = take(lock, false, For::sync);
  if (error != EAGAIN) return error;
  last_seat_.lock();
  const int other_error = take(lock, false, For::fault);
  last_seat_.unlock();
  if (other_error == EAGAIN) stuck();  // a peer is lost
  return other_error;
}

int Node::release(core::Key lock) noexcept {
  const core::Thread self = this_thread();
  const Uncancelled uncancelled;
  Errand errand;
  bool mine = false;
  begin(errand, [&] {
    mine = sync_.holder(lock) == self;
    if (!mine) return;
    sync_.step(core::LockFree{lock}, sync_actions_);
    carry_out_sync(errand);
  });
  return mine ? 0 : EPERM;
}

// ---- condition variables ----

int Node::cond_wait(core::Key condition, core::Key lock) noexcept {
  const core::Thread self = this_thread();
  const Uncancelled uncancelled;
  Errand errand;
  if (!take_place(errand, For::sync)) return EAGAIN;
  bool mine = false;
  Result taken = Result::ok;
  wait_for_sync(RankState::lock, condition, errand, [&] {
    mine = sync_.holder(lock) == self;
    if (mine) {
      sync_.step(core::CondWait{condition, errand.self, errand.lane}, sync_actions_);
    } else {
      seats_[errand.self].gate.open_for_self();
    }
  });
  if (mine) {  // it is in the queue: whoever takes the lock now and signals finds it there
    wait_for_sync(RankState::lock, condition, errand, [&] {
      sync_.step(core::CondSleep{errand.self}, sync_actions_);
      sync_.step(core::LockFree{lock}, sync_actions_);
    });
    taken = wait_for_sync(RankState::lock, lock, errand, [&] {
      sync_.step(core::LockWant{lock, errand.self, self}, sync_actions_);
    });
  }
  leave_place(errand);
  if (!mine) return EPERM;
  return taken == Result::ok ? 0 : ENOLCK;
}

int Node::cond_signal(core::Key condition, bool all) noexcept {
  const Uncancelled uncancelled;
  Errand errand;
  begin(errand, [&] {
    sync_.step(core::CondSignal{condition, all}, sync_actions_);
    carry_out_sync(errand);
  });
  return 0;
}

// ---- semaphores ----

namespace {

// Who waits for a post would keep its call lane from the faults of other threads: it asks on the service lane.
template <class Event>
bool waits_long(const Event&) noexcept {
  return false;
}
bool waits_long(const core::SemWait& event) noexcept { return !event.attempt; }

}  // namespace

template <class Event>
int Node::ask(RankState state, core::Key key, Event event, int error) noexcept {
  const Uncancelled uncancelled;
  Errand errand;
  if (!take_place(errand, For::sync)) return EAGAIN;
  event.waiter = errand.self;
  event.lane = waits_long(event) ? core::Lane{0} : errand.lane;
  const Result result = wait_for_sync(state, key, errand, [&] { sync_.step(event, sync_actions_); });
  leave_place(errand);
  return result == Result::ok ? 0 : error;
}

int Node::sem_open(core::Key semaphore, std::uint64_t value) noexcept {
  return ask(RankState::lock, semaphore, core::SemOpen{.key = semaphore, .value = value, .waiter = 0}, ENOSPC);
}
int Node::sem_wait(core::Key semaphore, bool attempt) noexcept {
  return ask(RankState::lock, semaphore, core::SemWait{.key = semaphore, .waiter = 0, .attempt = attempt}, EBUSY);
}
int Node::sem_post(core::Key semaphore) noexcept {
  return ask(RankState::lock, semaphore, core::SemPost{.key = semaphore, .waiter = 0}, 0);
}

// ---- the barrier ----

void Node::note_collective(std::uint64_t argument) noexcept {
  const std::uint64_t mark =
      collective_mark_.load(std::memory_order_relaxed);  // one thread of a rank does what is collective
  collective_mark_.store((mark ^ argument) * 0x100000001b3U + 1, std::memory_order_relaxed);
}

int Node::deal(core::Page first, core::Page count) noexcept {
  if (options_.placement != core::Placement::block) return 0;
  if (!enter_barrier()) return EBUSY;
  Errand errand;
  begin(errand, [&] { core_.deal(first, count); });
  meet();  // only now may somebody ask a home that has not been one before
  return 0;
}

int Node::barrier() noexcept {
  if (!enter_barrier()) return EBUSY;
  meet();
  return 0;
}

bool Node::enter_barrier() noexcept { return !in_barrier_.exchange(true, std::memory_order_acquire); }

void Node::meet() noexcept {
  const Uncancelled uncancelled;
  Errand errand;
  if (!take_place(errand, For::fault)) stuck();  // one thread of a rank: it cannot starve the faults
  publisher_.count(&Counters::barriers);
  wait_for_sync(RankState::barrier, publisher_.counters().barriers.load(std::memory_order_relaxed), errand, [&] {
    sync_.step(core::BarrierArrive{errand.self, errand.lane, collective_mark_.load(std::memory_order_relaxed)},
               sync_actions_);
  });
  leave_place(errand);
  in_barrier_.store(false, std::memory_order_release);
}

}  // namespace dsm::node
