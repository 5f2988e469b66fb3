// Semaphores: E. W. Dijkstra's P and V at the home, first come, first served.
#include "dsm/core/sync_state.hpp"

namespace dsm::core {

using Kind = SyncMessage::Kind;

void sem_open(SyncState& s, const SyncMessage& m, const Place& who, SyncActions& out) {
  Semaphore* semaphore = s.semaphores.find(m.key);
  if (semaphore == nullptr) {
    semaphore = s.semaphores.make(m.key);
    if (semaphore != nullptr) semaphore->value = m.number;
  }
  s.answer(who, {.kind = Kind::sem_opened, .yes = semaphore != nullptr, .waiter = who.waiter, .key = m.key}, out);
}

void sem_want(SyncState& s, const SyncMessage& m, const Place& who, SyncActions& out) {
  Semaphore& semaphore = *s.semaphores.find(m.key);
  if (semaphore.value == 0 && !m.attempt) return s.enqueue(semaphore.line, who);
  const bool yes = semaphore.value != 0;
  if (yes) --semaphore.value;
  s.answer(who, {.kind = Kind::sem_grant, .yes = yes, .waiter = who.waiter, .key = m.key}, out);
}

// The one who posts hears that it is done: otherwise it could go on to a barrier, and somebody behind it find nothing here.
void sem_post(SyncState& s, const SyncMessage& m, const Place& who, SyncActions& out) {
  Semaphore& semaphore = *s.semaphores.find(m.key);
  if (semaphore.line != 0) {
    const Place next = s.dequeue(semaphore.line);
    s.answer(next, {.kind = Kind::sem_grant, .yes = true, .waiter = next.waiter, .key = m.key}, out);
  } else {
    ++semaphore.value;
  }
  s.answer(who, {.kind = Kind::sem_posted, .yes = true, .waiter = who.waiter, .key = m.key}, out);
}

}  // namespace dsm::core
