// dsm/node/own_area.hpp - what lies in the library's own pages, behind the application's region (pager::Pager::own).
//
// They are shared and coherent like the region itself: zero at first, moved by page faults. Only the API's functions use
// them, on the threads that call those; never the service thread.
#pragma once
#include <cstddef>

namespace dsm::node {

class OwnArea {
 public:
  // `base`: nullptr to ask only for the size.
  OwnArea(char* base, std::size_t page_size, std::size_t ranks) noexcept
      : base_(base), page_size_(page_size), ranks_(ranks) {}

  static constexpr std::size_t root_bytes = 65536;
  // The shared heap's root, `root_bytes` long.
  [[nodiscard]] char* heap_root() const noexcept { return base_; }
  // Two buffers of a page for each rank, through which broadcast and reduce pass their data.
  [[nodiscard]] char* buffer(std::size_t which) const noexcept { return base_ + root_size() + which * buffer_size(); }
  [[nodiscard]] std::size_t buffer_size() const noexcept { return ranks_ * page_size_; }
  [[nodiscard]] std::size_t size() const noexcept { return root_size() + 2 * buffer_size(); }  // bytes, whole pages

 private:
  [[nodiscard]] std::size_t root_size() const noexcept {
    return (root_bytes + page_size_ - 1) / page_size_ * page_size_;
  }

  char* base_;
  std::size_t page_size_, ranks_;
};

}  // namespace dsm::node
