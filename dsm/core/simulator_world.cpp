// What may happen next, which of it does, and what must be true at the end.
#include "dsm/core/simulator_world.hpp"

#include <algorithm>
#include <utility>

#include "dsm/core/explorer_node.hpp"  // mix

namespace dsm::core::simulator {

World::World(const Scenario& scenario, Random& random, std::string* trace)
    : scenario_(scenario), random_(random), trace_(trace), salt_(random.bits()), extras_left_(scenario.extras) {
  const Page pages = *std::max_element(scenario.pages.begin(), scenario.pages.end()) + 1;
  truth_.resize(pages);
  seen_.resize(connection(scenario.nodes, 0, 0, false));
  stalled_.resize(seen_.size());
  for (const Program& program : scenario.programs) {
    threads_.push_back({.program = &program});
  }
  unsigned thread = 0;
  for (Node n = 0; n < scenario.nodes; ++n) {
    const unsigned first = thread;
    while (thread < threads_.size() && threads_[thread].program->node == n) {
      threads_[thread].waiter = static_cast<Waiter>(thread - first);
      ++thread;
    }
    // Room for just what can come: full pools are refused by the core, and the driver makes them large enough. The number
    // of waiters is the same for all, as it is there: a node believes no other that names a higher one.
    Coherence core(
        Config{.self = n,
               .nodes = scenario.nodes,
               .pages = pages,
               .protocol = scenario.protocol,
               .placement = scenario.placement,
               .waiters = static_cast<std::uint16_t>(scenario.threads_max),
               .requests = static_cast<std::uint16_t>(scenario.nodes * scenario.pages.size() + threads_.size()),
               .pins = scenario.pins,
               .hold = scenario.hold,
               .absence = scenario.absence});
    core.deal(0, pages);
    ranks_.push_back({.core = std::move(core),
                      .allow = std::vector<Access>(pages),
                      .frame = std::vector<Frame>(pages),
                      .todo = {},
                      .pins = {},
                      .clock_offset = 1 + (random.bits() >> 24U),
                      .first_thread = first,
                      .threads = thread - first,
                      .lane_holder = std::vector<unsigned>(scenario.call_lanes + std::size_t{1}, nobody)});
  }
  counts_ = {.schedules = 1, .nodes_of_largest = scenario.nodes};
}

std::uint32_t World::connection(Node from, Node to, Lane lane, bool answer) const {
  return ((std::uint32_t{from} * scenario_.nodes + to) * (scenario_.call_lanes + 1U) + lane) * 2 + (answer ? 1 : 0);
}

void World::fail(std::string what) {
  if (!violation_.empty()) return;
  if (trace_ != nullptr) *trace_ += "wrong: " + what + "\n";
  violation_ = std::move(what);
}

void World::walk() {
  while (violation_.empty()) {
    if (counts_.steps == scenario_.death && scenario_.death != 0 && counts_.nodes_lost == 0) kill();
    collect();
    if (candidates_.empty()) {
      if (wait_for_something()) continue;
      return check_end();
    }
    if (++counts_.steps > steps_max) return fail("the programs do not come to an end");
    const std::uint64_t lots = random_.bits();        // one number for all that is drawn in every step
    if ((lots & 0xffU) == 0) salt_ = random_.bits();  // nobody is slow for ever
    if (scenario_.pace != 0) {
      clock_ += (lots >> 8U & 0xffffU) * (scenario_.pace + 1) >> 16U;
      if ((lots >> 24U & 0x1ffU) == 0) clock_ += 1'000'000;
    }
    const auto place = static_cast<std::uint32_t>((lots >> 33U) * candidates_.back().up_to >> 31U);
    take(*std::upper_bound(candidates_.begin(), candidates_.end(), place,
                           [](std::uint32_t value, const Candidate& c) { return value < c.up_to; }));
  }
}

// `name` is whose speed counts: that of a node, a thread, a connection.
void World::add(Candidate::Kind kind, std::size_t index, std::uint32_t name) {
  const std::uint64_t who = static_cast<std::uint64_t>(kind) << 32U | name;
  const std::uint32_t weight = std::uint32_t{1} << ((explorer::mix(salt_, who) >> 32U) * (scenario_.skew + 1) >> 32U);
  const std::uint32_t before = candidates_.empty() ? 0 : candidates_.back().up_to;
  candidates_.push_back({kind, static_cast<std::uint32_t>(index), before + weight});
}

bool World::can_step(const Thread& thread) const {
  const Rank& rank = rank_of(thread);
  switch (thread.state) {
    case Thread::State::running:
      return !thread.done() && (thread.instruction().atomic == Atomic::Kind::none || rank.free());
    case Thread::State::faulted:
      return rank.free();
    case Thread::State::woken:
      return thread.owed == 0 && (scenario_.absence == 0 || rank.free());
    case Thread::State::told:
      return thread.owed == 0;
    case Thread::State::blocked:
    case Thread::State::stuck:
      break;
  }
  return false;
}

void World::collect() {
  using enum Candidate::Kind;
  candidates_.clear();
  for (Node n = 0; n < scenario_.nodes; ++n) {
    const Rank& rank = ranks_[n];
    if (rank.dead) continue;
    if (!rank.free()) {
      add(act, n, n);
      continue;
    }
    if (rank.ticking && now(rank) >= rank.tick_at) add(tick, n, n);
    if (counts_.nodes_lost != 0 && !rank.told) add(lose, n, n);
  }
  for (std::size_t i = 0; i < threads_.size(); ++i) {
    if (can_step(threads_[i])) add(thread, i, static_cast<std::uint32_t>(i));
  }
  collect_flights();
  // Only while something else can happen: what nobody has asked for must not be what gets things going again.
  if (extras_left_ == 0 || candidates_.empty()) return;
  candidates_.push_back({extra, 0, candidates_.back().up_to + scenario_.extra_weight});
}

void World::collect_flights() {
  ++look_;
  for (std::size_t i = 0; i < flights_.size(); ++i) {  // only the first message of a connection can arrive
    const Flight& flight = flights_[i];
    const bool first = std::exchange(seen_[flight.connection], look_) != look_;
    const bool possible = ranks_[flight.to].free() || can_land(flight);
    if (!first || !possible || stalled_[flight.connection] > counts_.steps) continue;
    add(Candidate::Kind::deliver, i, flight.connection);
  }
}

// Nothing can happen now: either a message is late, or a timer must run out. False: there is neither.
bool World::wait_for_something() {
  if (!flights_.empty()) {
    std::fill(stalled_.begin(), stalled_.end(), 0);
    return true;
  }
  Micros next = 0;
  for (const Rank& rank : ranks_) {
    if (rank.dead || !rank.ticking) continue;
    const Micros at = rank.tick_at - rank.clock_offset;
    if (next == 0 || at < next) next = at;
  }
  if (next == 0) return false;
  clock_ = std::max(clock_, next);
  return true;
}

void World::take(const Candidate& candidate) {
  const auto index = candidate.index;
  switch (candidate.kind) {
    case Candidate::Kind::act:
      return act(static_cast<Node>(index));
    case Candidate::Kind::thread:
      return run_thread(index);
    case Candidate::Kind::deliver: {
      std::uint64_t& stalled = stalled_[flights_[index].connection];
      if (stalled != 0 || scenario_.stalls == 0 || !random_.one_in(scenario_.stalls)) {
        stalled = 0;
        return can_land(flights_[index]) ? land(flights_[index]) : deliver(index);
      }
      stalled = counts_.steps + (std::uint64_t{1} << random_.between(2, 11));
      return;
    }
    case Candidate::Kind::extra:
      return extra();
    case Candidate::Kind::tick:
      say(static_cast<Node>(index), [] { return "tick"; });
      ranks_[index].ticking = false;
      ++counts_.ticks;
      return step(static_cast<Node>(index), Tick{now(ranks_[index])});
    case Candidate::Kind::lose:
      say(static_cast<Node>(index),
          [this] { return "hears that node " + std::to_string(scenario_.victim) + " is lost"; });
      ranks_[index].told = true;
      return step(static_cast<Node>(index), PeerLost{scenario_.victim});
  }
}

// ---- at the end: nothing can happen any more -------------------------------------------------------------------------

void World::check_end() {
  const bool loss = counts_.nodes_lost != 0;
  for (const Thread& thread : threads_) {
    if (thread.done() || thread.state == Thread::State::stuck) continue;
    const std::string what = thread.owed != 0 ? "an answer on its call lane" : "p" + std::to_string(thread.page);
    return fail("node " + std::to_string(thread.program->node) + " waits for ever for " + what +
                ": nothing is under way any more");
  }
  for (Node n = 0; n < scenario_.nodes && loss; ++n) {
    if (!ranks_[n].dead && !ranks_[n].aborted)
      return fail("node " + std::to_string(n) + " goes on without a lost node");
  }
  for (const Page page : scenario_.pages) {
    if (!loss) check_page(page);
  }
}

// What the nodes believe must fit what is.
void World::check_page(Page page) {
  const auto name = [page](Node n) { return "node " + std::to_string(n) + ", p" + std::to_string(page) + ": "; };
  const auto manager = static_cast<Node>(page % scenario_.nodes);
  const Node told = ranks_[manager].core.home(page), home = told == nowhere ? manager : told;
  const View directory = ranks_[home].core.view(page);
  for (Node n = 0; n < scenario_.nodes; ++n) {
    const View view = ranks_[n].core.view(page);
    if (view.here != ranks_[n].allow[page]) return fail(name(n) + "it is mistaken about its protection");
    if (view.asked || view.waiting != 0) return fail(name(n) + "it still waits, but nothing is under way");
    if (view.here != Access::none && ranks_[n].frame[page] != truth_[page])
      return fail(name(n) + "the last write is not there");
    if (n == home || view.here == Access::none) continue;
    const bool writer = directory.owner == n;
    const bool reader = view.here == Access::read && (directory.copies >> n & 1U) != 0;
    if (!writer && !reader) return fail(name(n) + "the home has forgotten that it holds the page");
  }
  if (directory.queued != 0 || directory.state == View::State::moving)
    return fail(name(home) + "there are requests left that nobody serves");
  if (ranks_[directory.owner].frame[page] != truth_[page])
    return fail(name(directory.owner) + "the last write is lost");
}

}  // namespace dsm::core::simulator
