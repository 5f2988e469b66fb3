#include "dsm/daemon/sysv_pages.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <utility>

#include "ipc/error.hpp"

namespace dsm::daemon {
namespace {

using core::Message;
using core::Node;
using core::Page;
using sysv::page_bytes;
using Kind = Message::Kind;

constexpr core::Micros the_time = 1;  // it stands still: nothing is held at the home, so nothing waits for a time
constexpr std::uint64_t pages_max = std::numeric_limits<Page>::max();

Page pages_of(std::uint64_t size) {
  const std::uint64_t pages = size / page_bytes + (size % page_bytes != 0 ? 1 : 0);
  if (pages > pages_max) throw std::bad_alloc();
  return static_cast<Page>(pages);
}

core::Config config(Page pages) {
  return {.self = core::daemon_node,
          .nodes = core::max_ranks,
          .pages = pages,
          .protocol = core::Protocol::msi,
          .placement = core::Placement::daemon,
          .waiters = 0,
          .requests = static_cast<std::uint16_t>(core::max_ranks * std::min<std::size_t>(pages, SysvPages::asked_max)),
          .pins = 0,
          .hold = 0,
          .absence = 0};
}

std::uint8_t* map(Page pages) {
  void* const at = ::mmap(nullptr, std::size_t{pages} * page_bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) ipc::throw_errno("mmap");
  return static_cast<std::uint8_t*>(at);
}

}  // namespace

// The memory comes last: what throws before it has nothing to give back.
SysvPages::SysvPages(std::uint64_t size, Deliver deliver)
    : pages_(pages_of(size)),
      memory_(nullptr),
      deliver_(std::move(deliver)),
      core_(config(pages_)),
      writer_(pages_),
      written_(core::max_ranks, pages_) {
  memory_ = map(pages_);
}

SysvPages::~SysvPages() { ::munmap(memory_, std::size_t{pages_} * page_bytes); }

std::optional<Node> SysvPages::open(std::uint64_t& writes) {
  for (Node slot = 0; slot < slots_.size(); ++slot) {
    if (slots_[slot].open) continue;
    slots_[slot].open = true;
    slots_[slot].writes = &writes;
    return slot;
  }
  return {};
}

void SysvPages::lose(Node slot) {
  if (slots_[slot].writes != nullptr) *slots_[slot].writes -= held_for_writing(slot);
  slots_[slot].writes = nullptr;
}

bool SysvPages::hear(Node slot, const sysv::PageFrame& frame) {
  if (slots_[slot].bad || frame.message.page >= pages_) return false;
  if (frame.last) return hear_last(slot, frame);
  if (frame.message.kind == Kind::want) return hear_want(slot, frame.message);
  if (!step(core::Received{.from = slot, .lane = 0, .msg = frame.message}, frame.bytes.data())) return false;
  go_on();
  return true;
}

// It has gone from there, but the core does not know before close(): whoever wants it waits until then.
bool SysvPages::hear_last(Node slot, const sysv::PageFrame& frame) {
  if (writer_[frame.message.page] != slot + 1) return false;
  std::memcpy(at(frame.message.page), frame.bytes.data(), page_bytes);
  forget_writer(frame.message.page);
  return true;
}

// The core has a fixed number of places for those who wait: so many for each agent, and no agent takes another's.
bool SysvPages::hear_want(Node slot, const Message& want) {
  Slot& from = slots_[slot];
  if (from.asked == asked_max) {
    if (from.held.size() == std::min<std::size_t>(held_max, pages_)) return false;
    from.held.push_back(want);
    return true;
  }
  ++from.asked;
  if (!step(core::Received{.from = slot, .lane = 0, .msg = want}, nullptr)) {
    --from.asked;
    return false;
  }
  go_on();
  return true;
}

// Grants have made room. What was held back may turn out to be what nobody may say: then who said it hears so when it
// speaks next.
void SysvPages::go_on() {
  for (Node slot = 0; slot < slots_.size(); ++slot) {
    Slot& from = slots_[slot];
    while (from.asked < asked_max && !from.held.empty()) {
      const Message want = from.held.front();
      from.held.pop_front();
      if (from.bad) continue;
      ++from.asked;
      if (step(core::Received{.from = slot, .lane = 0, .msg = want}, nullptr)) continue;
      --from.asked;
      from.bad = true;
    }
  }
}

std::uint64_t SysvPages::close(Node slot) {
  const std::uint64_t lost = held_for_writing(slot);
  for (Page page = 0; (page = written_.next(slot, page)) != core::PageSets::none; ++page) forget_writer(page);
  slots_[slot] = Slot{};
  due_ = false;
  static_cast<void>(step(core::Left{.who = slot, .now = the_time}, nullptr));
  while (std::exchange(due_, false)) static_cast<void>(step(core::Tick{the_time}, nullptr));
  go_on();
  return lost;
}

bool SysvPages::step(const core::Event& event, const std::uint8_t* bytes) {
  actions_.clear();
  core_.step(event, actions_);
  for (const core::Action& action : actions_) {
    if (std::holds_alternative<core::Abort>(action)) return false;
    if (const auto* install = std::get_if<core::Install>(&action)) {
      std::memcpy(at(install->page), bytes, page_bytes);
      forget_writer(install->page);
    } else if (const auto* one = std::get_if<core::Send>(&action)) {
      send(*one);
    } else if (std::holds_alternative<core::Timer>(action)) {
      due_ = true;  // at once: a step's actions are bounded, and not all has been done
    }
  }
  return true;
}

void SysvPages::send(const core::Send& send) {
  const Message& message = send.msg;
  Slot& to = slots_[send.to];
  if (message.kind == Kind::grant) {
    --to.asked;
    if (message.access == core::Access::write) {
      writer_[message.page] = static_cast<std::uint8_t>(send.to + 1);
      written_.add(send.to, message.page);
      if (to.writes != nullptr) ++*to.writes;
    }
  }
  deliver_(send.to, message, message.carries_page ? at(message.page) : nullptr);
}

void SysvPages::forget_writer(Page page) {
  if (writer_[page] == 0) return;
  const Slot& from = slots_[writer_[page] - 1U];
  if (from.writes != nullptr) --*from.writes;
  written_.remove(writer_[page] - 1U, page);
  writer_[page] = 0;
}

}  // namespace dsm::daemon
