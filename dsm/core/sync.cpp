#include "dsm/core/sync.hpp"

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "dsm/core/zeros.hpp"

namespace dsm::core {

namespace {

struct Lock {            // at its home
  std::uint8_t holder;   // node, plus one; 0: free
  std::uint16_t queue;   // tail of the circular list of those who wait, plus one; 0: nobody
};

struct LockRequest {  // there is one for every thread of every node: a thread waits for one lock at a time
  Node from = 0;
  Lane lane = 0;
  Waiter waiter = 0;
  std::uint16_t next = 0;  // plus one; 0: not waiting
};

using Kind = SyncMessage::Kind;

}  // namespace

struct SyncState {
  explicit SyncState(const SyncConfig& c)
      : config(c), locks(c.locks), requests(std::size_t{c.nodes} * c.waiters), wanting(c.waiters), arrival_lanes(c.nodes) {}

  SyncConfig config;
  Zeros<Lock> locks;
  std::vector<LockRequest> requests;  // by node and waiter
  std::vector<LockId> wanting;  // by waiter of this node: the lock it waits for, plus one
  // the barrier; `arrived` and `arrival_lanes` at node 0 only
  std::uint64_t round = 1;
  std::uint64_t arrived = 0;
  std::vector<Lane> arrival_lanes;
  bool waiting = false;  // this node has arrived
  Waiter barrier_waiter = 0;

  [[nodiscard]] Node home(LockId lock) const { return static_cast<Node>(lock % config.nodes); }
  [[nodiscard]] std::size_t place(Node from, Waiter waiter) const { return std::size_t{from} * config.waiters + waiter; }

  void grant(LockId lock, const LockRequest& to, SyncActions& out) {
    locks[lock].holder = static_cast<std::uint8_t>(to.from + 1);
    if (to.from == config.self) {
      wanting[to.waiter] = 0;
      out.push(Wake{to.waiter});
    } else {
      out.push(SyncSend{to.from, to.lane, SyncMessage{.kind = Kind::lock_grant, .waiter = to.waiter, .lock = lock}});
    }
  }

  void want(LockId lock, const LockRequest& request, SyncActions& out) {
    if (locks[lock].holder == 0) return grant(lock, request, out);
    const std::size_t index = place(request.from, request.waiter);
    const auto link = static_cast<std::uint16_t>(index + 1);
    std::uint16_t& tail = locks[lock].queue;
    requests[index] = request;
    requests[index].next = tail == 0 ? link : std::exchange(requests[tail - 1U].next, link);
    tail = link;
  }

  // The holder is done: the one that has waited longest is next.
  void free(LockId lock, SyncActions& out) {
    std::uint16_t& tail = locks[lock].queue;
    locks[lock].holder = 0;
    if (tail == 0) return;
    const std::uint16_t link = requests[tail - 1U].next;
    const LockRequest next = requests[link - 1U];
    if (link == tail) {
      tail = 0;
    } else {
      requests[tail - 1U].next = next.next;
    }
    requests[link - 1U] = LockRequest{};
    grant(lock, next, out);
  }

  void arrive(Node from, Lane lane, SyncActions& out) {
    arrived |= std::uint64_t{1} << from;
    arrival_lanes[from] = lane;
    const std::uint64_t all = config.nodes == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << config.nodes) - 1;
    if (arrived != all) return;
    arrived = 0;
    for (Node n = 1; n < config.nodes; ++n) {
      out.push(SyncSend{n, arrival_lanes[n], SyncMessage{.kind = Kind::barrier_go, .round = round}});
    }
    ++round;
    waiting = false;
    out.push(Wake{barrier_waiter});
  }
};

