#include "dsm/core/coherence.hpp"

#include <algorithm>
#include <cstdio>

#include "dsm/core/state.hpp"

namespace dsm::core {

namespace {

template <class List, class Item>
void push_bounded(List& list, std::size_t& size, const Item& item) {
  if (size == list.size()) {
    std::fputs("dsm: core: more actions in one step than its bound allows\n", stderr);
    std::abort();
  }
  list[size++] = item;
}

std::uint64_t mix(std::uint64_t hash, std::uint64_t value) {  // splitmix64's finalizer over a running sum
  std::uint64_t z = hash + 0x9e3779b97f4a7c15U + value;
  z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31U);
}

Micros time_of(const Event& event) {
  if (const auto* f = std::get_if<Fault>(&event)) return f->now;
  if (const auto* r = std::get_if<Received>(&event)) return r->now;
  if (const auto* p = std::get_if<Prefetch>(&event)) return p->now;
  if (const auto* p = std::get_if<Perform>(&event)) return p->now;
  if (const auto* d = std::get_if<Drop>(&event)) return d->now;
  if (const auto* w = std::get_if<WriteBack>(&event)) return w->now;
  if (const auto* p = std::get_if<Pin>(&event)) return p->now;
  if (const auto* u = std::get_if<Unpin>(&event)) return u->now;
  if (const auto* t = std::get_if<Tick>(&event)) return t->now;
  if (const auto* t = std::get_if<Resumed>(&event)) return t->now;
  if (const auto* l = std::get_if<Left>(&event)) return l->now;
  return 0;
}

// Fields that a kind of message does not have are zero.
bool fields_fit(const Message& m) {
  using Kind = Message::Kind;
  const bool atomic = m.kind == Kind::perform || m.kind == Kind::performed;
  if (m.kind != Kind::want && (m.have || m.prefetch)) return false;
  if (atomic ? m.atomic.kind == Atomic::Kind::none : m.atomic != Atomic{}) return false;
  switch (m.kind) {
    case Kind::want: return m.access != Access::none && !m.carries_page && m.seq == 0;
    case Kind::grant: return m.access != Access::none;
    case Kind::recall: return m.access != Access::write && !m.carries_page;
    case Kind::recalled: return m.access != Access::write;
    case Kind::invalidate:
    case Kind::invalidated: return m.access == Access::none && !m.carries_page;
    case Kind::write_back: return m.access == Access::none && m.carries_page;
    case Kind::perform:
    case Kind::performed: return m.access == Access::none && !m.carries_page;
    case Kind::locate: return m.access == Access::none && !m.carries_page && m.seq == 0;
    case Kind::located: return m.access == Access::none && !m.carries_page;
  }
  return false;
}

// The daemon speaks with all hosts, and hosts with nobody but it.
bool is_peer(const Config& config, Node node) {
  if (config.placement == Placement::daemon && config.self != daemon_node) return node == daemon_node;
  return node < config.nodes && node != config.self;
}

// What no event may say, whatever the protocol. Threads and pages of our own are the driver's to get right.
bool malformed(const State& s, const Received& r) {
  return !is_peer(s.config, r.from) || r.msg.page >= s.config.pages || r.msg.access > Access::write ||
         !fields_fit(r.msg);
}

// A home that is a rank takes its pages along.
bool can_go_on_without(const State& s) {
  return s.config.placement == Placement::daemon && s.config.self == daemon_node && s.config.protocol == Protocol::msi;
}

void hash_atomic(const Atomic& a, std::uint64_t& hash) {
  hash = mix(hash, static_cast<std::uint64_t>(a.kind) | static_cast<std::uint64_t>(a.state) << 8U | std::uint64_t{a.word} << 32U);
  hash = mix(mix(hash, a.value), a.expected);
}

void hash_page(const State& s, Page page, std::uint64_t& hash) {
  const Local& l = s.locals[page];
  hash = mix(hash, l.seq | std::uint64_t{l.access} << 32U | std::uint64_t{l.asked} << 40U |
                       std::uint64_t{l.prefetching} << 48U | std::uint64_t{l.discard} << 49U);
  for (std::uint16_t w = l.waiters; w != 0; w = s.next_waiter[w - 1U]) hash = mix(hash, w);
  if (s.config.placement != Placement::cyclic) hash = mix(hash, s.home(page));
  if (!s.is_home(page)) return;
  const Directory& d = s.directory(page);
  hash = mix(hash, d.copies);
  hash = mix(hash, d.epoch | std::uint64_t{d.owner} << 32U | std::uint64_t{static_cast<std::uint8_t>(d.busy)} << 40U |
                       std::uint64_t{d.for_nobody} << 48U);
  if (d.queue == 0) return;
  std::uint16_t link = d.queue;
  do {  // starts behind the tail: that is the front
    link = s.requests[link - 1U].next;
    const Request& r = s.requests[link - 1U];
    hash = mix(hash, r.from | std::uint64_t{r.lane} << 8U | std::uint64_t{static_cast<std::uint8_t>(r.want)} << 16U |
                         std::uint64_t{r.have} << 24U | std::uint64_t{1} << 32U | std::uint64_t{r.waiter} << 40U);
    if (r.is_atomic()) hash_atomic(s.atomics[link - 1U], hash);
  } while (link != d.queue);
}

// A job of one node: nobody else can have the page or ask for it. There is no protocol then, and no directory: its memory
// stays untouched.
bool is_alone(const Config& config) { return config.nodes == 1 && config.placement != Placement::daemon; }

void fault_alone(State& s, const Fault& f, Actions& out) {
  if (s.here(f.page) < f.want) {
    static_cast<void>(locate(s, f.page, f.lane, out));  // here
    s.locals[f.page].seq = 1;                           // the first and only grant
    s.allow(f.page, s.config.protocol == Protocol::migrate ? Access::write : f.want, out);
  }
  out.push(Wake{f.waiter});
}

}  // namespace

