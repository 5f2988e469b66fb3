// A page that lives where it was touched first: a node that touches a page for the first time asks the page's manager
// (locate), who says where it lives (located): where the first who asked is, or here, if that was one of its own
// threads. Two messages, once for each node and page; the manager's own threads need none.
//
// What the manager has said may reach a third node before it reaches the home itself, on another connection: then the
// home learns from the first question that comes to it that it is the home. It has asked the manager itself then; a
// question to a node that has not is a mistake.

#include "dsm/core/state.hpp"

namespace dsm::core {

using Kind = Message::Kind;

bool locate(State& s, Page page, Lane lane, Actions& out) {
  if (s.home(page) != nowhere) return true;
  const Node manager = s.homes.manager(page);
  if (manager == s.config.self) {
    s.homes.settle(page, manager);
    return true;
  }
  out.push(Send{manager, lane, Message{.kind = Kind::locate, .page = page}});
  return false;
}

void on_locate(State& s, const Received& r, Actions& out) {
  const Page page = r.msg.page;
  // Who lives there knows it, and does not ask again.
  if (s.config.placement != Placement::first_touch || s.homes.manager(page) != s.config.self ||
      s.home(page) == r.from) {
    return out.push(bad_message(r.from));
  }
  if (s.home(page) == nowhere) s.homes.settle(page, r.from);
  out.push(Send{r.from, r.lane, Message{.kind = Kind::located, .page = page, .seq = s.home(page)}});
}

void on_located(State& s, const Received& r, Ask ask, Actions& out) {
  const Page page = r.msg.page;
  const Node known = s.home(page);
  // If it is here it may be known already, but then this thread's request is not among those that wait for the page.
  const bool news = known == nowhere || (known == s.config.self && r.msg.seq == known && !s.queued(page, known));
  if (s.config.placement != Placement::first_touch || s.homes.manager(page) != r.from || r.msg.seq >= s.config.nodes ||
      s.asked(page) == Access::none || !news) {
    return out.push(bad_message(r.from));
  }
  s.homes.settle(page, static_cast<Node>(r.msg.seq));
  ask(s, page, r.lane, out);
}

void learn_home(State& s, const Received& r) {
  const bool asks_home = r.msg.kind == Kind::want || r.msg.kind == Kind::perform;
  if (!asks_home || s.config.placement != Placement::first_touch || s.home(r.msg.page) != nowhere) return;
  if (s.asked(r.msg.page) == Access::none) return;
  if (s.homes.manager(r.msg.page) != s.config.self) s.homes.settle(r.msg.page, s.config.self);
}

}  // namespace dsm::core
