// Condition variables, with C. A. R. Hoare's queue and the semantics of Mesa: who is woken takes the lock anew and looks
// again (B. Lampson and D. Redell, "Experience with Processes and Monitors in Mesa", 1980).
//
// A thread is queued at the home, and knows it, before it frees its lock: whoever takes the lock then and signals finds it
// there. The signal may reach the thread before it sleeps, even before it knows that it is queued (they travel on
// different lanes): then it is `woken`, and does not fall asleep.
#include "dsm/core/sync_state.hpp"

namespace dsm::core {

using Kind = SyncMessage::Kind;

void cond_wait(SyncState& s, Key key, const Place& who, SyncActions& out) {
  Condition* condition = s.conditions.find(key);
  if (condition == nullptr) condition = s.conditions.make(key);  // there is room: each has one who waits
  s.enqueue(condition->line, who);
  s.answer(who, {.kind = Kind::cond_queued, .yes = true, .waiter = who.waiter, .key = key}, out);
}

void cond_signal(SyncState& s, Key key, bool all, SyncActions& out) {
  Condition* condition = s.conditions.find(key);
  if (condition == nullptr) return;  // nobody waits
  do {
    const Place who = s.dequeue(condition->line);
    if (who.from == s.config.self) {
      cond_wake(s, who.waiter, out);
    } else {
      out.push(SyncSend{who.from, 0, SyncMessage{.kind = Kind::cond_wake, .waiter = who.waiter, .key = key}});
    }
  } while (all && condition->line != 0);
  if (condition->line == 0) s.conditions.erase(*condition);
}

void cond_sleep(SyncState& s, Waiter waiter, SyncActions& out) {
  if (s.sleeps[waiter] == Sleep::queued) {
    s.sleeps[waiter] = Sleep::sleeping;
    return;
  }
  s.sleeps[waiter] = Sleep::awake;
  out.push(Done{waiter});
}

bool cond_wake_ok(const SyncState& s, const SyncReceived& r) {
  if (s.home(r.msg.key) != r.from || r.msg.waiter >= s.config.waiters) return false;
  const Sleep sleep = s.sleeps[r.msg.waiter];
  return (sleep == Sleep::queued || sleep == Sleep::sleeping) && s.sleeps_on[r.msg.waiter] == r.msg.key;
}

void cond_wake(SyncState& s, Waiter waiter, SyncActions& out) {
  if (s.sleeps[waiter] == Sleep::sleeping) out.push(Done{waiter});
  s.sleeps[waiter] = s.sleeps[waiter] == Sleep::sleeping ? Sleep::awake : Sleep::woken;
}

}  // namespace dsm::core
