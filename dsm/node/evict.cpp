// Pages given up, so that the application's view does not fall into more mappings than the kernel keeps.
//
// For each run of pages of equal protection the kernel has one mapping (VMA), and mprotect(2) fails when a process would
// have more than vm.max_map_count: a checkerboard over 65,530 pages is enough. So the node counts the borders between
// unequal neighbours, and while there are more than the pager bears (Pager::runs_max), each step that it takes ends by
// giving up a handful of pages. They are found as a clock finds them: a hand goes round the region, run by run. What goes
// is clean copies and the access of this home to its own pages, in silence (Drop); else the page is sent home (WriteBack).
// The core refuses what is being asked for, called back, or in its moment after a grant.
//
// Why the count stays bounded. A step changes the protection of one page, as a rule, and so makes two borders at most; a
// handful is more than that. Long runs are left alone, because they are many pages for two borders; but with more than
// `most` borders among `pages`, not all runs can be long: those of accessible pages are at least most / 2, for between two
// runs without any permission there is one of them; so they are 2 * pages / most long on average, and at least half of
// them are not longer than twice that, which is where `long` begins. What a rank may bear is half of what the kernel
// allows: the other half is for the program's own mappings, and for what comes between two rounds of the hand.
#include <algorithm>

#include "dsm/node/node.hpp"

namespace dsm::node {

using core::Access;
using core::Page;

namespace {

constexpr std::size_t handful = 16;          // pages given up in one step at most
constexpr std::size_t look_max = 1U << 16U;  // pages that the hand passes in one step at most
constexpr std::size_t write_backs_max = 64;  // frames that may wait on a lane on which a write-back is put

}  // namespace

// `page` has just become `now`: its two borders may be others.
void Node::count_borders(Page page, Access before, Access now) noexcept {
  const auto count = [&](Page neighbour) {
    borders_ += static_cast<std::size_t>(access_[neighbour] != now);
    borders_ -= static_cast<std::size_t>(access_[neighbour] != before);
  };
  if (page > 0) count(page - 1);
  if (page + 1 < options_.pages) count(page + 1);
}

void Node::shed(Errand& errand) noexcept {
  const std::size_t longest = 1 + 4 * options_.pages / borders_max_;
  std::size_t looked = 0;
  for (std::size_t given = 0;
       borders_ > borders_max_ && given < handful && looked < std::min(look_max, options_.pages);) {
    const Page first = hand_;
    Page end = first + 1;
    while (end < options_.pages && access_[end] == access_[first] && end - first < look_max) ++end;
    const std::size_t length = end - first;
    hand_ = end;
    if (access_[first] != Access::none && length <= longest) {
      for (Page page = first; page < end && given < handful; ++page) {
        hand_ = page + 1;
        given += give_up(page, errand) ? 1 : 0;
      }
    }
    looked += hand_ - first;
    if (hand_ == options_.pages) hand_ = 0;
  }
}

// The frame of a page that is written back stays as it is until it has been sent: only a grant is received into it, and
// the home, which still takes us for the owner, grants nothing before the page has come.
bool Node::give_up(Page page, Errand& errand) noexcept {
  const core::Node home = core_.home(page);
  if (home == mesh_.rank || access_[page] == Access::read) {
    core_.step(core::Drop{page, now_us()}, actions_);
  } else {
    // A peer that is slow keeps its pages here, and those of others go: a lane's queue is for what must be said, above all.
    if (ports_[home]->channel->queued() < write_backs_max) core_.step(core::WriteBack{page, now_us()}, actions_);
  }
  carry_out_step(errand);
  return access_[page] == Access::none;
}

}  // namespace dsm::node
