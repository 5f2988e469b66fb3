// All interleavings of locks, semaphores, condition variables and barriers among a few threads: one holder at a time, no
// try fails for nothing, no post or signal is lost, nobody passes a barrier before all have come, nobody waits for ever.
// The same idea as the explorer's (explorer.hpp), small enough to be written in one place.
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
  Key locks = 1;
  unsigned takes = 0, tries = 0;                     // of locks, in all
  unsigned posts = 0, downs = 0, sem_tries = 0;      // of one semaphore, which begins with 0
  unsigned sleeps = 0, signals = 0, broadcasts = 0;  // on one condition variable, with lock 0
  std::uint64_t barriers = 0;                        // passed by each node
};

constexpr Key sem_key = 1, cond_key = 2;  // whatever their homes are then

enum class Doing : std::uint8_t {
  idle,
  wanting,
  trying,
  holding,
  opening,
  posting,
  waiting,
  sem_trying,
  queueing,
  queued,
  sleeping,
  arrived
};

struct Thread {
  Doing doing = Doing::idle;
  Key lock = 0;
  bool contended = false;  // trying: somebody else has held or wanted the lock since
  bool won = false;        // trying: the answer is under way, and says yes
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
  Bounds left;                        // what may still be begun
  bool opened = false;                // the semaphore
  unsigned value = 0;                 // of the semaphore: posts that were begun, less waits that have ended well
  unsigned owed = 0;                  // wake-ups that signals have promised
};

