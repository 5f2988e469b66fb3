#include "dsm/core/explorer_world.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <type_traits>
#include <utility>

#include "dsm/core/explorer_text.hpp"

namespace dsm::core::explorer {

namespace {

// The answers of a call lane come back on it; everything on the service lane is one queue in each direction.
bool is_answer(const Message& msg) {
  return msg.kind != Message::Kind::write_back && !is_question(msg.kind);
}

bool performs_now(const Message& msg) {
  return msg.kind == Message::Kind::performed && msg.atomic.state == Atomic::State::asked;
}

std::string name(unsigned page) { return "page " + std::to_string(page); }
std::string node_name(unsigned node) { return "node " + std::to_string(node); }

}  // namespace

std::uint64_t World::digest() const {
  static_assert(std::is_trivially_copyable_v<World> && std::has_unique_object_representations_v<World>);
  const std::size_t size = offsetof(World, flight) + flights * sizeof(Flight);
  const auto* bytes = reinterpret_cast<const unsigned char*>(this);
  std::uint64_t hash = size;
  for (std::size_t i = 0; i < size; i += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes + i, std::min<std::size_t>(8, size - i));
    hash = mix(hash, word);
  }
  return hash;
}

Rules::Rules(const Setup& setup)
    : setup_(setup),
      traps_at_once_(setup.reduce && setup.threads == 1 && setup.prefetches == 0),
      ready_(setup.absence == 0 ? Thread::State::woken : Thread::State::resumed),
      nodes_(setup) {
  for (Node from = 0; from < setup.nodes; ++from) {
    for (Node to = 0; to < setup.nodes; ++to) {
      if (from == to) continue;
      channels_.push_back({from, to, 0, false});
      for (Lane lane = 1; lane <= setup.threads; ++lane) {
        channels_.push_back({from, to, lane, false});
        channels_.push_back({from, to, lane, true});
      }
    }
  }
}

std::uint8_t Rules::channel(Node from, Node to, Lane lane, bool answers) const {
  if (to >= setup_.nodes || from == to || lane > setup_.threads) return 0xff;
  const unsigned pair = from * (setup_.nodes - 1U) + to - (to > from ? 1U : 0U);
  return static_cast<std::uint8_t>(pair * (1U + 2U * setup_.threads) +
                                   (lane == 0 ? 0U : 2U * lane - (answers ? 0U : 1U)));
}

World Rules::initial() const {
  World world;
  for (Node n = 0; n < setup_.nodes; ++n) {
    world.node[n] = nodes_.initial(n);
    world.current[n].fill(1);  // all frames are zero, and so is what was "written last"
  }
  return world;
}

// ---- taking a step --------------------------------------------------------------------------------------------------

std::string Rules::apply(World& world, const Choice& choice) {
  if (choice.kind == Choice::Kind::act) return act(world, choice.node);
  if (choice.kind == Choice::Kind::event) return event(world, choice);
  if (choice.kind == Choice::Kind::operation) {
    world.thread[choice.thread].page = choice.what.page;
    world.thread[choice.thread].want = choice.what.want;
  }
  std::string wrong = run_thread(world, choice.thread);
  const bool trapped = world.thread[choice.thread].state == Thread::State::faulted;
  return trapped && traps_at_once_ ? event(world, choice) : wrong;
}

// Whether the node's next action may be taken at once, without looking at the worlds in which something else came first:
// it commutes with every other step, and no check can see it. (Lists are finite, so nothing is put off for ever.)
//   Wake: only lets the thread run on, which it may do later.
//   Send: only lets the message arrive, which it may do later. If bytes travel, a write by another node makes them stale
//   before as after; only a write by a thread of this node makes a difference, and only if it may still write.
//   Install: the same, if no thread of this node may touch the page.
// An atomic operation that is now performed is a write, and comes before or after others.
bool Rules::is_independent(const World& world, Node node) const {
  const Action& action = nodes_.head(world.todo[node]);
  if (const auto* s = std::get_if<Send>(&action)) {
    if (performs_now(s->msg)) return false;
    return !s->msg.carries_page || world.allow[node][s->msg.page] != Access::write;
  }
  if (const auto* i = std::get_if<Install>(&action)) return world.allow[node][i->page] == Access::none;
  if (const auto* p = std::get_if<Performed>(&action)) return p->atomic.state != Atomic::State::asked;
  return std::holds_alternative<Wake>(action);
}

