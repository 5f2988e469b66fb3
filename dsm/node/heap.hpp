// dsm/node/heap.hpp - who is given which bytes of the region: dsm_alloc, dsm_malloc, dsm_free, dsm_named.
//
// dsm_alloc is collective, and takes from the region's beginning; each rank can say by itself where. The first use of the
// heap, by whichever rank, makes all that is left the heap's: Boost.Interprocess keeps its blocks, and a table of names, in
// that memory. What dsm_alloc is asked for from then on comes from the heap: the first rank to make its k-th call takes a
// block and notes it, the others find the note.
//
// Boost loops for ever when a block is freed twice. So each block of dsm_malloc's has a guard in front: a word that depends
// on the address, and is changed when the block is freed.
//
// A Heap is what one rank knows of it; the rest is in shared memory. Called by api_heap.cpp, which holds the heap's lock
// around every call, and so around Boost, too, which therefore has none of its own.
//
// Thread-safety: one caller at a time, of all ranks. async-signal-safe: no; it touches the region.
#pragma once
#include <cstddef>
#include <cstdint>

namespace dsm::node {

class Heap {
 public:
  static constexpr std::size_t alignment = 16;  // of a block: alignof(std::max_align_t)

  // A dsm_alloc that was served from the heap. The ranks' calls make a list.
  struct Late {
    Late* next;
    void* block;  // nullptr: there was no room, for nobody
  };
  // In shared memory, all zero at first.
  struct Root {
    std::uint64_t calls, top;   // of dsm_alloc, before the heap: how many, and the end of what they took (bytes)
    std::uint64_t begin, size;  // of the heap, in bytes from the base; size 0: there is none yet
    Late* first;
    bool over;  // there was not even room for a note: the list ends here, and dsm_alloc with it
  };
  struct Named {
    void* block;
    std::size_t bytes;
    bool ready;  // its maker has done with it
  };
  enum class Freed : std::uint8_t { now, before, never };

  // `base`, `size`: the region, the same in every rank.
  Heap(Root& root, char* base, std::size_t size, std::size_t page_size) noexcept
      : root_(root), base_(base), size_(size), page_size_(page_size) {}

  // This rank's next dsm_alloc: page-aligned, zero-filled; the same in every rank. nullptr: no room, in every rank.
  void* collective(std::size_t bytes);

  // Whether it lies in the heap, and not in what was set aside before there was one.
  [[nodiscard]] bool has(const void* block) const noexcept;

  // nullptr: no room. 0 bytes are a block, too.
  void* allocate(std::size_t bytes);
  // `before`, `never`: it is no block of allocate's (any more), and nothing has been done.
  Freed give_back(void* block);

  // The entry of this name, made if there is none, with a zero-filled block of so many bytes; an older entry may have
  // another number of them. nullptr: no room.
  Named* named(const char* name, std::size_t bytes);

 private:
  bool begin();  // sees to it that there is a heap; false: no room for one
  void* bump(std::size_t bytes);
  void* late(std::size_t bytes);
  Late* note(std::size_t bytes);

  Root& root_;
  char* const base_;
  const std::size_t size_, page_size_;
  char *begin_ = nullptr, *end_ = nullptr;  // the heap, as soon as this rank knows of it
  std::uint64_t calls_ = 0, top_ = 0;       // this rank's part of what the root says of all
  Late* seen_ = nullptr;                    // the last of the list that this rank has been given
};

}  // namespace dsm::node
