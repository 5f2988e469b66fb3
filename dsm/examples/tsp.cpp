// tsp - a bound that is written under a lock and read without one, and a queue of work.
//
// The travelling salesman's shortest round trip, by branch and bound: try all orders of the cities, but give up a
// beginning that is already too long to beat the best trip known. The sooner a good trip is known to all, the less
// there is to try; so the length of the best one is shared. Each rank takes beginnings of three cities from a shared
// queue.
//
// The bound is read very often and becomes shorter rarely. So it is read without the lock: an old value is too long,
// and makes a rank try more than it had to, but never miss anything. Who has found a shorter trip takes the lock and
// looks *again*: another may have been faster. Queue and best trip are in different pages, since they are used by
// different ranks at the same time.
//
// Lengths are whole numbers. The length is exactly that of the serial run; the trip may be another one of that length,
// so it is measured instead.
//
// In dsmtop: two pages. That of the queue moves; that of the bound is small letters, and capital for a moment when
// somebody has found a shorter trip.
//
//   $ build/bin/dsmexec machine_file tsp --cities 15
//   [Proc 0 : localhost : stdout] tsp: OK
#include <array>
#include <cmath>
#include <limits>
#include <random>

#include "dsm/examples/example.hpp"

namespace {

constexpr std::size_t most_cities = 20;
using Trip = std::array<std::uint8_t, most_cities>;

struct Queue {
  dsm::Mutex mutex;
  std::size_t taken;
};

struct Best {
  dsm::Mutex mutex;
  int length;
  Trip trip;
};

struct Map {
  std::size_t cities;
  int distance[most_cities][most_cities];

  explicit Map(std::size_t count, std::size_t seed) : cities(count), distance{} {
    std::minstd_rand random(static_cast<unsigned>(seed) + 1);
    std::array<std::array<double, 2>, most_cities> at{};
    for (auto& city : at) city = {static_cast<double>(random() % 1000), static_cast<double>(random() % 1000)};
    for (std::size_t a = 0; a < cities; ++a) {
      for (std::size_t b = 0; b < cities; ++b) {
        distance[a][b] = static_cast<int>(std::hypot(at[a][0] - at[b][0], at[a][1] - at[b][1]));
      }
    }
  }
  [[nodiscard]] int length(const Trip& trip) const {
    int sum = 0;
    for (std::size_t i = 0; i < cities; ++i) sum += distance[trip[i]][trip[(i + 1) % cities]];
    return sum;
  }
  [[nodiscard]] bool visits_all(Trip trip) const {
    std::sort(trip.begin(), trip.begin() + static_cast<std::ptrdiff_t>(cities));
    for (std::size_t i = 0; i < cities; ++i) {
      if (trip[i] != i) return false;
    }
    return true;
  }
};

// Tries everything that begins with the first `done` cities of a trip. `Bound` says what to beat, and is told of better
// ones.
template <class Bound>
void search(const Map& map, Trip& trip, std::size_t done, int length, Bound& bound) {
  if (done == map.cities) {
    const int whole = length + map.distance[trip[done - 1]][trip[0]];
    if (whole < bound.length()) bound.improve(whole, trip);
    return;
  }
  for (std::size_t i = done; i < map.cities; ++i) {
    std::swap(trip[done], trip[i]);
    const int longer = length + map.distance[trip[done - 1]][trip[done]];
    // It must at least go straight home.
    if (longer + map.distance[trip[done]][trip[0]] < bound.length()) search(map, trip, done + 1, longer, bound);
    std::swap(trip[done], trip[i]);
  }
}

Trip in_order(std::size_t cities) {
  Trip trip{};
  for (std::size_t i = 0; i < cities; ++i) trip[i] = static_cast<std::uint8_t>(i);
  return trip;
}

struct SharedBound {
  Best& best;
  [[nodiscard]] int length() const { return std::atomic_ref(best.length).load(std::memory_order_relaxed); }
  void improve(int length, const Trip& trip) {
    const std::scoped_lock lock(best.mutex);
    if (length >= best.length) return;
    best.trip = trip;
    std::atomic_ref(best.length).store(length, std::memory_order_relaxed);
  }
};

struct OwnBound {
  int shortest = std::numeric_limits<int>::max();
  [[nodiscard]] int length() const { return shortest; }
  void improve(int length, const Trip& /*trip*/) { shortest = length; }
};

}  // namespace

int main(int argc, char** argv) {
  std::size_t cities = 0, seed = 0;
  example::Program program(argc, argv, "the shortest round trip: a shared bound, and a queue of work");
  program.number("cities", cities, 13, {4, most_cities}, "cities to visit");
  program.number("seed", seed, 1, {0, 1'000'000}, "where the cities are");

  return program.run([&](dsm::Job& job, example::Check& check) {
    Queue& queue = job.alloc<Queue>(1).front();
    Best& best = job.alloc<Best>(1).front();
    const Map map(cities, seed);
    if (job.rank() == 0) best.length = std::numeric_limits<int>::max();
    job.barrier();

    // Entry n of the queue: city 0, then city 1 + n / (cities - 1), then city 1 + n % (cities - 1), where they differ.
    const auto take = [&] {
      const std::scoped_lock lock(queue.mutex);
      return queue.taken++;
    };
    SharedBound bound{best};
    for (std::size_t n = take(); n < (cities - 1) * (cities - 1); n = take()) {
      const std::size_t second = 1 + n / (cities - 1), third = 1 + n % (cities - 1);
      if (second == third) continue;
      Trip trip = in_order(cities);
      std::swap(trip[1], trip[second]);
      std::swap(trip[2], *std::find(trip.begin(), trip.end(), third));
      search(map, trip, 3, map.distance[0][second] + map.distance[second][third], bound);
    }

    return check.verify([&] {
      OwnBound own;
      Trip trip = in_order(cities);
      search(map, trip, 1, 0, own);
      std::printf("tsp: the shortest trip is %d long\n", best.length);
      if (!check.same("length of trip", std::span(&best.length, 1), std::span(&own.shortest, 1))) return false;
      if (map.visits_all(best.trip) && map.length(best.trip) == best.length) return true;
      std::fprintf(stderr, "tsp: the trip found is not a round trip of that length\n");
      return false;
    });
  });
}