bool Rules::forced(const World& world, Choice& choice) const {
  for (Node n = 0; n < setup_.nodes && setup_.reduce; ++n) {
    if (world.todo[n] == 0 || !is_independent(world, n)) continue;
    choice = {.kind = Choice::Kind::act, .node = n};
    return true;
  }
  return false;
}

std::string Rules::run_thread(World& world, unsigned t) const {
  Thread& thread = world.thread[t];
  const unsigned node = rank_of(t);
  if (world.allow[node][thread.page] >= thread.want) {
    const Thread done = std::exchange(thread, {});
    return touch(world, static_cast<Node>(node), done.page, done.want);
  }
  if (thread.state == ready_) ++world.retries;
  thread.state = Thread::State::faulted;
  return {};
}

std::string Rules::touch(World& world, Node node, unsigned page, Access want) const {
  if (want == Access::none) return {};
  if (world.current[node][page] == 0) {
    return node_name(node) + (want == Access::read ? " reads" : " writes") + " in " + name(page) +
           " and does not see the last write";
  }
  if (want == Access::read) return {};
  for (unsigned n = 0; n < setup_.nodes; ++n) {
    if (n != node) world.current[n][page] = 0;
    if (world.staged[n] == 1 + 2 * page + 1) --world.staged[n];
  }
  for (unsigned i = 0; i < world.flights; ++i) {
    if (nodes_.message(world.flight[i].msg).page == page) world.flight[i].current = 0;
  }
  return {};
}

std::string Rules::act(World& world, Node node) {
  const Action& action = nodes_.head(world.todo[node]);
  const MessageId msg = nodes_.head_message(world.todo[node]);
  world.todo[node] = nodes_.rest(world.todo[node]);
  const std::uint8_t staged = world.staged[node];
  std::string wrong;
  if (const auto* s = std::get_if<Send>(&action)) {
    wrong = send(world, node, *s, msg);
  } else if (const auto* w = std::get_if<Wake>(&action)) {
    wrong = wake(world, node, *w);
  } else if (const auto* p = std::get_if<Protect>(&action)) {
    world.allow[node][p->page] = p->allow;
  } else if (const auto* i = std::get_if<Install>(&action)) {
    if (staged == 0 || (staged - 1U) / 2 != i->page) wrong = node_name(node) + " installs bytes that did not come";
    world.current[node][i->page] = static_cast<std::uint8_t>((staged - 1U) & 1U);
  } else if (const auto* d = std::get_if<Performed>(&action)) {
    wrong = performed(world, node, *d);
  } else if (std::holds_alternative<Abort>(action)) {
    wrong = node_name(node) + " ends the job: " + text(action);
  }
  if (world.todo[node] == 0) world.staged[node] = 0;
  return wrong;
}

std::string Rules::send(World& world, Node node, const Send& action, MessageId msg) {
  const std::uint8_t chan = channel(node, node_named(setup_, action.to), action.lane, is_answer(action.msg));
  if (chan == 0xff) return node_name(node) + " sends where no connection is: " + text(Action{action});
  if (world.flights == max_flights) return "more messages are under way than the explorer has room for";
  unsigned place = 0;  // behind those of the same channel; the channels in order, so that equal worlds are equal bytes
  while (place < world.flights && world.flight[place].channel <= chan) ++place;
  std::copy_backward(world.flight.begin() + place, world.flight.begin() + world.flights,
                     world.flight.begin() + world.flights + 1);
  if (action.lane != 0 && !is_answer(action.msg))
    ++world.thread[unsigned{node} * setup_.threads + action.lane - 1U].owed;
  if (performs_now(action.msg)) {
    if (std::string wrong = touch(world, node, action.msg.page, Access::write); !wrong.empty()) return wrong;
    Message done = action.msg;
    done.atomic.state = Atomic::State::done;
    msg = nodes_.intern(done);
  }
  const std::uint8_t current = action.msg.carries_page ? world.current[node][action.msg.page] : 0;
  world.flight[place] = {.channel = chan, .current = current, .msg = msg};
  ++world.flights;
  return {};
}

