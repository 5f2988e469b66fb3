// All interleavings of locks and barriers among a few threads: one holder at a time, nobody passes a barrier before all have
// come, nobody waits for ever. The same idea as the explorer's (explorer.hpp), small enough to be written in one place.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <deque>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "dsm/core/sync.hpp"

namespace {

using namespace dsm::core;

struct Bounds {
  std::uint8_t nodes = 3;
  std::uint8_t threads = 1;  // per node; the first of each goes to the barriers
  LockId locks = 1;
  unsigned takes = 4;          // locks taken, in all
  std::uint64_t barriers = 2;  // passed by each node
};

enum class Doing : std::uint8_t { idle, wanting, holding, arrived };

struct Thread {
  Doing doing = Doing::idle;
  LockId lock = 0;
};

struct Flight {
  Node from, to;
  Lane lane;
  SyncMessage msg;
};

struct World {
  std::vector<Sync> nodes;
  std::vector<Thread> threads;
  std::vector<Flight> flights;        // in order of sending
  std::vector<std::uint64_t> passed;  // barriers, by node
  unsigned takes = 0;
};

class Walk {
 public:
  explicit Walk(const Bounds& bounds) : bounds_(bounds) {
    World world;
    for (Node n = 0; n < bounds.nodes; ++n) {
      world.nodes.emplace_back(
          SyncConfig{.self = n, .nodes = bounds.nodes, .locks = bounds.locks, .waiters = bounds.threads});
    }
    world.threads.resize(std::size_t{bounds.nodes} * bounds.threads);
    world.passed.resize(bounds.nodes);
    add(std::move(world));
  }

  // The number of distinct worlds; all of them have been checked.
  std::size_t run() {
    while (!todo_.empty() && !testing::Test::HasFailure()) {
      const World world = std::move(todo_.front());
      todo_.pop_front();
      leave(world);
    }
    return seen_.size();
  }

 private:
  void leave(const World& world) {
    bool moved = deliver(world);
    bool waiting = false;
    for (std::size_t t = 0; t < world.threads.size(); ++t) {
      const Thread& thread = world.threads[t];
      waiting = waiting || thread.doing == Doing::wanting || thread.doing == Doing::arrived;
      if (thread.doing == Doing::holding) step(world, t, LockFree{thread.lock}, {}), moved = true;
      if (thread.doing == Doing::idle) moved = begin(world, t) || moved;
    }
    EXPECT_TRUE(moved || !waiting) << "somebody waits, and nothing is under way any more";
  }

  bool begin(const World& world, std::size_t t) {
    const std::size_t node = t / bounds_.threads;
    const auto waiter = static_cast<Waiter>(t % bounds_.threads);
    const auto lane = static_cast<Lane>(waiter + 1);
    bool moved = false;
    for (LockId lock = 0; lock < bounds_.locks && world.takes < bounds_.takes; ++lock) {
      step(world, t, LockWant{lock, waiter, lane}, {Doing::wanting, lock});
      moved = true;
    }
    if (waiter == 0 && world.passed[node] < bounds_.barriers) {
      step(world, t, BarrierArrive{waiter, lane}, {Doing::arrived, 0});
      moved = true;
    }
    return moved;
  }

  void step(const World& world, std::size_t t, const SyncEvent& event, Thread then) {
    World next = world;
    next.threads[t] = then;
    if (then.doing == Doing::wanting) ++next.takes;
    play(std::move(next), static_cast<Node>(t / bounds_.threads), event);
  }

  // The front of each connection: a pair's service lane, and its call lanes, where an answer does not queue behind a request.
  bool deliver(const World& world) {
    for (std::size_t i = 0; i < world.flights.size(); ++i) {
      const Flight flight = world.flights[i];
      bool front = true;
      for (std::size_t j = 0; j < i; ++j) front = front && connection(world.flights[j]) != connection(flight);
      if (!front) continue;
      World next = world;
      next.flights.erase(next.flights.begin() + static_cast<std::ptrdiff_t>(i));
      play(std::move(next), flight.to, SyncReceived{flight.from, flight.lane, flight.msg});
    }
    return !world.flights.empty();
  }

