// The shared heap over plain memory; several ranks are several Heaps.
#include "dsm/node/heap.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace dsm::node {
namespace {

constexpr std::size_t page = 4096;

class HeapTest : public ::testing::Test {
 protected:
  static constexpr std::size_t pages = 256, size = pages * page;

  Heap rank() { return {root_, base(), size, page}; }
  [[nodiscard]] char* base() const { return region_.get(); }

  // The most that one block can have.
  std::size_t largest(Heap& heap) {
    std::size_t fits = 0;
    for (std::size_t step = size; step != 0; step /= 2) {
      void* const block = heap.allocate(fits + step);
      if (block == nullptr) continue;
      EXPECT_EQ(heap.give_back(block), Heap::Freed::now);
      fits += step;
    }
    return fits;
  }

  Heap::Root root_{};

 private:
  struct Release {
    void operator()(char* memory) const { std::free(memory); }
  };
  std::unique_ptr<char, Release> region_{[] {
    void* const memory = std::aligned_alloc(page, size);
    std::memset(memory, 0, size);
    return static_cast<char*>(memory);
  }()};
};

TEST_F(HeapTest, BlocksOfAnySizeAreAlignedAndApart) {
  Heap heap = rank();
  std::map<char*, std::size_t> blocks;
  for (std::size_t bytes = 0; bytes < 3 * page; bytes += bytes / 4 + 1) {
    auto* const block = static_cast<char*>(heap.allocate(bytes));
    ASSERT_NE(block, nullptr) << bytes;
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % Heap::alignment, 0U);
    std::memset(block, 0x5a, bytes);
    EXPECT_TRUE(blocks.emplace(block, bytes).second) << bytes << " bytes: the same block again";
  }
  const char* end = base();
  for (const auto& [block, bytes] : blocks) {
    EXPECT_GE(block, end);
    end = block + bytes;
  }
  EXPECT_LE(end, base() + size);
  for (const auto& [block, bytes] : blocks) EXPECT_EQ(heap.give_back(block), Heap::Freed::now) << bytes;
}

TEST_F(HeapTest, AfterAMillionBytesInRandomOrderNothingIsLost) {
  Heap ranks[] = {rank(), rank(), rank()};
  const std::size_t before = largest(ranks[0]);
  EXPECT_GT(before, size - page);
  std::minstd_rand random(7);
  std::vector<char*> blocks;
  for (int i = 0; i < 20000; ++i) {
    Heap& heap = ranks[random() % 3];
    if (blocks.size() < 100 && random() % 2 == 0) {
      auto* const block = static_cast<char*>(heap.allocate(random() % 500));
      ASSERT_NE(block, nullptr);
      blocks.push_back(block);
    } else if (!blocks.empty()) {
      std::swap(blocks[random() % blocks.size()], blocks.back());
      ASSERT_EQ(heap.give_back(blocks.back()), Heap::Freed::now);
      blocks.pop_back();
    }
  }
  for (char* block : blocks) ASSERT_EQ(ranks[1].give_back(block), Heap::Freed::now);
  EXPECT_EQ(largest(ranks[2]), before);
}

TEST_F(HeapTest, AFullHeapSaysSoAndGoesOn) {
  Heap heap = rank();
  EXPECT_EQ(heap.allocate(size), nullptr);
  EXPECT_EQ(heap.allocate(SIZE_MAX), nullptr);
  EXPECT_EQ(heap.allocate(SIZE_MAX - 16), nullptr);
  std::vector<void*> blocks;
  for (void* block = heap.allocate(1000); block != nullptr; block = heap.allocate(1000)) blocks.push_back(block);
  EXPECT_GT(blocks.size(), size / 1100);
  ASSERT_EQ(heap.give_back(blocks.back()), Heap::Freed::now);
  EXPECT_EQ(heap.allocate(1000), blocks.back());
}

TEST_F(HeapTest, FreeingTwiceIsFoundOut) {
  Heap heap = rank();
  void* const before = heap.allocate(40);
  void* const block = heap.allocate(40);
  void* const after = heap.allocate(40);
  ASSERT_EQ(heap.give_back(block), Heap::Freed::now);
  EXPECT_EQ(heap.give_back(block), Heap::Freed::before);
  ASSERT_EQ(heap.give_back(before), Heap::Freed::now);  // it and the one behind it become one
  EXPECT_EQ(heap.give_back(block), Heap::Freed::before);
  ASSERT_EQ(heap.give_back(after), Heap::Freed::now);
  EXPECT_EQ(heap.give_back(after), Heap::Freed::before);
  EXPECT_EQ(rank().give_back(before), Heap::Freed::before);
}

TEST_F(HeapTest, WhatIsNoBlockIsNotFreed) {
  Heap heap = rank();
  EXPECT_EQ(heap.give_back(base() + page), Heap::Freed::never) << "there is no heap yet";
  auto* const block = static_cast<char*>(heap.allocate(4096));
  std::memset(block, 0x11, 4096);
  int elsewhere = 0;
  for (void* const p : std::initializer_list<void*>{&elsewhere, base(), base() + 8, base() + size, base() - 16,
                                                    block + 1, block + 8, block + 16, block + 2048}) {
    EXPECT_EQ(heap.give_back(p), Heap::Freed::never);
  }
  std::memcpy(block + 64, block - 16, 32);  // a guard in the wrong place
  EXPECT_EQ(heap.give_back(block + 80), Heap::Freed::never);
  EXPECT_EQ(heap.give_back(block), Heap::Freed::now);
}

// ---- dsm_alloc beside it ----

