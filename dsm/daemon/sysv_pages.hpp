// dsm/daemon/sysv_pages.hpp - the pages of one System V segment at their home: their content, and who may touch which.
//
// The home is dsmd: node core::daemon_node of the core, on which nobody ever faults. The agents that have the segment
// open are its other nodes, by slot. What an agent holds for writing is known here too: when the agent is lost, such a
// page goes back to what was here last, and is counted.
//
// Memory is given by the kernel as it is first written to. Thread-safety: none. Not async-signal-safe.
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <list>
#include <optional>

#include "dsm/core/coherence.hpp"
#include "dsm/core/page_sets.hpp"
#include "dsm/core/zeros.hpp"
#include "dsm/sysv/wire.hpp"

namespace dsm::daemon {

class SysvPages {
 public:
  // Questions for access that an agent may have under way with the core; more of them wait here, up to `held_max`, and no
  // more than the segment has pages: nobody asks twice before it has an answer.
  static constexpr std::size_t asked_max = 64, held_max = 1u << 16;

  // Tells the agent in that slot; `page`: page_bytes of them if the message carries a page, else null. It must be done
  // with them when it returns.
  using Deliver = std::function<void(core::Node to, const core::Message& message, const std::uint8_t* page)>;

  // `size`: bytes, more than 0. Throws std::bad_alloc or std::system_error if there is no room.
  SysvPages(std::uint64_t size, Deliver deliver);
  SysvPages(const SysvPages&) = delete;
  SysvPages& operator=(const SysvPages&) = delete;
  ~SysvPages();

  // A slot that nobody has; nothing if 64 agents have the segment open (or have been lost, a moment ago). What its agent
  // holds for writing is counted in `writes`, too, until close() or lose().
  [[nodiscard]] std::optional<core::Node> open(std::uint64_t& writes);
  // Its agent is lost: it is heard no more, and close() follows when its lease has ended. REQUIRES: the slot is open.
  void lose(core::Node slot);
  // What the agent in that slot says. False: no agent may say that; nothing has been done.
  // REQUIRES: the slot is open; the frame is as decode() gives it.
  [[nodiscard]] bool hear(core::Node slot, const sysv::PageFrame& frame);
  // The agent has no pages any more, in whatever way that has come. How many of those that it held for writing, and has
  // not sent back, are again what was here before. Costs what the agent has asked for, whatever the segment's size.
  // REQUIRES: the slot is open.
  std::uint64_t close(core::Node slot);

  [[nodiscard]] core::Page pages() const { return pages_; }
  [[nodiscard]] std::uint64_t held_for_writing(core::Node slot) const { return written_.size(slot); }
  // For tests, and whoever wants to look: what is here; of a page that an agent holds for writing, what was here before.
  [[nodiscard]] const std::uint8_t* page(core::Page page) const {
    return memory_ + std::size_t{page} * sysv::page_bytes;
  }

 private:
  struct Slot {
    bool open = false;
    std::uint64_t* writes = nullptr;  // of its agent, in all segments
    bool bad = false;                 // it has said what no agent may say
    std::size_t asked = 0;            // wants that the core has not granted yet
    std::list<core::Message> held;    // wants that the core has not been told of yet
  };

  [[nodiscard]] std::uint8_t* at(core::Page page) { return memory_ + std::size_t{page} * sysv::page_bytes; }
  [[nodiscard]] bool hear_last(core::Node slot, const sysv::PageFrame& frame);
  [[nodiscard]] bool hear_want(core::Node slot, const core::Message& want);
  [[nodiscard]] bool step(const core::Event& event, const std::uint8_t* bytes);
  void send(const core::Send& send);
  void forget_writer(core::Page page);
  void go_on();

  core::Page pages_;
  std::uint8_t* memory_;
  Deliver deliver_;
  core::Coherence core_;
  core::Actions actions_;
  bool due_ = false;                  // the core has something left to do, at a Tick
  core::Zeros<std::uint8_t> writer_;  // by page: the slot that holds it for writing, plus one; 0: none
  core::PageSets written_;            // the same, by slot
  std::array<Slot, core::max_ranks> slots_{};
};

}  // namespace dsm::daemon
