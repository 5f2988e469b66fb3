// dsm/core/sync_state.hpp - what one node knows about locks, semaphores, condition variables and the barrier.
//
// For lock.cpp, semaphore.cpp, condition.cpp and sync.cpp only. Nothing here allocates after construction.
#pragma once
#include <cstdint>
#include <vector>

#include "dsm/core/sync.hpp"
#include "dsm/core/table.hpp"

namespace dsm::core {

// Somebody who waits at a home. There is one place for every thread of every node: a thread waits for one thing at a time.
struct Place {
  Node from = 0;
  Lane lane = 0;
  Waiter waiter = 0;
  bool attempt = false;    // lock: it only tries
  std::uint16_t next = 0;  // plus one; 0: it does not wait
};

// A queue is the tail of a circular list, plus one; 0: nobody waits.
using Tail = std::uint16_t;

struct Lock {
  Key key;
  std::uint32_t chain;   // Table's
  Thread owner;          // the thread of this node that holds it; 0: none
  Tail threads;          // this node's threads that wait for it (SyncState::next_thread)
  Tail tries;            // ... that only try; the home has been asked for the first of them, and all share the answer
  std::uint16_t before;  // how many of `threads` come before `next`
  std::uint8_t next;     // the node that gets the token after us, plus one; 0: we have not been told
  bool here;             // the token
  bool asked;            // a want is under way: the token will come
  // at its home only
  Node last;    // the node that was promised the token last
  bool asking;  // that one has been asked whether the lock is free
  Tail line;    // who has to wait until it has answered; it was asked for the first of them
};

struct Semaphore {
  Key key;
  std::uint32_t chain;
  std::uint64_t value;
  Tail line;
};

struct Condition {  // there is one as long as somebody waits
  Key key;
  std::uint32_t chain;
  Tail line;
};

enum class Sleep : std::uint8_t { awake, queued, woken, sleeping };  // a thread and its condition variable

struct SyncState {
  explicit SyncState(const SyncConfig& c);

  SyncConfig config;
  Table<Lock> locks;
  Table<Semaphore> semaphores;             // whose home this node is
  Table<Condition> conditions;             // likewise
  std::vector<Place> places;               // by node and waiter: at their homes
  std::vector<std::uint16_t> next_thread;  // by waiter: the next in a lock's `threads`, plus one
  std::vector<Thread> thread_of;           // by waiter
  std::vector<SyncMessage> questions;      // by waiter: what it has asked another node; as it was made: nothing
  std::vector<Sleep> sleeps;               // by waiter
  std::vector<Key> sleeps_on;              // by waiter: the condition variable
  // the barrier; `arrived` and `arrival_...` at node 0 only
  std::uint64_t round = 1;
  std::uint64_t arrived = 0;
  std::vector<Lane> arrival_lanes;
  std::vector<std::uint64_t> arrival_marks;
  bool at_barrier = false;  // this node has arrived
  Waiter barrier_waiter = 0;

  [[nodiscard]] Node home(Key key) const { return static_cast<Node>(key % config.nodes); }
  [[nodiscard]] bool is_home(Key key) const { return home(key) == config.self; }
  [[nodiscard]] Place& place(Node from, Waiter waiter) { return places[std::size_t{from} * config.waiters + waiter]; }
  [[nodiscard]] const Place& place(Node from, Waiter waiter) const {
    return places[std::size_t{from} * config.waiters + waiter];
  }

  void enqueue(Tail& line, const Place& who);
  [[nodiscard]] Place dequeue(Tail& line);  // REQUIRES: somebody waits

  // Asks another node; what comes back is checked against it.
  void ask(Node to, Lane lane, const SyncMessage& question, SyncActions& out);
  // Answers one who has asked: another node, or a thread of ours.
  void answer(const Place& who, const SyncMessage& answer, SyncActions& out);
};

// What sync.cpp hands on. `..._ok`: may a peer say that now? It changes nothing.
void lock_want(SyncState& s, const LockWant& want, SyncActions& out);
void lock_try(SyncState& s, const LockTry& attempt, SyncActions& out);
void lock_free(SyncState& s, Key key, SyncActions& out);
[[nodiscard]] bool lock_ok(const SyncState& s, const SyncReceived& r);
void lock_received(SyncState& s, const SyncReceived& r, SyncActions& out);
// At the home: somebody tries.
void lock_try_here(SyncState& s, Key key, const Place& who, SyncActions& out);
// A thread of ours has its answer.
void lock_tried(SyncState& s, const SyncMessage& answer, SyncActions& out);

// At the home.
void sem_open(SyncState& s, const SyncMessage& m, const Place& who, SyncActions& out);
void sem_want(SyncState& s, const SyncMessage& m, const Place& who, SyncActions& out);
void sem_post(SyncState& s, const SyncMessage& m, const Place& who, SyncActions& out);

// At the home.
void cond_wait(SyncState& s, Key key, const Place& who, SyncActions& out);
void cond_signal(SyncState& s, Key key, bool all, SyncActions& out);
// A thread of ours.
void cond_sleep(SyncState& s, Waiter waiter, SyncActions& out);
[[nodiscard]] bool cond_wake_ok(const SyncState& s, const SyncReceived& r);
void cond_wake(SyncState& s, Waiter waiter, SyncActions& out);

}  // namespace dsm::core
