#include "dsm/core/sync.hpp"

#include <cstdio>
#include <cstdlib>
#include <type_traits>

#include "dsm/core/sync_state.hpp"

namespace dsm::core {

using Kind = SyncMessage::Kind;

SyncState::SyncState(const SyncConfig& c)
    : config(c),
      locks(c.locks),
      semaphores(c.semaphores),
      conditions(std::uint32_t{c.nodes} * c.waiters),
      places(std::size_t{c.nodes} * c.waiters),
      next_thread(c.waiters),
      thread_of(c.waiters),
      questions(c.waiters),
      sleeps(c.waiters),
      sleeps_on(c.waiters),
      arrival_lanes(c.nodes),
      arrival_marks(c.nodes) {}

void SyncState::enqueue(Tail& line, const Place& who) {
  const auto link = static_cast<std::uint16_t>(std::size_t{who.from} * config.waiters + who.waiter + 1U);
  Place& mine = places[link - 1U];
  mine = who;
  mine.next = line == 0 ? link : std::exchange(places[line - 1U].next, link);
  line = link;
}

Place SyncState::dequeue(Tail& line) {
  const std::uint16_t first = places[line - 1U].next;
  const Place who = places[first - 1U];
  if (first == line) {
    line = 0;
  } else {
    places[line - 1U].next = who.next;
  }
  places[first - 1U] = Place{};
  return who;
}

namespace {

// A thread of ours has got the answer to what it asked.
void finish(SyncState& s, const SyncMessage& answer, SyncActions& out) {
  if (answer.kind == Kind::lock_tried) return lock_tried(s, answer, out);
  const Result no = answer.kind == Kind::sem_grant ? Result::busy : Result::full;
  out.push(Done{answer.waiter, answer.yes ? Result::ok : no});
}

}  // namespace

void SyncState::ask(Node to, Lane lane, const SyncMessage& question, SyncActions& out) {
  questions[question.waiter] = question;
  out.push(SyncSend{to, lane, question});
}

void SyncState::answer(const Place& who, const SyncMessage& answer, SyncActions& out) {
  if (who.from == config.self) return finish(*this, answer, out);
  out.push(SyncSend{who.from, who.lane, answer});
}

// ---- the barrier ----

namespace {

void all_arrived(SyncState& s, SyncActions& out) {
  for (Node n = 1; n < s.config.nodes; ++n) {
    if (s.arrival_marks[n] != s.arrival_marks[0]) return out.push(Differ{0, n});
  }
  s.arrived = 0;
  for (Node n = 1; n < s.config.nodes; ++n) {
    out.push(SyncSend{n, s.arrival_lanes[n], SyncMessage{.kind = Kind::barrier_go, .number = s.round}});
  }
  ++s.round;
  s.at_barrier = false;
  out.push(Done{s.barrier_waiter});
}

void arrive(SyncState& s, Node from, Lane lane, std::uint64_t mark, SyncActions& out) {
  s.arrived |= std::uint64_t{1} << from;
  s.arrival_lanes[from] = lane;
  s.arrival_marks[from] = mark;
  const std::uint64_t all = s.config.nodes == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << s.config.nodes) - 1;
  if (s.arrived == all) all_arrived(s, out);
}

// ---- what peers say ----

bool question_ok(const SyncState& s, const SyncReceived& r) {
  const SyncMessage& m = r.msg;
  if (m.kind == Kind::barrier_arrive) {
    return s.config.self == 0 && m.number == s.round && (s.arrived & (std::uint64_t{1} << r.from)) == 0;
  }
  if (m.kind == Kind::lock_try) return lock_ok(s, r);
  if (!s.is_home(m.key) || m.waiter >= s.config.waiters || s.place(r.from, m.waiter).next != 0) return false;
  if (m.kind == Kind::sem_want || m.kind == Kind::sem_post) return s.semaphores.find(m.key) != nullptr;
  return true;
}

bool answer_ok(const SyncState& s, const SyncReceived& r) {
  const SyncMessage& m = r.msg;
  if (m.kind == Kind::barrier_go) return r.from == 0 && s.at_barrier && m.number == s.round;
  if (m.waiter >= s.config.waiters || (m.kind == Kind::lock_tried && !lock_ok(s, r))) return false;
  const SyncMessage& asked = s.questions[m.waiter];
  return is_question(asked.kind) && asked.kind != Kind::barrier_arrive && s.home(m.key) == r.from &&
         asked.key == m.key && static_cast<unsigned>(asked.kind) + 1U == static_cast<unsigned>(m.kind);
}

bool valid(const SyncState& s, const SyncReceived& r) {
  if (r.from >= s.config.nodes || r.from == s.config.self) return false;
  if (r.msg.kind > Kind::cond_wake) return false;
  if (r.msg.kind == Kind::cond_signal) return s.is_home(r.msg.key);
  if (r.msg.kind == Kind::cond_wake) return cond_wake_ok(s, r);
  if (r.msg.kind > Kind::cond_queued) return lock_ok(s, r);
  return is_question(r.msg.kind) ? question_ok(s, r) : answer_ok(s, r);
}

// At the home, be it asked by another node or by ourselves.
void asked(SyncState& s, const SyncMessage& m, const Place& who, SyncActions& out) {
  switch (m.kind) {
    case Kind::barrier_arrive:
      return arrive(s, who.from, who.lane, m.key, out);
    case Kind::lock_try:
      return lock_try_here(s, m.key, who, out);
    case Kind::sem_open:
      return sem_open(s, m, who, out);
    case Kind::sem_want:
      return sem_want(s, m, who, out);
    case Kind::sem_post:
      return sem_post(s, m, who, out);
    default:
      return cond_wait(s, m.key, who, out);
  }
}

void received(SyncState& s, const SyncReceived& r, SyncActions& out) {
  if (!valid(s, r)) return out.push(Abort{Abort::Why::bad_message, r.from});
  const SyncMessage& m = r.msg;
  if (is_question(m.kind)) {
    const bool attempt = m.attempt || m.kind == Kind::lock_try;
    return asked(s, m, Place{.from = r.from, .lane = r.lane, .waiter = m.waiter, .attempt = attempt}, out);
  }
  if (m.kind == Kind::barrier_go) {
    s.at_barrier = false;
    ++s.round;
    return out.push(Done{s.barrier_waiter});
  }
  if (m.kind == Kind::cond_signal) return cond_signal(s, m.key, m.all, out);
  if (m.kind == Kind::cond_wake) return cond_wake(s, m.waiter, out);
  if (m.kind > Kind::cond_queued) return lock_received(s, r, out);
  s.questions[m.waiter] = SyncMessage{};
  finish(s, m, out);
}

// ---- what our own threads want ----

struct Begin {
  SyncState& s;
  SyncActions& out;

