// dsm/telemetry/segment.hpp - what a rank publishes about itself, in a System V segment that its agent reads.
//
// The rank creates the segment, marks it for removal at once (IPC_RMID; Linux still lets the agent attach by id while
// the rank lives) and tells the agent its id through the coordinator. Written with relaxed atomic stores by whoever
// holds the node's lock, read at any time by the agent: a rank that spins or is stuck is still visible. Each value is
// whole; two values read one after the other need not be of the same moment.
//
// async-signal-safe: all writes (stores to mapped memory).
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "dsm/core/types.hpp"

namespace dsm::telemetry {

// To read and to write by its owner. The bits for execution mean nothing to System V: by them a segment that its maker
// could not even write to any more is known to be one of these (launch/orphan_segments.hpp).
inline constexpr int segment_mode = 0711;
inline constexpr std::uint32_t segment_magic = 0x32545344;  // "DST2"

enum class RankState : std::uint32_t { starting, running, fault, lock, barrier, finalized, lost };

// One per page, at the page's home only: 8 bytes, zero = never touched. If every page's home follows from its number there
// is none for the others' pages (Segment::stride).
struct PageCell {
  std::atomic<std::uint8_t> state;  // core::View::State
  std::atomic<std::uint8_t> owner;  // rank
  std::atomic<std::uint16_t> spare;
  std::atomic<std::uint32_t> moves;  // how often the page went to another owner
};
static_assert(sizeof(PageCell) == 8);

struct Counters {
  std::atomic<std::uint64_t> read_faults, write_faults, messages, bytes_out, bytes_in, invalidations, recalls, grants,
      wasted_grants, lock_waits, barriers;
  std::atomic<std::int64_t> owned;   // pages this rank may write now
  std::atomic<std::int64_t> copies;  // pages this rank may only read now
};

struct Segment {
  std::uint32_t magic;
  std::uint32_t rank, ranks;
  std::uint32_t page_size;
  std::uint64_t pages;   // in the region
  std::uint32_t stride;  // 1: cell i is page i's; else it is `ranks`, and the cell that of page i * stride + rank
  std::uint32_t spare;
  char protocol[16];  // zero-terminated
  std::atomic<RankState> state;
  std::atomic<std::uint32_t> cells_used;  // no cell at or beyond this index has ever been written
  std::atomic<std::uint64_t> on_page;     // page a thread is faulting on, when state is `fault`; lock id; barrier round
  Counters counters;
  // PageCell cells[] follow
  [[nodiscard]] PageCell* cells() noexcept { return reinterpret_cast<PageCell*>(this + 1); }
  [[nodiscard]] const PageCell* cells() const noexcept { return reinterpret_cast<const PageCell*>(this + 1); }
  [[nodiscard]] static std::uint64_t cell_count(std::uint64_t pages, std::uint32_t stride) noexcept {
    return (pages + stride - 1) / stride;
  }
  [[nodiscard]] static std::size_t bytes(std::uint64_t pages, std::uint32_t stride) noexcept {
    return sizeof(Segment) + cell_count(pages, stride) * sizeof(PageCell);
  }
};
static_assert(sizeof(Segment) % 8 == 0);

}  // namespace dsm::telemetry
