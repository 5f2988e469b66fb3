// dsm/core/simulator_world.hpp - one world of the simulator while it is walked: cores, frames, threads, connections, clock.
//
// Only for the simulator. Thread-safety: none.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "dsm/core/simulator.hpp"
#include "dsm/core/simulator_scenario.hpp"

namespace dsm::core::simulator {

class World {
 public:
  World(const Scenario& scenario, Random& random, std::string* trace);

  // Walks to the end, or to what is wrong.
  void walk();
  [[nodiscard]] const std::string& violation() const { return violation_; }
  [[nodiscard]] const Counts& counts() const { return counts_; }

 private:
  static constexpr unsigned nobody = ~0U;

  struct Thread {
    enum class State : std::uint8_t {
      running,  // the next instruction may run at any moment
      faulted,  // caught by the protection; waits for its node's lock
      blocked,  // the core has been told
      woken,    // will run the instruction again
      told,     // its atomic operation has been done
      stuck,    // its node has lost a peer, or is lost itself
    };
    const Program* program = nullptr;
    std::size_t next = 0;  // instruction
    State state{};
    Page page = 0;  // of the last fault
    Access want{};
    Waiter waiter = 0;
    unsigned owed = 0;   // answers that it still has to read from its call lane; until then it does not run on
    bool again = false;  // it has been woken for this instruction
    Atomic atomic{};     // what it has asked for, until it is told. All that are asked for differ
    bool performed = false;
    std::uint64_t found = 0;  // if performed: the word's last value before
    [[nodiscard]] bool done() const { return next == program->code.size(); }
    [[nodiscard]] const Instruction& instruction() const { return program->code[next]; }
  };

  struct Pinned {
    Page page = 0;
    std::uint32_t count = 0;  // Pins that no Unpin has followed
    Micros until = 0;
  };

  struct Rank {
    Coherence core;
    std::vector<Access> allow;    // by page: the application's view, as mprotect was last told
    std::vector<Frame> frame;     // by page
    std::vector<Action> todo;     // of the step that was taken last ...
    std::size_t carried_out = 0;  // ... and so many have been carried out
    Frame staged{};               // the bytes that came with the message of that step,
    Page staged_page = 0;
    bool has_staged = false;   // if any did,
    bool landed = false;       // and if they are in the frame already
    unsigned reader = nobody;  // the thread that has read that message from its call lane, if one has
    bool ticking = false;
    Micros tick_at = 0;
    std::vector<Pinned> pins;
    Micros clock_offset = 0;  // clocks of different nodes have nothing to do with each other
    unsigned first_thread = 0, threads = 0;
    std::vector<unsigned> lane_holder;  // by call lane: the thread that asked on it last
    bool dead = false;
    bool told = false;  // of the dead one
    bool aborted = false;
    [[nodiscard]] bool free() const { return carried_out == todo.size(); }
  };

  struct Flight {
    Node from, to;
    Lane lane;
    bool answer;
    std::uint32_t connection;
    Message msg;
    Frame bytes;
    bool landed = false;  // the bytes are in the receiver's frame
  };

  struct Candidate {
    enum class Kind : std::uint8_t { act, thread, deliver, tick, lose, extra } kind;
    std::uint32_t index;
    std::uint32_t up_to;  // sum of the weights, this one's included
  };

  // ---- choosing (simulator_world.cpp) ----
  void collect();
  void collect_flights();
  void add(Candidate::Kind kind, std::size_t index, std::uint32_t name);
  [[nodiscard]] bool can_step(const Thread& thread) const;
  [[nodiscard]] bool wait_for_something();
  void take(const Candidate& candidate);

  // ---- what can happen (simulator_events.cpp) ----
  void step(Node node, const Event& event);
  void end_step(Rank& rank);
  [[nodiscard]] bool can_land(const Flight& flight) const;
  void land(Flight& flight);
  void deliver(std::size_t index);
  void run_thread(unsigned index);
  void perform(unsigned index);
  void fault(unsigned index);
  void told(unsigned index);
  [[nodiscard]] Lane take_lane(Rank& rank, unsigned thread);
  void act(Node node);
  void send(Node node, const Send& action);
  void protect(Node node, const Protect& action);
  void wake(Node node, const Wake& action);
  void abort(Node node, const Abort& action);

  // ---- atomic operations (simulator_atomic.cpp) ----
  void ask(unsigned index);
  [[nodiscard]] std::uint64_t perform_now(Node node, Page page, const Atomic& atomic);
  void performed(Node node, const Performed& action);

  // ---- what nobody has asked for, and the loss of a node (simulator_extras.cpp) ----
  void extra();
  void give_up(Node node, Page page);
  void pin(Node node, Page page);
  void unpin(Node node, Page page);
  [[nodiscard]] static std::vector<Pinned>::iterator pin_of(Rank& rank, Page page);
  [[nodiscard]] bool is_pinned(const Rank& rank, Page page) const;
  void check_pin_count(Node node, Page page);
  void check_pins(Node node);
  void kill();

  // ---- at the end ----
  void check_end();
  void check_page(Page page);

  [[nodiscard]] Rank& rank_of(const Thread& thread) { return ranks_[thread.program->node]; }
  [[nodiscard]] const Rank& rank_of(const Thread& thread) const { return ranks_[thread.program->node]; }
  [[nodiscard]] Micros now(const Rank& rank) const { return clock_ + rank.clock_offset; }
  [[nodiscard]] std::uint32_t connection(Node from, Node to, Lane lane, bool answer) const;
  void fail(std::string what);
  // Into the trace, if there is one; only then `words` is called.
  template <class Words>
  void say(Node node, Words words) {
    if (trace_ == nullptr) return;
    *trace_ += std::to_string(counts_.steps) + ": node " + std::to_string(node) + ": " + words() + "\n";
  }

  const Scenario& scenario_;
  Random& random_;
  std::string* trace_;
  std::vector<Rank> ranks_;
  std::vector<Thread> threads_;
  std::vector<Flight> flights_;  // in order of sending
  std::vector<Frame> truth_;     // by page: what was written last
  std::vector<Candidate> candidates_;
  std::vector<std::uint64_t> seen_;  // by connection: the last look at which it had a message
  std::uint64_t look_ = 0;
  std::vector<std::uint64_t> stalled_;  // by connection: up to this step
  std::uint64_t salt_ = 0;              // who is fast and who is slow, for a while
  std::uint64_t last_value_ = 0;        // every write writes another
  std::uint32_t extras_left_ = 0;
  Micros clock_ = 0;
  Actions actions_;
  Counts counts_;
  std::string violation_;
};

}  // namespace dsm::core::simulator
