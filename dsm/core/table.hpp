// dsm/core/table.hpp - a hash table of bounded size that never allocates: what is not used costs no memory.
//
// Entry is a trivial struct with the members `Key key` and `std::uint32_t chain`. Its memory comes from Zeros: the kernel
// gives only what is touched. async-signal-safe: everything but construction and copying.
#pragma once
#include <bit>
#include <cstdint>

#include "dsm/core/zeros.hpp"

namespace dsm::core {

template <class Entry>
class Table {
 public:
  explicit Table(std::uint32_t capacity) : entries_(capacity), buckets_(std::bit_ceil(capacity + 1U)) {}

  [[nodiscard]] std::uint32_t size() const { return size_; }
  [[nodiscard]] Entry* find(std::uint64_t key) { return const_cast<Entry*>(std::as_const(*this).find(key)); }
  [[nodiscard]] const Entry* find(std::uint64_t key) const {
    for (std::uint32_t link = buckets_[bucket(key)]; link != 0; link = entries_[link - 1U].chain) {
      if (entries_[link - 1U].key == key) return &entries_[link - 1U];
    }
    return nullptr;
  }
  // A new one, all zero but for its key. nullptr: the table is full. REQUIRES: there is none of that key.
  [[nodiscard]] Entry* make(std::uint64_t key) {
    std::uint32_t link = free_;
    if (link != 0) {
      free_ = entries_[link - 1U].chain;
    } else {
      if (touched_ == entries_.size()) return nullptr;
      link = ++touched_;
    }
    Entry& entry = entries_[link - 1U];
    entry = Entry{};
    entry.key = key;
    entry.chain = std::exchange(buckets_[bucket(key)], link);
    ++size_;
    return &entry;
  }
  void erase(Entry& entry) {
    const auto link = static_cast<std::uint32_t>(&entry - &entries_[0]) + 1U;
    std::uint32_t* at = &buckets_[bucket(entry.key)];
    while (*at != link) at = &entries_[*at - 1U].chain;
    *at = entry.chain;
    entry.chain = std::exchange(free_, link);
    --size_;
  }
  template <class Visit>
  void for_each(const Visit& visit) const {
    for (std::size_t b = 0; b < buckets_.size(); ++b) {
      for (std::uint32_t link = buckets_[b]; link != 0; link = entries_[link - 1U].chain) visit(entries_[link - 1U]);
    }
  }

 private:
  // Knuth's multiplicative hashing (The Art of Computer Programming 3, 6.4): the upper bits of the product.
  [[nodiscard]] std::size_t bucket(std::uint64_t key) const {
    return (key * 0x9e3779b97f4a7c15U >> 32U) & (buckets_.size() - 1U);
  }

  Zeros<Entry> entries_;
  Zeros<std::uint32_t> buckets_;  // links: index plus one; 0: none
  std::uint32_t free_ = 0;        // a link; freed entries hang together by `chain`
  std::uint32_t touched_ = 0;     // entries that have ever been used
  std::uint32_t size_ = 0;
};

}  // namespace dsm::core
