// Atomic operations: asked for by a thread, done on the frame of whoever has the page, told to the thread.
#include <algorithm>

#include "dsm/core/explorer_text.hpp"
#include "dsm/core/simulator_world.hpp"

namespace dsm::core::simulator {

namespace {

std::string text(const Atomic& atomic) {
  if (atomic.kind == Atomic::Kind::add) return "add " + std::to_string(atomic.value);
  return "store " + std::to_string(atomic.value) + " if it holds " + std::to_string(atomic.expected);
}

std::string word_name(Page page, const Atomic& atomic) {
  return text(Touch{.page = page, .word = static_cast<std::uint8_t>(atomic.word)});
}

}  // namespace

// The thread takes its node's lock and tells the core at once: there is nothing that could catch it before.
void World::ask(unsigned index) {
  Thread& thread = threads_[index];
  const Node node = thread.program->node;
  Rank& rank = ranks_[node];
  if (rank.aborted) {
    thread.state = Thread::State::stuck;
    return;
  }
  const Touch& touch = thread.instruction().touch[0];
  Atomic atomic{.kind = thread.instruction().atomic, .word = touch.word, .value = ++last_value_};
  if (atomic.kind == Atomic::Kind::add) {
    atomic.value *= 1'000'000;  // so that hardly any sum is a value that the word has had before
  } else {
    atomic.expected = truth_[touch.page][touch.word];  // as if it had just looked; others may be quicker
  }
  thread.page = touch.page;
  thread.atomic = atomic;
  thread.performed = false;
  thread.state = Thread::State::blocked;
  const Lane lane = take_lane(rank, index);
  say(node, [&] {
    return "thread " + std::to_string(thread.waiter) + ": asks on lane " + std::to_string(lane) + ": " + text(touch) +
           ", " + text(atomic);
  });
  step(node, Perform{.page = touch.page, .atomic = atomic, .waiter = thread.waiter, .lane = lane, .now = now(rank)});
}

// The driver's Node::perform_now(), and whether this is a moment to do it. Returns what the word held.
std::uint64_t World::perform_now(Node node, Page page, const Atomic& atomic) {
  const auto asker = std::find_if(threads_.begin(), threads_.end(), [&](const Thread& thread) {
    return thread.page == page && thread.atomic == atomic && !thread.performed;
  });
  if (asker == threads_.end()) {
    fail(node_name(node) + " does on " + page_name(page) +
         " what nobody has asked for, or what has been done: " + text(atomic));
    return 0;
  }
  for (Node n = 0; n < scenario_.nodes; ++n) {
    if (n == node || ranks_[n].allow[page] == Access::none) continue;
    fail(node_name(node) + " changes " + word_name(page, atomic) + " while " + node_name(n) + " may " +
         explorer::text(ranks_[n].allow[page]) + " it");
  }
  std::uint64_t& here = ranks_[node].frame[page][atomic.word];
  std::uint64_t& last = truth_[page][atomic.word];
  const std::uint64_t found = here, expected = last;
  if (atomic.kind == Atomic::Kind::add) {
    here += atomic.value;
  } else if (found == atomic.expected) {
    here = atomic.value;
  } else {
    ++counts_.refused;
  }
  last = here;
  asker->performed = true;
  asker->found = found;
  ++counts_.atomics;
  say(node, [&] {
    return "  " + text(atomic) + ": " + word_name(page, atomic) + " is " + std::to_string(found) + ", becomes " +
           std::to_string(here);
  });
  if (found != expected)
    fail(node_name(node) + " is to change " + word_name(page, atomic) + " and finds " + std::to_string(found) +
         "; the last write wrote " + std::to_string(expected));
  return found;
}

void World::performed(Node node, const Performed& action) {
  Rank& rank = ranks_[node];
  const auto wrong = [&](const std::string& what) {
    fail(node_name(node) + " answers thread " + std::to_string(action.who) + what);
  };
  if (action.who >= rank.threads) return wrong(", which is none");
  const bool to_be_done = action.atomic.state == Atomic::State::asked;
  const std::uint64_t value = to_be_done ? perform_now(node, action.page, action.atomic) : action.atomic.value;
  Thread& thread = threads_[rank.first_thread + action.who];
  if (thread.state == Thread::State::stuck) return;
  if (thread.state != Thread::State::blocked || thread.atomic.kind == Atomic::Kind::none || thread.page != action.page)
    return wrong(", which has not asked for this");
  if (action.atomic.state == Atomic::State::missed || !thread.performed)
    return wrong(", and its operation has not been done");
  if (value != thread.found)
    return wrong(": " + std::to_string(value) + ", but its operation found " + std::to_string(thread.found));
  thread.atomic = {};
  thread.state = Thread::State::told;
}

void World::told(unsigned index) {
  Thread& thread = threads_[index];
  say(thread.program->node,
      [&] { return "thread " + std::to_string(thread.waiter) + ": is told " + std::to_string(thread.found); });
  thread.state = Thread::State::running;
  ++thread.next;
  thread.again = false;
  ++counts_.instructions;
}

}  // namespace dsm::core::simulator
