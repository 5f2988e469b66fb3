// dsm/core/coherence.hpp - which node may touch which page, and what to do about a fault.
//
// The whole protocol as one value: no sockets, no mmap, no threads, no clock, no randomness. A Coherence is copyable:
// copy all nodes and you have a checkpoint; compare digests and you have model checking (explorer.hpp).
//
// Thread-safety: none; the driver holds one lock around step() and around carrying out its actions.
// async-signal-safe: step() and view() yes (no allocation, no throw); construction and copying no.
#pragma once
#include <cstdint>
#include <memory>
#include <string_view>

#include "dsm/core/homes.hpp"
#include "dsm/core/types.hpp"

namespace dsm::core {

enum class Protocol : std::uint8_t {
  migrate,  // one copy, which moves (the classroom's protocol)
  msi,      // one writer or many readers
};

// What one node is told at its birth.
struct Config {
  Node self = 0;
  std::uint8_t nodes = 1;           // ranks 0..nodes-1; under Placement::daemon: the slots that hosts may have
  Page pages = 0;
  Protocol protocol = Protocol::msi;
  Placement placement = Placement::cyclic;
  std::uint16_t waiters = max_waiters;  // application threads that may be blocked at one time
  std::uint16_t requests = 1024;    // wants from other nodes that may be queued here at one time
  std::uint16_t pins = 0;           // pages that may be pinned at one time
  // A granted page must serve the instruction that asked before it leaves: while somebody else wants it, it stays at
  // least this long (microseconds). 0: never held.
  Micros hold = 100;
  // A woken thread may be preempted before it runs: its hold counts from its Resumed, for which the page waits at most this
  // long (microseconds). 0: nobody says Resumed, and the hold counts from the grant.
  Micros absence = 0;
};

// A page as a reader of the state (dsmtop, logs, checkers) wants to know it.
struct View {
  enum class State : std::uint8_t { untouched, shared, exclusive, moving };  // at the home only; elsewhere untouched
  Access here{};             // what this node's application may do with it
  bool asked = false;        // a want of this node is under way
  Node home{};               // `nowhere`: not known here
  State state{};
  Node owner{};              // exclusive: who may write; shared: the home. Meaningful at the home only
  std::uint64_t copies = 0;  // other nodes that hold a readable copy; at the home only
  std::uint32_t waiting = 0; // this node's threads waiting for the page
  std::uint32_t queued = 0;  // requests queued at the home
  std::uint32_t pins = 0;    // Pin events that no Unpin has followed
  Seq seq = 0;               // the last grant installed here
};

class Coherence {
 public:
  explicit Coherence(const Config& config);
  Coherence(const Coherence&);
  Coherence& operator=(const Coherence&);
  Coherence(Coherence&&) noexcept;
  Coherence& operator=(Coherence&&) noexcept;
  ~Coherence();

  // Appends to `out` what must now happen, in this order. Never blocks, never fails: what a peer may not say is an Abort,
  // after which the state is unchanged.
  void step(const Event& event, Actions& out);

  [[nodiscard]] View view(Page page) const;
  [[nodiscard]] const Config& config() const;
  [[nodiscard]] Node home(Page page) const;  // `nowhere`: not known here
  [[nodiscard]] const Homes& homes() const;
  // Homes::deal. async-signal-safe: yes.
  void deal(Page first, Page count);
  // Equal states have equal digests; times do not count, only whether a held page is waiting for its Tick.
  [[nodiscard]] std::uint64_t digest() const;

 private:
  std::unique_ptr<struct State> state_;
};

[[nodiscard]] std::string_view name(Protocol protocol);
// False if `text` names no protocol; `out` is then untouched.
[[nodiscard]] bool parse(std::string_view text, Protocol& out);

}  // namespace dsm::core
