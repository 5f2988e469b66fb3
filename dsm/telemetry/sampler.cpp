#include "dsm/telemetry/sampler.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <system_error>
#include <utility>

#include "dsm/core/coherence.hpp"

namespace dsm::telemetry {
namespace {

constexpr std::uint64_t max_pages = std::uint64_t{1} << 32;  // core::Page has 32 bits

// The fields of Segment that never change, copied before they are checked: the rank that wrote them may still write.
struct Head {
  std::uint32_t magic, rank, ranks, page_size;
  std::uint64_t pages;
  std::uint32_t stride, spare;
  char protocol[sizeof Segment::protocol];
};
static_assert(sizeof(Head) == offsetof(Segment, state));

// Why a segment of `bytes` bytes with this head is not what rank `rank` would publish; nullptr if it is.
const char* flaw(const Head& head, std::size_t bytes, std::uint32_t rank) {
  if (head.magic != segment_magic) return "it is no telemetry segment of this version";
  if (head.rank != rank) return "it is another rank's";
  if (head.ranks <= rank || head.ranks > max_rank_samples) return "its number of ranks makes no sense";
  if (head.page_size < 512 || (head.page_size & (head.page_size - 1)) != 0) return "its page size is no power of two";
  if (head.stride != 1 && head.stride != head.ranks) return "its stride is neither 1 nor its number of ranks";
  if (head.pages > max_pages || Segment::bytes(head.pages, head.stride) > bytes) return "it is too small for its pages";
  if (::memchr(head.protocol, 0, sizeof head.protocol) == nullptr) return "its protocol's name has no end";
  return nullptr;
}

RankSample read_rank(const Segment& segment) {
  const auto get = [](const auto& value) { return value.load(std::memory_order_relaxed); };
  const Counters& c = segment.counters;
  RankSample out;
  const auto state = get(segment.state);
  out.state = state <= RankState::lost ? state : RankState::lost;
  out.on_page = get(segment.on_page);
  out.read_faults = get(c.read_faults);
  out.write_faults = get(c.write_faults);
  out.messages = get(c.messages);
  out.bytes_out = get(c.bytes_out);
  out.bytes_in = get(c.bytes_in);
  out.invalidations = get(c.invalidations);
  out.recalls = get(c.recalls);
  out.grants = get(c.grants);
  out.wasted_grants = get(c.wasted_grants);
  out.lock_waits = get(c.lock_waits);
  out.barriers = get(c.barriers);
  out.owned = get(c.owned);
  out.copies = get(c.copies);
  return out;
}

}  // namespace

std::string Sampler::attach(int shmid, std::uint32_t rank) {
  try {
    ipc::SysvSegment segment = ipc::SysvSegment::attach(shmid, true);
    const struct shmid_ds stat = segment.stat();
    if (stat.shm_perm.cuid != ::geteuid()) return "it is another user's segment";
    if (stat.shm_segsz < sizeof(Segment)) return "it is too small for a telemetry segment";
    Head head;
    std::memcpy(&head, segment.data(), sizeof head);
    if (const char* why = flaw(head, stat.shm_segsz, rank)) return why;
    detach(rank);
    const auto at = std::find_if(sources_.begin(), sources_.end(), [&](const Source& s) { return s.rank > rank; });
    sources_.insert(at, {rank, stat.shm_cpid, head.page_size, head.pages, head.stride, head.protocol, std::move(segment)});
    return {};
  } catch (const std::system_error& error) {
    return error.what();
  }
}

void Sampler::detach(std::uint32_t rank) {
  std::erase_if(sources_, [&](const Source& source) { return source.rank == rank; });
}

Snapshot Sampler::sample() const {
  Snapshot out;
  for (const Source& source : sources_) {
    const auto& segment = *static_cast<const Segment*>(source.segment.data());
    Snapshot one;
    one.protocol = source.protocol;
    one.page_size = source.page_size;
    one.pages = source.pages;
    one.ranks.push_back(read_rank(segment));
    one.ranks.back().rank = source.rank;
    one.ranks.back().pid = source.pid;

    const PageCell* cells = segment.cells();
    const std::uint64_t used = std::min(std::uint64_t{segment.cells_used.load(std::memory_order_relaxed)},
                                        Segment::cell_count(source.pages, source.stride));
    for (std::uint64_t i = 0; i < used; ++i) {
      const std::uint8_t state = cells[i].state.load(std::memory_order_relaxed);
      const std::uint64_t page = source.stride == 1 ? i : i * source.stride + source.rank;
      if (state == 0 || state > static_cast<std::uint8_t>(core::View::State::moving) || page >= source.pages) continue;
      if (one.pages_touched.size() == max_pages_touched) {
        ++one.pages_left_out;
        continue;
      }
      one.pages_touched.push_back(
          {static_cast<std::uint32_t>(page), state, cells[i].owner.load(std::memory_order_relaxed),
           static_cast<std::uint8_t>(source.rank), cells[i].moves.load(std::memory_order_relaxed)});
    }
    merge(out, one);
  }
  return out;
}

}  // namespace dsm::telemetry
