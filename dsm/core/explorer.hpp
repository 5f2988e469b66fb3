// dsm/core/explorer.hpp - walks every interleaving of a small world of Coherence values.
//
// A world is: the nodes' cores, their protections and frames, the messages on the wire (each connection of a pair of
// nodes a queue of its own), the actions that a node has still to carry out, and application threads that read and write.
// With Placement::daemon the last node is the daemon; the others are hosts, which may leave at any moment, with all that
// is under way to them and from them, and with what they wrote either put into the home's frame or lost. A fresh host is
// in the slot at once; that it may be idle as long as you like is as good as one that comes later. From every world all
// who wait must come to an end without anybody leaving.
//
// From each world the explorer takes every next step that could happen: *one action* of a pending list, one delivery, one
// instruction of a thread (also between two actions of its own node), one tick. Worlds already seen are not walked again.
// Nothing is random: the same setup always gives the same number of states.
//
// In every world it checks: one writer or many readers; who may read sees the last write; no Abort; no thread that waits
// while nothing is under way any more (deadlock, lost wake-up); nobody woken before the page is open; and, from every
// world, that all waiting threads can still finish (no livelock that cannot be left).
//
// Used by core_test and by the runs of the seeded bugs (mutants/). Thread-safety: explore() keeps no state between calls.
#pragma once
#include <cstdint>
#include <string>

#include "dsm/core/coherence.hpp"

namespace dsm::core::explorer {

// Bounds of a world, chosen so that it packs into a few cache lines.
inline constexpr std::size_t max_nodes = 4;
inline constexpr std::size_t max_pages = 2;
inline constexpr std::size_t max_threads = 4;   // of all nodes together
inline constexpr std::size_t max_flights = 24;  // messages on the wire at one time

struct Setup {
  std::uint8_t nodes = 3;
  std::uint8_t threads = 1;  // per node
  Page pages = 1;
  Protocol protocol = Protocol::msi;
  Placement placement = Placement::cyclic;
  Micros hold = 0;           // 0: never held; else time passes in jumps of `hold`, at any moment or never
  Micros absence = 0;        // not 0: a woken thread says Resumed before it runs on; less than 1000 * hold
  unsigned operations = 9;   // reads and writes, of any thread, on any page, in all
  unsigned retries = 2;      // times in all that a woken thread may find its page gone again (else there is no end)
  unsigned drops = 0;        // Drop events in all, at any moment
  unsigned write_backs = 0;  // WriteBack events in all
  unsigned prefetches = 0;   // Prefetch events in all
  unsigned leaves = 0;       // with Placement::daemon: times in all that a host leaves
  bool daemon_touches = false;  // with Placement::daemon: its threads read and write, too
  unsigned atomics = 0;   // besides them, atomic operations done where the page is, of any thread, on any page, in all
  bool any_lane = false;  // a fault may also use the service lane (no call lane was free)
  bool reduce = true;     // leaves out orders of actions that cannot make a difference (Rules::is_independent)
  std::uint64_t states_max = 40'000'000;  // more than these is a failure: the memory of the search is bounded
};

struct Result {
  std::uint64_t states = 0;  // distinct worlds
  std::uint64_t steps = 0;   // transitions between them
  std::uint64_t locals = 0;  // distinct states of a single node
  std::string violation;     // empty: none
  std::string ladder;        // the shortest way there (fewest operations, then fewest steps)
};

// REQUIRES: the bounds above; no atomics with Placement::daemon. Terminates; takes about a microsecond per step.
[[nodiscard]] Result explore(const Setup& setup);

// "3 nodes x 1 page x 9 operations, msi, hold 0"
[[nodiscard]] std::string text(const Setup& setup);

}  // namespace dsm::core::explorer