TEST_F(HeapTest, WithoutAHeapDsmAllocHasTheWholeRegion) {
  Heap one = rank(), other = rank();
  EXPECT_EQ(one.collective(1), base());
  EXPECT_EQ(one.collective(page + 1), base() + page);
  EXPECT_EQ(one.collective((pages - 3) * page), base() + 3 * page);
  EXPECT_EQ(one.collective(1), nullptr);
  EXPECT_EQ(other.collective(1), base());
  EXPECT_EQ(one.allocate(1), nullptr);  // nothing is left, although this rank has not come so far
  EXPECT_EQ(other.collective(page + 1), base() + page);
  EXPECT_EQ(other.collective((pages - 3) * page), base() + 3 * page);
}

TEST_F(HeapTest, TheHeapBeginsBehindWhatAnyRankHasBeenGiven) {
  Heap fast = rank(), slow = rank(), third = rank();
  ASSERT_EQ(fast.collective(3 * page), base());
  ASSERT_EQ(fast.collective(2 * page), base() + 3 * page);
  ASSERT_EQ(slow.collective(3 * page), base());
  EXPECT_FALSE(fast.has(base() + 3 * page)) << "there is none yet";
  auto* const block = static_cast<char*>(third.allocate(8));
  EXPECT_TRUE(fast.has(block));
  EXPECT_FALSE(fast.has(base() + 3 * page));
  EXPECT_GT(block, base() + 5 * page);
  EXPECT_EQ(slow.collective(2 * page), base() + 3 * page) << "the call that another rank made before the heap began";
  EXPECT_EQ(third.collective(3 * page), base());
  EXPECT_EQ(third.collective(2 * page), base() + 3 * page);
}

TEST_F(HeapTest, LaterCallsOfDsmAllocGetTheSameZeroedPagesInAllRanks) {
  Heap first = rank(), second = rank();
  ASSERT_EQ(first.collective(page), base());
  void* const used = first.allocate(size / 2);
  std::memset(used, 0xff, size / 2);
  ASSERT_EQ(first.give_back(used), Heap::Freed::now);

  auto* const a = static_cast<char*>(first.collective(page + 1));
  auto* const b = static_cast<char*>(first.collective(page));
  ASSERT_NE(a, nullptr);
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a) % page, 0U);
  EXPECT_TRUE(a + 2 * page <= b || b + page <= a);
  EXPECT_EQ(std::count(a, a + 2 * page, 0), static_cast<long>(2 * page));
  std::memset(a, 1, 2 * page);

  ASSERT_EQ(second.collective(page), base());
  EXPECT_EQ(second.collective(page + 1), a);
  EXPECT_EQ(second.collective(page), b);
  auto* const c = second.collective(page);
  EXPECT_EQ(first.collective(page), c);
  EXPECT_EQ(a[2 * page - 1], 1) << "zeroed once only";
  EXPECT_EQ(first.give_back(a), Heap::Freed::never);
}

TEST_F(HeapTest, WhatOneRankIsRefusedAllAreRefused) {
  Heap first = rank(), second = rank();
  void* const much = first.allocate(size - 20 * page);
  EXPECT_EQ(first.collective(64 * page), nullptr);
  EXPECT_EQ(first.collective(SIZE_MAX), nullptr);
  void* const small = first.collective(page);
  EXPECT_NE(small, nullptr);
  ASSERT_EQ(first.give_back(much), Heap::Freed::now);
  EXPECT_EQ(second.collective(64 * page), nullptr) << "there is room now, but there was none for the first";
  EXPECT_EQ(second.collective(SIZE_MAX), nullptr);
  EXPECT_EQ(second.collective(page), small);
}

TEST_F(HeapTest, WhereThereIsNoRoomForANoteTheListEnds) {
  Heap first = rank(), second = rank();
  std::vector<void*> blocks;
  for (const std::size_t bytes : {std::size_t{1000}, std::size_t{0}}) {
    for (void* block = first.allocate(bytes); block != nullptr; block = first.allocate(bytes)) blocks.push_back(block);
  }
  EXPECT_EQ(first.collective(page), nullptr);
  for (void* block : blocks) ASSERT_EQ(first.give_back(block), Heap::Freed::now);
  EXPECT_EQ(first.collective(page), nullptr);
  EXPECT_EQ(second.collective(page), nullptr);
  EXPECT_EQ(second.collective(page), nullptr);
  EXPECT_EQ(second.collective(page), nullptr);
}

// ---- names ----

TEST_F(HeapTest, ANameIsOneBlockInAllRanks) {
  Heap first = rank(), second = rank();
  void* const used = first.allocate(1000);
  std::memset(used, 0xff, 1000);
  ASSERT_EQ(first.give_back(used), Heap::Freed::now);
  Heap::Named* const table = first.named("table", 600);
  ASSERT_NE(table, nullptr);
  EXPECT_EQ(table->bytes, 600U);
  EXPECT_FALSE(table->ready);
  const auto* const block = static_cast<const char*>(table->block);
  EXPECT_EQ(std::count(block, block + 600, 0), 600);
  EXPECT_EQ(second.named("table", 600), table);
  EXPECT_EQ(second.named("table", 8), table) << "whether it fits is for the caller to see";
  EXPECT_NE(second.named("chair", 600), table);
  EXPECT_EQ(first.give_back(table->block), Heap::Freed::never);
}

TEST_F(HeapTest, ANameForWhichThereIsNoRoomIsNotKept) {
  Heap heap = rank();
  const std::size_t before = largest(heap);
  EXPECT_EQ(heap.named("all", size), nullptr);
  EXPECT_EQ(heap.named("nearly all", before), nullptr) << "no room for the entry beside the block";
  EXPECT_EQ(largest(heap), before);
  EXPECT_NE(heap.named("all", 100), nullptr);
}

}  // namespace
}  // namespace dsm::node
