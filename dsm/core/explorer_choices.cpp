// Which steps lead out of a world.
#include <array>
#include <cstring>
#include <utility>

#include "dsm/core/explorer_world.hpp"

namespace dsm::core::explorer {

void Rules::choices(const World& world, Choices& out) {
  out.list.clear();
  out.busy = out.cut_off = false;
  for (Node n = 0; n < setup_.nodes; ++n) {
    if (world.todo[n] != 0) {
      out.list.push_back({.kind = Choice::Kind::act, .node = n});
      out.busy = true;
    } else {
      add_events(world, n, out);
    }
  }
  for (unsigned t = 0; t < unsigned{setup_.nodes} * setup_.threads; ++t) {
    if (world.thread[t].state == ready_ && world.thread[t].owed == 0) add_retry(world, t, out);
    if (world.thread[t].state != Thread::State::idle) continue;
    if (is_daemon(setup_, rank_of(t)) && !setup_.daemon_touches) continue;
    add_operations(world, t, out);
    if (world.atomics < setup_.atomics && world.todo[rank_of(t)] == 0) add_atomics(world, t, out);
  }
}

void Rules::add_retry(const World& world, unsigned t, Choices& out) {
  const Thread& thread = world.thread[t];
  const auto node = static_cast<Node>(rank_of(t));
  Choice choice{.kind = Choice::Kind::retry, .node = node, .thread = static_cast<std::uint8_t>(t)};
  if (world.allow[node][thread.page] >= thread.want) {
    out.list.push_back(choice);
  } else if (world.retries >= setup_.retries) {
    out.cut_off = true;
    return;
  } else {
    add_trap(world, choice, thread.page, thread.want, out);
  }
  out.busy = true;
}

void Rules::add_operations(const World& world, unsigned t, Choices& out) {
  const auto node = static_cast<Node>(rank_of(t));
  Choice choice{.kind = Choice::Kind::operation, .node = node, .thread = static_cast<std::uint8_t>(t)};
  for (std::uint8_t page = 0; page < setup_.pages; ++page) {
    for (const Access want : {Access::read, Access::write}) {
      choice.what.page = page;
      choice.what.want = want;
      if (world.allow[node][page] < want) {
        add_trap(world, choice, page, want, out);
      } else if (want == Access::write && !would_write_nothing_new(world, node, page)) {
        out.list.push_back(choice);  // a read that needs no fault is no step: check_pages() looks at all of them
      }
    }
  }
}

// No instruction, but a call: the thread takes its node's lock and tells the core at once.
void Rules::add_atomics(const World& world, unsigned t, Choices& out) {
  const auto thread = static_cast<std::uint8_t>(t % setup_.threads);
  for (std::uint8_t page = 0; page < setup_.pages; ++page) {
    if (nodes_.core(world.node[rank_of(t)]).home(page) == nowhere) continue;
    Choice choice{.kind = Choice::Kind::event,
                  .node = static_cast<std::uint8_t>(rank_of(t)),
                  .thread = static_cast<std::uint8_t>(t)};
    choice.what = {
        .kind = Stimulus::Kind::perform, .thread = thread, .lane = static_cast<Lane>(thread + 1), .page = page};
    add_event(world, choice, out);
    choice.what.lane = 0;
    if (setup_.any_lane) add_event(world, choice, out);
  }
}

void Rules::add_trap(const World& world, Choice choice, std::uint8_t page, Access want, Choices& out) {
  choice.what = {.page = page, .want = want};
  if (!traps_at_once_) return out.list.push_back(choice);
  if (world.todo[choice.node] == 0) add_fault(world, choice, page, want, out);
}

void Rules::add_fault(const World& world, Choice choice, std::uint8_t page, Access want, Choices& out) {
  const auto thread = static_cast<std::uint8_t>(choice.thread % setup_.threads);
  choice.what = {.kind = Stimulus::Kind::fault,
                 .thread = thread,
                 .lane = is_daemon(setup_, choice.node) ? Lane{0} : static_cast<Lane>(thread + 1),
                 .page = page,
                 .want = want};
  add_event(world, choice, out);
  if (std::exchange(choice.what.lane, Lane{0}) != 0 && setup_.any_lane) add_event(world, choice, out);
}

bool Rules::would_write_nothing_new(const World& world, Node node, unsigned page) const {
  World after = world;
  const std::string wrong = touch(after, node, page, Access::write);
  return wrong.empty() && std::memcmp(&after, &world, sizeof(World)) == 0;
}

// The event, and the same one after a long time if that makes a difference.
void Rules::add_event(const World& world, Choice choice, Choices& out) {
  out.list.push_back(choice);
  if (setup_.hold == 0 || choice.what.late != 0) return;
  const Outcome soon = nodes_.play(world.node[choice.node], choice.what);
  choice.what.late = 1;
  const Outcome late = nodes_.play(world.node[choice.node], choice.what);
  if (late.next != soon.next || late.todo != soon.todo) out.list.push_back(choice);
}

void Rules::add_events(const World& world, Node node, Choices& out) {
  const std::size_t before = out.list.size();
  Choice choice{.kind = Choice::Kind::event, .node = node};
  std::array<bool, 256> seen{};  // only the front of a channel can be received
  for (unsigned i = 0; i < world.flights; ++i) {
    const Flight& flight = world.flight[i];
    const Channel& from = channels_[flight.channel];
    if (from.to != node || std::exchange(seen[flight.channel], true)) continue;
    choice.channel = flight.channel;
    choice.what = {.kind = Stimulus::Kind::received, .from = from.from, .lane = from.lane, .msg = flight.msg};
    add_event(world, choice, out);
  }
  for (std::uint8_t t = 0; t < setup_.threads; ++t) {
    choice.thread = static_cast<std::uint8_t>(node * setup_.threads + t);
    const Thread& thread = world.thread[choice.thread];
    if (thread.state == Thread::State::faulted) add_fault(world, choice, thread.page, thread.want, out);
    if (thread.state != Thread::State::woken || ready_ == Thread::State::woken || thread.owed != 0) continue;
    choice.what = {.kind = Stimulus::Kind::resumed, .thread = t, .page = thread.page};
    add_event(world, choice, out);
  }
  choice.what = {.kind = Stimulus::Kind::tick, .late = 1};
  if (nodes_.ticking(world.node[node])) add_event(world, choice, out);
  out.busy = out.busy || out.list.size() != before;
  add_extras(world, node, out);
}

void Rules::add_extras(const World& world, Node node, Choices& out) {
  using Kind = Stimulus::Kind;
  Choice choice{.kind = Choice::Kind::event, .node = node};
  const auto add = [&](Kind kind, std::uint8_t page) {
    choice.what = {.kind = kind, .page = page};
    for (choice.what.late = 0; choice.what.late <= (setup_.hold != 0 ? 1 : 0); ++choice.what.late) {
      const Outcome outcome = nodes_.play(world.node[node], choice.what);
      const bool ignored = outcome.next == world.node[node] && outcome.todo == 0;
      if (!ignored) out.list.push_back(choice);
    }
  };
  for (std::uint8_t page = 0; page < setup_.pages; ++page) {
    if (world.drops < setup_.drops) add(Kind::drop, page);
    if (world.write_backs < setup_.write_backs) add(Kind::write_back, page);
    if (world.prefetches < setup_.prefetches) add(Kind::prefetch, page);
  }
  if (is_daemon(setup_, node) && world.leaves < setup_.leaves) add_leaves(world, choice, out);
}

void Rules::add_leaves(const World& world, Choice choice, Choices& out) {
  for (Node who = 0; who + 1U < setup_.nodes; ++who) {
    if (world.node[who] == nodes_.initial(who) && world.todo[who] == 0) continue;  // it has just come
    choice.what = {.kind = Stimulus::Kind::left, .from = who};
    for (choice.thread = 0; choice.thread < 2; ++choice.thread) add_event(world, choice, out);
  }
}

}  // namespace dsm::core::explorer