std::string Rules::wake(World& world, Node node, const Wake& action) const {
  Thread& thread = world.thread[unsigned{node} * setup_.threads + action.who];
  if (action.who >= setup_.threads || thread.state != Thread::State::blocked) {
    return node_name(node) + " wakes thread " + std::to_string(action.who) + ", which does not wait";
  }
  thread.state = Thread::State::woken;
  for (ListId list = world.todo[node]; list != 0; list = nodes_.rest(list)) {
    const auto* protect = std::get_if<Protect>(&nodes_.head(list));
    if (protect != nullptr && protect->page == thread.page && protect->allow > world.allow[node][thread.page]) {
      return node_name(node) + " wakes a thread before it opens " + name(thread.page);
    }
  }
  return {};
}

std::string Rules::performed(World& world, Node node, const Performed& action) const {
  Thread& thread = world.thread[unsigned{node} * setup_.threads + action.who];
  if (action.who >= setup_.threads || thread.state != Thread::State::blocked || thread.want != Access::none ||
      thread.page != action.page || action.atomic.state == Atomic::State::missed) {
    return node_name(node) + " answers thread " + std::to_string(action.who) + ", which has not asked for this";
  }
  thread.state = ready_;
  if (action.atomic.state == Atomic::State::done) return {};
  return touch(world, node, action.page, Access::write);
}

std::string Rules::event(World& world, const Choice& choice) {
  using Kind = Stimulus::Kind;
  const Node node = choice.node;
  if (choice.what.kind == Kind::left) {
    if (std::string wrong = leave(world, choice.what.from, choice.thread != 0); !wrong.empty()) return wrong;
  }
  const Outcome outcome = nodes_.play(world.node[node], choice.what);
  world.node[node] = outcome.next;
  world.todo[node] = outcome.todo;
  switch (choice.what.kind) {
    case Kind::fault:
      world.thread[unsigned{node} * setup_.threads + choice.what.thread].state = Thread::State::blocked;
      break;
    case Kind::perform: {
      Thread& asker = world.thread[unsigned{node} * setup_.threads + choice.what.thread];
      asker.state = Thread::State::blocked;
      asker.page = choice.what.page;
      asker.want = Access::none;
      ++world.atomics;
      break;
    }
    case Kind::drop:
      ++world.drops;
      break;
    case Kind::write_back:
      ++world.write_backs;
      break;
    case Kind::prefetch:
      ++world.prefetches;
      break;
    case Kind::left:
      ++world.leaves;
      break;
    case Kind::resumed:
      world.thread[unsigned{node} * setup_.threads + choice.what.thread].state = Thread::State::resumed;
      break;
    case Kind::tick:
      break;
    case Kind::received: {
      unsigned place = 0;
      while (world.flight[place].channel != choice.channel) ++place;
      const Flight flight = world.flight[place];
      std::copy(world.flight.begin() + place + 1, world.flight.begin() + world.flights, world.flight.begin() + place);
      world.flight[--world.flights] = {};
      const Message& msg = nodes_.message(flight.msg);
      for (ListId list = outcome.todo; list != 0 && msg.carries_page; list = nodes_.rest(list)) {
        if (std::holds_alternative<Install>(nodes_.head(list)))
          world.staged[node] = static_cast<std::uint8_t>(1 + 2 * msg.page + flight.current);
      }
      const Channel& from = channels_[choice.channel];
      if (from.lane == 0 || !from.answers) break;
      Thread& reader = world.thread[unsigned{node} * setup_.threads + from.lane - 1U];
      if (reader.owed == 0) return node_name(node) + " gets an answer on a call lane on which nobody asks";
      --reader.owed;
      break;
    }
  }
  return {};
}