  static unsigned connection(const Flight& f) {
    const bool answer =
        f.lane != 0 && (f.msg.kind == SyncMessage::Kind::lock_grant || f.msg.kind == SyncMessage::Kind::barrier_go);
    return unsigned{f.from} << 16U | unsigned{f.to} << 8U | unsigned{f.lane} << 1U | (answer ? 1U : 0U);
  }

  void play(World world, Node node, const SyncEvent& event) {
    SyncActions out;
    world.nodes[node].step(event, out);
    for (const SyncAction& action : out) {
      if (const auto* send = std::get_if<SyncSend>(&action))
        world.flights.push_back({node, send->to, send->lane, send->msg});
      if (const auto* wake = std::get_if<Wake>(&action)) woken(world, node, wake->who);
      EXPECT_FALSE(std::holds_alternative<Abort>(action));
    }
    add(std::move(world));
  }

  void woken(World& world, Node node, Waiter waiter) const {
    Thread& thread = world.threads[std::size_t{node} * bounds_.threads + waiter];
    if (thread.doing == Doing::wanting) {
      for (const Thread& other : world.threads)
        EXPECT_FALSE(other.doing == Doing::holding && other.lock == thread.lock) << "two hold one lock";
      thread.doing = Doing::holding;
      return;
    }
    EXPECT_EQ(thread.doing, Doing::arrived) << "a thread is woken that does not wait";
    thread.doing = Doing::idle;
    const std::uint64_t round = ++world.passed[node];
    for (Node n = 0; n < bounds_.nodes; ++n) {
      const bool came =
          world.passed[n] + (world.threads[std::size_t{n} * bounds_.threads].doing == Doing::arrived ? 1 : 0) >= round;
      EXPECT_TRUE(came) << "a barrier is passed before node " << unsigned{n} << " has come";
    }
  }

  void add(World world) {
    if (seen_.insert(digest(world)).second) todo_.push_back(std::move(world));
  }

  static std::string digest(const World& world) {  // exact but for the cores
    std::string bytes;
    const auto put = [&bytes](std::uint64_t value) {
      bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
    };
    for (const Sync& node : world.nodes) put(node.digest());
    for (const Thread& thread : world.threads) put(static_cast<std::uint64_t>(thread.doing) << 32U | thread.lock);
    for (const std::uint64_t passed : world.passed) put(passed);
    put(world.takes);
    std::vector<std::array<std::uint64_t, 3>> flights;
    for (const Flight& f : world.flights)
      flights.push_back(
          {connection(f),
           static_cast<std::uint64_t>(f.msg.kind) << 48U | std::uint64_t{f.msg.waiter} << 32U | f.msg.lock,
           f.msg.round});
    std::stable_sort(flights.begin(), flights.end(), [](const auto& a, const auto& b) { return a[0] < b[0]; });
    for (const auto& flight : flights) {
      for (const std::uint64_t word : flight) put(word);
    }
    return bytes;
  }

  Bounds bounds_;
  std::unordered_set<std::string> seen_;
  std::deque<World> todo_;
};

void walk(const Bounds& bounds) {
  const std::size_t states = Walk(bounds).run();
  std::printf("%d nodes x %d threads, %u locks taken %u times, %u barriers: %zu distinct states\n", bounds.nodes,
              bounds.threads, bounds.locks, bounds.takes, static_cast<unsigned>(bounds.barriers), states);
  EXPECT_GT(states, 100U);
}

TEST(SyncWalk, OneLockAndBarriers) { walk({.takes = 4, .barriers = 2}); }
TEST(SyncWalk, TwoThreadsEach) { walk({.nodes = 2, .threads = 2, .takes = 5, .barriers = 1}); }
TEST(SyncWalk, TwoLocks) { walk({.nodes = 3, .locks = 2, .takes = 4, .barriers = 0}); }
TEST(SyncWalk, Barriers) { walk({.nodes = 4, .takes = 0, .barriers = 3}); }

}  // namespace