  void operator()(const SyncReceived& r) const { received(s, r, out); }
  void operator()(const LockWant& e) const { lock_want(s, e, out); }
  void operator()(const LockTry& e) const { lock_try(s, e, out); }
  void operator()(const LockFree& e) const { lock_free(s, e.key, out); }
  void operator()(const SemOpen& e) const {
    begin(e.lane, {.kind = Kind::sem_open, .waiter = e.waiter, .key = e.key, .number = e.value});
  }
  void operator()(const SemWait& e) const {
    begin(e.lane, {.kind = Kind::sem_want, .attempt = e.attempt, .waiter = e.waiter, .key = e.key});
  }
  void operator()(const SemPost& e) const { begin(e.lane, {.kind = Kind::sem_post, .waiter = e.waiter, .key = e.key}); }
  void operator()(const CondWait& e) const {
    s.sleeps[e.waiter] = Sleep::queued;
    s.sleeps_on[e.waiter] = e.key;
    begin(e.lane, {.kind = Kind::cond_wait, .waiter = e.waiter, .key = e.key});
  }
  void operator()(const CondSleep& e) const { cond_sleep(s, e.waiter, out); }
  void operator()(const CondSignal& e) const {
    if (s.is_home(e.key)) return cond_signal(s, e.key, e.all, out);
    out.push(SyncSend{s.home(e.key), 0, SyncMessage{.kind = Kind::cond_signal, .all = e.all, .key = e.key}});
  }
  void operator()(const BarrierArrive& e) const {
    s.at_barrier = true;
    s.barrier_waiter = e.waiter;
    if (s.config.self == 0) return arrive(s, 0, e.lane, e.mark, out);
    out.push(SyncSend{0, e.lane, SyncMessage{.kind = Kind::barrier_arrive, .key = e.mark, .number = s.round}});
  }
  void begin(Lane lane, const SyncMessage& m) const {
    const Node home = s.home(m.key);
    if (home != s.config.self) return s.ask(home, lane, m, out);
    asked(s, m, Place{.from = home, .lane = lane, .waiter = m.waiter, .attempt = m.attempt}, out);
  }
};

}  // namespace

