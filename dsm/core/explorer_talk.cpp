#include "dsm/core/explorer_talk.hpp"

#include <stdexcept>
#include <utility>

#include "dsm/core/explorer_text.hpp"

namespace dsm::core::explorer {

namespace {

std::string about(Page page) { return "p" + std::to_string(page); }

}  // namespace

Talk::Talk(std::uint8_t nodes, Protocol protocol, Micros hold, Page pages, Micros absence, Placement placement) {
  const unsigned homes = placement == Placement::daemon ? 1 : 0;
  for (unsigned n = 0; n < nodes + homes; ++n) {
    cores_.emplace_back(Config{.self = n < nodes ? static_cast<Node>(n) : daemon_node,
                               .nodes = nodes,
                               .pages = pages,
                               .protocol = protocol,
                               .placement = placement,
                               .waiters = 4,
                               .requests = 8,
                               .pins = 2,
                               .hold = hold,
                               .absence = absence});
  }
}

void Talk::step(Node at, const Event& event, const std::string& words) {
  text_ += std::to_string(at) + ": " + words + "\n";
  last_.clear();
  core(at).step(event, last_);
  for (const Action& action : last_) {
    text_ += "     " + explorer::text(action) + "\n";
    const auto* send = std::get_if<Send>(&action);
    if (send == nullptr) continue;
    flights_.push_back({at, send->to, send->lane, send->msg});
    Atomic& atomic = flights_.back().msg.atomic;
    const bool performs = send->msg.kind == Message::Kind::performed && atomic.state == Atomic::State::asked;
    if (performs) atomic.state = Atomic::State::done;
    ++messages_;
  }
}

void Talk::fault(Node at, Page page, Access want, Waiter waiter) {
  fault_on(static_cast<Lane>(waiter + 1), at, page, want, waiter);
}

void Talk::fault_on(Lane lane, Node at, Page page, Access want, Waiter waiter) {
  const Site site = 100U + waiter;
  step(at, Fault{.page = page, .want = want, .waiter = waiter, .lane = lane, .site = site, .now = now_},
       "fault " + explorer::text(want) + " " + about(page));
}

void Talk::perform(Node at, Page page, Waiter waiter) {
  const Atomic add{.kind = Atomic::Kind::add, .value = 1};
  step(at, Perform{.page = page, .atomic = add, .waiter = waiter, .lane = static_cast<Lane>(waiter + 1), .now = now_},
       "atomic on " + about(page));
}

void Talk::prefetch(Node at, Page page) {
  step(at, Prefetch{.page = page, .lane = 0, .now = now_}, "prefetch " + about(page));
}
void Talk::drop(Node at, Page page) { step(at, Drop{.page = page, .now = now_}, "drop " + about(page)); }
void Talk::write_back(Node at, Page page) { step(at, WriteBack{.page = page, .now = now_}, "write back " + about(page)); }
void Talk::lose(Node at, Node who) { step(at, PeerLost{who}, "loses " + std::to_string(who)); }

void Talk::leave(Node who) {
  std::erase_if(flights_, [who](const Flight& f) { return f.from == who || f.to == who; });
  core(who) = Coherence(core(who).config());
  step(daemon_node, Left{.who = who, .now = now_}, std::to_string(who) + " has left");
}

void Talk::resume(Node at, Page page) { step(at, Resumed{.page = page, .now = now_}, "runs on, to " + about(page)); }

void Talk::pin(Node at, Page page, Micros until) {
  step(at, Pin{.page = page, .until = until, .now = now_}, "pins " + about(page));
}
void Talk::unpin(Node at, Page page) { step(at, Unpin{.page = page, .now = now_}, "unpins " + about(page)); }

void Talk::tick(Node at, Micros now) {
  now_ = now;
  step(at, Tick{now}, "tick");
}

void Talk::say(Node from, Node to, Lane lane, const Message& msg) {
  step(to, Received{.from = from, .lane = lane, .msg = msg, .now = now_},
       explorer::text(msg) + " from " + std::to_string(from));
}

void Talk::deliver(std::size_t index) {
  const Flight flight = flights_[index];
  flights_.erase(flights_.begin() + static_cast<std::ptrdiff_t>(index));
  say(flight.from, flight.to, flight.lane, flight.msg);
}

void Talk::arrive(Node from, Node to) {
  for (std::size_t i = 0; i < flights_.size(); ++i) {
    if (flights_[i].from == from && flights_[i].to == to) return deliver(i);
  }
  throw std::logic_error("no message is under way there");
}

void Talk::arrive_on(Lane lane, Node from, Node to) {
  for (std::size_t i = 0; i < flights_.size(); ++i) {
    if (flights_[i].from == from && flights_[i].to == to && flights_[i].lane == lane) return deliver(i);
  }
  throw std::logic_error("no message is under way there on that lane");
}

void Talk::settle() {
  while (!flights_.empty()) deliver(0);
}

std::string Talk::text() { return std::exchange(text_, {}); }
unsigned Talk::messages() { return std::exchange(messages_, 0U); }

}  // namespace dsm::core::explorer
