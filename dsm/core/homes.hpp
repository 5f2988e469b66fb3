// dsm/core/homes.hpp - where each page lives: at its home are its directory and its reference copy.
//
// Every node can say from a page's number who its *manager* is. Under `cyclic` that is the home, too: neighbouring pages
// live at different nodes, and no memory is needed to know it. Under `block` each allocation is dealt out in equal parts,
// one node after the other, which suits programs in which each rank works on its own part of an array; what has not been
// allocated so is cyclic. Under `first_touch` a page lives where it was touched first; its manager says where that was
// (first_touch.cpp), once to each node that asks. (First touch is how Linux places pages on NUMA machines.) Under
// `daemon` all pages live at one node that is no rank, and outlives the hosts (Left in types.hpp); no job can ask for
// that.
//
// Thread-safety: none. async-signal-safe: everything but construction and copying.
#pragma once
#include <cstdint>
#include <string_view>

#include "dsm/core/types.hpp"
#include "dsm/core/zeros.hpp"

namespace dsm::core {

enum class Placement : std::uint8_t { cyclic, block, first_touch, daemon };

inline constexpr Node nowhere = 0xff;  // a home that this node has not been told yet

class Homes {
 public:
  static constexpr std::size_t spans_max = 4096;  // allocations that `block` deals out; those that follow are cyclic

  Homes(Node self, std::uint8_t nodes, Page pages, Placement placement);

  [[nodiscard]] Node manager(Page page) const { return static_cast<Node>(page % nodes_); }
  [[nodiscard]] Node of(Page page) const {
    if (placement_ == Placement::cyclic) return manager(page);
    if (placement_ == Placement::daemon) return daemon_node;
    return placement_ == Placement::block ? of_block(page) : static_cast<Node>(told_[page] - 1);
  }
  [[nodiscard]] bool here(Page page) const { return of(page) == self_; }

  // A table of what this node keeps for the pages that live here has `slots` entries; that of `page` is slot(page). Where
  // every nodes'th page lives here the table is dense; where pages live here in runs its memory is. Where none ever
  // will, it is empty.
  [[nodiscard]] Page slots() const {
    if (placement_ == Placement::daemon && self_ != daemon_node) return 0;
    return (pages_ + stride_ - 1) / stride_;
  }
  [[nodiscard]] Page slot(Page page) const { return page / stride_; }

  // Under `block`, an allocation: the first share of its pages lives at node 0. All nodes say this alike, before any of
  // them touches one of the pages, and of rising pages. Otherwise, or when there is no room, nothing.
  void deal(Page first, Page count);
  // Under `first_touch`.
  void settle(Page page, Node home) { told_[page] = static_cast<std::uint8_t>(home + 1); }

 private:
  struct Span {
    Page first, end, share;
  };
  [[nodiscard]] Node of_block(Page page) const;

  Node self_;
  std::uint8_t nodes_;
  Placement placement_;
  Page pages_, stride_;
  Zeros<Span> spans_;  // of rising pages
  std::size_t span_count_ = 0;
  Zeros<std::uint8_t> told_;  // by page: its home plus one; 0: nobody has said
};

[[nodiscard]] std::string_view name(Placement placement);
// False if `text` names no placement that a job can have; `out` is then untouched.
[[nodiscard]] bool parse(std::string_view text, Placement& out);

}  // namespace dsm::core