void SyncActions::push(const SyncAction& action) {
  if (size_ == list_.size()) {
    std::fputs("dsm: core: more actions in one step than its bound allows\n", stderr);
    std::abort();
  }
  list_[size_++] = action;
}

Sync::Sync(const SyncConfig& config) : state_(std::make_unique<SyncState>(config)) {}
Sync::Sync(const Sync& other) : state_(std::make_unique<SyncState>(*other.state_)) {}
Sync& Sync::operator=(const Sync& other) {
  if (this != &other) *state_ = *other.state_;
  return *this;
}
Sync::Sync(Sync&&) noexcept = default;
Sync& Sync::operator=(Sync&&) noexcept = default;
Sync::~Sync() = default;

void Sync::step(const SyncEvent& event, SyncActions& out) { std::visit(Begin{*state_, out}, event); }

Thread Sync::holder(Key key) const {
  const Lock* lock = state_->locks.find(key);
  return lock == nullptr ? 0 : lock->owner;
}

std::uint32_t Sync::locks_in_use() const { return state_->locks.size(); }

// ---- digest ----

namespace {

class Hash {  // FNV-1a, over words
 public:
  void add(std::uint64_t value) { value_ = (value_ ^ value) * 0x100000001b3U; }
  [[nodiscard]] std::uint64_t value() const { return value_ ^ value_ >> 29U; }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325U;
};

void add_line(Hash& hash, const SyncState& s, Tail line) {
  std::uint16_t link = line;
  if (line != 0) do {
      link = s.places[link - 1U].next;
      const Place& place = s.places[link - 1U];
      hash.add(std::uint64_t{link} << 16U | std::uint64_t{place.lane} << 1U | (place.attempt ? 1U : 0U));
    } while (link != line);
  hash.add(0);
}

void add_threads(Hash& hash, const SyncState& s, Tail list) {
  std::uint16_t link = list;
  if (list != 0) do {
      link = s.next_thread[link - 1U];
      hash.add(std::uint64_t{link} << 32U | s.thread_of[link - 1U]);
    } while (link != list);
  hash.add(0);
}

}  // namespace

// The order of a table's entries depends on its history, and does not count: their hashes are summed.
std::uint64_t Sync::digest() const {
  const SyncState& s = *state_;
  std::uint64_t sum = 0;
  s.locks.for_each([&](const Lock& lock) {
    Hash hash;
    hash.add(lock.key);
    hash.add(std::uint64_t{lock.owner} << 32U | std::uint64_t{lock.before} << 16U | lock.next);
    hash.add((lock.here ? 1U : 0U) | (lock.asked ? 2U : 0U) | (lock.asking ? 4U : 0U) | unsigned{lock.last} << 8U);
    add_threads(hash, s, lock.threads);
    add_threads(hash, s, lock.tries);
    add_line(hash, s, lock.line);
    sum += hash.value();
  });
  s.semaphores.for_each([&](const Semaphore& semaphore) {
    Hash hash;
    hash.add(~semaphore.key);
    hash.add(semaphore.value);
    add_line(hash, s, semaphore.line);
    sum += hash.value();
  });
  s.conditions.for_each([&](const Condition& condition) {
    Hash hash;
    hash.add(condition.key ^ 0x5555555555555555U);
    add_line(hash, s, condition.line);
    sum += hash.value();
  });
  Hash hash;
  hash.add(sum);
  for (Waiter w = 0; w < s.config.waiters; ++w) {
    const SyncMessage& asked = s.questions[w];
    hash.add(asked.key << 8U | static_cast<unsigned>(asked.kind));
    hash.add(s.sleeps[w] == Sleep::awake ? 0 : s.sleeps_on[w] << 8U | static_cast<unsigned>(s.sleeps[w]));
  }
  hash.add(s.round << 1U | (s.at_barrier ? 1U : 0U));
  hash.add(s.arrived);
  return hash.value();
}

}  // namespace dsm::core
