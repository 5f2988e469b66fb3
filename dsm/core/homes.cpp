#include "dsm/core/homes.hpp"

#include <array>

namespace dsm::core {

namespace {

constexpr std::array<std::string_view, 4> names = {"cyclic", "block", "first-touch", "daemon"};

}  // namespace

Homes::Homes(Node self, std::uint8_t nodes, Page pages, Placement placement)
    : self_(self),
      nodes_(nodes),
      placement_(placement),
      pages_(pages),
      stride_(placement == Placement::cyclic ? nodes : 1),
      spans_(placement == Placement::block ? spans_max : 0),
      told_(placement == Placement::first_touch ? pages : 0) {}

void Homes::deal(Page first, Page count) {
  if (placement_ != Placement::block || span_count_ == spans_.size() || count == 0) return;
  spans_[span_count_++] = {first, first + count, (count + nodes_ - 1) / nodes_};
}

// Binary search for the last span that begins at the page or before it.
Node Homes::of_block(Page page) const {
  std::size_t low = 0, high = span_count_;
  while (low < high) {
    const std::size_t middle = (low + high) / 2;
    if (spans_[middle].first <= page) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == 0 || page >= spans_[low - 1].end) return manager(page);
  const Span& span = spans_[low - 1];
  return static_cast<Node>((page - span.first) / span.share);
}

std::string_view name(Placement placement) { return names[static_cast<std::size_t>(placement)]; }

bool parse(std::string_view text, Placement& out) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto placement = static_cast<Placement>(i);
    if (text != names[i] || placement == Placement::daemon) continue;
    out = placement;
    return true;
  }
  return false;
}

}  // namespace dsm::core
