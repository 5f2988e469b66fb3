#include "dsm/core/explorer_node.hpp"

#include <utility>

#include "dsm/core/explorer_text.hpp"

namespace dsm::core::explorer {

namespace {

std::uint64_t code_of(const Message& m) {
  return static_cast<std::uint64_t>(m.kind) | static_cast<std::uint64_t>(m.access) << 4U |
         std::uint64_t{m.carries_page} << 6U | std::uint64_t{m.have} << 7U | std::uint64_t{m.prefetch} << 8U |
         static_cast<std::uint64_t>(m.atomic.state) << 9U |  // all of a walk are alike otherwise
         std::uint64_t{m.page} << 16U | std::uint64_t{m.seq} << 32U;
}

}  // namespace

std::uint64_t mix(std::uint64_t hash, std::uint64_t value) {
  std::uint64_t z = (hash ^ value) * 0x9fb21c651e98df25U;
  z ^= z >> 32U;
  z *= 0xd6e8feb86659fd93U;
  return z ^ (z >> 29U);
}

std::uint32_t Stimulus::packed() const {
  const auto number = static_cast<std::uint32_t>(kind);
  return (number & 7U) | std::uint32_t{late} << 3U | std::uint32_t{thread} << 4U | std::uint32_t{from} << 6U |
         std::uint32_t{lane} << 8U | (number >> 3U) << 11U | std::uint32_t{page} << 12U |
         static_cast<std::uint32_t>(want) << 14U | std::uint32_t{msg} << 16U;
}

Stimulus Stimulus::unpack(std::uint32_t bits) {
  const auto field = [bits](unsigned at, unsigned mask) { return static_cast<std::uint8_t>((bits >> at) & mask); };
  return Stimulus{.kind = static_cast<Kind>(field(0, 7) | field(11, 1) << 3U),
                  .late = field(3, 1),
                  .thread = field(4, 3),
                  .from = field(6, 3),
                  .lane = field(8, 7),
                  .page = field(12, 3),
                  .want = static_cast<Access>(field(14, 3)),
                  .msg = static_cast<MessageId>(bits >> 16U)};
}

NodeTable::NodeTable(const Setup& setup) : setup_(setup) {
  cells_.push_back({});  // 0 is the empty list
  for (Node node = 0; node < setup.nodes; ++node) {
    const bool daemon = setup.placement == Placement::daemon;
    const Config config{.self = name_of(setup, node),
                        .nodes = static_cast<std::uint8_t>(setup.nodes - (daemon ? 1 : 0)),
                        .pages = setup.pages,
                        .protocol = setup.protocol,
                        .placement = setup.placement,
                        .waiters = setup.threads,
                        .requests = static_cast<std::uint16_t>(setup.nodes * (setup.pages + setup.threads)),
                        .hold = setup.hold,
                        .absence = setup.absence};
    NodeState state{.core = Coherence(config)};
    by_digest_.emplace(digest(state), node);
    states_.push_back(std::move(state));
  }
}

std::uint64_t NodeTable::digest(const NodeState& state) {
  return mix(state.core.digest(), 2U * state.core.config().self + (state.ticking ? 1U : 0U));
}

NodeTable::Played NodeTable::run(const Coherence& core, Micros clock, bool ticking, const Stimulus& s) const {
  Played played{.state = {.core = core, .clock = clock, .ticking = ticking}, .todo = {}};
  // Either no time has passed since the last event, or more than any page is ever held.
  if (s.late != 0) played.state.clock += 1000 * setup_.hold;
  const Micros now = played.state.clock;
  Event event = Tick{now};
  switch (s.kind) {
    case Stimulus::Kind::fault: {
      const Site site = 1U + s.thread;
      event = Fault{.page = s.page, .want = s.want, .waiter = s.thread, .lane = s.lane, .site = site, .now = now};
      break;
    }
    case Stimulus::Kind::prefetch:
      event = Prefetch{.page = s.page, .lane = s.lane, .now = now};
      break;
    case Stimulus::Kind::drop:
      event = Drop{.page = s.page, .now = now};
      break;
    case Stimulus::Kind::write_back:
      event = WriteBack{.page = s.page, .now = now};
      break;
    case Stimulus::Kind::received:
      event = Received{.from = name_of(setup_, s.from), .lane = s.lane, .msg = messages_[s.msg], .now = now};
      break;
    case Stimulus::Kind::tick:
      played.state.ticking = false;
      break;
    case Stimulus::Kind::left:
      event = Left{.who = s.from, .now = now};
      break;
    case Stimulus::Kind::resumed:
      event = Resumed{.page = s.page, .now = now};
      break;
    case Stimulus::Kind::perform:
      event = Perform{.page = s.page,
                      .atomic = {.kind = Atomic::Kind::add, .value = 1},
                      .waiter = s.thread,
                      .lane = s.lane,
                      .now = now};
      break;
  }
  Actions out;
  played.state.core.step(event, out);
  for (const Action& action : out) {
    if (std::holds_alternative<Timer>(action)) {
      played.state.ticking = true;
    } else {
      played.todo.push_back(action);
    }
  }
  return played;
}

Outcome NodeTable::play(NodeId id, const Stimulus& stimulus) {
  const std::uint64_t key = (std::uint64_t{id} + 1) << 32U | stimulus.packed();
  if (const Outcome* known = played_.find(key)) return *known;
  Played played = run(states_[id].core, states_[id].clock, states_[id].ticking, stimulus);
  const ListId todo = intern(played.todo);
  const Outcome outcome{.next = intern(std::move(played.state)), .todo = todo};
  played_.insert(key, outcome);
  return outcome;
}

NodeId NodeTable::intern(NodeState state) {
  const auto [place, fresh] = by_digest_.try_emplace(digest(state), static_cast<NodeId>(states_.size()));
  if (fresh) {
    states_.push_back(std::move(state));
  } else if (NodeState& known = states_[place->second]; known.twin == nullptr) {
    known.twin = std::make_unique<Coherence>(std::move(state.core));
    known.twin_clock = state.clock;
  }
  return place->second;
}

MessageId NodeTable::intern(const Message& msg) {
  const auto [place, fresh] = by_message_.try_emplace(code_of(msg), static_cast<MessageId>(messages_.size()));
  if (fresh) messages_.push_back(msg);
  return place->second;
}

std::uint64_t NodeTable::code(const Action& action) {
  struct Code {
    NodeTable& table;
    std::uint64_t operator()(const Send& a) const {
      return std::uint64_t{a.to} << 4U | std::uint64_t{a.lane} << 12U | std::uint64_t{table.intern(a.msg)} << 16U;
    }
    std::uint64_t operator()(const Install& a) const { return a.page << 4U | std::uint64_t{a.from} << 16U; }
    std::uint64_t operator()(const Protect& a) const {
      return a.page << 4U | static_cast<std::uint64_t>(a.allow) << 16U;
    }
    std::uint64_t operator()(const Wake& a) const { return std::uint64_t{a.who} << 16U; }
    std::uint64_t operator()(const Timer&) const { return 0; }
    std::uint64_t operator()(const Abort& a) const {
      return std::uint64_t{a.who} << 16U | static_cast<std::uint64_t>(a.why) << 4U;
    }
    std::uint64_t operator()(const Performed& a) const {
      return a.page << 4U | static_cast<std::uint64_t>(a.atomic.state) << 8U | std::uint64_t{a.who} << 16U;
    }
  };
  return action.index() | std::visit(Code{*this}, action);
}

ListId NodeTable::intern(const std::vector<Action>& todo) {
  ListId list = 0;
  for (std::size_t i = todo.size(); i-- > 0;) {
    const std::uint64_t key = std::uint64_t{list} << 32U | code(todo[i]);
    const auto [place, fresh] = by_cell_.try_emplace(key, static_cast<ListId>(cells_.size()));
    if (fresh) {
      const auto* send = std::get_if<Send>(&todo[i]);
      cells_.push_back({.action = todo[i], .next = list, .msg = send != nullptr ? intern(send->msg) : MessageId{0}});
    }
    list = place->second;
  }
  return list;
}

std::string NodeTable::check_digests() const {
  std::string wrong;
  played_.for_each([&](std::uint64_t key, const Outcome&) {
    const NodeState& state = states_[(key >> 32U) - 1];
    if (wrong.empty() && state.twin != nullptr)
      wrong = compare(state, Stimulus::unpack(static_cast<std::uint32_t>(key)));
  });
  return wrong;
}

std::string NodeTable::compare(const NodeState& state, const Stimulus& stimulus) const {
  const auto words = [](const std::vector<Action>& todo) {
    std::string out;
    for (const Action& action : todo) out += "\n  " + text(action);
    return out;
  };
  const Played one = run(state.core, state.clock, state.ticking, stimulus);
  const Played two = run(*state.twin, state.twin_clock, state.ticking, stimulus);
  if (digest(one.state) == digest(two.state) && words(one.todo) == words(two.todo)) return {};
  const bool received = stimulus.kind == Stimulus::Kind::received;
  return "two states of node " + std::to_string(state.core.config().self) + " have one digest but answer " +
         (received ? text(messages_[stimulus.msg]) : "an event") + " differently:" + words(one.todo) + "\nand" +
         words(two.todo);
}

}  // namespace dsm::core::explorer
