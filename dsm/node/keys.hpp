// dsm/node/keys.hpp - the names of locks and condition variables, as numbers for the sync core. async-signal-safe: yes.
#pragma once
#include <cstdint>

#include "dsm/core/sync.hpp"

namespace dsm::node {

// The lock of the shared heap. Numbered locks are smaller; those named by a place have bit 62.
inline constexpr core::Key heap_lock = core::Key{1} << 61U;

// For one that is named by its place in the region. Different from every other's and from the numbered locks', and spread
// over the homes (key modulo the number of ranks), although places have strides: an odd factor carries the low bits up, the
// shift brings the high ones down, and both can be undone (modulo 2^62), so no two places have one key.
[[nodiscard]] constexpr core::Key key_of_offset(std::uint64_t offset) noexcept {
  constexpr core::Key by_address = core::Key{1} << 62U;
  const core::Key mixed = (offset * 0x9e3779b97f4a7c15U) & (by_address - 1);
  return (mixed ^ mixed >> 31U) | by_address;
}

}  // namespace dsm::node
