// Atomic operations that are done where the page is, as the Cray T3E's and InfiniBand's network adapters do them: two
// messages if the home has the page, four if somebody else owns it, and the page stays where it is.
//
// At the home an operation is one more request in the page's queue. If somebody may write the page, the operation is passed
// on to him, and done on his frame; if not, the home's frame is the page, and the home does it, when nobody has a copy any
// more. So it is done where a store could be done at that moment, and takes its place among all stores to the page.
//
// Like a recall, a question to the owner can overtake the grant of which it speaks, and waits for it; or find that the page
// has been written back already, and miss it: then the page is on its way home, where the operation will be done.
//
// Not under Placement::daemon, where an owner can go while he is being asked: nobody could say whether the operation is
// done.
#include "dsm/core/state.hpp"

namespace dsm::core {
namespace {

using Kind = Message::Kind;
using Done = Atomic::State;

Message answer(Page page, Seq seq, const Atomic& atomic) {
  return Message{.kind = Kind::performed, .page = page, .seq = seq, .atomic = atomic};
}

void tell(State& s, Waiter waiter, Page page, const Atomic& atomic, Actions& out) {
  s.performing[waiter] = 0;
  out.push(Performed{waiter, page, atomic});
}

// To whoever asked the home.
void tell_front(State& s, Page page, const Atomic& atomic, Actions& out) {
  const Request r = s.front(page);
  s.pop(page);
  if (r.from == s.config.self) return tell(s, r.waiter, page, atomic, out);
  out.push(Send{r.from, r.lane, answer(page, r.waiter, atomic)});
}

void asked_for(State& s, const Received& r, ServeOn serve_on, Actions& out) {
  const Message& m = r.msg;
  if (m.seq >= s.config.waiters || !s.has_request_room()) return out.push(bad_message(r.from));
  s.enqueue_atomic(m.page, Request{.from = r.from, .lane = r.lane, .waiter = static_cast<Waiter>(m.seq)}, m.atomic);
  serve_on(s, m.page, 0, out);
}

void asked_as_owner(State& s, const Received& r, Actions& out) {
  const Message& m = r.msg;
  const Seq installed = s.locals[m.page].seq;
  Revoke question{.page = m.page, .from = r.from, .lane = r.lane, .seq = m.seq, .atomic = m.atomic};
  const bool ahead = newer(m.seq, installed);
  if (m.seq == installed && s.here(m.page) == Access::write) return answer_atomic(question, out);
  if (!ahead) {
    question.atomic.state = Done::missed;
    return answer_atomic(question, out);
  }
  if (s.asked(m.page) != Access::write || s.pending(m.page) != nullptr || !s.has_revoke_room()) {
    return out.push(bad_message(r.from));
  }
  question.before_grant = true;
  s.defer(question);
}

// Only the answer says whether the operation has been done: the owner may have written the page back before the question
// came, or after it had done it, and what is written back may overtake the answer.
void answered_by_owner(State& s, const Received& r, ServeOn serve_on, Actions& out) {
  const Message& m = r.msg;
  Directory& d = s.directory(m.page);
  const bool returned = d.owner == 0;
  if (d.busy != Busy::performing || (!returned && d.owner != r.from + 1) || m.seq != s.wire_seq(m.page)) {
    return out.push(bad_message(r.from));
  }
  if (m.atomic.state == Done::missed && !returned) {
    d.busy = Busy::awaiting_write_back;
    return;
  }
  d.busy = Busy::idle;
  if (m.atomic.state == Done::done) tell_front(s, m.page, m.atomic, out);
  serve_on(s, m.page, 0, out);
}

}  // namespace

const Atomic& State::front_atomic(Page page) {
  return atomics[static_cast<std::size_t>(&front(page) - requests.data())];
}

void State::enqueue_atomic(Page page, const Request& request, const Atomic& atomic) {
  atomics[free_request - 1U] = atomic;
  enqueue(page, request);
}

std::uint64_t State::copies_in_the_way(Page page) {
  if (directory(page).for_nobody != 0) return directory(page).copies;
  const Request& r = front(page);
  return r.is_atomic() ? directory(page).copies : directory(page).copies & ~bit(r.from);
}

void answer_atomic(const Revoke& question, Actions& out) {
  out.push(Send{question.from, question.lane, answer(question.page, question.seq, question.atomic)});
}

void perform(State& s, const Perform& p, ServeOn serve_on, Actions& out) {
  if (s.here(p.page) == Access::write) return out.push(Performed{p.waiter, p.page, p.atomic});
  s.performing[p.waiter] = p.page + 1;
  if (!s.is_home(p.page)) {
    out.push(Send{s.home(p.page), p.lane,
                  Message{.kind = Kind::perform, .page = p.page, .seq = p.waiter, .atomic = p.atomic}});
    return;
  }
  const bool first = s.queue_empty(p.page);
  s.enqueue_atomic(p.page, Request{.from = s.config.self, .lane = p.lane, .waiter = p.waiter}, p.atomic);
  if (first) serve_on(s, p.page, p.lane, out);
}

void pass_on(State& s, Page page, Lane own_lane, Actions& out) {
  Directory& d = s.directory(page);
  d.busy = Busy::performing;
  out.push(Send{static_cast<Node>(d.owner - 1), own_lane,
                Message{.kind = Kind::perform, .page = page, .seq = s.wire_seq(page), .atomic = s.front_atomic(page)}});
}

void perform_here(State& s, Page page, Actions& out) {
  const Atomic atomic = s.front_atomic(page);
  tell_front(s, page, atomic, out);
}

void on_perform(State& s, const Received& r, ServeOn serve_on, Actions& out) {
  const bool offered = s.config.placement != Placement::daemon;
  if (r.msg.atomic.state != Done::asked || !offered) return out.push(bad_message(r.from));
  if (s.is_home(r.msg.page)) return asked_for(s, r, serve_on, out);
  if (s.home(r.msg.page) != r.from) return out.push(bad_message(r.from));
  asked_as_owner(s, r, out);
}

void on_performed(State& s, const Received& r, ServeOn serve_on, Actions& out) {
  const Message& m = r.msg;
  const bool offered = s.config.placement != Placement::daemon;
  if (m.atomic.state == Done::asked || !offered) return out.push(bad_message(r.from));
  if (s.is_home(m.page)) return answered_by_owner(s, r, serve_on, out);
  if (s.home(m.page) != r.from || m.seq >= s.config.waiters || s.performing[m.seq] != m.page + 1 ||
      m.atomic.state != Done::done) {
    return out.push(bad_message(r.from));
  }
  tell(s, static_cast<Waiter>(m.seq), m.page, m.atomic, out);
}

}  // namespace dsm::core
