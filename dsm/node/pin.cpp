// Pages that stay while a system call uses them: fetched as by a fault, then kept by the core for a time (core::Pin).
//
// Who pins several pages takes them in ascending order, and keeps those it has. So of all ranks that pin pages at one time,
// the one that keeps the highest of the contended ones waits for nobody's pin, and goes on; when it is through, the next
// one does. Should a program not unpin, time does: every page is kept for a second after the last was to be here, and a
// call that has not all of them in time gives them back.
#include <pthread.h>

#include "dsm/node/node.hpp"

namespace dsm::node {

using telemetry::RankState;

namespace {

constexpr core::Micros pin_time = 1'000'000;  // for fetching all pages; and then for using them

}  // namespace

int Node::pin(core::Page first, std::size_t count, core::Access access) noexcept {
  const Uncancelled uncancelled;
  const core::Micros late = now_us() + pin_time;
  int error = 0;
  std::size_t pinned = 0;
  for (; pinned < count && error == 0; ++pinned) {
    error = pin_page(first + static_cast<core::Page>(pinned), access, late);
    if (error != 0) break;
  }
  if (error != 0) unpin(first, pinned);
  return error;
}

int Node::pin_page(core::Page page, core::Access access, core::Micros late) noexcept {
  for (;;) {
    publisher_.begin_wait(RankState::fault, page);
    Errand errand;
    fetch(errand, page, access, 0);
    publisher_.end_wait();
    bool here = false, kept = false;
    begin(errand, [&] {
      here = access_[page] >= access;
      if (!here) return;  // gone again, before this thread came to its turn
      use(page);
      const std::uint32_t before = core_.view(page).pins;
      core_.step(core::Pin{page, late + pin_time, now_us()}, actions_);
      kept = core_.view(page).pins > before;
      carry_out(errand);
    });
    leave_place(errand);
    if (kept) return now_us() < late ? 0 : (unpin(page, 1), EAGAIN);
    if (here) return ENOMEM;
    if (now_us() >= late) return EAGAIN;
  }
}

void Node::unpin(core::Page first, std::size_t count) noexcept {
  Errand errand;
  begin(errand, [&] {
    for (std::size_t i = 0; i < count; ++i) {
      core_.step(core::Unpin{first + static_cast<core::Page>(i), now_us()}, actions_);
      carry_out(errand);
    }
  });
}

}  // namespace dsm::node
