// What can happen in a world, and what must be true while it does.
#include <algorithm>
#include <utility>

#include "dsm/core/explorer_text.hpp"
#include "dsm/core/simulator_world.hpp"

namespace dsm::core::simulator {

namespace {

using Kind = Message::Kind;

bool is_answer(const Message& msg) { return msg.kind != Kind::write_back && !is_question(msg.kind); }

std::string text_of(const Frame& frame) {
  std::string out;
  for (const std::uint64_t word : frame) out += " " + std::to_string(word);
  return out;
}

}  // namespace

// The actions are carried out later, one by one: act().
void World::step(Node node, const Event& event) {
  Rank& rank = ranks_[node];
  actions_.clear();
  rank.core.step(event, actions_);
  rank.todo.assign(actions_.begin(), actions_.end());
  rank.carried_out = 0;
  check_pins(node);
  if (rank.free()) end_step(rank);
}

void World::end_step(Rank& rank) {
  rank.has_staged = false;
  // Who reads an answer carries out what follows from it, and may have asked anew, before it looks up.
  if (rank.reader != nobody) --threads_[std::exchange(rank.reader, nobody)].owed;
}

// ---- threads --------------------------------------------------------------------------------------------------------

void World::run_thread(unsigned index) {
  Thread& thread = threads_[index];
  const Node node = thread.program->node;
  if (thread.state == Thread::State::faulted) return fault(index);
  if (thread.state == Thread::State::told) return told(index);
  if (thread.state == Thread::State::woken) {
    thread.state = Thread::State::running;
    if (scenario_.absence == 0) return;
    say(node, [&] { return "thread " + std::to_string(thread.waiter) + " runs on, to " + page_name(thread.page); });
    return step(node, Resumed{.page = thread.page, .now = now(ranks_[node])});
  }
  const Instruction& instruction = thread.instruction();
  if (instruction.atomic != Atomic::Kind::none) return ask(index);
  for (unsigned i = 0; i < instruction.touches; ++i) {
    const Touch& touch = instruction.touch[i];
    if (ranks_[node].allow[touch.page] >= touch.need()) continue;
    say(node, [&] {
      return "thread " + std::to_string(thread.waiter) + ": SIGSEGV " + explorer::text(touch.need()) + " " +
             page_name(touch.page);
    });
    if (std::exchange(thread.again, false) && thread.page == touch.page) ++counts_.retries;
    thread.page = touch.page;
    thread.want = touch.need();
    thread.state = ranks_[node].aborted ? Thread::State::stuck : Thread::State::faulted;
    return;
  }
  perform(index);
}

void World::perform(unsigned index) {
  Thread& thread = threads_[index];
  const Node node = thread.program->node;
  const Instruction& instruction = thread.instruction();
  for (unsigned i = 0; i < instruction.touches; ++i) {
    const Touch& touch = instruction.touch[i];
    std::uint64_t& here = ranks_[node].frame[touch.page][touch.word];
    std::uint64_t& last = truth_[touch.page][touch.word];
    const std::uint64_t found = here, expected = last;
    if (touch.writes) last = here = ++last_value_;
    say(node, [&] {
      const std::string words = "thread " + std::to_string(thread.waiter) + ": " + text(touch);
      return words + (touch.reads ? " is " + std::to_string(found) : "") +
             (touch.writes ? ", becomes " + std::to_string(here) : "");
    });
    if (touch.reads && found != expected)
      fail(node_name(node) + " reads " + text(touch) + " and finds " + std::to_string(found) +
           "; the last write wrote " + std::to_string(expected));
  }
  ++thread.next;
  thread.again = false;
  ++counts_.instructions;
}

void World::fault(unsigned index) {
  Thread& thread = threads_[index];
  const Node node = thread.program->node;
  Rank& rank = ranks_[node];
  const Lane lane = take_lane(rank, index);
  say(node, [&] {
    return "thread " + std::to_string(thread.waiter) + ": fault " + explorer::text(thread.want) + " " +
           page_name(thread.page) + " on lane " + std::to_string(lane);
  });
  thread.state = Thread::State::blocked;
  ++counts_.faults;
  const Site site = Site{index + 1} << 32U | thread.next;
  step(node, Fault{.page = thread.page,
                   .want = thread.want,
                   .waiter = thread.waiter,
                   .lane = lane,
                   .site = site,
                   .now = now(rank)});
}

// A lane whose answers have all been read is free, though its last holder may still be waiting.
Lane World::take_lane(Rank& rank, unsigned thread) {
  for (std::size_t lane = 1; lane < rank.lane_holder.size(); ++lane) {
    unsigned& holder = rank.lane_holder[lane];
    if (holder != nobody && threads_[holder].owed != 0) continue;
    holder = thread;
    return static_cast<Lane>(lane);
  }
  return 0;
}

// ---- messages -------------------------------------------------------------------------------------------------------

// What a thread reads from its call lane goes straight into the frame, and only then is its node's lock taken.
bool World::can_land(const Flight& flight) const {
  return scenario_.in_place && !flight.landed && flight.lane != 0 && flight.answer && flight.msg.carries_page &&
         !ranks_[flight.to].aborted;
}

void World::land(Flight& flight) {
  const Page page = flight.msg.page;
  say(flight.to,
      [&] { return page_name(page) + " comes on " + std::to_string(flight.lane) + ":" + text_of(flight.bytes); });
  flight.landed = true;
  Rank& rank = ranks_[flight.to];
  if (rank.allow[page] != Access::none)
    return fail(node_name(flight.to) + " receives " + page_name(page) + " while its threads may read it");
  rank.frame[page] = flight.bytes;
}

void World::deliver(std::size_t index) {
  const Flight flight = flights_[index];
  for (std::size_t i = 0; i < index; ++i) {
    if (flights_[i].from != flight.from || flights_[i].to != flight.to) continue;
    ++counts_.overtaken;
    break;
  }
  flights_.erase(flights_.begin() + static_cast<std::ptrdiff_t>(index));
  Rank& rank = ranks_[flight.to];
  const bool for_thread = flight.lane != 0 && flight.answer;
  if (for_thread && rank.aborted) return;  // its threads read no answers any more
  say(flight.to, [&] {
    return explorer::text(flight.msg) + " from " + std::to_string(flight.from) + " on " + std::to_string(flight.lane) +
           (flight.msg.carries_page ? ":" + text_of(flight.bytes) : "");
  });
  rank.has_staged = flight.msg.carries_page;
  rank.landed = flight.landed;
  rank.staged = flight.bytes;
  rank.staged_page = flight.msg.page;
  if (for_thread) {
    const unsigned reader = rank.lane_holder[flight.lane];
    if (reader == nobody || threads_[reader].owed == 0)
      return fail(node_name(flight.to) + " gets an answer on a call lane on which nobody asks");
    rank.reader = reader;
  }
  if ((flight.msg.kind == Kind::recall || flight.msg.kind == Kind::invalidate) && is_pinned(rank, flight.msg.page))
    ++counts_.waited_for_pins;
  step(flight.to, Received{.from = flight.from, .lane = flight.lane, .msg = flight.msg, .now = now(rank)});
  if (flight.msg.kind != Kind::grant || !flight.msg.carries_page) return;
  if (std::none_of(rank.todo.begin(), rank.todo.end(),
                   [](const Action& a) { return std::holds_alternative<Install>(a); }))
    ++counts_.discarded;
}

void World::send(Node node, const Send& action) {
  Message msg = action.msg;
  if (action.to >= scenario_.nodes || action.to == node || action.lane > scenario_.call_lanes)
    return fail(node_name(node) + " sends where no connection is: " + explorer::text(Action{action}));
  const bool answer = is_answer(msg);
  if (action.lane != 0 && !answer) {
    const unsigned asker = ranks_[node].lane_holder[action.lane];
    if (asker == nobody)
      return fail(node_name(node) + " asks on a call lane that nobody holds: " + explorer::text(Action{action}));
    ++threads_[asker].owed;
  }
  if (msg.kind == Kind::performed && msg.atomic.state == Atomic::State::asked) {
    msg.atomic.value = perform_now(node, msg.page, msg.atomic);
    msg.atomic.state = Atomic::State::done;
  }
  if (msg.atomic.state == Atomic::State::missed) ++counts_.missed;
  ++counts_.messages;
  if (ranks_[action.to].dead) return;
  flights_.push_back({.from = node,
                      .to = action.to,
                      .lane = action.lane,
                      .answer = answer,
                      .connection = connection(node, action.to, action.lane, answer),
                      .msg = msg,
                      .bytes = msg.carries_page ? ranks_[node].frame[msg.page] : Frame{}});
}

// ---- what a node does -----------------------------------------------------------------------------------------------

void World::act(Node node) {
  Rank& rank = ranks_[node];
  const Action action = rank.todo[rank.carried_out++];
  say(node, [&] { return "  " + explorer::text(action); });
  if (const auto* s = std::get_if<Send>(&action)) {
    send(node, *s);
  } else if (const auto* i = std::get_if<Install>(&action)) {
    if (!rank.has_staged || rank.staged_page != i->page)
      return fail(node_name(node) + " installs bytes that did not come");
    if (!rank.landed) rank.frame[i->page] = rank.staged;
  } else if (const auto* p = std::get_if<Protect>(&action)) {
    protect(node, *p);
  } else if (const auto* w = std::get_if<Wake>(&action)) {
    wake(node, *w);
  } else if (const auto* d = std::get_if<Performed>(&action)) {
    performed(node, *d);
  } else if (const auto* t = std::get_if<Timer>(&action)) {
    rank.ticking = true;
    rank.tick_at = t->at;
  } else if (const auto* a = std::get_if<Abort>(&action)) {
    abort(node, *a);
  }
  if (rank.free()) end_step(rank);
}

void World::protect(Node node, const Protect& action) {
  const Page page = action.page;
  ranks_[node].allow[page] = action.allow;
  if (action.allow == Access::none) return;
  const bool alone = action.allow == Access::write || scenario_.protocol == Protocol::migrate;
  for (Node n = 0; n < scenario_.nodes; ++n) {
    const Access other = ranks_[n].allow[page];
    if (n == node || other == Access::none || (!alone && other == Access::read)) continue;
    return fail(node_name(node) + " may " + explorer::text(action.allow) + " " + page_name(page) + " while " +
                node_name(n) + " may " + explorer::text(other));
  }
  if (ranks_[node].frame[page] == truth_[page]) return;
  fail(node_name(node) + " may read " + page_name(page) + " and would not see the last write: it has" +
       text_of(ranks_[node].frame[page]) + ", written was" + text_of(truth_[page]));
}

void World::wake(Node node, const Wake& action) {
  Rank& rank = ranks_[node];
  const auto wrong = [&](const std::string& what) {
    fail(node_name(node) + " wakes thread " + std::to_string(action.who) + what);
  };
  if (action.who >= rank.threads) return wrong(", which is none");
  Thread& thread = threads_[rank.first_thread + action.who];
  if (thread.state == Thread::State::stuck) return;
  if (thread.state != Thread::State::blocked || thread.atomic.kind != Atomic::Kind::none)
    return wrong(", which does not wait");
  thread.state = Thread::State::woken;
  thread.again = true;
  for (std::size_t i = rank.carried_out; i < rank.todo.size(); ++i) {
    const auto* later = std::get_if<Protect>(&rank.todo[i]);
    if (later != nullptr && later->page == thread.page && later->allow > rank.allow[thread.page])
      return wrong(" before it opens " + page_name(thread.page));
  }
}

// As the driver does it: who waits does so for ever (until it is ended); who computes runs on to its next fault; requests
// of other nodes are served as before.
void World::abort(Node node, const Abort& action) {
  Rank& rank = ranks_[node];
  if (action.why != Abort::Why::peer_lost || !rank.told)
    return fail(node_name(node) + " ends the job: " + explorer::text(Action{action}));
  rank.aborted = true;
  for (unsigned i = rank.first_thread; i < rank.first_thread + rank.threads; ++i) {
    Thread& thread = threads_[i];
    if (thread.state == Thread::State::faulted || thread.state == Thread::State::blocked || thread.owed != 0)
      thread.state = Thread::State::stuck;
  }
}

}  // namespace dsm::core::simulator
