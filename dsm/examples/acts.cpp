#include "dsm/examples/acts.hpp"

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "dsm/examples/picture.hpp"

namespace example {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

bool rank_0() { return DSM_NODE_ID == 0; }

std::size_t ranks() { return static_cast<std::size_t>(DSM_NODE_NUM); }

std::uint64_t faults_so_far() {
  struct dsm_stats stats {};
  if (dsm_stats(&stats) != 0) return 0;
  return stats.read_faults + stats.write_faults;
}

}  // namespace

// Many may read a page at once; who writes it takes it from all of them.
void read_sharing(Stage& stage) {
  constexpr std::size_t pages = 8;
  const std::size_t count = pages * dsm_page_size() / sizeof(std::uint64_t);
  auto* table = allot_array<std::uint64_t>(count);
  const std::size_t first = stage.page_of(table);
  if (rank_0()) {
    std::printf("act 1, read sharing, pages %zu-%zu: capital A when rank 0 has filled them, small a while all read\n",
                first, first + pages - 1);
  }
  stage.open(0.2, 5);
  std::uint64_t filling = 0;
  do {
    ++filling;
    if (rank_0()) {
      for (std::size_t i = 0; i < count; ++i) table[i] = filling * 1'000'003 + i;
    }
    stage.wait(0.5);
    dsm_barrier();
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < count; ++i) wrong += table[i] != filling * 1'000'003 + i;
    if (wrong > 0) stage.fault("act 1: a reader did not see what rank 0 had written before the barrier");
  } while (stage.another_step());
}

// A page that one rank after the other writes moves each time.
void ping_pong(Stage& stage) {
  auto* ball = allot_array<std::size_t>(1);
  const std::size_t page = stage.page_of(ball);
  if (rank_0()) {
    std::printf(
        "act 2, ping-pong, page %zu: its letter changes with every turn, and the hot pages list counts its moves\n",
        page);
  }
  stage.open(0.3, static_cast<int>(4 * ranks()));
  std::size_t turns = 0;
  do {
    if (turns % ranks() == static_cast<std::size_t>(DSM_NODE_ID)) {
      if (*ball != turns) stage.fault("act 2: the ball came with a wrong number of turns");
      *ball = turns + 1;
      if (stage.pace().watched()) std::printf("page %zu is with rank %d now\n", page, DSM_NODE_ID);
    }
    ++turns;
  } while (stage.another_step());
  if (*ball != turns) stage.fault("act 2: the last turn is missing");
  if (rank_0()) std::printf("act 2: %zu turns, none lost\n", turns);
}

namespace {

// Adds to a counter of this rank's own, in bursts, for a while. Returns how often.
std::uint64_t hammer(volatile std::uint64_t* mine, milliseconds time) {
  const auto end = steady_clock::now() + time;
  std::uint64_t added = 0;
  do {
    for (int i = 0; i < 100; ++i) *mine = *mine + 1;
    added += 100;
    std::this_thread::sleep_for(std::chrono::microseconds(200));  // leaves the machine to others; it is only a show
  } while (steady_clock::now() < end);
  return added;
}

}  // namespace

// Counters that have nothing to do with each other, but live in one page, cost as if they were one.
void false_sharing(Stage& stage) {
  const std::size_t words_per_page = dsm_page_size() / sizeof(std::uint64_t);
  auto* together = allot_array<volatile std::uint64_t>(ranks());
  auto* apart = allot_array<volatile std::uint64_t>(ranks() * words_per_page);
  const auto me = static_cast<std::size_t>(DSM_NODE_ID);
  const std::size_t first_apart = stage.page_of(apart);
  if (rank_0()) {
    std::printf(
        "act 3, false sharing: FAULT/s is high while all count in page %zu, nothing while each has its own, %zu-%zu\n",
        stage.page_of(together), first_apart, first_apart + ranks() - 1);
  }
  stage.open(0.2, 3);
  const milliseconds time = stage.pace().watched() ? stage.pace().step : milliseconds(10);
  std::uint64_t added_together = 0, added_apart = 0, faults_together = 0, faults_apart = 0;
  do {
    const std::uint64_t start = faults_so_far();
    added_together += hammer(&together[me], time);
    const std::uint64_t between = faults_so_far();
    dsm_barrier();
    added_apart += hammer(&apart[me * words_per_page], time);
    faults_together += between - start;
    faults_apart += faults_so_far() - between;
  } while (stage.another_step());
  if (together[me] != added_together) stage.fault("act 3: an addition in the common page was lost");
  if (apart[me * words_per_page] != added_apart) stage.fault("act 3: an addition in the own page was lost");
  if (rank_0()) {
    std::printf("act 3: rank 0 faulted %llu times in the common page, %llu times in its own\n",
                static_cast<unsigned long long>(faults_together), static_cast<unsigned long long>(faults_apart));
  }
}

namespace {

void show(const Picture& picture, const char* title) {
  std::printf("%s\n", title);
  for (const std::string& line : as_text(picture, 64)) std::printf("  %s\n", line.c_str());
}

// One sweep over the rows of this rank; the neighbours' edge rows come over by themselves.
void sweep(const double* from, double* to, const Picture& shape) {
  const std::size_t inner = shape.height - 2;  // the first and last row stay
  const auto me = static_cast<std::size_t>(DSM_NODE_ID);
  const std::size_t begin = 1 + inner * me / ranks();
  const std::size_t end = 1 + inner * (me + 1) / ranks();
  for (std::size_t y = begin; y < end; ++y) {
    const double* row = from + y * shape.width;
    smooth_row(row - shape.width, row, row + shape.width, to + y * shape.width, shape.width);
  }
}

}  // namespace

// A real computation: most of a rank's pages stay with it, and only those at the edges of its part move.
void stencil(Stage& stage) {
  const Picture original = shipped_picture();
  const std::size_t points = original.grey.size();
  double* now = allot_array<double>(points);
  double* next = allot_array<double>(points);
  const std::size_t first = stage.page_of(now);
  const std::size_t last = stage.page_of(next + points - 1);
  if (rank_0()) {
    std::printf("act 4, stencil, pages %zu-%zu: bands of one letter, restless only where two bands meet\n", first,
                last);
    show(original, "before:");
    for (std::size_t i = 0; i < points; ++i) now[i] = next[i] = original.grey[i];
  }
  dsm_barrier();
  stage.open(0.3, 12);
  std::size_t sweeps = 0;
  do {
    sweep(now, next, original);
    std::swap(now, next);
    ++sweeps;
  } while (stage.another_step());

  Picture serial = original;
  for (std::size_t i = 0; i < sweeps; ++i) serial = smooth(serial);
  for (std::size_t i = 0; i < points; ++i) {
    if (now[i] == serial.grey[i]) continue;
    stage.fault("act 4: the picture is not that of a serial run");
    break;
  }
  if (rank_0()) {
    const std::string title =
        "after " + std::to_string(sweeps) + " sweeps, to the last bit as one process alone makes it:";
    show({original.width, original.height, std::vector<double>(now, now + points)}, title.c_str());
  }
}

}  // namespace example