// The host is gone, and a fresh one is there. Has not come yet what it said, it never will.
std::string Rules::leave(World& world, Node who, bool lost) const {
  const Node daemon = node_named(setup_, daemon_node);
  const auto is_its = [&](const Flight& flight) {
    const Channel& channel = channels_[flight.channel];
    return channel.from == who || channel.to == who;
  };
  const auto end = std::remove_if(world.flight.begin(), world.flight.begin() + world.flights, is_its);
  std::fill(end, world.flight.begin() + world.flights, Flight{});
  world.flights = static_cast<std::uint8_t>(end - world.flight.begin());
  for (unsigned page = 0; page < setup_.pages; ++page) {
    if (nodes_.core(world.node[daemon]).view(page).owner != who) continue;
    if (!lost) world.current[daemon][page] |= world.current[who][page];
    if (world.current[daemon][page] != 0) continue;
    if (!lost) return node_name(who) + " leaves in good order, and the last write of " + name(page) + " is lost";
    forget_writes(world, page);
  }
  world.node[who] = nodes_.initial(who);
  world.todo[who] = 0;
  world.staged[who] = 0;
  world.allow[who].fill(Access::none);
  world.current[who].fill(0);
  for (unsigned t = 0; t < setup_.threads; ++t) world.thread[unsigned{who} * setup_.threads + t] = {};
  return {};
}

// What the daemon has was written last, from now on, and whatever else there is of the page is out of date.
void Rules::forget_writes(World& world, unsigned page) const {
  for (unsigned n = 0; n < setup_.nodes; ++n) {
    world.current[n][page] = is_daemon(setup_, n) ? 1 : 0;
    if (world.staged[n] == 1 + 2 * page + 1) --world.staged[n];
  }
  for (unsigned i = 0; i < world.flights; ++i) {
    if (nodes_.message(world.flight[i].msg).page == page) world.flight[i].current = 0;
  }
}

// ---- what must be true ----------------------------------------------------------------------------------------------

std::string Rules::check(const World& world, const Choices& choices) const {
  std::string wrong = check_pages(world);
  if (!wrong.empty() || choices.busy || choices.cut_off) return wrong;
  for (unsigned t = 0; t < unsigned{setup_.nodes} * setup_.threads; ++t) {
    if (world.thread[t].state == Thread::State::idle) continue;
    return node_name(rank_of(t)) + " waits for ever for " +
           (world.thread[t].owed != 0 ? "an answer on its call lane" : name(world.thread[t].page)) +
           ": nothing is under way any more";
  }
  return check_rest(world);
}

std::string Rules::check_pages(const World& world) const {
  for (unsigned page = 0; page < setup_.pages; ++page) {
    unsigned readers = 0, writers = 0;
    for (unsigned n = 0; n < setup_.nodes; ++n) {
      const Access access = world.allow[n][page];
      if (access == Access::none) continue;
      ++(access == Access::write ? writers : readers);
      if (world.current[n][page] == 0)
        return node_name(n) + " may read " + name(page) + " and would not see the last write";
    }
    if (writers > 1 || (writers == 1 && readers != 0))
      return "one node may write " + name(page) + " while another may touch it";
    if (setup_.protocol == Protocol::migrate && writers + readers > 1) return "there are two copies of " + name(page);
  }
  return {};
}

// Where the page lives; before anybody has touched it, where that would be said.
Node Rules::home(const World& world, Page page) const {
  if (setup_.placement == Placement::daemon) return node_named(setup_, daemon_node);
  const Coherence& manager = nodes_.core(world.node[page % setup_.nodes]);
  return manager.home(page) == nowhere ? manager.config().self : manager.home(page);
}

// Nothing is under way: what the nodes believe must fit what is.
std::string Rules::check_rest(const World& world) const {
  for (Page page = 0; page < setup_.pages; ++page) {
    const Node home = this->home(world, page);
    View directory = nodes_.core(world.node[home]).view(page);
    directory.owner = node_named(setup_, directory.owner);
    for (Node n = 0; n < setup_.nodes; ++n) {
      const View view = nodes_.core(world.node[n]).view(page);
      if (view.here != world.allow[n][page]) return node_name(n) + " is mistaken about its protection of " + name(page);
      if (view.asked || view.waiting != 0)
        return node_name(n) + " still waits for " + name(page) + ", but nothing is under way";
      if (n == home || view.here == Access::none) continue;
      const bool known = view.here == Access::write ? directory.owner == n
                                                    : (directory.owner == n || (directory.copies >> n & 1U) != 0);
      if (!known) return "the home has forgotten that " + node_name(n) + " holds " + name(page);
    }
    if (directory.queued != 0 || directory.state == View::State::moving)
      return "the home of " + name(page) + " has requests left that nobody serves";
    if (directory.owner == home && world.current[home][page] == 0)
      return "the last write of " + name(page) + " is lost";
  }
  return {};
}

}  // namespace dsm::core::explorer
