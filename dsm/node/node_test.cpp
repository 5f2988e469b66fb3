#include "dsm/node/node.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <random>

#include "dsm/node/fake_cluster.hpp"

namespace dsm::node {
namespace {

using core::Access;
using core::Protocol;
using telemetry::Counters;
using testing::FakeCluster;

void increment(char* bytes, std::size_t index) {
  std::uint64_t value = 0;
  std::memcpy(&value, bytes + index * sizeof value, sizeof value);
  ++value;
  std::memcpy(bytes + index * sizeof value, &value, sizeof value);
}

std::uint64_t value_at(FakeCluster::Rank& rank, core::Page page, std::size_t index = 0) {
  std::uint64_t value = 0;
  rank.touch(page, Access::read,
             [&](const char* bytes) { std::memcpy(&value, bytes + index * sizeof value, sizeof value); });
  return value;
}

class BothProtocols : public ::testing::TestWithParam<Protocol> {};
INSTANTIATE_TEST_SUITE_P(Node, BothProtocols, ::testing::Values(Protocol::migrate, Protocol::msi),
                         [](const auto& protocol) { return std::string(core::name(protocol.param)); });

TEST_P(BothProtocols, WhatOneRankWritesAllOthersRead) {
  FakeCluster cluster(4, 8, GetParam());
  for (core::Page page = 0; page < 8; ++page) {
    cluster[page % 3].touch(page, Access::write, [&](char* bytes) { bytes[17] = static_cast<char>(page + 1); });
  }
  cluster.everywhere([](FakeCluster::Rank& rank, std::size_t) {
    for (core::Page page = 0; page < 8; ++page) {
      rank.touch(page, Access::read, [&](const char* bytes) { EXPECT_EQ(bytes[17], static_cast<char>(page + 1)); });
    }
  });
}

TEST_P(BothProtocols, NoIncrementIsLostWithMoreThreadsThanLanes) {
  constexpr std::uint64_t each = 300;
  for (const std::uint32_t lanes : {1U, 2U}) {
    FakeCluster cluster(3, 4, GetParam(), lanes);
    cluster.everywhere(
        [](FakeCluster::Rank& rank, std::size_t thread) {
          std::minstd_rand random(static_cast<unsigned>(rank.node->rank() * 10) + static_cast<unsigned>(thread) + 1);
          for (std::uint64_t i = 0; i < each; ++i) {
            rank.touch(random() % 4, Access::write, [](char* bytes) { increment(bytes, 3); });
            if (i % 5 == 0) (void)value_at(rank, random() % 4, 3);
          }
        },
        4);
    std::uint64_t sum = 0;
    for (core::Page page = 0; page < 4; ++page) sum += value_at(cluster[0], page, 3);
    EXPECT_EQ(sum, 3 * 4 * each) << lanes << " lanes";
  }
}

TEST_P(BothProtocols, WithoutTheHoldTooNothingIsLost) {
  FakeCluster cluster(2, 1, GetParam(), 2, 0);
  cluster.everywhere(
      [](FakeCluster::Rank& rank, std::size_t) {
        for (int i = 0; i < 500; ++i) rank.touch(0, Access::write, [](char* bytes) { increment(bytes, 0); });
      },
      2);
  EXPECT_EQ(value_at(cluster[1], 0), 2000U);
}

// Design: messages are counted before microseconds.
TEST(Node, CountsTheMessagesOfAMiss) {
  FakeCluster cluster(4, 8, Protocol::msi);
  const auto messages_of = [&](auto&& action) {
    const std::uint64_t before = cluster.total(&Counters::messages);
    action();
    return cluster.total(&Counters::messages) - before;
  };
  const auto nothing = [](char*) {};
  EXPECT_EQ(messages_of([&] { cluster[0].touch(0, Access::write, nothing); }), 0U) << "a home's first touch";
  EXPECT_EQ(messages_of([&] { cluster[1].touch(0, Access::read, nothing); }), 2U) << "clean miss";
  EXPECT_EQ(messages_of([&] { cluster[2].touch(0, Access::read, nothing); }), 2U) << "clean miss";
  EXPECT_EQ(messages_of([&] { cluster[3].touch(0, Access::read, nothing); }), 2U) << "clean miss";
  EXPECT_EQ(messages_of([&] { cluster[1].touch(0, Access::write, nothing); }), 2U + 2 * 2)
      << "upgrade, 2 other readers";
  EXPECT_EQ(messages_of([&] { cluster[2].touch(0, Access::read, nothing); }), 4U) << "dirty miss through the home";
  EXPECT_EQ(messages_of([&] { cluster[0].touch(0, Access::write, nothing); }), 2U * 2)
      << "the home invalidates two copies";
  EXPECT_EQ(messages_of([&] { cluster[0].touch(0, Access::write, nothing); }), 0U) << "a hit";
  EXPECT_EQ(messages_of([&] { cluster[1].touch(0, Access::write, nothing); }), 2U) << "write miss, clean at home";
  EXPECT_EQ(messages_of([&] { cluster[0].touch(0, Access::read, nothing); }), 2U) << "the home recalls";
}

// In every way at once: each number is drawn by one thread only.
void draw_numbers(FakeCluster& cluster) {
  constexpr std::uint64_t each = 300;
  std::array<std::atomic<unsigned>, 3 * 3 * each> times{};
  cluster.everywhere(
      [&](FakeCluster::Rank& rank, std::size_t thread) {
        for (std::uint64_t i = 0; i < each; ++i) {
          std::uint64_t number = 0;
          if (thread != 0) {
            number = rank.node->perform(0, {.kind = core::Atomic::Kind::add, .value = 1});
          } else {
            rank.touch(0, Access::write, [&](char* bytes) {
              number = __atomic_fetch_add(reinterpret_cast<std::uint64_t*>(bytes), 1, __ATOMIC_SEQ_CST);
            });
          }
          times.at(number).fetch_add(1);
        }
      },
      3);
  EXPECT_EQ(value_at(cluster[0], 0), times.size());
  EXPECT_TRUE(std::all_of(times.begin(), times.end(), [](const auto& t) { return t.load() == 1; }));
}

TEST_P(BothProtocols, AtomicOperationsAndInstructionsOnOneWordAreOneSequence) {
  FakeCluster cluster(3, 1, GetParam());
  draw_numbers(cluster);
}

// Three threads of each rank, and one lane: all of them ask for what no rank has ever touched.
TEST_P(BothProtocols, AtomicOperationsFindAPageThatLivesWhereItWasTouchedFirst) {
  for (int round = 0; round < 5; ++round) {
    FakeCluster cluster(3, 1, GetParam(), 1, 100, SIZE_MAX, core::Placement::first_touch);
    draw_numbers(cluster);
  }
}

TEST_P(BothProtocols, PagesThatLiveWhereTheyWereTouchedFirstKeepTheirValues) {
  constexpr core::Page pages = 64;
  FakeCluster cluster(4, pages, GetParam(), 1, 100, SIZE_MAX, core::Placement::first_touch);
  cluster.everywhere(
      [](FakeCluster::Rank& rank, std::size_t thread) {
        for (core::Page i = 0; i < 2 * pages; ++i) {
          rank.touch((i * 7 + static_cast<core::Page>(thread) * 32) % pages, Access::write,
                     [](char* bytes) { increment(bytes, 0); });
        }
      },
      2);
  for (core::Page page = 0; page < pages; ++page) EXPECT_EQ(value_at(cluster[1], page), 16U) << page;
}

TEST(Node, ABarrierOfNCosts2NMinus2Messages) {
  FakeCluster cluster(4, 1, Protocol::msi);
  const std::uint64_t before = cluster.total(&Counters::messages);
  cluster.everywhere([](FakeCluster::Rank& rank, std::size_t) {
    for (int i = 0; i < 100; ++i) rank.node->barrier();
  });
  EXPECT_EQ(cluster.total(&Counters::messages) - before, 100U * 6);
}

TEST(Node, ABarrierSeparatesWhatCameBeforeFromWhatComesAfter) {
  FakeCluster cluster(3, 3, Protocol::msi);
  cluster.everywhere([](FakeCluster::Rank& rank, std::size_t) {
    for (std::uint64_t round = 1; round <= 50; ++round) {
      rank.touch(static_cast<core::Page>(rank.node->rank()), Access::write, [](char* bytes) { increment(bytes, 0); });
      rank.node->barrier();
      for (core::Page page = 0; page < 3; ++page) EXPECT_EQ(value_at(rank, page), round);
      rank.node->barrier();
    }
  });
}

// More runs than the pager bears, all the time: two threads of each rank write two pages in three, and read others; pages of
// their own rank and of others. How far a rank goes over its budget meanwhile depends on how fast the others take back their
// pages; but once they are quiet, each of its steps brings it nearer.
TEST_P(BothProtocols, RunsOfProtectionComeBackIntoTheBudgetAndNothingIsLost) {
  constexpr core::Page pages = 600;
  constexpr std::size_t runs_max = 40, one_step = 2;
  FakeCluster cluster(3, pages, GetParam(), 2, 0, runs_max);
  for (int round = 0; round < 3; ++round) {
    cluster.everywhere(
        [](FakeCluster::Rank& rank, std::size_t thread) {
          for (core::Page page = static_cast<core::Page>(thread); page < pages; page += 3) {
            rank.touch(page, Access::write, [](char* bytes) { increment(bytes, 1); });
            if (page % 2 == 0) (void)value_at(rank, (page * 7 + 1) % pages, 1);
          }
        },
        2);
  }
  for (std::size_t i = 0; i < cluster.size(); ++i) {
    for (core::Page step = 0; cluster[i].pager->runs() > runs_max + one_step && step < 5000; ++step) {
      (void)value_at(cluster[i], step * 7 % pages);
    }
    EXPECT_LE(cluster[i].pager->runs(), runs_max + one_step);
  }
  for (core::Page page = 0; page < pages; ++page) {
    EXPECT_EQ(value_at(cluster[1], page, 1), page % 3 == 2 ? 0U : 9U) << page;
  }
}

TEST(Node, WithTheHoldHardlyAnyGrantIsWasted) {
  FakeCluster cluster(2, 1, Protocol::msi);
  cluster.everywhere(
      [](FakeCluster::Rank& rank, std::size_t) {
        for (int i = 0; i < 20000; ++i) rank.touch(0, Access::write, [](char* bytes) { increment(bytes, 0); });
      },
      2);
  EXPECT_EQ(value_at(cluster[0], 0), 80000U);
  EXPECT_GT(cluster.total(&Counters::grants), 0U);
  EXPECT_LE(cluster.total(&Counters::wasted_grants) * 100, cluster.total(&Counters::grants) + 100);
}

TEST(Node, OneRankAloneNeedsNobody) {
  FakeCluster cluster(1, 4, Protocol::msi);
  cluster[0].touch(2, Access::write, [](char* bytes) { increment(bytes, 0); });
  cluster[0].node->barrier();
  EXPECT_EQ(cluster[0].node->acquire(3), 0);
  EXPECT_EQ(cluster[0].node->release(3), 0);
  EXPECT_EQ(value_at(cluster[0], 2), 1U);
  EXPECT_EQ(cluster.total(&Counters::messages), 0U);
}

}  // namespace
}  // namespace dsm::node
