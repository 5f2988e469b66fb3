// dsm/core/explorer_node.hpp - the private states that single nodes reach in a walk, each kept once.
//
// A world has three nodes but few thousand distinct states of each: the table keeps every one of them, gives it a number,
// and remembers what each event did to it. So a world is a handful of numbers, and step() runs once per (state, event).
//
// Only for the explorer. Thread-safety: none.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "dsm/core/coherence.hpp"
#include "dsm/core/explorer.hpp"

namespace dsm::core::explorer {

using NodeId = std::uint32_t;  // index of a node state
using ListId = std::uint32_t;  // what is still to do, 0: nothing
using MessageId = std::uint16_t;

// Nodes are numbered without a gap here; to the cores the last one is the daemon, if there is one.
[[nodiscard]] inline bool is_daemon(const Setup& setup, unsigned node) {
  return setup.placement == Placement::daemon && node + 1U == setup.nodes;
}
[[nodiscard]] inline Node name_of(const Setup& setup, unsigned node) {
  return is_daemon(setup, node) ? daemon_node : static_cast<Node>(node);
}
[[nodiscard]] inline Node node_named(const Setup& setup, Node name) {
  return name == daemon_node ? static_cast<Node>(setup.nodes - 1) : name;
}

[[nodiscard]] std::uint64_t mix(std::uint64_t hash, std::uint64_t value);

// An event as the explorer chooses it, in 32 bits: the time and the waiter's site are added when it is played.
struct Stimulus {
  enum class Kind : std::uint8_t { fault, prefetch, drop, write_back, received, tick, resumed, perform, left };
  Kind kind{};
  std::uint8_t late = 0;    // 1: it happens long after the last event, when nothing is held any more
  std::uint8_t thread = 0;  // fault, resumed, perform
  Node from = 0;            // received, left
  Lane lane = 0;            // fault, prefetch, received, perform
  std::uint8_t page = 0;    // all but received, tick and left
  Access want{};            // fault
  MessageId msg = 0;        // received
  [[nodiscard]] std::uint32_t packed() const;
  [[nodiscard]] static Stimulus unpack(std::uint32_t bits);
};

struct Outcome {
  NodeId next = 0;
  ListId todo = 0;
};

// A map from non-zero numbers that is asked millions of times a second: open addressing, one cache line a look.
template <class Value>
class FlatMap {
 public:
  FlatMap() : slots_(std::size_t{1} << 12U) {}
  [[nodiscard]] const Value* find(std::uint64_t key) const {
    const Slot& slot = slots_[place(key)];
    return slot.key == 0 ? nullptr : &slot.value;
  }
  void insert(std::uint64_t key, const Value& value) {
    if (++size_ * 2 > slots_.size()) grow();
    slots_[place(key)] = {key, value};
  }
  template <class Visit>
  void for_each(Visit visit) const {
    for (const Slot& slot : slots_) {
      if (slot.key != 0) visit(slot.key, slot.value);
    }
  }

 private:
  struct Slot {
    std::uint64_t key = 0;
    Value value{};
  };
  [[nodiscard]] std::size_t place(std::uint64_t key) const {
    std::size_t at = mix(0, key) & (slots_.size() - 1);
    while (slots_[at].key != 0 && slots_[at].key != key) at = (at + 1) & (slots_.size() - 1);
    return at;
  }
  void grow() {
    std::vector<Slot> old(slots_.size() * 2);
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.key != 0) slots_[place(slot.key)] = slot;
    }
  }
  std::vector<Slot> slots_;
  std::size_t size_ = 0;
};

class NodeTable {
 public:
  explicit NodeTable(const Setup& setup);

  [[nodiscard]] NodeId initial(Node node) const { return node; }
  [[nodiscard]] Outcome play(NodeId id, const Stimulus& stimulus);

  [[nodiscard]] const Coherence& core(NodeId id) const { return states_[id].core; }
  [[nodiscard]] bool ticking(NodeId id) const { return states_[id].ticking; }
  [[nodiscard]] std::size_t size() const { return states_.size(); }

  [[nodiscard]] const Action& head(ListId list) const { return cells_[list].action; }
  [[nodiscard]] ListId rest(ListId list) const { return cells_[list].next; }
  [[nodiscard]] MessageId head_message(ListId list) const { return cells_[list].msg; }  // if head() is a Send
  [[nodiscard]] MessageId intern(const Message& msg);
  [[nodiscard]] const Message& message(MessageId id) const { return messages_[id]; }

  // Equal digests must mean equal behaviour, or worlds are taken for one another. Wherever a state was reached in two ways,
  // plays every event of the walk on both and compares. Empty, or what differs.
  [[nodiscard]] std::string check_digests() const;

 private:
  struct NodeState {
    Coherence core;
    Micros clock = 1;
    bool ticking = false;               // a Timer is outstanding
    std::unique_ptr<Coherence> twin{};  // the same digest, reached in another way
    Micros twin_clock = 1;
  };
  struct Cell {
    Action action;
    ListId next = 0;
    MessageId msg = 0;
  };
  struct Played {
    NodeState state;
    std::vector<Action> todo;  // without timers
  };

  [[nodiscard]] std::string compare(const NodeState& state, const Stimulus& stimulus) const;
  [[nodiscard]] Played run(const Coherence& core, Micros clock, bool ticking, const Stimulus& stimulus) const;
  [[nodiscard]] static std::uint64_t digest(const NodeState& state);
  [[nodiscard]] NodeId intern(NodeState state);
  [[nodiscard]] ListId intern(const std::vector<Action>& todo);
  [[nodiscard]] std::uint64_t code(const Action& action);

  Setup setup_;
  std::vector<NodeState> states_;
  std::vector<Cell> cells_;
  std::vector<Message> messages_;
  std::unordered_map<std::uint64_t, NodeId> by_digest_;
  std::unordered_map<std::uint64_t, ListId> by_cell_;
  std::unordered_map<std::uint64_t, MessageId> by_message_;
  FlatMap<Outcome> played_;  // by node state plus one, and stimulus
};

}  // namespace dsm::core::explorer