namespace {

bool valid_lock_grant(const SyncState& s, const SyncReceived& r) {
  return s.home(r.msg.lock) == r.from && r.msg.waiter < s.config.waiters && s.wanting[r.msg.waiter] == r.msg.lock + 1;
}

bool valid(const SyncState& s, const SyncReceived& r) {
  if (r.from >= s.config.nodes || r.from == s.config.self) return false;
  const SyncMessage& m = r.msg;
  switch (m.kind) {
    case Kind::lock_want:
      return m.lock < s.config.locks && s.home(m.lock) == s.config.self && m.waiter < s.config.waiters &&
             s.requests[s.place(r.from, m.waiter)].next == 0;
    case Kind::lock_grant: return m.lock < s.config.locks && valid_lock_grant(s, r);
    case Kind::lock_free:
      return m.lock < s.config.locks && s.home(m.lock) == s.config.self && s.locks[m.lock].holder == r.from + 1;
    case Kind::barrier_arrive:
      return s.config.self == 0 && m.round == s.round && (s.arrived & (std::uint64_t{1} << r.from)) == 0;
    case Kind::barrier_go: return r.from == 0 && s.waiting && m.round == s.round;
  }
  return false;
}

void received(SyncState& s, const SyncReceived& r, SyncActions& out) {
  if (!valid(s, r)) return out.push(Abort{Abort::Why::bad_message, r.from});
  switch (r.msg.kind) {
    case Kind::lock_want: return s.want(r.msg.lock, LockRequest{.from = r.from, .lane = r.lane, .waiter = r.msg.waiter}, out);
    case Kind::lock_grant: s.wanting[r.msg.waiter] = 0; return out.push(Wake{r.msg.waiter});
    case Kind::lock_free: return s.free(r.msg.lock, out);
    case Kind::barrier_arrive: return s.arrive(r.from, r.lane, out);
    case Kind::barrier_go:
      s.waiting = false;
      ++s.round;
      return out.push(Wake{s.barrier_waiter});
  }
}

void want(SyncState& s, const LockWant& w, SyncActions& out) {
  s.wanting[w.waiter] = w.lock + 1;
  const Node home = s.home(w.lock);
  if (home == s.config.self) return s.want(w.lock, LockRequest{.from = home, .lane = w.lane, .waiter = w.waiter}, out);
  out.push(SyncSend{home, w.lane, SyncMessage{.kind = Kind::lock_want, .waiter = w.waiter, .lock = w.lock}});
}

void free(SyncState& s, const LockFree& f, SyncActions& out) {
  const Node home = s.home(f.lock);
  if (home == s.config.self) return s.free(f.lock, out);
  out.push(SyncSend{home, 0, SyncMessage{.kind = Kind::lock_free, .lock = f.lock}});
}

void arrive(SyncState& s, const BarrierArrive& a, SyncActions& out) {
  s.waiting = true;
  s.barrier_waiter = a.waiter;
  if (s.config.self == 0) return s.arrive(0, a.lane, out);
  out.push(SyncSend{0, a.lane, SyncMessage{.kind = Kind::barrier_arrive, .round = s.round}});
}

}  // namespace

void SyncActions::push(const SyncAction& action) {
  if (size_ == capacity) {
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

void Sync::step(const SyncEvent& event, SyncActions& out) {
  SyncState& s = *state_;
  if (const auto* r = std::get_if<SyncReceived>(&event)) return received(s, *r, out);
  if (const auto* w = std::get_if<LockWant>(&event)) return want(s, *w, out);
  if (const auto* f = std::get_if<LockFree>(&event)) return free(s, *f, out);
  arrive(s, std::get<BarrierArrive>(event), out);
}

std::uint64_t Sync::digest() const {
  const SyncState& s = *state_;
  std::uint64_t hash = 0xcbf29ce484222325U;  // FNV-1a
  const auto add = [&hash](std::uint64_t value) { hash = (hash ^ value) * 0x100000001b3U; };
  for (LockId lock = 0; lock < s.config.locks; ++lock) {
    add(s.locks[lock].holder);
    const std::uint16_t tail = s.locks[lock].queue;
    if (tail == 0) continue;
    std::uint16_t link = tail;
    do {
      link = s.requests[link - 1U].next;
      add(std::uint64_t{s.requests[link - 1U].from} << 16U | s.requests[link - 1U].waiter);
    } while (link != tail);
  }
  for (const LockId lock : s.wanting) add(lock);
  add(s.round << 1U | (s.waiting ? 1U : 0U));
  add(s.arrived);
  return hash;
}

}  // namespace dsm::core
