// dsm/core/simulator_scenario.hpp - what a seed stands for: a world, its programs, and how it hurries or dawdles.
//
// Only for the simulator. Thread-safety: none.
#pragma once
#include <array>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "dsm/core/simulator.hpp"

namespace dsm::core::simulator {

// Random numbers that are the same on every machine: the standard fixes the engine, but not its distributions.
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  [[nodiscard]] std::uint64_t bits() { return engine_(); }
  // 0 .. n-1. REQUIRES: 0 < n.
  [[nodiscard]] std::uint32_t below(std::uint32_t n) {
    return static_cast<std::uint32_t>(((engine_() >> 32U) * n) >> 32U);
  }
  [[nodiscard]] std::uint32_t between(std::uint32_t first, std::uint32_t last) {
    return first + below(last - first + 1);
  }
  [[nodiscard]] bool one_in(std::uint32_t n) { return below(n) == 0; }
  template <class T, std::size_t n>
  [[nodiscard]] T any(const std::array<T, n>& of) {
    return of[below(static_cast<std::uint32_t>(n))];
  }

 private:
  std::mt19937_64 engine_;
};

inline constexpr unsigned page_words = 4;  // enough that nodes write to one page without writing to one word
using Frame = std::array<std::uint64_t, page_words>;

struct Touch {
  Page page = 0;
  std::uint8_t word = 0;
  bool reads = false, writes = false;
  [[nodiscard]] Access need() const { return writes ? Access::write : Access::read; }
};

// Performed at one moment, when all that it touches is open to it. Of two touches the pages differ.
struct Instruction {
  std::array<Touch, 2> touch{};
  std::uint8_t touches = 1;
  Atomic::Kind atomic{};  // if of a kind: no instruction but a call, which asks the core to do this to the first word
};

struct Program {
  Node node = 0;
  std::vector<Instruction> code;
};

struct Scenario {
  Protocol protocol = Protocol::msi;
  Placement placement = Placement::cyclic;  // block: the whole region is one allocation
  std::uint8_t nodes = 2;
  std::vector<Page> pages;  // those that the programs touch; the region ends behind the last of them
  Lane call_lanes = 1;      // of each node; a thread that finds none free asks on the service lane
  Micros hold = 0, absence = 0;
  std::uint16_t pins = 0;          // pages that a node may have pinned at one time
  bool in_place = false;           // an answer on a call lane is received into the frame, before the core has seen it
  Micros pace = 0;                 // the clock advances by 0 .. pace in each step
  std::uint32_t skew = 0;          // one connection, node or thread may be up to 2^skew times as fast as another
  std::uint32_t stalls = 0;        // one in so many messages is late, and all behind it on its connection; 0: none
  std::uint32_t extras = 0;        // Drops, WriteBacks, Prefetches, Pins, Unpins and Ticks unasked for, at most
  std::uint32_t extra_weight = 1;  // how soon they come
  std::uint64_t death = 0;         // the step in which node `victim` is lost; 0: none is
  Node victim = 0;
  std::uint32_t threads_max = 1;  // of a node
  std::vector<Program> programs;  // those of a node stand together
};

[[nodiscard]] Scenario draw(Random& random, const Limits& limits);
[[nodiscard]] std::string text(const Scenario& scenario);
[[nodiscard]] std::string text(const Touch& touch);
[[nodiscard]] inline std::string node_name(Node node) { return "node " + std::to_string(node); }
[[nodiscard]] inline std::string page_name(Page page) { return "p" + std::to_string(page); }

}  // namespace dsm::core::simulator
