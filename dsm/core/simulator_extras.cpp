// What nobody has asked for: pages given up, fetched and pinned, ticks out of turn; and the loss of a node.
#include <algorithm>
#include <array>

#include "dsm/core/explorer_text.hpp"
#include "dsm/core/simulator_world.hpp"

namespace dsm::core::simulator {

namespace {

enum class Extra : std::uint8_t { tick, prefetch, give_up, pin, unpin };

Extra draw_extra(Random& random, bool pins) {
  using enum Extra;
  if (pins && random.one_in(3)) return random.one_in(2) ? pin : unpin;
  return random.any(std::array{tick, prefetch, prefetch, give_up, give_up, give_up, give_up, give_up});
}

}  // namespace

void World::extra() {
  const Extra kind = draw_extra(random_, scenario_.pins != 0);
  --extras_left_;
  for (unsigned tries = 0; tries < 4; ++tries) {  // until there is something to give up, to pin, to unpin
    const auto node = static_cast<Node>(random_.below(scenario_.nodes));
    const Page page = scenario_.pages[random_.below(static_cast<std::uint32_t>(scenario_.pages.size()))];
    Rank& rank = ranks_[node];
    if (rank.dead || !rank.free()) continue;
    if (kind == Extra::tick) {  // too early, or one too many
      say(node, [] { return "tick, out of turn"; });
      return step(node, Tick{now(rank)});
    }
    if (kind == Extra::prefetch) {
      say(node, [&] { return "prefetch " + page_name(page); });
      return step(node, Prefetch{.page = page, .lane = 0, .now = now(rank)});
    }
    if (kind == Extra::unpin) {
      if (pin_of(rank, page) == rank.pins.end() && tries < 3) continue;  // the last one may be one too many
      return unpin(node, page);
    }
    if (rank.allow[page] == Access::none) continue;
    return kind == Extra::pin ? pin(node, page) : give_up(node, page);
  }
}

void World::give_up(Node node, Page page) {
  Rank& rank = ranks_[node];
  say(node, [&] { return "give up " + page_name(page); });
  const bool clean = rank.allow[page] == Access::read || rank.core.home(page) == node;
  step(node, clean ? Event{Drop{page, now(rank)}} : Event{WriteBack{page, now(rank)}});
  if (!rank.free()) ++(clean ? counts_.dropped : counts_.written_back);
}

// ---- pins: what the core is told is remembered here, too --------------------------------------------------------------

std::vector<World::Pinned>::iterator World::pin_of(Rank& rank, Page page) {
  return std::find_if(rank.pins.begin(), rank.pins.end(), [page](const Pinned& pin) { return pin.page == page; });
}

bool World::is_pinned(const Rank& rank, Page page) const {
  return std::any_of(rank.pins.begin(), rank.pins.end(),
                     [&](const Pinned& pin) { return pin.page == page && pin.until > now(rank); });
}

// All pins end of themselves, so that who waits for one may do so: some soon, some long after all else has happened.
void World::pin(Node node, Page page) {
  Rank& rank = ranks_[node];
  const Micros until = now(rank) + random_.any(std::array<Micros, 5>{0, 10, 100, 1'000, 100'000});
  say(node, [&] { return "pin " + page_name(page) + " until " + std::to_string(until); });
  auto mine = pin_of(rank, page);
  if (mine == rank.pins.end() && rank.pins.size() < scenario_.pins) mine = rank.pins.insert(mine, {.page = page});
  if (mine != rank.pins.end()) {
    ++mine->count;
    mine->until = std::max(mine->until, until);
    ++counts_.pinned;
  }
  step(node, Pin{page, until, now(rank)});
  check_pin_count(node, page);
}

void World::unpin(Node node, Page page) {
  Rank& rank = ranks_[node];
  say(node, [&] { return "unpin " + page_name(page); });
  const auto mine = pin_of(rank, page);
  if (mine != rank.pins.end() && --mine->count == 0) rank.pins.erase(mine);
  step(node, Unpin{page, now(rank)});
  check_pin_count(node, page);
}

void World::check_pin_count(Node node, Page page) {
  Rank& rank = ranks_[node];
  const auto mine = pin_of(rank, page);
  const std::uint32_t expected = mine == rank.pins.end() ? 0 : mine->count, found = rank.core.view(page).pins;
  if (found == expected) return;
  fail(node_name(node) + " counts " + std::to_string(found) + " pins of " + page_name(page) + ", where there are " +
       std::to_string(expected));
}

// What the core has just decided must not take from a pinned page. (When it is carried out the pin may have run out.)
void World::check_pins(Node node) {
  const Rank& rank = ranks_[node];
  for (const Pinned& pin : rank.pins) {
    for (const Action& action : rank.todo) {
      const auto* p = std::get_if<Protect>(&action);
      if (p == nullptr || p->page != pin.page || p->allow >= rank.allow[p->page] || pin.until <= now(rank)) continue;
      fail(node_name(node) + " gives up " + page_name(p->page) + " at " + std::to_string(now(rank)) +
           ", which is pinned until " + std::to_string(pin.until));
    }
  }
}

// ---- a node is lost ---------------------------------------------------------------------------------------------------

void World::kill() {
  const Node node = scenario_.victim;
  say(node, [] { return "is lost"; });
  counts_.nodes_lost = 1;
  Rank& rank = ranks_[node];
  rank.dead = true;
  rank.ticking = false;
  rank.todo.clear();
  rank.carried_out = 0;
  std::fill(rank.allow.begin(), rank.allow.end(), Access::none);
  for (unsigned i = rank.first_thread; i < rank.first_thread + rank.threads; ++i)
    threads_[i].state = Thread::State::stuck;
  ++look_;  // marks the connections that have come to their end
  std::erase_if(flights_, [&](const Flight& flight) {
    if (flight.to == node) return true;
    if (flight.from != node) return false;
    if (random_.one_in(4)) seen_[flight.connection] = look_;
    return seen_[flight.connection] == look_;
  });
}

}  // namespace dsm::core::simulator
