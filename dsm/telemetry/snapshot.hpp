// dsm/telemetry/snapshot.hpp - one job at one moment: what dsmtop shows, and how it travels from agents to dsmexec to dsmtop.
//
// Pulled, never pushed: dsmtop asks dsmexec, dsmexec asks the agents, an agent reads its ranks' segments. Nobody looking
// costs nothing. Not async-signal-safe.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dsm/telemetry/segment.hpp"

namespace dsm::telemetry {

struct RankSample {
  std::uint32_t rank = 0;
  std::string host;  // filled in by dsmexec
  std::int64_t pid = 0;
  RankState state = RankState::starting;
  std::uint64_t on_page = 0;
  std::uint64_t read_faults = 0, write_faults = 0, messages = 0, bytes_out = 0, bytes_in = 0, invalidations = 0,
                recalls = 0, grants = 0, wasted_grants = 0, lock_waits = 0, barriers = 0;
  std::int64_t owned = 0, copies = 0;
};

struct PageSample {  // of a page that has been touched
  std::uint32_t page = 0;
  std::uint8_t state = 0;  // core::View::State
  std::uint8_t owner = 0, home = 0;
  std::uint32_t moves = 0;
};

struct Snapshot {
  std::string job;  // the job's name as dsmtop --list shows it
  std::string program;
  std::string protocol;  // empty until a rank has joined
  std::uint64_t page_size = 0, pages = 0;
  std::uint64_t elapsed_us = 0;  // since the job began, by dsmexec's clock
  bool ended = false;
  std::vector<RankSample> ranks;          // by rank; ranks that have not joined have state `starting`
  std::vector<PageSample> pages_touched;  // ascending, at most max_pages_touched
  std::uint64_t pages_left_out = 0;       // touched, but beyond that bound
};

inline constexpr std::size_t max_pages_touched = 4u << 20;
inline constexpr std::size_t max_rank_samples = 256;
inline constexpr std::size_t max_text_bytes = 255;  // of each string; encode() cuts longer ones

// Binary, versioned, bounded; decode() returns empty for anything malformed. Columns of pages travel as runs: 262,144 pages
// that are touched but quiet take a few bytes, busy ones about five bytes each.
[[nodiscard]] std::string encode(const Snapshot& snapshot);
[[nodiscard]] std::optional<Snapshot> decode(std::string_view bytes);

// Adds what one agent saw to what others saw: ranks replace those of the same number (a host or pid that the part does not
// know is kept), pages are united (the part's view of a page wins), and what the job is called is kept.
void merge(Snapshot& into, const Snapshot& part);

}  // namespace dsm::telemetry
