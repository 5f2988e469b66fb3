// One writer or many readers: the invalidation protocol of Li and Hudak ("Memory Coherence in Shared Virtual Memory
// Systems", ACM TOCS 7(4), 1989; the fixed distributed manager); what they call manager is the home here, and relays the page.
//
// A page is either exclusive (one node may write, `owner`) or shared (the home's frame is current, `copies` may read).
// A write therefore first costs all readers their copies: that is what makes memory sequentially consistent, and every
// instruction within a page atomic.
//
//   clean read or write miss  2 messages   want, grant
//   dirty miss                4            want, recall, recalled, grant
//   upgrade, k other readers  2 + 2k       want, k x (invalidate, invalidated), grant
//
// Grants travel on the lane of the want, recalls and invalidations on another connection, so they overtake each other:
// each carries the number of the grant that it is, or is about. Three ways of losing that number are dangerous, and are
// why Local has `discard`: a copy dropped silently and wanted again, a prefetch nobody waits for, and both together.
#include "dsm/core/state.hpp"

namespace dsm::core {
namespace {

using Kind = Message::Kind;

// ---- at the home ----------------------------------------------------------------------------------------------------

Message about(const State& s, Page page, Kind kind, Access access) {
  return Message{.kind = kind, .access = access, .page = page, .seq = s.wire_seq(page)};
}

void grant_read(State& s, Page page, const Request& r, Actions& out) {
  if (r.from == s.config.self) {
    s.set_asked(page, Access::none);
    s.allow(page, Access::read, out);
    return s.wake_all(page, out);
  }
  if (s.here(page) == Access::write) s.allow(page, Access::read, out);  // before the page is sent
  s.directory(page).copies |= bit(r.from);
  Message grant = about(s, page, Kind::grant, Access::read);
  grant.carries_page = true;
  out.push(Send{r.from, r.lane, grant});
}

void grant_write(State& s, Page page, const Request& r, Actions& out) {
  Directory& d = s.directory(page);
  // What the directory says and what the requester says must agree: it may have dropped the copy we remember, and it may
  // have lost, since it asked, the copy it had.
  const bool has_copy = r.have && (d.copies & bit(r.from)) != 0;
  d.epoch = next_epoch(d.epoch);
  d.copies = 0;
  if (r.from == s.config.self) {
    s.set_asked(page, Access::none);
    s.allow(page, Access::write, out);
    return s.wake_all(page, out);
  }
  s.allow(page, Access::none, out);
  d.owner = static_cast<std::uint8_t>(r.from + 1);
  Message grant = about(s, page, Kind::grant, Access::write);
  grant.carries_page = !has_copy;
  out.push(Send{r.from, r.lane, grant});
}

// What must happen before the front request can be granted. True if that takes an answer from elsewhere, or time.
bool must_wait(State& s, Page page, const Request& r, Lane own_lane, Actions& out) {
  Directory& d = s.directory(page);
  const bool writes = r.want == Access::write || r.is_atomic();
  if (d.owner != 0 && r.is_atomic()) {
    pass_on(s, page, own_lane, out);
  } else if (d.owner == r.from + 1) {  // it wants again what it has just written back: that will arrive
    d.busy = Busy::awaiting_write_back;
  } else if (d.owner != 0) {
    d.busy = Busy::recalling;
    const Access keep = r.want == Access::read ? Access::read : Access::none;
    out.push(Send{static_cast<Node>(d.owner - 1), own_lane, about(s, page, Kind::recall, keep)});
  } else if (const std::uint64_t others = s.copies_in_the_way(page); writes && others != 0) {
    d.busy = Busy::invalidating;
    for (Node n = 0; n < s.config.nodes; ++n) {
      if ((others & bit(n)) != 0) out.push(Send{n, own_lane, about(s, page, Kind::invalidate, Access::none)});
    }
  } else if (r.from != s.config.self && !r.is_atomic() && s.here(page) > (r.want == Access::read ? Access::read : Access::none) &&
             s.held(page) && s.has_revoke_room()) {
    d.busy = Busy::holding;
    s.defer(Revoke{.page = page, .from = s.config.self});
  }
  return d.busy != Busy::idle;
}

// Serves the page's requests, in order of arrival, until one must wait. `own_lane`: where to send what the home's own
// faulting thread will read the answers of; 0 if that thread is not the caller.
void serve_on(State& s, Page page, Lane own_lane, Actions& out) {
  while (s.directory(page).busy == Busy::idle && !s.queue_empty(page)) {
    const Request r = s.front(page);
    if (must_wait(s, page, r, own_lane, out)) return;
    if (r.is_atomic()) {
      perform_here(s, page, out);
    } else {
      s.pop(page);
      r.want == Access::read ? grant_read(s, page, r, out) : grant_write(s, page, r, out);
    }
  }
}
void serve(State& s, Page page, Actions& out) { serve_on(s, page, 0, out); }

void on_want(State& s, const Received& r, Actions& out) {
  const Message& m = r.msg;
  if (m.access == Access::none || (m.access == Access::read && m.have) || (m.prefetch && m.access != Access::read) ||
      s.queued(m.page, r.from) || !s.has_request_room()) {
    return out.push(bad_message(r.from));
  }
  s.enqueue(m.page, Request{.from = r.from, .lane = r.lane, .want = m.access, .have = m.have});
  serve(s, m.page, out);
}

void on_recalled(State& s, const Received& r, Actions& out) {
  const Message& m = r.msg;
  Directory& d = s.directory(m.page);
  if (too_late(s, r)) return;
  if (d.busy != Busy::recalling || d.owner != r.from + 1 || m.seq != s.wire_seq(m.page) || !m.carries_page) {
    return out.push(bad_message(r.from));
  }
  // If whoever wanted the page has gone, so has what the owner was told to keep; he says what he has kept.
  if (d.for_nobody == 0 && m.access != (s.front(m.page).want == Access::read ? Access::read : Access::none)) {
    return out.push(bad_message(r.from));
  }
  out.push(Install{m.page, r.from});
  d.owner = 0;
  d.copies = m.access == Access::read ? bit(r.from) : 0;
  d.rest();
  serve(s, m.page, out);
}

void on_invalidated(State& s, const Received& r, Actions& out) {
  const Message& m = r.msg;
  Directory& d = s.directory(m.page);
  if (d.busy != Busy::invalidating || (s.copies_in_the_way(m.page) & bit(r.from)) == 0 || m.seq != s.wire_seq(m.page) || m.carries_page) {
    return out.push(bad_message(r.from));
  }
  d.copies &= ~bit(r.from);
  if (s.copies_in_the_way(m.page) != 0) return;
  d.rest();
  serve(s, m.page, out);
}

void on_write_back(State& s, const Received& r, Actions& out) {
  const Message& m = r.msg;
  Directory& d = s.directory(m.page);
  if (d.owner != r.from + 1 || m.seq != s.wire_seq(m.page) || !m.carries_page) return out.push(bad_message(r.from));
  out.push(Install{m.page, r.from});
  d.owner = 0;
  if (d.busy == Busy::performing) return;  // the answer will say whether the operation has been done
  d.rest();  // if it was being recalled, or waited for: this is it, and the recall will be ignored
  serve(s, m.page, out);
}

// ---- at a node that wants or has a page -----------------------------------------------------------------------------

void ask(State& s, Page page, Access access, Lane lane, bool prefetch, Actions& out) {
  s.set_asked(page, access);
  s.locals[page].prefetching = prefetch ? 1 : 0;
  out.push(Send{s.home(page), lane,
                Message{.kind = Kind::want,
                        .access = access,
                        .have = s.here(page) == Access::read,
                        .prefetch = prefetch,
                        .page = page}});
}

void ask_home(State& s, Page page, Lane lane, Actions& out) {
  const Access access = s.asked(page);
  if (!s.is_home(page)) return ask(s, page, access, lane, false, out);
  const bool first = s.queue_empty(page);
  s.enqueue(page, Request{.from = s.config.self, .lane = lane, .want = access});
  if (first) serve_on(s, page, lane, out);
}

void on_fault(State& s, const Fault& f, Actions& out) {
  if (s.here(f.page) >= f.want) return out.push(Wake{f.waiter});  // another thread was quicker
  s.note_fault(f.site, f.page);
  s.wait(f.page, f.waiter, f.site);
  s.locals[f.page].prefetching = 0;
  if (s.asked(f.page) != Access::none) return;  // asked for already; if it turns out too little, we fault again
  s.set_asked(f.page, f.want);
  if (locate(s, f.page, f.lane, out)) ask_home(s, f.page, f.lane, out);
}

void on_grant(State& s, const Received& r, Actions& out) {
  const Message& m = r.msg;
  Local& l = s.locals[m.page];
  const Revoke* pending = s.pending(m.page);
  const bool for_this = pending != nullptr && pending->before_grant;
  if (m.access != s.asked(m.page) || m.access == Access::none || newer(l.seq, m.seq) ||
      (m.access == Access::write && m.seq == l.seq) || (!m.carries_page && (m.access != Access::write || s.here(m.page) != Access::read)) ||
      (for_this && pending->seq != m.seq)) {
    return out.push(bad_message(r.from));
  }
  const bool revoked = l.discard != 0 && m.seq == l.seq;
  l.discard = 0;
  if (revoked) {
    s.set_asked(m.page, Access::none);
    l.prefetching = 0;
    if (l.waiters != 0) ask(s, m.page, m.access, r.lane, false, out);
    return;
  }
  if (m.carries_page) out.push(Install{m.page, r.from});
  l.seq = m.seq;
  l.prefetching = 0;
  s.set_asked(m.page, Access::none);
  s.allow(m.page, m.access, out);
  s.wake_all(m.page, out);
  if (for_this) revoke_overtaken(s, m.page, out);
}

void on_recall(State& s, const Received& r, Actions& out) {
  const Message& m = r.msg;
  const Seq installed = s.locals[m.page].seq;
  Revoke revoke{.page = m.page, .from = r.from, .lane = r.lane, .recall = true, .keep = m.access, .seq = m.seq};
  if (m.access == Access::write || m.carries_page) return out.push(bad_message(r.from));
  const bool ahead = newer(m.seq, installed);
  const bool owned = m.seq == installed && s.here(m.page) == Access::write;
  if (!ahead && !owned) return answer_too_late(r, out);  // the page has been written back already
  if (s.pending(m.page) != nullptr) return out.push(bad_message(r.from));
  if (owned) return revoke_installed(s, revoke, out);
  if (s.asked(m.page) != Access::write || !s.has_revoke_room()) return out.push(bad_message(r.from));
  revoke.before_grant = true;  // it has overtaken the grant that it names
  s.defer(revoke);
}

void on_invalidate(State& s, const Received& r, Actions& out) {
  const Message& m = r.msg;
  Local& l = s.locals[m.page];
  Revoke revoke{.page = m.page, .from = r.from, .lane = r.lane, .keep = Access::none, .seq = m.seq};
  const bool ahead = newer(m.seq, l.seq);
  const bool reading = s.asked(m.page) == Access::read;
  if (m.access != Access::none || m.carries_page || s.pending(m.page) != nullptr || (ahead && !reading) ||
      (m.seq == l.seq && s.here(m.page) == Access::write)) {
    return out.push(bad_message(r.from));
  }
  if (m.seq == l.seq && s.here(m.page) == Access::read) return revoke_installed(s, revoke, out);
  if (ahead && l.prefetching == 0) {  // our grant is on its way: it must serve the one who waits, then go
    if (!s.has_revoke_room()) return out.push(bad_message(r.from));
    revoke.before_grant = true;
    return s.defer(revoke);
  }
  // A prefetch, or a copy dropped in silence and perhaps wanted again: answer at once, and should a grant with this
  // number be on its way, it is worth nothing.
  if (!newer(l.seq, m.seq)) {
    l.seq = m.seq;
    if (reading) l.discard = 1;
  }
  give_up(s, revoke, out);
}

void prefetch(State& s, const Prefetch& p, Actions& out) {
  const Node home = s.home(p.page);
  if (home == s.config.self || home == nowhere || s.here(p.page) != Access::none || s.asked(p.page) != Access::none) return;
  ask(s, p.page, Access::read, p.lane, true, out);
}

// At the home the page stays what it is, in the frame: only its own threads will have to ask again.
void drop(State& s, Page page, Actions& out) {
  if (s.here(page) == Access::write && !s.is_home(page)) return;
  if (s.may_leave(page)) s.allow(page, Access::none, out);
}

void write_back(State& s, Page page, Actions& out) {
  if (s.is_home(page) || s.here(page) != Access::write || !s.may_leave(page)) return;
  s.allow(page, Access::none, out);
  out.push(Send{s.home(page), 0,
                Message{.kind = Kind::write_back, .carries_page = true, .page = page, .seq = s.locals[page].seq}});
}

void received(State& s, const Received& r, Actions& out) {
  const bool home_here = s.is_home(r.msg.page);
  const bool from_home = !home_here && s.home(r.msg.page) == r.from;
  switch (r.msg.kind) {
    case Kind::want: return home_here ? on_want(s, r, out) : out.push(bad_message(r.from));
    case Kind::recalled: return home_here ? on_recalled(s, r, out) : out.push(bad_message(r.from));
    case Kind::invalidated: return home_here ? on_invalidated(s, r, out) : out.push(bad_message(r.from));
    case Kind::write_back: return home_here ? on_write_back(s, r, out) : out.push(bad_message(r.from));
    case Kind::perform: return on_perform(s, r, serve_on, out);
    case Kind::performed: return on_performed(s, r, serve_on, out);
    case Kind::locate: return on_locate(s, r, out);
    case Kind::located: return on_located(s, r, ask_home, out);
    case Kind::grant: return from_home ? on_grant(s, r, out) : out.push(bad_message(r.from));
    case Kind::recall: return from_home ? on_recall(s, r, out) : out.push(bad_message(r.from));
    case Kind::invalidate: return from_home ? on_invalidate(s, r, out) : out.push(bad_message(r.from));
  }
}

}  // namespace

void msi_step(State& s, const Event& event, Actions& out) {
  if (const auto* f = std::get_if<Fault>(&event)) return on_fault(s, *f, out);
  if (const auto* r = std::get_if<Received>(&event)) return received(s, *r, out);
  if (const auto* l = std::get_if<Left>(&event)) return left(s, l->who, serve, out);
  if (std::holds_alternative<Tick>(event)) {
    revoke_due(s, serve, out);
    return serve_unserved(s, serve, out);
  }
  if (const auto* p = std::get_if<Perform>(&event)) return perform(s, *p, serve_on, out);
  if (const auto* p = std::get_if<Prefetch>(&event)) return prefetch(s, *p, out);
  if (const auto* d = std::get_if<Drop>(&event)) return drop(s, d->page, out);
  if (const auto* w = std::get_if<WriteBack>(&event)) return write_back(s, w->page, out);
}

}  // namespace dsm::core