void Actions::push(const Action& action) { push_bounded(list_, size_, action); }

Coherence::Coherence(const Config& config) : state_(std::make_unique<State>(config)) {}
Coherence::Coherence(const Coherence& other) : state_(std::make_unique<State>(*other.state_)) {}
Coherence& Coherence::operator=(const Coherence& other) {
  if (this != &other) *state_ = *other.state_;
  return *this;
}
Coherence::Coherence(Coherence&&) noexcept = default;
Coherence& Coherence::operator=(Coherence&&) noexcept = default;
Coherence::~Coherence() = default;

const Config& Coherence::config() const { return state_->config; }
Node Coherence::home(Page page) const { return state_->home(page); }
const Homes& Coherence::homes() const { return state_->homes; }
void Coherence::deal(Page first, Page count) { state_->homes.deal(first, count); }

void Coherence::step(const Event& event, Actions& out) {
  State& s = *state_;
  if (const auto* lost = std::get_if<PeerLost>(&event)) return out.push(Abort{Abort::Why::peer_lost, lost->who});
  if (const auto* left = std::get_if<Left>(&event); left != nullptr && !can_go_on_without(s)) {
    return out.push(Abort{Abort::Why::peer_lost, left->who});
  }
  if (const auto* r = std::get_if<Received>(&event); r != nullptr && malformed(s, *r)) {
    return out.push(bad_message(r->from));
  } else if (r != nullptr) {
    learn_home(s, *r);
  }
  s.now = std::max(s.now, time_of(event));
  if (std::holds_alternative<Tick>(event)) s.armed = 0;
  if (const auto* resumed = std::get_if<Resumed>(&event)) {
    s.note_resumed(resumed->page);
  } else if (const auto* pin = std::get_if<Pin>(&event)) {
    s.pin(pin->page, pin->until);
  } else if (const auto* unpin = std::get_if<Unpin>(&event)) {
    s.unpin(unpin->page);
  } else if (const auto* fault = std::get_if<Fault>(&event); fault != nullptr && is_alone(s.config)) {
    fault_alone(s, *fault, out);
  } else if (s.config.protocol == Protocol::migrate) {
    migrate_step(s, event, out);
  } else {
    msi_step(s, event, out);
  }
  s.arm(out);
}

View Coherence::view(Page page) const {
  const State& s = *state_;
  const Local& l = s.locals[page];
  View v{.here = s.here(page), .asked = s.asked(page) != Access::none, .home = s.home(page), .seq = l.seq};
  for (std::uint16_t w = l.waiters; w != 0; w = s.next_waiter[w - 1U]) ++v.waiting;
  v.pins = s.pins_of(page);
  if (!s.is_home(page)) return v;
  const Directory& d = s.directory(page);
  v.copies = d.copies;
  v.owner = d.owner != 0 ? static_cast<Node>(d.owner - 1) : s.config.self;
  if (d.queue != 0) {
    std::uint16_t link = d.queue;
    do {
      ++v.queued;
      link = s.requests[link - 1U].next;
    } while (link != d.queue);
  }
  if (d.busy != Busy::idle && d.busy != Busy::holding && d.busy != Busy::performing) {
    v.state = View::State::moving;
  } else if (d.owner != 0 || v.here == Access::write) {
    v.state = View::State::exclusive;
  } else if (d.copies != 0 || v.here == Access::read || d.epoch != 0 || l.seq != 0) {
    v.state = View::State::shared;
  }
  return v;
}

std::uint64_t Coherence::digest() const {
  const State& s = *state_;
  std::uint64_t hash = 0;
  for (Page page = 0; page < s.config.pages; ++page) hash_page(s, page, hash);
  for (std::size_t i = 0; i < s.revoke_count; ++i) {  // in the order in which they will be carried out
    const Revoke& r = s.revokes[i];
    hash = mix(hash, r.page | std::uint64_t{r.seq} << 32U);
    hash = mix(hash, r.from | std::uint64_t{r.lane} << 8U | std::uint64_t{static_cast<std::uint8_t>(r.keep)} << 16U |
                         std::uint64_t{r.recall} << 24U | std::uint64_t{r.before_grant} << 25U);
    if (r.atomic.kind != Atomic::Kind::none) hash_atomic(r.atomic, hash);
  }
  for (std::size_t w = 0; w < s.performing.size(); ++w) {
    if (s.performing[w] != 0) hash = mix(hash, s.performing[w] | std::uint64_t{w} << 32U | std::uint64_t{1} << 63U);
  }
  std::uint64_t sum = 0;  // order does not matter here
  for (const Recent& r : s.recent) {
    if (r.until > s.now) sum += mix(r.page, r.site);
  }
  for (Page page = s.unserved.sets() == 0 ? PageSets::none : s.unserved.next(0, 0); page != PageSets::none;
       page = s.unserved.next(0, page + 1)) {
    sum += mix(page, 1);
  }
  for (std::size_t i = 0; i < s.pin_count; ++i) {
    sum += mix(s.pinned[i].page, std::uint64_t{s.pinned[i].count} << 1U | std::uint64_t{s.pinned[i].until > s.now});
  }
  return mix(hash, sum);
}

std::string_view name(Protocol protocol) { return protocol == Protocol::migrate ? "migrate" : "msi"; }

bool parse(std::string_view text, Protocol& out) {
  for (const Protocol p : {Protocol::migrate, Protocol::msi}) {
    if (text == name(p)) {
      out = p;
      return true;
    }
  }
  return false;
}

}  // namespace dsm::core
