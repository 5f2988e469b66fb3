// Queue locks. Why there is never more than one token, and nobody waits for ever:
//
// The token is made with the lock, at its home, and from then on is only moved: lock_token, and a lock_told or lock_tried
// that says yes, are sent by the one who clears `here`, and set it where they arrive.
//
// The home promises the token to one node after the other (`last`), and tells each the name of the next, once. So the
// nodes form a queue whose head has the token; one that is told has the token, or has asked for it and will get it. Each
// serves no more of its own threads than had come before it was told. A try asks the end of the queue, and as long as
// there is no answer the end does not change: wants stand in `line`. A node that tries does not want, and the other way
// round, so that the home never hears from one whom it has promised the token.
//
// A try and its answer may travel on a call lane, and overtake what the service lane carries, or be overtaken by it: the
// home's next word may come before the answer that brought the token (`waits` in lock_ok), and a node that has given the
// token back may try again before the home knows (`asking` there).
#include "dsm/core/sync_state.hpp"

namespace dsm::core {

namespace {

using Kind = SyncMessage::Kind;

// nullptr: no room.
Lock* find_or_make(SyncState& s, Key key) {
  if (Lock* known = s.locks.find(key)) return known;
  Lock* made = s.locks.make(key);
  if (made != nullptr && s.is_home(key)) {
    made->here = true;
    made->last = s.config.self;
  }
  return made;
}

// What is as it was when it was made needs no note.
void forget_if_idle(SyncState& s, Lock& lock) {
  const bool busy =
      lock.owner != 0 || lock.threads != 0 || lock.tries != 0 || lock.next != 0 || lock.asked || lock.asking;
  if (!busy && lock.here == s.is_home(lock.key)) s.locks.erase(lock);
}

void push(SyncState& s, Tail& list, Waiter waiter) {
  const auto link = static_cast<std::uint16_t>(waiter + 1U);
  s.next_thread[waiter] = list == 0 ? link : std::exchange(s.next_thread[list - 1U], link);
  list = link;
}

Waiter pop(SyncState& s, Tail& list) {
  const std::uint16_t first = s.next_thread[list - 1U];
  if (first == list) {
    list = 0;
  } else {
    s.next_thread[list - 1U] = s.next_thread[first - 1U];
  }
  s.next_thread[first - 1U] = 0;
  return static_cast<Waiter>(first - 1U);
}

std::uint16_t length(const SyncState& s, Tail list) {
  std::uint16_t count = 0;
  if (list == 0) return 0;
  for (std::uint16_t link = list; count == 0 || link != list; link = s.next_thread[link - 1U]) ++count;
  return count;
}

void say(Node to, Kind kind, const Lock& lock, SyncActions& out, Waiter waiter = 0, Node node = 0, bool yes = false) {
  out.push(SyncSend{to, 0, SyncMessage{.kind = kind, .yes = yes, .waiter = waiter, .node = node, .key = lock.key}});
}

void promise(SyncState& s, Lock& lock, const Place& to, SyncActions& out);

void ask_for_token(SyncState& s, Lock& lock, SyncActions& out) {
  lock.asked = true;
  const auto first = static_cast<Waiter>(s.next_thread[lock.threads - 1U] - 1U);
  if (s.is_home(lock.key)) return promise(s, lock, Place{.from = s.config.self, .waiter = first}, out);
  say(s.home(lock.key), Kind::lock_want, lock, out, first);
}

// REQUIRES: the token is here, and nobody holds the lock. The lock may be forgotten then.
void serve(SyncState& s, Lock& lock, SyncActions& out) {
  if (lock.next != 0 && lock.before == 0) {
    lock.here = false;
    say(static_cast<Node>(std::exchange(lock.next, std::uint8_t{0}) - 1U), Kind::lock_token, lock, out);
    if (lock.threads != 0) return ask_for_token(s, lock, out);  // they came after the next
  } else if (lock.threads != 0) {
    const Waiter waiter = pop(s, lock.threads);
    if (lock.next != 0) --lock.before;
    lock.owner = s.thread_of[waiter];
    out.push(Done{waiter});
    return;
  }
  forget_if_idle(s, lock);
}

// After this node it is `node`'s turn.
void told_next(SyncState& s, Lock& lock, Node node, SyncActions& out) {
  lock.next = static_cast<std::uint8_t>(node + 1U);
  lock.before = length(s, lock.threads);
  if (lock.here && lock.owner == 0) serve(s, lock, out);
}

// At the home: `to` comes last in the queue of nodes.
void promise(SyncState& s, Lock& lock, const Place& to, SyncActions& out) {
  if (lock.asking) return s.enqueue(lock.line, to);
  const Node before = std::exchange(lock.last, to.from);
  if (before == s.config.self) return told_next(s, lock, to.from, out);
  say(before, Kind::lock_next, lock, out, 0, to.from);
}

void answer_try(SyncState& s, const Place& who, Key key, bool yes, bool full, SyncActions& out) {
  s.answer(who, {.kind = Kind::lock_tried, .yes = yes, .full = full, .waiter = who.waiter, .key = key}, out);
}

// At the home: somebody tries. The one who was promised the token last knows whether anybody has it.
void attempt(SyncState& s, Lock& lock, const Place& who, SyncActions& out) {
  if (lock.asking || lock.last != s.config.self) {
    s.enqueue(lock.line, who);
    if (!std::exchange(lock.asking, true)) say(lock.last, Kind::lock_ask, lock, out);
    return;
  }
  const bool free = lock.here && lock.owner == 0;
  if (free) {
    lock.here = false;
    lock.last = who.from;
  }
  const Key key = lock.key;
  answer_try(s, who, key, free, false, out);
}

// For the first of those that try. REQUIRES: the token is not here, nor has it been asked for.
void ask_whether_free(SyncState& s, Lock& lock, Lane lane, SyncActions& out) {
  const auto waiter = static_cast<Waiter>(s.next_thread[lock.tries - 1U] - 1U);
  if (s.is_home(lock.key)) {
    return attempt(s, lock, Place{.from = s.config.self, .lane = lane, .waiter = waiter, .attempt = true}, out);
  }
  s.ask(s.home(lock.key), lane, {.kind = Kind::lock_try, .waiter = waiter, .key = lock.key}, out);
}

// At the home: the one asked has answered. Those who had to wait for that have their turn.
void told(SyncState& s, Lock& lock, bool yes, SyncActions& out) {
  lock.asking = false;
  const Place first = s.dequeue(lock.line);
  Tail rest = std::exchange(lock.line, Tail{0});
  if (yes) lock.last = first.from;
  while (rest != 0) {
    const Place who = s.dequeue(rest);
    if (who.attempt) {
      attempt(s, lock, who, out);
    } else {
      promise(s, lock, who, out);
    }
  }
  // Last: a thread of ours that hears "no" may try again at once, and would be in front of them every time.
  answer_try(s, first, lock.key, yes, false, out);
}

void refused(SyncState& s, Lock& lock, SyncActions& out) {
  lock.asked = false;
  while (lock.threads != 0) out.push(Done{pop(s, lock.threads), Result::full});
  forget_if_idle(s, lock);
}

bool in_line(const SyncState& s, Tail line, Node from) {
  if (line == 0) return false;
  std::uint16_t link = line;
  do {
    if (s.places[link - 1U].from == from) return true;
    link = s.places[link - 1U].next;
  } while (link != line);
  return false;
}

}  // namespace

void lock_want(SyncState& s, const LockWant& want, SyncActions& out) {
  Lock* lock = find_or_make(s, want.key);
  if (lock == nullptr) return out.push(Done{want.waiter, Result::full});
  s.thread_of[want.waiter] = want.thread;
  push(s, lock->threads, want.waiter);
  if (lock->here) {
    if (lock->owner == 0) serve(s, *lock, out);
  } else if (!lock->asked && lock->tries == 0) {
    ask_for_token(s, *lock, out);
  }
}

void lock_try(SyncState& s, const LockTry& attempted, SyncActions& out) {
  Lock* lock = find_or_make(s, attempted.key);
  if (lock == nullptr) return out.push(Done{attempted.waiter, Result::full});
  if (lock->here || lock->asked) {  // asked: a thread of ours waits, and whoever frees it frees it for that one
    const bool free = lock->here && lock->owner == 0;
    if (free) lock->owner = attempted.thread;
    return out.push(Done{attempted.waiter, free ? Result::ok : Result::busy});
  }
  s.thread_of[attempted.waiter] = attempted.thread;
  const bool first = lock->tries == 0;
  push(s, lock->tries, attempted.waiter);
  if (first) ask_whether_free(s, *lock, attempted.lane, out);
}

void lock_free(SyncState& s, Key key, SyncActions& out) {
  Lock& lock = *s.locks.find(key);
  lock.owner = 0;
  serve(s, lock, out);
}

void lock_try_here(SyncState& s, Key key, const Place& who, SyncActions& out) {
  Lock* lock = find_or_make(s, key);
  if (lock == nullptr) return answer_try(s, who, key, false, true, out);
  attempt(s, *lock, who, out);
}

void lock_tried(SyncState& s, const SyncMessage& answer, SyncActions& out) {
  Lock& lock = *s.locks.find(answer.key);
  const Waiter first = pop(s, lock.tries);
  if (answer.yes) {
    lock.here = true;
    lock.owner = s.thread_of[first];
  }
  out.push(Done{first, answer.yes ? Result::ok : answer.full ? Result::full : Result::busy});
  // The others find it held now, or wanted. Otherwise "it was held" is true of the first only, and is asked anew.
  if (!lock.here && lock.threads == 0 && lock.tries != 0) return ask_whether_free(s, lock, 0, out);
  while (lock.tries != 0) out.push(Done{pop(s, lock.tries), Result::busy});
  if (!lock.here && lock.threads != 0) return ask_for_token(s, lock, out);
  forget_if_idle(s, lock);
}

bool lock_ok(const SyncState& s, const SyncReceived& r) {
  const SyncMessage& m = r.msg;
  const Lock* lock = s.locks.find(m.key);
  const bool waits = lock != nullptr && (lock->here || lock->asked || lock->tries != 0) && lock->next == 0;
  switch (m.kind) {
    case Kind::lock_try:
    case Kind::lock_want:
      return s.is_home(m.key) && m.waiter < s.config.waiters && s.place(r.from, m.waiter).next == 0 &&
             (lock == nullptr || ((lock->last != r.from || (lock->asking && m.kind == Kind::lock_try)) &&
                                  !in_line(s, lock->line, r.from)));
    case Kind::lock_tried:
      return lock != nullptr && lock->tries != 0 && (m.yes || lock->next == 0);
    case Kind::lock_refused:
      return s.home(m.key) == r.from && waits && lock->asked;
    case Kind::lock_next:
      return s.home(m.key) == r.from && waits && m.node < s.config.nodes && m.node != s.config.self;
    case Kind::lock_ask:
      return s.home(m.key) == r.from && waits;
    case Kind::lock_token:
      return lock != nullptr && lock->asked && !lock->here;
    case Kind::lock_told:
      return lock != nullptr && lock->asking && lock->last == r.from;
    default:
      return false;
  }
}

void lock_received(SyncState& s, const SyncReceived& r, SyncActions& out) {
  const SyncMessage& m = r.msg;
  if (m.kind == Kind::lock_want) {
    Lock* lock = find_or_make(s, m.key);
    if (lock == nullptr) return out.push(SyncSend{r.from, 0, {.kind = Kind::lock_refused, .key = m.key}});
    return promise(s, *lock, Place{.from = r.from, .waiter = m.waiter}, out);
  }
  Lock& lock = *s.locks.find(m.key);
  if (m.kind == Kind::lock_next) return told_next(s, lock, m.node, out);
  if (m.kind == Kind::lock_told) return told(s, lock, m.yes, out);
  if (m.kind == Kind::lock_refused) return refused(s, lock, out);
  if (m.kind == Kind::lock_token) {
    lock.asked = false;
    lock.here = true;
    return serve(s, lock, out);
  }
  const bool free = lock.here && lock.owner == 0;  // lock_ask
  if (free) lock.here = false;
  say(r.from, Kind::lock_told, lock, out, 0, 0, free);
  forget_if_idle(s, lock);
}

}  // namespace dsm::core