class Walk {
 public:
  explicit Walk(const Bounds& bounds) : bounds_(bounds) {
    World world;
    for (Node n = 0; n < bounds.nodes; ++n) world.nodes.emplace_back(config(n));
    world.threads.resize(std::size_t{bounds.nodes} * bounds.threads);
    world.passed.resize(bounds.nodes);
    world.left = bounds;
    if (bounds.posts + bounds.downs + bounds.sem_tries == 0) {
      add(std::move(world));
    } else {  // before the rest begins, as a program must
      step(world, bounds.nodes * bounds.threads - 1U, {Doing::opening},
           {SemOpen{sem_key, 0, static_cast<Waiter>(bounds.threads - 1U), 1}});
    }
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
  [[nodiscard]] SyncConfig config(Node n) const {
    return SyncConfig{.self = n, .nodes = bounds_.nodes, .waiters = bounds_.threads, .locks = 4, .semaphores = 2};
  }

  void leave(const World& world) {
    const std::size_t before = moves_;
    deliver(world);
    const bool begun = bounds_.posts + bounds_.downs + bounds_.sem_tries == 0 || world.opened;
    for (std::size_t t = 0; begun && t < world.threads.size(); ++t) {
      const Thread& thread = world.threads[t];
      if (thread.doing == Doing::holding) hold(world, t);
      if (thread.doing == Doing::queued) {
        step(world, t, {Doing::sleeping, thread.lock}, {CondSleep{waiter(t)}, LockFree{thread.lock}});
      }
      if (thread.doing == Doing::idle) begin(world, t);
    }
    if (moves_ == before) at_the_end(world);
  }

  // Nothing can happen any more.
  void at_the_end(const World& world) {
    for (const Thread& thread : world.threads) {
      if (thread.doing == Doing::waiting) {
        EXPECT_EQ(world.value, 0U) << "a thread waits at a semaphore that is not 0";
      } else if (thread.doing == Doing::sleeping) {
        EXPECT_EQ(world.owed, 0U) << "a signal was lost";
      } else {
        EXPECT_EQ(thread.doing, Doing::idle) << "somebody waits, and nothing is under way any more";
      }
    }
    for (const Sync& node : world.nodes) EXPECT_LE(node.locks_in_use(), bounds_.locks);
  }

  [[nodiscard]] Waiter waiter(std::size_t t) const { return static_cast<Waiter>(t % bounds_.threads); }
  [[nodiscard]] Lane lane(std::size_t t) const { return static_cast<Lane>(waiter(t) + 1U); }

  void hold(const World& world, std::size_t t) {
    const Key lock = world.threads[t].lock;
    step(world, t, {}, {LockFree{lock}});
    if (lock == 0 && world.left.sleeps > 0) {
      step(less(world, &Bounds::sleeps), t, {Doing::queueing, lock}, {CondWait{cond_key, waiter(t), lane(t)}});
    }
  }

  void begin(const World& world, std::size_t t) {
    const auto thread = static_cast<dsm::core::Thread>(t + 1);
    for (Key lock = 0; lock < bounds_.locks; ++lock) {
      if (world.left.takes > 0) {
        step(less(world, &Bounds::takes), t, {Doing::wanting, lock}, {LockWant{lock, waiter(t), thread}});
      }
      if (world.left.tries > 0) {
        step(less(world, &Bounds::tries), t, {Doing::trying, lock, contended(world, lock)},
             {LockTry{lock, waiter(t), thread, lane(t)}});
      }
    }
    if (world.left.posts > 0) {
      World next = less(world, &Bounds::posts);
      ++next.value;
      step(next, t, {Doing::posting}, {SemPost{sem_key, waiter(t), lane(t)}});
    }
    if (world.left.downs > 0) {
      step(less(world, &Bounds::downs), t, {Doing::waiting}, {SemWait{sem_key, waiter(t), lane(t), false}});
    }
    if (world.left.sem_tries > 0) {
      step(less(world, &Bounds::sem_tries), t, {Doing::sem_trying}, {SemWait{sem_key, waiter(t), lane(t), true}});
    }
    if (world.left.signals > 0) signal(less(world, &Bounds::signals), t, false);
    if (world.left.broadcasts > 0) signal(less(world, &Bounds::broadcasts), t, true);
    if (waiter(t) == 0 && world.passed[t / bounds_.threads] < bounds_.barriers) {
      step(world, t, {Doing::arrived}, {BarrierArrive{waiter(t), lane(t)}});
    }
  }

  void signal(World world, std::size_t t, bool all) {
    unsigned asleep = 0;
    for (const Thread& thread : world.threads) {
      if (thread.doing == Doing::queued || thread.doing == Doing::sleeping) ++asleep;
    }
    world.owed = all ? asleep : std::min(asleep, world.owed + 1);
    step(world, t, world.threads[t], {CondSignal{cond_key, all}});
  }

  static World less(World world, unsigned Bounds::*what) {
    --(world.left.*what);
    return world;
  }

  static bool contended(const World& world, Key lock) {
    return std::any_of(world.threads.begin(), world.threads.end(),
                       [&](const Thread& other) { return uses(other, lock); });
  }
  static bool uses(const Thread& thread, Key lock) {
    return thread.lock == lock && (thread.doing == Doing::wanting || thread.won || thread.doing == Doing::holding ||
                                   thread.doing == Doing::queueing || thread.doing == Doing::queued);
  }
  static void tell_those_who_try(World& world, const Thread& user) {
    if (!uses(user, user.lock)) return;
    for (Thread& other : world.threads) other.contended = other.contended || other.lock == user.lock;
  }

  void step(const World& world, std::size_t t, const Thread& then, const std::vector<SyncEvent>& events) {
    World next = world;
    tell_those_who_try(next, then);
    next.threads[t] = then;
    play(std::move(next), static_cast<Node>(t / bounds_.threads), events);
  }

  // The front of each connection: a pair's service lane, and its call lanes, where an answer does not queue behind a request.
  void deliver(const World& world) {
    for (std::size_t i = 0; i < world.flights.size(); ++i) {
      const Flight flight = world.flights[i];
      bool front = true;
      for (std::size_t j = 0; j < i; ++j) front = front && connection(world.flights[j]) != connection(flight);
      if (!front) continue;
      World next = world;
      next.flights.erase(next.flights.begin() + static_cast<std::ptrdiff_t>(i));
      play(std::move(next), flight.to, {SyncReceived{flight.from, flight.lane, flight.msg}});
    }
  }

  static unsigned connection(const Flight& f) {
    const bool answer = f.lane != 0 && !is_question(f.msg.kind);
    return unsigned{f.from} << 16U | unsigned{f.to} << 8U | unsigned{f.lane} << 1U | (answer ? 1U : 0U);
  }

  void play(World world, Node node, const std::vector<SyncEvent>& events) {
    ++moves_;
    SyncActions out(config(node));
    for (const SyncEvent& event : events) world.nodes[node].step(event, out);
    for (const SyncAction& action : out) {
      if (const auto* send = std::get_if<SyncSend>(&action)) {
        EXPECT_NE(send->to, node);
        world.flights.push_back({node, send->to, send->lane, send->msg});
        if (send->msg.kind == SyncMessage::Kind::lock_tried && send->msg.yes) {
          Thread& winner = world.threads[std::size_t{send->to} * bounds_.threads + send->msg.waiter];
          winner.won = true;
          tell_those_who_try(world, winner);
        }
      }
      if (const auto* done = std::get_if<Done>(&action)) {
        finished(world, std::size_t{node} * bounds_.threads + done->who, done->result);
      }
      EXPECT_FALSE(std::holds_alternative<Abort>(action)) << "a peer is taken for a liar";
    }
    add(std::move(world));
  }

  void finished(World& world, std::size_t t, Result result) const {
    Thread& thread = world.threads[t];
    EXPECT_NE(result, Result::full);
    switch (thread.doing) {
      case Doing::trying:
        if (result == Result::busy) {
          EXPECT_TRUE(thread.contended) << "a try has failed, and nobody else was there";
          thread = {};
          return;
        }
        [[fallthrough]];
      case Doing::wanting:
        return got(world, t);
      case Doing::opening:
        world.opened = true;
        break;
      case Doing::posting:
        break;
      case Doing::sem_trying:
        if (result == Result::busy) break;
        [[fallthrough]];
      case Doing::waiting:
        ASSERT_GT(world.value, 0U) << "a semaphore was passed that was 0";
        --world.value;
        break;
      case Doing::queueing:
        thread.doing = Doing::queued;
        return;
      case Doing::sleeping:
        if (world.owed > 0) --world.owed;
        break;
      case Doing::arrived:
        passed(world, t);
        break;
      default:
        ADD_FAILURE() << "a thread is woken that does not wait";
    }
    thread = {};
  }

  static void got(World& world, std::size_t t) {
    const Key lock = world.threads[t].lock;
    tell_those_who_try(world, {Doing::holding, lock});
    for (const Thread& other : world.threads) {
      const bool holds =
          other.doing == Doing::holding || other.doing == Doing::queueing || other.doing == Doing::queued;
      EXPECT_FALSE(holds && other.lock == lock) << "two hold one lock";
    }
    world.threads[t] = {Doing::holding, lock};
  }

  void passed(World& world, std::size_t t) const {
    const std::uint64_t round = ++world.passed[t / bounds_.threads];
    world.threads[t] = {};
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
    for (const Thread& t : world.threads)
      put(static_cast<std::uint64_t>(t.doing) << 32U | t.lock << 2U | (t.contended ? 2U : 0U) | (t.won ? 1U : 0U));
    for (const std::uint64_t passed : world.passed) put(passed);
    const Bounds& left = world.left;
    for (const unsigned n : {left.takes, left.tries, left.posts, left.downs, left.sem_tries, left.sleeps, left.signals,
                             left.broadcasts, world.value, world.owed, world.opened ? 1U : 0U}) {
      bytes.push_back(static_cast<char>(n));
    }
    std::vector<std::array<std::uint64_t, 4>> flights;
    for (const Flight& f : world.flights) {
      const SyncMessage& m = f.msg;
      const unsigned flags = (m.yes ? 1U : 0U) | (m.attempt ? 2U : 0U) | (m.all ? 4U : 0U) | (m.full ? 8U : 0U);
      flights.push_back(
          {connection(f),
           static_cast<std::uint64_t>(m.kind) << 48U | std::uint64_t{m.waiter} << 32U | unsigned{m.node} << 8U | flags,
           m.key, m.number});
    }
    std::stable_sort(flights.begin(), flights.end(), [](const auto& a, const auto& b) { return a[0] < b[0]; });
    for (const auto& flight : flights) {
      for (const std::uint64_t word : flight) put(word);
    }
    return bytes;
  }

  Bounds bounds_;
  std::size_t moves_ = 0;
  std::unordered_set<std::string> seen_;
  std::deque<World> todo_;
};

void walk(const Bounds& bounds) {
  const std::size_t states = Walk(bounds).run();
  std::printf("%d nodes x %d threads: %zu distinct states\n", bounds.nodes, bounds.threads, states);
  EXPECT_GT(states, 100U);
}

TEST(SyncWalk, OneLockAndBarriers) { walk({.takes = 5, .barriers = 2}); }
TEST(SyncWalk, TwoThreadsEach) { walk({.nodes = 2, .threads = 2, .takes = 6, .barriers = 1}); }
TEST(SyncWalk, ThreeNodesOfTwoThreadsHandOneLockOn) { walk({.nodes = 3, .threads = 2, .takes = 5}); }
TEST(SyncWalk, FourNodesHandOneLockOn) { walk({.nodes = 4, .takes = 6}); }
TEST(SyncWalk, TwoLocks) { walk({.nodes = 3, .locks = 2, .takes = 5}); }
TEST(SyncWalk, Barriers) { walk({.nodes = 4, .barriers = 3}); }
TEST(SyncWalk, WantsAndTries) { walk({.nodes = 3, .takes = 3, .tries = 4}); }
TEST(SyncWalk, WantsAndTriesOfTwoThreadsEach) { walk({.nodes = 2, .threads = 2, .takes = 3, .tries = 4}); }
TEST(SyncWalk, ASemaphore) { walk({.nodes = 3, .posts = 3, .downs = 3, .sem_tries = 2}); }
TEST(SyncWalk, AConditionVariable) { walk({.nodes = 3, .takes = 3, .sleeps = 2, .signals = 2}); }
TEST(SyncWalk, ABroadcast) { walk({.nodes = 2, .threads = 2, .takes = 4, .sleeps = 3, .signals = 1, .broadcasts = 1}); }

}  // namespace
