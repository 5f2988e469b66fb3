// dsm/telemetry/publisher.hpp - a rank's side of telemetry: the counters and page cells that its agent reads.
//
// The node owns one and calls the store helpers while it works; a reader may look at any moment (segment.hpp). When the
// kernel refuses a System V segment the same block lies in private memory: everything works, only nobody can look.
//
// Thread-safety: all helpers may be called by any thread. What belongs together (a page's state and owner) stays together
// only for callers that hold the node's lock; page() must be called under it, because it counts the moves.
// async-signal-safe: all helpers yes (stores to mapped memory: they are on the fault path). Construction and destruction no.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "dsm/core/coherence.hpp"
#include "dsm/core/types.hpp"
#include "dsm/telemetry/segment.hpp"
#include "ipc/sysv_segment.hpp"

namespace dsm::telemetry {

class Publisher {
 public:
  // `page_size` in bytes, `pages` in the region; `protocol` is cut to 15 bytes. `stride`: `ranks` if page p lives at rank p
  // modulo `ranks`, else 1. State is `starting`. The segment is marked
  // for removal before anything else can fail, so that no death of the rank leaves it behind. Throws std::system_error
  // only when there is not even private memory.
  Publisher(std::uint32_t rank, std::uint32_t ranks, std::uint32_t page_size, std::uint64_t pages,
            std::string_view protocol, std::uint32_t stride = 1);
  Publisher(const Publisher&) = delete;
  Publisher& operator=(const Publisher&) = delete;
  ~Publisher();

  // The segment's id for Sampler::attach, -1 when there is none; why_not() then says why in one clause.
  [[nodiscard]] int id() const noexcept { return sysv_ ? sysv_->id() : -1; }
  [[nodiscard]] const std::string& why_not() const noexcept { return why_not_; }

  // `on`: the page a thread is faulting on, the lock, or the barrier's round.
  void set_state(RankState state, std::uint64_t on = 0) noexcept {
    segment_->on_page.store(on, std::memory_order_relaxed);
    segment_->state.store(state, std::memory_order_relaxed);
  }
  // For ranks with several threads: the rank shows the newest wait while any thread waits, `running` when none does.
  // Every begin_wait has its end_wait.
  void begin_wait(RankState state, std::uint64_t on) noexcept {
    waiting_.fetch_add(1, std::memory_order_relaxed);
    set_state(state, on);
  }
  void end_wait() noexcept {
    if (waiting_.fetch_sub(1, std::memory_order_relaxed) == 1) set_state(RankState::running);
  }

  // Only for pages whose home is this rank, under the node's lock. A move is a change of the owner between two stable
  // states (exclusive: who may write; shared: the home, which holds the reference copy); before its first touch a page is
  // the home's. While a page is moving its cell keeps the owner it is leaving. `page` beyond the region is ignored.
  void page(core::Page page, core::View::State state, core::Node owner) noexcept;

  // Adds to one counter: `count(&Counters::read_faults)`.
  void count(std::atomic<std::uint64_t> Counters::*counter, std::uint64_t by = 1) noexcept {
    (segment_->counters.*counter).fetch_add(by, std::memory_order_relaxed);
  }
  // This rank's application may now do `to` with a page, and could do `from` before: keeps `owned` and `copies`.
  void access_changed(core::Access from, core::Access to) noexcept {
    held(from, -1);
    held(to, +1);
  }

  [[nodiscard]] const Segment& segment() const noexcept { return *segment_; }
  [[nodiscard]] const Counters& counters() const noexcept { return segment_->counters; }

 private:
  void held(core::Access access, std::int64_t by) noexcept {
    if (access == core::Access::write) segment_->counters.owned.fetch_add(by, std::memory_order_relaxed);
    if (access == core::Access::read) segment_->counters.copies.fetch_add(by, std::memory_order_relaxed);
  }

  std::optional<ipc::SysvSegment> sysv_;
  void* private_block_ = nullptr;  // when there is no segment
  std::size_t bytes_ = 0;
  Segment* segment_ = nullptr;
  std::atomic<std::uint32_t> waiting_{0};
  std::string why_not_;
};

inline void Publisher::page(core::Page page, core::View::State state, core::Node owner) noexcept {
  if (page >= segment_->pages) return;
  const std::uint32_t index = page / segment_->stride;
  PageCell& cell = segment_->cells()[index];
  if (state == core::View::State::exclusive || state == core::View::State::shared) {
    const bool fresh = cell.state.load(std::memory_order_relaxed) == 0;
    const std::uint32_t before = fresh ? segment_->rank : cell.owner.load(std::memory_order_relaxed);
    // Before the state: a reader that takes state and owner for a pair is then wrong for the shorter time.
    cell.owner.store(owner, std::memory_order_relaxed);
    if (before != owner) cell.moves.fetch_add(1, std::memory_order_relaxed);
  } else if (cell.state.load(std::memory_order_relaxed) == 0) {
    cell.owner.store(static_cast<std::uint8_t>(segment_->rank), std::memory_order_relaxed);
  }
  cell.state.store(static_cast<std::uint8_t>(state), std::memory_order_relaxed);
  if (index >= segment_->cells_used.load(std::memory_order_relaxed)) {
    segment_->cells_used.store(index + 1, std::memory_order_relaxed);
  }
}

}  // namespace dsm::telemetry
