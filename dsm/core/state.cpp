#include "dsm/core/state.hpp"

#include <algorithm>

namespace dsm::core {

namespace {

// How many sets of pages are needed for hosts that may leave while the pages stay.
std::size_t sets_of(const Config& c, std::size_t sets) {
  return c.placement == Placement::daemon && c.self == daemon_node ? sets : 0;
}

}  // namespace

State::State(const Config& c)
    : config(c),
      locals(c.pages),
      homes(c.self, c.nodes, c.pages, c.placement),
      directories(homes.slots()),
      next_waiter(c.waiters),
      sites(c.waiters),
      requests(std::size_t{c.requests} + c.waiters),
      atomics(requests.size()),
      performing(c.waiters),
      // Each page has one at most: pages that threads here wait for, that are in their moment (recent), that are pinned.
      // So there is room for one of each, and none of them goes for want of it.
      revokes(std::size_t{c.waiters} + 64 + c.pins),
      pinned(c.pins),
      wanted(sets_of(c, c.nodes), c.pages),
      unserved(sets_of(c, 1), c.pages) {
  for (std::size_t i = 0; i + 1 < requests.size(); ++i) requests[i].next = static_cast<std::uint16_t>(i + 2);
  free_request = 1;
}

void State::allow(Page page, Access access, Actions& out) {
  if (here(page) == access) return;
  locals[page].access = static_cast<std::uint8_t>(access);
  out.push(Protect{page, access});
}

void State::wait(Page page, Waiter waiter, Site site) {
  next_waiter[waiter] = locals[page].waiters;
  locals[page].waiters = static_cast<std::uint16_t>(waiter + 1);
  sites[waiter] = site;
}

void State::wake_all(Page page, Actions& out) {
  std::uint16_t link = std::exchange(locals[page].waiters, std::uint16_t{0});
  while (link != 0) {
    const auto waiter = static_cast<Waiter>(link - 1);
    link = std::exchange(next_waiter[waiter], std::uint16_t{0});
    note_grant(page, std::exchange(sites[waiter], Site{0}));
    out.push(Wake{waiter});
  }
}

Request& State::front(Page page) {
  const std::uint16_t tail = directory(page).queue;
  return requests[requests[tail - 1U].next - 1U];
}

bool State::queued(Page page, Node from) const {
  const std::uint16_t tail = directory(page).queue;
  if (tail == 0) return false;
  std::uint16_t link = tail;
  do {
    if (requests[link - 1U].from == from && !requests[link - 1U].is_atomic()) return true;
    link = requests[link - 1U].next;
  } while (link != tail);
  return false;
}

void State::enqueue(Page page, const Request& request) {
  if (request.from != config.self) ++remote_requests;
  if (request.from < wanted.sets()) wanted.add(request.from, page);
  const std::uint16_t link = free_request;
  free_request = requests[link - 1U].next;
  requests[link - 1U] = request;
  std::uint16_t& tail = directory(page).queue;
  if (tail == 0) {
    requests[link - 1U].next = link;
  } else {
    requests[link - 1U].next = requests[tail - 1U].next;
    requests[tail - 1U].next = link;
  }
  tail = link;
}

void State::pop(Page page) {
  std::uint16_t& tail = directory(page).queue;
  const std::uint16_t head = requests[tail - 1U].next;
  if (head == tail) {
    tail = 0;
  } else {
    requests[tail - 1U].next = requests[head - 1U].next;
  }
  if (requests[head - 1U].from != config.self) --remote_requests;
  requests[head - 1U] = Request{};
  requests[head - 1U].next = free_request;
  free_request = head;
}

bool State::forget_requests(Page page, Node from) {
  if (queue_empty(page)) return false;
  const bool served = front(page).from == from;
  const std::uint16_t last = directory(page).queue;
  std::uint16_t link = 0;
  do {  // once round: those that stay go behind the last
    link = requests[directory(page).queue - 1U].next;
    const Request request = requests[link - 1U];
    pop(page);
    if (request.from != from) enqueue(page, request);
  } while (link != last);
  return served;
}

Micros State::held_until(Page page) const {
  Micros until = 0;
  for (const Recent& r : recent) {
    if (r.page == page) until = std::max(until, r.until);
  }
  for (std::size_t i = 0; i < pin_count; ++i) {
    if (pinned[i].page == page) until = std::max(until, pinned[i].until);
  }
  return until;
}

Revoke* State::pending(Page page) {
  for (std::size_t i = 0; i < revoke_count; ++i) {
    if (revokes[i].page == page) return &revokes[i];
  }
  return nullptr;
}

void State::defer(const Revoke& revoke) { revokes[revoke_count++] = revoke; }

void State::forget(const Revoke* revoke) {
  const auto index = static_cast<std::size_t>(revoke - revokes.data());
  revokes[index] = std::exchange(revokes[--revoke_count], Revoke{});
}

// The pages of one instruction, held on two nodes that each want the other's: if both let go after the same time they swap
// for ever. So the patience of each rank differs from every other's: the highest rank in the quarrel gets both pages.
void State::note_fault(Site site, Page page) {
  if (site == 0 || config.hold == 0) return;
  const Micros longest = config.hold * (4 + 4 * Micros{config.self});
  for (Recent& r : recent) {
    if (r.site == site && r.page != page && r.until > now) r.until = r.first + longest;
  }
}

void State::note_grant(Page page, Site site) {
  if (config.hold == 0) return;
  Recent* place = &recent[recent_next];
  for (Recent& r : recent) {
    if (r.until == 0) continue;
    if (r.page == page && r.site == site) place = &r;
    if (site == 0 || r.site != site || r.page == page || r.until <= now) continue;
    // What this instruction was waiting for has come: its other page is needed for one more moment only.
    r.until = std::min(r.until, now + config.hold);
  }
  if (place == &recent[recent_next]) recent_next = (recent_next + 1) % recent.size();
  *place = Recent{page, site, now, now + std::max(config.hold, config.absence)};
}

void State::note_resumed(Page page) {
  for (Recent& r : recent) {
    if (r.page == page) r.until = std::min(r.until, now + config.hold);
  }
}

void State::pin(Page page, Micros until) {
  if (here(page) == Access::none) return;
  std::size_t i = 0;
  while (i < pin_count && pinned[i].page != page) ++i;
  if (i == pinned.size()) return;
  if (i == pin_count) pinned[pin_count++] = Pinned{.page = page};
  ++pinned[i].count;
  pinned[i].until = std::max(pinned[i].until, until);
}

// If somebody waits for the page, arm() asks for a Tick at once.
void State::unpin(Page page) {
  for (std::size_t i = 0; i < pin_count; ++i) {
    if (pinned[i].page != page) continue;
    if (--pinned[i].count == 0) pinned[i] = std::exchange(pinned[--pin_count], Pinned{});
    return;
  }
}

std::uint32_t State::pins_of(Page page) const {
  for (std::size_t i = 0; i < pin_count; ++i) {
    if (pinned[i].page == page) return pinned[i].count;
  }
  return 0;
}

void give_up(State& s, const Revoke& revoke, Actions& out) {
  s.allow(revoke.page, revoke.keep, out);
  out.push(Send{revoke.from, revoke.lane,
                Message{.kind = revoke.recall ? Message::Kind::recalled : Message::Kind::invalidated,
                        .access = revoke.keep,
                        .carries_page = revoke.recall,
                        .page = revoke.page,
                        .seq = revoke.seq}});
}

void revoke_installed(State& s, const Revoke& revoke, Actions& out) {
  if (s.held(revoke.page) && s.has_revoke_room()) {
    s.defer(revoke);
  } else {
    give_up(s, revoke, out);
  }
}

void revoke_overtaken(State& s, Page page, Actions& out) {
  Revoke* pending = s.pending(page);
  if (pending == nullptr) return;
  Revoke revoke = *pending;
  s.forget(pending);
  if (revoke.atomic.kind != Atomic::Kind::none) return answer_atomic(revoke, out);
  revoke.before_grant = false;
  revoke_installed(s, revoke, out);
}

void answer_too_late(const Received& r, Actions& out) {
  out.push(Send{r.from, r.lane, Message{.kind = Message::Kind::recalled, .page = r.msg.page, .seq = r.msg.seq}});
}

bool too_late(const State& s, const Received& r) {
  return !r.msg.carries_page && r.msg.access == Access::none && !newer(r.msg.seq, s.wire_seq(r.msg.page));
}

void revoke_due(State& s, void (*serve)(State&, Page, Actions&), Actions& out) {
  for (std::size_t i = 0; i < s.revoke_count;) {
    const Revoke revoke = s.revokes[i];
    if (revoke.before_grant || s.held(revoke.page)) {
      ++i;
      continue;
    }
    if (out.size() > Actions::capacity / 4) return;  // bounded; what is left is due at once, see arm()
    s.forget(&s.revokes[i]);
    if (revoke.from == s.config.self) {
      s.directory(revoke.page).busy = Busy::idle;
      serve(s, revoke.page, out);
    } else {
      give_up(s, revoke, out);
    }
  }
}

void State::arm(Actions& out) {
  Micros next = unserved.sets() != 0 && unserved.size(0) != 0 ? std::max(now, Micros{1}) : 0;
  for (std::size_t i = 0; i < revoke_count; ++i) {
    if (revokes[i].before_grant) continue;
    const Micros due = std::max(held_until(revokes[i].page), now);
    if (next == 0 || due < next) next = due;
  }
  if (next != 0 && next != armed) out.push(Timer{next});
  armed = next;
}

}  // namespace dsm::core
