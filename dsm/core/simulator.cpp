#include "dsm/core/simulator.hpp"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "dsm/core/simulator_world.hpp"

namespace dsm::core::simulator {

void Counts::add(const Counts& other) {
  schedules += other.schedules;
  steps += other.steps;
  steps_of_longest = std::max(steps_of_longest, other.steps_of_longest);
  nodes_of_largest = std::max(nodes_of_largest, other.nodes_of_largest);
  instructions += other.instructions;
  atomics += other.atomics;
  refused += other.refused;
  missed += other.missed;
  faults += other.faults;
  retries += other.retries;
  messages += other.messages;
  overtaken += other.overtaken;
  dropped += other.dropped;
  written_back += other.written_back;
  pinned += other.pinned;
  waited_for_pins += other.waited_for_pins;
  discarded += other.discarded;
  ticks += other.ticks;
  nodes_lost += other.nodes_lost;
}

Walk walk(std::uint64_t seed, const Limits& limits, std::string* trace) {
  Random random(seed);
  const Scenario scenario = draw(random, limits);
  World world(scenario, random, trace);
  world.walk();
  Walk result{.counts = world.counts(), .world = text(scenario), .violation = world.violation()};
  result.counts.steps_of_longest = result.counts.steps;
  return result;
}

Result run(std::uint64_t seed, std::uint64_t count, const Limits& limits, unsigned threads) {
  constexpr std::uint64_t share = 64;  // schedules that a thread takes at a time, in the order of their seeds
  std::atomic<std::uint64_t> next{0}, end{count};
  std::mutex lock;
  Result result;
  const auto work = [&] {
    Counts counts;
    for (std::uint64_t first; (first = next.fetch_add(share)) < end;) {
      // What comes before a failure that is known already is walked all the same: it may hold an earlier one.
      for (std::uint64_t i = first; i < std::min<std::uint64_t>(first + share, end); ++i) {
        Walk one = walk(seed + i, limits);
        counts.add(one.counts);
        if (one.violation.empty()) continue;
        const std::scoped_lock guard(lock);
        if (i >= end) break;
        end = i;
        result.seed = seed + i;
        result.failed = std::move(one);
        break;
      }
    }
    const std::scoped_lock guard(lock);
    result.counts.add(counts);
  };
  if (threads == 0) threads = std::max(1U, std::thread::hardware_concurrency());
  std::vector<std::thread> others;
  for (unsigned i = 1; i < threads; ++i) others.emplace_back(work);
  work();
  for (std::thread& other : others) other.join();
  return result;
}

std::string explain(const Result& result, const Limits& limits) {
  if (result.failed.violation.empty()) return {};
  constexpr std::size_t lines_max = 40;
  const std::string seed = std::to_string(result.seed);
  const std::string protocol = limits.protocol ? std::string(name(*limits.protocol)) : "";
  std::string again = "dsm_sim --seed " + seed + " --count 1 -v";
  if (limits.protocol) again += " --protocol " + protocol;
  if (limits.quarrel != Limits{}.quarrel) {
    again += " --quarrel " + std::to_string(limits.quarrel);
  } else {
    again = "make sim SEED=" + seed + " COUNT=1" + (limits.protocol ? " PROTOCOL=" + protocol : "") +
            ", with all steps: " + again;
  }
  std::string trace;
  (void)walk(result.seed, limits, &trace);
  std::size_t from = trace.size();
  for (std::size_t lines = 0; lines <= lines_max && from > 0; ++lines) {
    const std::size_t end = trace.rfind('\n', from - 1);
    from = end == std::string::npos ? 0 : end;
  }
  return "seed " + seed + ": " + result.failed.violation + "\n  in: " + result.failed.world + "\n  again: " + again +
         "\n  the last steps:\n" + trace.substr(from == 0 ? 0 : from + 1);
}

std::string text(const Counts& c) {
  const auto line = [](std::uint64_t n, const char* what) { return std::to_string(n) + " " + what; };
  return line(c.schedules, "schedules, ") + line(c.steps, "steps (the longest walk ") +
         std::to_string(c.steps_of_longest) + "), up to " + line(c.nodes_of_largest, "nodes\n") +
         line(c.instructions, "instructions (") + line(c.atomics, "atomic operations, of which ") +
         line(c.refused, "compared in vain; ") + line(c.missed, "questions came too late)\n") +
         line(c.faults, "faults, ") + line(c.retries, "pages gone again before use, ") + line(c.ticks, "ticks\n") +
         line(c.messages, "messages, ") + line(c.overtaken, "overtook another, ") +
         line(c.discarded, "grants thrown away\n") + line(c.dropped, "copies dropped, ") +
         line(c.written_back, "pages written back, ") + line(c.pinned, "pinned (and wanted by others ") +
         line(c.waited_for_pins, "times), ") + line(c.nodes_lost, "nodes lost");
}

}  // namespace dsm::core::simulator
