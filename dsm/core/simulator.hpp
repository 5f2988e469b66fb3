// dsm/core/simulator.hpp - random programs over random schedules, on the real cores.
//
// Where the explorer walks every interleaving of a small world, the simulator walks one of each of very many larger ones:
// 2 to 6 nodes, now and then up to 64; up to 3 threads each; a few pages, placed in each of the three ways (homes.hpp);
// straight-line programs of reads, writes, read-modify-writes, instructions that touch two pages, and atomic operations
// that are done where the page is (Perform). All of it is drawn from one number, the seed.
// What may happen in what order is the driver's contract (dsm/node/node.hpp): a node takes no event while it has actions to
// carry out, but its threads run on, between any two actions; each connection delivers in order, and overtakes every other.
//
// What "drops and evictions" means: TCP loses no message, so none is lost here either. What goes away is
//   a clean copy or a home's own access (Drop), a written page (WriteBack: it is sent home), at any moment, asked
//   for by nobody;
//   a prefetched grant that was revoked before it came;
//   in some worlds a whole node: from then on it does nothing, what it has sent arrives up to some message of each
//   connection, and each other node hears PeerLost sooner or later.
// What stays, in some worlds, is a page that was pinned (Pin), until it is unpinned or its time has come.
//
// Checked in every step: a read sees the value that was written there last, in the one order in which all accesses are
// performed (that is sequential consistency: this order is the same for all, and keeps each program's order); nobody may
// read a page whose bytes are not all so; one writer or many readers; an atomic operation is one read and write in that
// order, done once, while nobody else may touch the page, and who asked is told what it found; a pinned page does not go;
// nobody is woken before the page is open; no Abort but for a lost peer. At the end: every program is done (or its node has
// heard of the loss), nothing is queued or half done at any home, and no write is lost. A walk that takes more than
// `steps_max` steps is a failure, too.
//
// Used by dsm_sim, simulator_test and the runs of the seeded bugs. The same seed gives the same walk on every machine.
// Thread-safety: all functions may be called from several threads at once.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "dsm/core/coherence.hpp"

namespace dsm::core::simulator {

inline constexpr std::uint64_t steps_max = 200'000;  // of one walk; a few hundred are usual

// What happened, summed up over the walks.
struct Counts {
  std::uint64_t schedules = 0;
  std::uint64_t steps = 0;
  std::uint64_t steps_of_longest = 0;
  std::uint64_t nodes_of_largest = 0;
  std::uint64_t instructions = 0;  // performed
  std::uint64_t atomics = 0;       // operations done where the page was,
  std::uint64_t refused = 0;       // and those of them that found another value than they expected
  std::uint64_t missed = 0;        // questions to an owner who had sent the page home
  std::uint64_t faults = 0;
  std::uint64_t retries = 0;  // times that a woken thread found its page gone again, or not open enough
  std::uint64_t messages = 0;
  std::uint64_t overtaken = 0;  // messages that arrived before an older one between the same two nodes
  std::uint64_t dropped = 0;    // clean copies, and what homes may do with their own pages
  std::uint64_t written_back = 0;
  std::uint64_t pinned = 0;           // Pins that were heeded,
  std::uint64_t waited_for_pins = 0;  // and recalls and invalidations that came while one held
  std::uint64_t discarded = 0;        // grants that were worth nothing when they came
  std::uint64_t ticks = 0;
  std::uint64_t nodes_lost = 0;
  void add(const Counts& other);
};

struct Walk {
  Counts counts;
  std::string world;      // "msi, 3 nodes, 2 pages, ..."
  std::string violation;  // empty: none
};

// What the seed does not choose.
struct Limits {
  std::optional<Protocol> protocol{};  // empty: the seed chooses
  // How many nodes may run instructions that touch two pages. The core makes one of a few quarrelling nodes the winner
  // (State::note_fault); among more of them nobody is sure to get both pages, ever, if all are as fast as each other.
  std::uint32_t quarrel = 3;
};

// One schedule. Appends each step in words to `trace`, if there is one.
[[nodiscard]] Walk walk(std::uint64_t seed, const Limits& limits = {}, std::string* trace = nullptr);

struct Result {
  Counts counts;           // complete if nothing went wrong
  std::uint64_t seed = 0;  // of the first walk that went wrong,
  Walk failed;             // that walk; without violation: none
};

// The schedules seed, seed + 1, ... seed + count - 1, by `threads` threads (0: one for each processor). Ends at the first
// one that goes wrong; which one that is does not depend on the threads.
[[nodiscard]] Result run(std::uint64_t seed, std::uint64_t count, const Limits& limits = {}, unsigned threads = 0);

// What went wrong, in which world, and how to see it again; "" if nothing did.
[[nodiscard]] std::string explain(const Result& result, const Limits& limits = {});
// "10000 schedules, 9876543 steps, ..."
[[nodiscard]] std::string text(const Counts& counts);

}  // namespace dsm::core::simulator
