// dsm/core/page_sets.hpp - sets of pages, as bits. To walk one costs what is in it, and 1/4096 of the pages there are.
//
// Two levels: a bit for each page, and one for each word of those that is not 0. Memory is given only for what is touched
// (zeros.hpp). async-signal-safe: everything but construction and copying.
#pragma once
#include <bit>
#include <cstdint>

#include "dsm/core/types.hpp"
#include "dsm/core/zeros.hpp"

namespace dsm::core {

class PageSets {
 public:
  static constexpr Page none = ~Page{0};

  // So many sets, of pages below `pages`; all empty.
  PageSets(std::size_t sets, Page pages)
      : words_(upper(pages)), stride_(1 + upper(words_) + words_), bits_(sets * stride_) {}

  [[nodiscard]] std::size_t sets() const { return bits_.size() / stride_; }
  [[nodiscard]] std::size_t size(std::size_t set) const { return bits_[set * stride_]; }  // its pages
  void add(std::size_t set, Page page) {
    std::uint64_t& word = words(set)[page / 64];
    if ((word & bit(page)) != 0) return;
    if (word == 0) marks(set)[page / 64 / 64] |= bit(page / 64);
    word |= bit(page);
    ++bits_[set * stride_];
  }
  void remove(std::size_t set, Page page) {
    std::uint64_t& word = words(set)[page / 64];
    if ((word & bit(page)) == 0) return;
    word &= ~bit(page);
    if (word == 0) marks(set)[page / 64 / 64] &= ~bit(page / 64);
    --bits_[set * stride_];
  }
  // The first page of the set that is not below `from`, or `none`.
  [[nodiscard]] Page next(std::size_t set, Page from) const {
    if (size(set) == 0 || from / 64 >= words_) return none;
    if (const std::uint64_t rest = words(set)[from / 64] >> (from % 64); rest != 0) return from + trailing(rest);
    const std::size_t word = std::size_t{from} / 64 + 1;
    for (std::size_t i = word / 64; i < upper(words_); ++i) {
      std::uint64_t mark = marks(set)[i];
      if (i == word / 64) mark &= ~std::uint64_t{0} << (word % 64);
      if (mark == 0) continue;
      const auto found = static_cast<Page>(i * 64 + trailing(mark));
      return found * 64 + trailing(words(set)[found]);
    }
    return none;
  }

 private:
  [[nodiscard]] static std::size_t upper(std::size_t count) { return (count + 63) / 64; }
  [[nodiscard]] static std::uint64_t bit(std::size_t number) { return std::uint64_t{1} << (number % 64); }
  [[nodiscard]] static Page trailing(std::uint64_t word) { return static_cast<Page>(std::countr_zero(word)); }
  [[nodiscard]] const std::uint64_t* marks(std::size_t set) const { return &bits_[set * stride_ + 1]; }
  [[nodiscard]] const std::uint64_t* words(std::size_t set) const { return marks(set) + upper(words_); }
  [[nodiscard]] std::uint64_t* marks(std::size_t set) { return &bits_[set * stride_ + 1]; }
  [[nodiscard]] std::uint64_t* words(std::size_t set) { return marks(set) + upper(words_); }

  std::size_t words_, stride_;
  Zeros<std::uint64_t> bits_;  // of each set: how many it has, the marks, the words
};

}  // namespace dsm::core
