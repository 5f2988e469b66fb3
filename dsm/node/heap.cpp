#include "dsm/node/heap.hpp"

#include <algorithm>
#include <boost/interprocess/indexes/iset_index.hpp>
#include <boost/interprocess/managed_external_buffer.hpp>
#include <boost/interprocess/mem_algo/rbtree_best_fit.hpp>
#include <boost/interprocess/sync/mutex_family.hpp>
#include <cstring>
#include <new>

namespace dsm::node {

namespace {

namespace bip = boost::interprocess;

// A handle on what lies in shared memory: made anew for each call, it costs nothing.
using Segment = bip::basic_managed_external_buffer<char, bip::rbtree_best_fit<bip::null_mutex_family>, bip::iset_index>;

Segment segment(char* begin, const char* end) {
  return {bip::open_only, begin, static_cast<Segment::size_type>(end - begin)};
}

// In front of each block.
struct alignas(Heap::alignment) Guard {
  std::uint64_t word;
};
static_assert(sizeof(Guard) == Heap::alignment);

constexpr std::uint64_t in_use = 0x6d616c6c6f636564U;
constexpr std::uint64_t freed = 0x66726565642e2e2eU;

// Copied elsewhere, it is not valid there.
std::uint64_t word_for(std::uint64_t state, const void* block) noexcept {
  return state ^ reinterpret_cast<std::uintptr_t>(block) * 0x9e3779b97f4a7c15U;
}

Guard& guard_of(void* block) noexcept { return static_cast<Guard*>(block)[-1]; }

// A freed block's beginning becomes a node of Boost's tree (24 bytes, the guard's 16 among them); this word behind it stays
// until the memory is used again. It only makes the message clearer.
std::uint64_t& remainder_of(void* block) noexcept { return static_cast<std::uint64_t*>(block)[1]; }

std::size_t round_up(std::size_t bytes, std::size_t unit) noexcept { return (bytes + unit - 1) / unit * unit; }

}  // namespace

bool Heap::begin() {
  if (begin_ != nullptr) return true;
  if (root_.size == 0) {
    const std::size_t left = size_ - root_.top;
    if (left < Segment::segment_manager::get_min_size()) return false;
    const Segment made(bip::create_only, base_ + root_.top, left);
    root_.begin = root_.top;
    root_.size = left;
  }
  begin_ = base_ + root_.begin;
  end_ = begin_ + root_.size;
  return true;
}

bool Heap::has(const void* block) const noexcept {
  return root_.size != 0 && static_cast<const char*>(block) >= base_ + root_.begin;
}

// ---- dsm_alloc ----

void* Heap::collective(std::size_t bytes) {
  ++calls_;
  const bool begun = root_.size != 0;
  if (begun && calls_ > root_.calls) return late(bytes);
  void* const block = bump(bytes);
  if (!begun) {
    root_.calls = std::max(root_.calls, calls_);
    root_.top = std::max(root_.top, top_);
  }
  return block;
}

void* Heap::bump(std::size_t bytes) {
  if (bytes > size_ - top_) return nullptr;
  char* const block = base_ + top_;
  top_ += round_up(bytes, page_size_);
  return block;
}

void* Heap::late(std::size_t bytes) {
  begin();  // there is one
  Late* next = seen_ == nullptr ? root_.first : seen_->next;
  if (next == nullptr && !root_.over) next = note(bytes);
  if (next == nullptr) return nullptr;
  seen_ = next;
  return next->block;
}

// This rank is the first to make the call that comes after seen_.
Heap::Late* Heap::note(std::size_t bytes) {
  Segment heap = segment(begin_, end_);
  void* const place = heap.allocate(sizeof(Late), std::nothrow);
  root_.over = place == nullptr;
  if (place == nullptr) return nullptr;
  void* block = nullptr;
  if (bytes <= size_) {
    const std::size_t whole = round_up(bytes, page_size_);
    block = heap.allocate_aligned(whole, page_size_, std::nothrow);
    if (block != nullptr) std::memset(block, 0, whole);
  }
  auto* const made = ::new (place) Late{nullptr, block};
  (seen_ == nullptr ? root_.first : seen_->next) = made;
  return made;
}

// ---- dsm_malloc, dsm_free ----

void* Heap::allocate(std::size_t bytes) {
  if (bytes > size_ || !begin()) return nullptr;
  const std::size_t room = std::max(bytes, 2 * sizeof(std::uint64_t));  // for remainder_of
  void* const whole = segment(begin_, end_).allocate(sizeof(Guard) + room, std::nothrow);
  if (whole == nullptr) return nullptr;
  void* const block = static_cast<Guard*>(whole) + 1;
  ::new (whole) Guard{word_for(in_use, block)};
  return block;
}

Heap::Freed Heap::give_back(void* block) {
  const auto at = reinterpret_cast<std::uintptr_t>(block);
  if (root_.size == 0 || !begin() || at % alignment != 0) return Freed::never;
  if (at < reinterpret_cast<std::uintptr_t>(begin_) + sizeof(Guard) || at >= reinterpret_cast<std::uintptr_t>(end_)) {
    return Freed::never;
  }
  Guard& guard = guard_of(block);
  if (guard.word != word_for(in_use, block)) {
    return remainder_of(block) == word_for(freed, block) ? Freed::before : Freed::never;
  }
  guard.word = remainder_of(block) = word_for(freed, block);
  segment(begin_, end_).deallocate(&guard);
  return Freed::now;
}

// ---- dsm_named ----

Heap::Named* Heap::named(const char* name, std::size_t bytes) {
  if (bytes > size_ || !begin()) return nullptr;
  Segment heap = segment(begin_, end_);
  if (Named* const found = heap.find<Named>(name).first; found != nullptr) return found;
  void* const block = heap.allocate(bytes, std::nothrow);
  if (block == nullptr) return nullptr;
  std::memset(block, 0, bytes);
  Named* const made = heap.construct<Named>(name, std::nothrow)(Named{block, bytes, false});
  if (made == nullptr) heap.deallocate(block);
  return made;
}

}  // namespace dsm::node
