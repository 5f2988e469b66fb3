// viewer/model.hpp - what dsmtop knows about a job: its newest snapshot, and what follows from the ones before it.
//
// Rates are differences over about the last second, by the job's own clock; with one snapshot there are none yet. No
// clock, no I/O: the same snapshots give the same model. Thread-safety: as for any value.
#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "dsm/telemetry/snapshot.hpp"

namespace viewer {

using dsm::telemetry::PageSample;
using dsm::telemetry::RankSample;
using dsm::telemetry::RankState;
using dsm::telemetry::Snapshot;

// A page that moved this often within the window (about a second) is a ping-pong.
inline constexpr std::uint32_t ping_pong_moves = 4;

struct Rates {  // per second
  double faults = 0, bytes_in = 0, bytes_out = 0;
};

struct HotPage {
  PageSample page;
  std::optional<double> moves_per_s;
  std::vector<std::uint8_t> owners;  // seen in the window's snapshots, ascending
};

class Model {
 public:
  // The next snapshot. One of another job, or older than the last, starts anew; one of the same moment replaces it.
  void update(Snapshot snapshot);
  void clear();

  [[nodiscard]] bool empty() const { return window_.empty(); }
  [[nodiscard]] const Snapshot& now() const { return window_.back(); }  // REQUIRES: !empty()

  // Of the rank at this index in now().ranks; empty while unknown.
  [[nodiscard]] std::optional<Rates> rates(std::size_t index) const;
  // Of the page at this index in now().pages_touched.
  [[nodiscard]] std::optional<double> moves_per_s(std::size_t index) const;
  [[nodiscard]] bool ping_pong(std::size_t index) const;
  // Where in now().pages_touched the first page not below `page` is.
  [[nodiscard]] std::size_t lower_bound(std::uint64_t page) const;
  // The pages that moved most, per second and then in all; those that never moved are left out.
  [[nodiscard]] std::vector<HotPage> hot(std::size_t most) const;

  // Faults per second in each of the last `count` seconds, the present one last; of the rank at this index, or of all.
  // Empty for seconds in which nobody looked.
  [[nodiscard]] std::vector<std::optional<double>> history(std::size_t count,
                                                           std::optional<std::size_t> index = std::nullopt) const;

 private:
  struct Second {
    std::uint64_t number = 0;           // since the job began
    std::uint64_t covered_us = 0;       // so much of it was watched
    std::vector<std::uint64_t> faults;  // by index in ranks
  };
  void remember_faults(const Snapshot& before, const Snapshot& after);
  void compare_pages();

  std::deque<Snapshot> window_;              // about the last second, oldest first
  std::vector<std::uint32_t> recent_moves_;  // of each of now().pages_touched within the window
  std::deque<Second> seconds_;               // oldest first
};

}  // namespace viewer
