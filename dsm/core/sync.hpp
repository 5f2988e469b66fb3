// dsm/core/sync.hpp - locks, semaphores, condition variables and barriers between nodes: a second core of the same shape as
// coherence.hpp. Events in, actions out; no socket, thread, clock or allocation.
//
// Each object is named by a number, its key, and has a home: node key modulo nodes.
//
// A *lock* is a token that travels. The home knows only who was promised it last, and tells that one who comes next; the
// token then goes directly from hand to hand. It stays where it was last used, and there the next lock costs nothing: after
// J. Mellor-Crummey and M. Scott, "Algorithms for Scalable Synchronization on Shared-Memory Multiprocessors" (1991), with
// nodes in the queue, and each node's threads in a queue of their own. Messages: 0 where the token is; else 2 or 3 to ask
// for it; 1 from one who holds it to the next who waits. A node hands it on when all those of its threads have had it that
// waited when it was told who is next; so neither the node's own threads nor the others can be kept out.
//
// A *semaphore* is a number at its home, and a queue; first come, first served: 2 messages to wait, 2 to post.
// A *condition variable* is a queue at its home. A thread is in it (2 messages) before it lets go of the lock, so that no
// signal falls between the two; a signal is 1 message, and 1 to each thread that it wakes.
// The *barrier* lives at node 0: everybody else sends `arrive` and gets `go`, 2(n-1) messages. By the way it finds out
// whether the ranks have done alike what they must: each brings a mark.
//
// Thread-safety: none; the driver holds one lock around step() and its actions. async-signal-safe: step() yes.
#pragma once
#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

#include "dsm/core/types.hpp"

namespace dsm::core {

using Key = std::uint64_t;
using Thread = std::uint32_t;  // names a thread of this node, from 1; one that has ended shares its name with nobody

struct SyncMessage {
  // clang-format off
  enum class Kind : std::uint8_t {
    // Questions, asked on a call lane if there is one, each followed by its answer.
    barrier_arrive, barrier_go,  // to node 0 (`key`: the mark), and back
    lock_try, lock_tried,        // requester -> home: is it free? If so (`yes`) the token comes with the answer
    sem_open, sem_opened,        // ... -> home: there is to be a semaphore, with this value unless it is there already
    sem_want, sem_grant,         // ... -> home: one less; `attempt`: or `yes` is false, at once
    sem_post, sem_posted,        // ... -> home: one more
    cond_wait, cond_queued,      // ... -> home: this thread waits; it is noted
    // All others travel on service lanes.
    lock_want,                   // requester -> home
    lock_refused,                // home -> requester: no room for another lock
    lock_next,                   // home -> the one who was promised it last: after you it is `node`'s
    lock_token,                  // from hand to hand
    lock_ask, lock_told,         // home -> ... : is it free? If so (`yes`) the token comes with the answer
    cond_signal,                 // ... -> home: wake one; `all`: wake all
    cond_wake,                   // home -> the one who waits
  };
  // clang-format on
  Kind kind{};
  bool yes = false, attempt = false, all = false;
  bool full = false;         // lock_tried: no room for another lock
  Waiter waiter = 0;         // whose
  Node node = 0;             // lock_next
  Key key = 0;               // which lock, semaphore, condition variable; barrier_arrive: the mark
  std::uint64_t number = 0;  // barrier_*: which barrier, counted from 1; sem_open: the value
  friend bool operator==(const SyncMessage&, const SyncMessage&) = default;
};
// Is it answered on the lane on which it came?
[[nodiscard]] constexpr bool is_question(SyncMessage::Kind kind) {
  return kind <= SyncMessage::Kind::cond_queued && static_cast<unsigned>(kind) % 2 == 0;
}

// ---- what happens to a node: each ends with a Done for its waiter, now or later, unless it says otherwise ----
// clang-format off

struct LockWant { Key key; Waiter waiter; Thread thread; };
struct LockTry { Key key; Waiter waiter; Thread thread; Lane lane = 0; };  // Done: busy, if somebody holds it or waits for it
struct LockFree { Key key; };  // no Done. REQUIRES: this node's thread holds it (holder() says so)
struct SemOpen { Key key; std::uint64_t value; Waiter waiter; Lane lane = 0; };
struct SemWait { Key key; Waiter waiter; Lane lane = 0; bool attempt = false; };  // Done: busy, if it is only an attempt
struct SemPost { Key key; Waiter waiter; Lane lane = 0; };
struct CondWait { Key key; Waiter waiter; Lane lane = 0; };  // Done: the thread is in the queue, and lets go of its lock
struct CondSleep { Waiter waiter; };  // after that; Done: it was woken
struct CondSignal { Key key; bool all = false; };  // no Done
// `mark`: of all that the program must have done alike in all ranks; node 0 compares.
struct BarrierArrive { Waiter waiter; Lane lane = 0; std::uint64_t mark = 0; };
struct SyncReceived { Node from; Lane lane; SyncMessage msg; };
// clang-format on
using SyncEvent = std::variant<LockWant, LockTry, LockFree, SemOpen, SemWait, SemPost, CondWait, CondSleep, CondSignal,
                               BarrierArrive, SyncReceived>;

// ---- what the node must then do ----

enum class Result : std::uint8_t { ok, busy, full };  // full: there are as many of these objects as there can be

// clang-format off
struct SyncSend { Node to; Lane lane; SyncMessage msg; };
struct Done { Waiter who; Result result = Result::ok; };
struct Differ { Node one, other; };  // two nodes came to a barrier with different marks; nobody gets past it
// clang-format on
using SyncAction = std::variant<SyncSend, Done, Differ, Abort>;

struct SyncConfig {
  Node self = 0;
  std::uint8_t nodes = 1;
  std::uint16_t waiters = max_waiters;  // threads of one node that may wait at one time
  std::uint32_t locks = 1U << 20U;      // that are held, wanted, or kept where they were last used, at one node
  std::uint32_t semaphores = 4096;      // of one home
};

// A list of actions. What one step can ask for at most: every thread of every node woken by one broadcast.
class SyncActions {
 public:
  explicit SyncActions(const SyncConfig& config) : list_(std::size_t{config.nodes} * config.waiters + max_ranks + 8) {}
  void push(const SyncAction& action);  // REQUIRES: not full; checked always
  void clear() { size_ = 0; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] const SyncAction& operator[](std::size_t i) const { return list_[i]; }
  [[nodiscard]] const SyncAction* begin() const { return list_.data(); }
  [[nodiscard]] const SyncAction* end() const { return list_.data() + size_; }

 private:
  std::vector<SyncAction> list_;
  std::size_t size_ = 0;
};

class Sync {
 public:
  explicit Sync(const SyncConfig& config);
  Sync(const Sync&);
  Sync& operator=(const Sync&);
  Sync(Sync&&) noexcept;
  Sync& operator=(Sync&&) noexcept;
  ~Sync();

  void step(const SyncEvent& event, SyncActions& out);
  // Which of this node's threads holds the lock; 0: none.
  [[nodiscard]] Thread holder(Key lock) const;
  // Locks that this node keeps a note of.
  [[nodiscard]] std::uint32_t locks_in_use() const;
  [[nodiscard]] std::uint64_t digest() const;

 private:
  std::unique_ptr<struct SyncState> state_;
};

}  // namespace dsm::core
