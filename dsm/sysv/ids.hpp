// dsm/sysv/ids.hpp - which id the next segment or semaphore set gets: ipc_idr_alloc() of Linux (ipc/util.c, since 5.2).
//
// An id is seq * 32768 + index. The index goes round: an entry that has become free is not used again at once, and seq
// rises each time the index comes back to where it was or below. So the id of something removed stays nobody's for long.
// Thread-safety: none.
#pragma once
#include <algorithm>
#include <cstdint>
#include <map>

namespace dsm::sysv {

inline constexpr std::int32_t ids_per_sequence = 32768;

[[nodiscard]] constexpr std::int32_t index_of(std::int32_t id) { return id % ids_per_sequence; }
[[nodiscard]] constexpr std::int32_t sequence_of(std::int32_t id) { return id / ids_per_sequence; }

class Ids {
 public:
  // An id whose index is not in `used` (index -> anything). REQUIRES: used.size() < 32768.
  template <typename T>
  [[nodiscard]] std::int32_t next(const std::map<std::int32_t, T>& used) {
    const std::int32_t end = std::clamp(static_cast<std::int32_t>(used.size()) * 3 / 2, least_round, ids_per_sequence);
    std::int32_t index = first_free(used, cursor_);
    if (index >= end) index = first_free(used, 0);
    cursor_ = index + 1;
    if (index <= last_ && ++sequence_ >= sequences) sequence_ = 0;
    last_ = index;
    return sequence_ * ids_per_sequence + index;
  }

 private:
  static constexpr std::int32_t least_round = 64;
  static constexpr std::int32_t sequences = 65535;

  template <typename T>
  static std::int32_t first_free(const std::map<std::int32_t, T>& used, std::int32_t from) {
    for (auto at = used.lower_bound(from); at != used.end() && at->first == from; ++at) ++from;
    return from;
  }

  std::int32_t cursor_ = 0, last_ = -1, sequence_ = 0;
};

}  // namespace dsm::sysv
