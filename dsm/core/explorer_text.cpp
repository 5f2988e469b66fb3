#include "dsm/core/explorer_text.hpp"

namespace dsm::core::explorer {

namespace {

std::string state_name(const Atomic& atomic) {
  switch (atomic.state) {
    case Atomic::State::asked:
      return "now";
    case Atomic::State::done:
      return "done";
    case Atomic::State::missed:
      return "missed";
  }
  return "state " + std::to_string(static_cast<unsigned>(atomic.state));
}

std::string number(std::uint64_t n) { return std::to_string(n); }
std::string page_name(Page page) { return "p" + number(page); }

std::string kind_name(Message::Kind kind) {
  switch (kind) {
    case Message::Kind::want:
      return "want";
    case Message::Kind::grant:
      return "grant";
    case Message::Kind::recall:
      return "recall";
    case Message::Kind::recalled:
      return "recalled";
    case Message::Kind::invalidate:
      return "invalidate";
    case Message::Kind::invalidated:
      return "invalidated";
    case Message::Kind::write_back:
      return "write_back";
    case Message::Kind::perform:
      return "perform";
    case Message::Kind::performed:
      return "performed";
    case Message::Kind::locate:
      return "locate";
    case Message::Kind::located:
      return "located";
  }
  return "kind " + number(static_cast<unsigned>(kind));
}

struct Wording {
  std::string operator()(const Send& s) const {
    return "send " + text(s.msg) + " -> " + number(s.to) + " on " + number(s.lane);
  }
  std::string operator()(const Install& i) const { return "install " + page_name(i.page); }
  std::string operator()(const Protect& p) const { return "protect " + page_name(p.page) + " " + text(p.allow); }
  std::string operator()(const Wake& w) const { return "wake " + number(w.who); }
  std::string operator()(const Timer& t) const { return "timer " + number(t.at); }
  std::string operator()(const Abort& a) const {
    return (a.why == Abort::Why::peer_lost ? "abort: lost peer " : "abort: bad message from ") + number(a.who);
  }
  std::string operator()(const Performed& p) const {
    return "performed " + page_name(p.page) + " " + state_name(p.atomic) + " for " + number(p.who);
  }
};

}  // namespace

std::string text(Access access) {
  switch (access) {
    case Access::none:
      return "none";
    case Access::read:
      return "read";
    case Access::write:
      return "write";
  }
  return "access " + number(static_cast<unsigned>(access));
}

std::string text(const Message& msg) {
  using Kind = Message::Kind;
  std::string out = kind_name(msg.kind);
  const bool about_access =
      msg.kind == Kind::want || msg.kind == Kind::grant || msg.kind == Kind::recall || msg.kind == Kind::recalled;
  if (about_access) out += " " + text(msg.access);
  out += " " + page_name(msg.page);
  if (msg.kind != Kind::want && msg.kind != Kind::locate) out += " #" + number(msg.seq);
  if (msg.kind == Kind::performed) out += " " + state_name(msg.atomic);
  if (msg.carries_page) out += " +page";
  if (msg.have) out += " have";
  if (msg.prefetch) out += " prefetch";
  return out;
}

std::string text(const Action& action) { return std::visit(Wording{}, action); }

std::string text(const Actions& list) {
  std::string out;
  for (const Action& action : list) out += (out.empty() ? "" : "\n") + text(action);
  return out;
}

}  // namespace dsm::core::explorer
