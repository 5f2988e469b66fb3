// dsm/tests/dshm_truth.hpp - what dshm_stress's writers of records have finished, in a file that they, its readers and the
// test have mapped: beside the segment, and not by way of it.
#pragma once
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace dshm_stress {

inline constexpr std::size_t slots = 8;
inline constexpr const char* truth_variable = "DSHM_STRESS_TRUTH";  // its descriptor

struct Truth {
  std::array<std::atomic<std::uint64_t>, slots> finished;  // the last number
  std::array<std::atomic<bool>, slots> lost;               // its host is lost, or about to be: it may go back
  std::array<std::atomic<std::uint32_t>, slots> losses;    // how often that has been so
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

}  // namespace dshm_stress
