// dsm/core/explorer_world.hpp - one world of the explorer, and the steps that lead out of it.
//
// The rules here are the driver's contract, seen from outside: a node takes no event while it still has actions to carry
// out (it holds its lock), but its threads run on, at every moment, under the protections of that moment.
//
// Only for the explorer. Thread-safety: none.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "dsm/core/explorer.hpp"
#include "dsm/core/explorer_node.hpp"

namespace dsm::core::explorer {

// A message on the wire. Channels are numbered by Rules; the messages of one channel stand in order of sending.
struct Flight {
  std::uint8_t channel = 0;
  std::uint8_t current = 0;  // the bytes it carries are the last written
  MessageId msg = 0;
};

struct Thread {
  enum class State : std::uint8_t {
    idle,     // between two instructions
    faulted,  // caught by the protection; waits for its node's lock
    blocked,  // the core has been told
    woken,    // will run the instruction again ...
    resumed,  // ... and has said so, if the setup has `absence`
  };
  State state{};
  std::uint8_t page = 0;
  Access want{};          // none: it has asked for an atomic operation
  std::uint8_t owed = 0;  // answers that it still has to read from its call lane; until then it does not run on
};

// Plain bytes, so that hashing and comparing are cheap. What a page contains does not matter, only whether it is what was
// written last: that is one bit per frame and per message.
struct World {
  std::array<NodeId, max_nodes> node{};
  std::array<ListId, max_nodes> todo{};
  std::array<std::uint8_t, max_nodes>
      staged{};  // bytes that came with the message in hand: 0 none, else 1 + 2 * page + current
  std::array<std::array<Access, max_pages>, max_nodes> allow{};
  std::array<std::array<std::uint8_t, max_pages>, max_nodes> current{};
  std::array<Thread, max_threads> thread{};                                           // node n's are n * threads ...
  std::uint8_t retries = 0, drops = 0, write_backs = 0, prefetches = 0, atomics = 0, leaves = 0;  // used up
  std::uint8_t flights = 0;
  std::array<std::uint8_t, 1> padding{};  // every byte counts in the digest
  std::array<Flight, max_flights> flight{};

  [[nodiscard]] std::uint64_t digest() const;
};

// A step out of a world. `operation` steps are instructions that a thread begins; they are what the walk counts.
struct Choice {
  enum class Kind : std::uint8_t { operation, retry, act, event };
  Kind kind{};
  std::uint8_t node = 0;
  std::uint8_t thread = 0;   // operation, retry: index in World::thread; left: 1 if what the host wrote is lost
  std::uint8_t channel = 0;  // event, if a message is received
  Stimulus what{};           // event; operation: page and want
};

struct Choices {
  std::vector<Choice> list;
  bool busy = false;     // something is under way, threads that could begin something new aside
  bool cut_off = false;  // a woken thread would fault once more than the setup allows
};

class Rules {
 public:
  explicit Rules(const Setup& setup);

  [[nodiscard]] World initial() const;
  void choices(const World& world, Choices& out);
  // Takes the step. What is wrong with it, or with the world it leads to; empty: nothing.
  [[nodiscard]] std::string apply(World& world, const Choice& choice);
  // True if there is a step that may be taken at once, whatever else could happen.
  [[nodiscard]] bool forced(const World& world, Choice& choice) const;
  // What is wrong with a world out of which `choices` lead; empty: nothing.
  [[nodiscard]] std::string check(const World& world, const Choices& choices) const;

  [[nodiscard]] bool traps_at_once() const { return traps_at_once_; }
  [[nodiscard]] NodeTable& nodes() { return nodes_; }
  // Where the message that `choice` receives comes from and what it says.
  [[nodiscard]] const Message& message(const Choice& choice) const { return nodes_.message(choice.what.msg); }
  [[nodiscard]] unsigned rank_of(unsigned thread) const { return thread / setup_.threads; }

 private:
  struct Channel {
    Node from, to;
    Lane lane;
    bool answers;
  };

  void add_events(const World& world, Node node, Choices& out);
  void add_event(const World& world, Choice choice, Choices& out);
  void add_atomics(const World& world, unsigned thread, Choices& out);
  void add_extras(const World& world, Node node, Choices& out);
  void add_leaves(const World& world, Choice choice, Choices& out);
  void add_retry(const World& world, unsigned thread, Choices& out);
  void add_operations(const World& world, unsigned thread, Choices& out);
  void add_trap(const World& world, Choice choice, std::uint8_t page, Access want, Choices& out);
  void add_fault(const World& world, Choice choice, std::uint8_t page, Access want, Choices& out);
  [[nodiscard]] bool is_independent(const World& world, Node node) const;
  [[nodiscard]] std::string run_thread(World& world, unsigned thread) const;
  [[nodiscard]] std::string touch(World& world, Node node, unsigned page, Access want) const;
  [[nodiscard]] std::string act(World& world, Node node);
  [[nodiscard]] std::string send(World& world, Node node, const Send& action, MessageId msg);
  [[nodiscard]] std::string wake(World& world, Node node, const Wake& action) const;
  [[nodiscard]] std::string performed(World& world, Node node, const Performed& action) const;
  [[nodiscard]] std::string leave(World& world, Node who, bool lost) const;
  void forget_writes(World& world, unsigned page) const;
  [[nodiscard]] std::string event(World& world, const Choice& choice);
  [[nodiscard]] std::string check_pages(const World& world) const;
  [[nodiscard]] std::string check_rest(const World& world) const;
  [[nodiscard]] Node home(const World& world, Page page) const;
  [[nodiscard]] bool would_write_nothing_new(const World& world, Node node, unsigned page) const;
  [[nodiscard]] std::uint8_t channel(Node from, Node to, Lane lane, bool answers) const;

  Setup setup_;
  // A node's only thread is caught and tells the core in one step: until it does, nothing can raise its protection.
  bool traps_at_once_;
  Thread::State ready_;  // from which a thread runs its instruction again
  NodeTable nodes_;
  std::vector<Channel> channels_;
};

}  // namespace dsm::core::explorer
