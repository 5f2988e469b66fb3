// The protocol with one copy of each page, which moves to whoever touches it.
//
// The home knows where the copy is. A node that faults asks the home (want); the home, if somebody else has the page,
// calls it back (recall, recalled) and passes it on (grant). Two messages when the home has the page, four when not.
// Nobody else ever speaks to anybody else. Requests for one page are served one after the other, in order of arrival.
#include "dsm/core/state.hpp"

namespace dsm::core {
namespace {

using Kind = Message::Kind;

//@ solution 7A.migrate
// At the home: serves the page's requests until one must wait for somebody.
void serve_on(State& s, Page page, Lane own_lane, Actions& out) {
  Directory& d = s.directory(page);
  while (d.busy == Busy::idle && !s.queue_empty(page)) {
    const Request r = s.front(page);
    if (r.is_atomic()) {  // atomic.cpp
      if (d.owner != 0) return pass_on(s, page, own_lane, out);
      perform_here(s, page, out);
    } else if (d.owner == r.from + 1) {  // it wants again what it has just written back: that will arrive
      d.busy = Busy::awaiting_write_back;
    } else if (d.owner != 0) {
      d.busy = Busy::recalling;
      out.push(Send{static_cast<Node>(d.owner - 1), own_lane, Message{.kind = Kind::recall, .page = page, .seq = s.wire_seq(page)}});
    } else if (r.from == s.config.self) {
      s.pop(page);
      s.set_asked(page, Access::none);
      d.epoch = next_epoch(d.epoch);
      s.allow(page, Access::write, out);
      s.wake_all(page, out);
    } else if (s.held(page) && s.here(page) != Access::none && s.has_revoke_room()) {
      d.busy = Busy::holding;
      s.defer(Revoke{.page = page, .from = s.config.self});
    } else {
      s.pop(page);
      d.epoch = next_epoch(d.epoch);
      d.owner = static_cast<std::uint8_t>(r.from + 1);
      s.allow(page, Access::none, out);  // before the page is sent: what is sent must be the last that was written
      out.push(Send{r.from, r.lane, Message{.kind = Kind::grant, .access = Access::write, .carries_page = true, .page = page, .seq = s.wire_seq(page)}});
    }
  }
}
void serve(State& s, Page page, Actions& out) { serve_on(s, page, 0, out); }

// The home is known: asks it, or joins the queue if that is here.
void ask(State& s, Page page, Lane lane, Actions& out) {
  if (s.is_home(page)) {
    const bool first = s.queue_empty(page);
    s.enqueue(page, Request{.from = s.config.self, .lane = lane, .want = Access::write});
    if (first) serve_on(s, page, lane, out);
  } else {
    out.push(Send{s.home(page), lane, Message{.kind = Kind::want, .access = Access::write, .page = page}});
  }
}

void fault(State& s, const Fault& f, Actions& out) {
  if (s.here(f.page) == Access::write) return out.push(Wake{f.waiter});  // another thread was quicker
  s.note_fault(f.site, f.page);
  s.wait(f.page, f.waiter, f.site);
  if (s.asked(f.page) != Access::none) return;  // asked for already
  s.set_asked(f.page, Access::write);
  if (locate(s, f.page, f.lane, out)) ask(s, f.page, f.lane, out);
}

void want(State& s, const Received& r, Actions& out) {
  if (r.msg.access != Access::write || r.msg.prefetch || r.msg.have || s.queued(r.msg.page, r.from) || !s.has_request_room()) {
    return out.push(bad_message(r.from));
  }
  s.enqueue(r.msg.page, Request{.from = r.from, .lane = r.lane, .want = Access::write});
  serve(s, r.msg.page, out);
}

// The page comes home: because it was recalled, or because its owner gave it up.
void returned(State& s, const Received& r, Actions& out) {
  Directory& d = s.directory(r.msg.page);
  const bool asked_for = r.msg.kind == Kind::recalled;
  if (asked_for && too_late(s, r)) return;
  if (d.owner != r.from + 1 || r.msg.seq != s.wire_seq(r.msg.page) || !r.msg.carries_page || r.msg.access != Access::none ||
      (asked_for && d.busy != Busy::recalling)) {
    return out.push(bad_message(r.from));
  }
  d.owner = 0;
  out.push(Install{r.msg.page, r.from});
  if (d.busy == Busy::performing) return;  // atomic.cpp: the answer will say whether the operation has been done
  d.busy = Busy::idle;
  serve(s, r.msg.page, out);
}

void grant(State& s, const Received& r, Actions& out) {
  const Page page = r.msg.page;
  const Revoke* pending = s.pending(page);
  if (s.asked(page) == Access::none || r.msg.access != Access::write || !r.msg.carries_page || !newer(r.msg.seq, s.locals[page].seq) ||
      (pending != nullptr && pending->seq != r.msg.seq)) {
    return out.push(bad_message(r.from));
  }
  s.set_asked(page, Access::none);
  s.locals[page].seq = r.msg.seq;
  out.push(Install{page, r.from});  // the bytes first, then the permission, then the threads
  s.allow(page, Access::write, out);
  s.wake_all(page, out);
  revoke_overtaken(s, page, out);
}

void recall(State& s, const Received& r, Actions& out) {
  const Page page = r.msg.page;
  Revoke revoke{.page = page, .from = r.from, .lane = r.lane, .recall = true, .keep = Access::none, .seq = r.msg.seq};
  if (r.msg.access != Access::none || r.msg.carries_page) return out.push(bad_message(r.from));
  const bool ahead = newer(r.msg.seq, s.locals[page].seq);
  const bool owned = r.msg.seq == s.locals[page].seq && s.here(page) == Access::write;
  if (!ahead && !owned) return answer_too_late(r, out);  // the page has been written back already
  if (s.pending(page) != nullptr) return out.push(bad_message(r.from));
  if (owned) return revoke_installed(s, revoke, out);
  if (s.asked(page) == Access::none || !s.has_revoke_room()) return out.push(bad_message(r.from));
  revoke.before_grant = true;  // it has overtaken the grant that it names
  s.defer(revoke);
}

void write_back(State& s, Page page, Actions& out) {
  if (s.is_home(page) || s.here(page) != Access::write || !s.may_leave(page)) return;
  s.allow(page, Access::none, out);
  out.push(Send{s.home(page), 0, Message{.kind = Kind::write_back, .carries_page = true, .page = page, .seq = s.locals[page].seq}});
}
//@ starter
// TODO 7A.migrate: write the five answers of a node (to a fault, a want, a page that comes home, a grant, a recall) as
// functions of the state. A fault that does not find the page here: if locate() says that the home is known, ask() it; if
// not, ask() is called for you as soon as it is known. Then run the explorer: it prints the shortest conversation that goes wrong.
//| void serve_on(State&, Page, Lane, Actions&) {}
//| void serve(State&, Page, Actions&) {}
//| void ask(State&, Page, Lane, Actions&) {}
//| void fault(State&, const Fault&, Actions&) {}
//| void want(State&, const Received&, Actions&) {}
//| void returned(State&, const Received&, Actions&) {}
//| void grant(State&, const Received&, Actions&) {}
//| void recall(State&, const Received&, Actions&) {}
//| void write_back(State&, Page, Actions&) {}
//@ end

void received(State& s, const Received& r, Actions& out) {
  const bool home_here = s.is_home(r.msg.page);
  const bool from_home = !home_here && s.home(r.msg.page) == r.from;
  switch (r.msg.kind) {
    case Kind::want: return home_here ? want(s, r, out) : out.push(bad_message(r.from));
    case Kind::recalled:
    case Kind::write_back: return home_here ? returned(s, r, out) : out.push(bad_message(r.from));
    case Kind::grant: return from_home ? grant(s, r, out) : out.push(bad_message(r.from));
    case Kind::recall: return from_home ? recall(s, r, out) : out.push(bad_message(r.from));
    case Kind::perform: return on_perform(s, r, serve_on, out);
    case Kind::performed: return on_performed(s, r, serve_on, out);
    case Kind::locate: return on_locate(s, r, out);
    case Kind::located: return on_located(s, r, ask, out);
    case Kind::invalidate:
    case Kind::invalidated: break;  // there are no copies to forget
  }
  out.push(bad_message(r.from));
}

}  // namespace

void migrate_step(State& s, const Event& event, Actions& out) {
  if (const auto* f = std::get_if<Fault>(&event)) return fault(s, *f, out);
  if (const auto* r = std::get_if<Received>(&event)) return received(s, *r, out);
  if (const auto* p = std::get_if<Perform>(&event)) return perform(s, *p, serve_on, out);
  if (const auto* w = std::get_if<WriteBack>(&event)) return write_back(s, w->page, out);
  if (std::holds_alternative<Tick>(event)) return revoke_due(s, serve, out);
  // Prefetch and Drop are about readable copies, and here there are none; but the home may give up its own access.
  if (const auto* d = std::get_if<Drop>(&event); d != nullptr && s.is_home(d->page) && s.may_leave(d->page)) {
    s.allow(d->page, Access::none, out);
  }
}

}  // namespace dsm::core
