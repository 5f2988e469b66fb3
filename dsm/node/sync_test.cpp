// Locks, condition variables and semaphores among the threads of several nodes, over real connections.
#include <gtest/gtest.h>

#include <deque>
#include <random>
#include <set>
#include <thread>

#include "dsm/node/fake_cluster.hpp"
#include "dsm/node/keys.hpp"
#include "dsm/node/node.hpp"

namespace dsm::node {
namespace {

using core::Protocol;
using telemetry::Counters;
using testing::FakeCluster;

std::uint64_t messages(const FakeCluster& cluster) { return cluster.total(&Counters::messages); }

// A lock of one rank, for the std::scoped_lock of the tests.
class Guard {
 public:
  Guard(FakeCluster::Rank& rank, core::Key lock) : node_(*rank.node), lock_(lock) {
    EXPECT_EQ(node_.acquire(lock_), 0);
  }
  ~Guard() { EXPECT_EQ(node_.release(lock_), 0); }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

 private:
  Node& node_;
  core::Key lock_;
};

TEST(NodeLock, LetsOneThreadInAtATime) {
  for (const std::uint32_t lanes : {1U, 4U}) {
    FakeCluster cluster(3, 2, Protocol::msi, lanes);
    int inside = 0;  // guarded by the DSM lock only
    std::uint64_t total = 0;
    cluster.everywhere(
        [&](FakeCluster::Rank& rank, std::size_t thread) {
          for (int i = 0; i < 200; ++i) {
            if ((i + static_cast<int>(thread)) % 3 == 0) {
              if (rank.node->try_acquire(7) != 0) continue;
            } else {
              ASSERT_EQ(rank.node->acquire(7), 0);
            }
            EXPECT_EQ(++inside, 1);
            ++total;
            --inside;
            ASSERT_EQ(rank.node->release(7), 0);
          }
        },
        3);
    EXPECT_GE(total, 3U * 3 * 133);
  }
}

TEST(NodeLock, CountsItsMessages) {
  FakeCluster cluster(4, 1, Protocol::msi);
  const auto cost = [&](auto&& action) {
    const std::uint64_t before = messages(cluster);
    action();
    return messages(cluster) - before;
  };
  const auto use = [&](std::size_t rank) { return cost([&] { const Guard guard(cluster[rank], 4); }); };
  EXPECT_EQ(use(0), 0U) << "at its home";
  EXPECT_EQ(use(1), 2U) << "asked of the home";
  EXPECT_EQ(use(1), 0U) << "cached";
  EXPECT_EQ(use(2), 3U) << "asked of the last holder";
  EXPECT_EQ(use(0), 2U) << "the home asks the last holder";
  EXPECT_EQ(cost([&] {
              EXPECT_EQ(cluster[3].node->try_acquire(4), 0);
              EXPECT_EQ(cluster[3].node->try_acquire(4), EBUSY);
              EXPECT_EQ(cluster[3].node->release(4), 0);
            }),
            2U);
  EXPECT_EQ(cost([&] {
              EXPECT_EQ(cluster[3].node->acquire(4), 0);
              EXPECT_EQ(cluster[1].node->try_acquire(4), EBUSY);
              EXPECT_EQ(cluster[3].node->release(4), 0);
            }),
            4U);
}

// Three others wait in a row: each gets it from the one before with one message.
TEST(NodeLock, IsHandedOnWithOneMessage) {
  FakeCluster cluster(4, 1, Protocol::msi);
  std::uint64_t before = 0;
  std::vector<std::thread> waiting;
  {
    const Guard guard(cluster[0], 0);
    for (std::size_t rank = 1; rank < 4; ++rank) {
      waiting.emplace_back([&, rank] { const Guard mine(cluster[rank], 0); });
      // The home has told the one before (or noted it itself): each want costs itself, and that.
      while (messages(cluster) < (rank == 1 ? 1 : 2 * rank - 1)) std::this_thread::yield();
    }
    before = messages(cluster);
  }
  for (std::thread& thread : waiting) thread.join();
  EXPECT_EQ(messages(cluster) - before, 3U);
}

TEST(NodeLock, SaysWhatIsWrongWithItsUse) {
  FakeCluster cluster(2, 1, Protocol::msi);
  Node& node = *cluster[0].node;
  EXPECT_EQ(node.release(1), EPERM);
  EXPECT_EQ(node.cond_wait(5, 1), EPERM);
  EXPECT_EQ(node.acquire(1), 0);
  EXPECT_EQ(node.acquire(1), EDEADLK);
  EXPECT_EQ(node.try_acquire(1), EBUSY);
  std::thread([&] {
    EXPECT_EQ(node.release(1), EPERM);
    EXPECT_EQ(node.cond_wait(5, 1), EPERM);
  }).join();
  EXPECT_EQ(cluster[1].node->release(1), EPERM);
  EXPECT_EQ(node.release(1), 0);
}

TEST(NodeLock, OfTheLibraryIsHadHoweverManyThreadsWaitForOthers) {
  FakeCluster cluster(2, 1, Protocol::msi);
  Node& node = *cluster[0].node;
  ASSERT_EQ(node.acquire(1), 0);
  std::vector<std::thread> waiting;
  std::atomic<int> refused{0};
  for (int i = 0; i < 193; ++i) {  // one more than there are places to wait for others
    waiting.emplace_back([&] {
      const int error = node.acquire(1);
      if (error == EAGAIN) {
        ++refused;
      } else {
        EXPECT_EQ(error, 0);
        EXPECT_EQ(node.release(1), 0);
      }
    });
  }
  while (refused == 0) std::this_thread::yield();  // then all others wait
  int count = 0;
  cluster.everywhere(
      [&](FakeCluster::Rank& rank, std::size_t) {
        for (int i = 0; i < 50; ++i) {
          ASSERT_EQ(rank.node->acquire_own(heap_lock), 0);
          rank.touch(0, core::Access::write, [](char* page) { ++*page; });
          ++count;
          ASSERT_EQ(rank.node->release(heap_lock), 0);
        }
      },
      4);
  EXPECT_EQ(count, 400);
  EXPECT_EQ(node.release(1), 0);
  for (std::thread& thread : waiting) thread.join();
  EXPECT_EQ(refused, 1);
}

// The kernel gives the number of a thread that has ended to the next one.
TEST(NodeLock, IsNotInheritedByAThreadOfTheSameNumber) {
  FakeCluster cluster(1, 1, Protocol::msi);
  Node& node = *cluster[0].node;
  std::thread([&] { EXPECT_EQ(node.acquire(1), 0); }).join();
  for (int i = 0; i < 100; ++i) std::thread([&] { EXPECT_EQ(node.release(1), EPERM); }).join();
}

TEST(NodeLock, LocksNamedByAddressesOfAnyStrideAreSpreadOverTheRanks) {
  for (const std::uint64_t stride : {1U, 4U, 8U, 24U, 64U, 4096U, 65536U}) {
    for (const std::uint64_t ranks : {2U, 3U, 4U, 8U}) {
      std::array<int, 8> homes{};
      std::set<core::Key> keys;
      for (std::uint64_t i = 0; i < 4000; ++i) {
        const core::Key key = key_of_offset(i * stride);
        EXPECT_GE(key, 65536U) << "a number's";
        keys.insert(key);
        ++homes[key % ranks];
      }
      EXPECT_EQ(keys.size(), 4000U);
      for (std::size_t rank = 0; rank < ranks; ++rank) {
        EXPECT_GT(homes[rank], 4000 / static_cast<int>(ranks) / 2) << "stride " << stride << ", rank " << rank;
      }
    }
  }
}

TEST(NodeCondition, HandsEachThingFromOneProducerToOneConsumer) {
  constexpr core::Key lock = 3, not_empty = 4, not_full = 5;
  constexpr std::uint64_t each = 300;
  for (const std::uint32_t lanes : {1U, 4U}) {
    FakeCluster cluster(3, 1, Protocol::msi, lanes);
    std::deque<std::uint64_t> queue;  // guarded by the DSM lock
    std::uint64_t sum = 0;
    cluster.everywhere(
        [&](FakeCluster::Rank& rank, std::size_t thread) {
          Node& node = *rank.node;
          for (std::uint64_t i = 1; i <= each; ++i) {
            const Guard guard(rank, lock);
            if (thread % 2 == 0) {
              while (queue.size() == 4) ASSERT_EQ(node.cond_wait(not_full, lock), 0);
              queue.push_back(i);
              ASSERT_EQ(node.cond_signal(not_empty, false), 0);
            } else {
              while (queue.empty()) ASSERT_EQ(node.cond_wait(not_empty, lock), 0);
              sum += queue.front();
              queue.pop_front();
              ASSERT_EQ(node.cond_signal(not_full, false), 0);
            }
          }
        },
        4);
    EXPECT_EQ(sum, 3 * 2 * each * (each + 1) / 2) << lanes << " lanes";
  }
}

TEST(NodeCondition, ABroadcastWakesAll) {
  constexpr core::Key lock = 1, opened = 2;
  FakeCluster cluster(3, 1, Protocol::msi);
  int waiting = 0;
  bool open = false;  // both guarded by the DSM lock
  cluster.everywhere(
      [&](FakeCluster::Rank& rank, std::size_t) {
        const Guard guard(rank, lock);
        if (++waiting == 12) {
          open = true;
          ASSERT_EQ(rank.node->cond_signal(opened, true), 0);
        }
        while (!open) ASSERT_EQ(rank.node->cond_wait(opened, lock), 0);
      },
      4);
  EXPECT_EQ(waiting, 12);
}

TEST(NodeSemaphore, IsPassedAsOftenAsItWasPosted) {
  constexpr core::Key places = 7;
  for (const std::uint32_t lanes : {1U, 4U}) {
    FakeCluster cluster(3, 1, Protocol::msi, lanes);
    std::atomic<int> inside{0}, most{0};
    cluster.everywhere(
        [&](FakeCluster::Rank& rank, std::size_t thread) {
          ASSERT_EQ(rank.node->sem_open(places, 2), 0);
          for (int i = 0; i < 100; ++i) {
            if (thread == 0) {
              while (rank.node->sem_wait(places, true) == EBUSY) std::this_thread::yield();
            } else {
              ASSERT_EQ(rank.node->sem_wait(places, false), 0);
            }
            const int now = ++inside;
            EXPECT_LE(now, 2);
            if (now > most) most = now;
            --inside;
            ASSERT_EQ(rank.node->sem_post(places), 0);
          }
        },
        3);
    EXPECT_GE(most, 1);
    EXPECT_EQ(cluster[0].node->sem_wait(places, true), 0);
    EXPECT_EQ(cluster[1].node->sem_wait(places, true), 0);
    EXPECT_EQ(cluster[2].node->sem_wait(places, true), EBUSY);
  }
}

TEST(NodeSemaphore, APostIsSeenByWhoeverComesAfterABarrier) {
  FakeCluster cluster(4, 1, Protocol::msi);
  cluster.everywhere([](FakeCluster::Rank& rank, std::size_t) {
    ASSERT_EQ(rank.node->sem_open(9, 0), 0);
    for (int round = 0; round < 200; ++round) {
      const int poster = round % 4, taker = (round / 4) % 4;
      if (rank.node->rank() == poster) {
        ASSERT_EQ(rank.node->sem_post(9), 0);
      }
      rank.node->barrier();
      if (rank.node->rank() == taker) {
        ASSERT_EQ(rank.node->sem_wait(9, true), 0) << "round " << round;
      }
      rank.node->barrier();
    }
  });
}

TEST(NodeSemaphore, CountsItsMessages) {
  FakeCluster cluster(2, 1, Protocol::msi);
  ASSERT_EQ(cluster[1].node->sem_open(4, 1), 0);
  const std::uint64_t before = messages(cluster);
  ASSERT_EQ(cluster[1].node->sem_wait(4, false), 0);
  ASSERT_EQ(cluster[1].node->sem_post(4), 0);
  ASSERT_EQ(cluster[0].node->sem_wait(4, false), 0);
  EXPECT_EQ(messages(cluster) - before, 4U);
}

// Locks, tries, semaphores, and signals that nobody waits for, drawn at random: the totals come out, and nobody is left waiting.
TEST(NodeSync, AllAtOnce) {
  FakeCluster cluster(3, 4, Protocol::msi, 2);
  constexpr std::size_t locks = 5;
  std::array<std::uint64_t, locks> counts{};  // each guarded by its DSM lock
  std::atomic<std::uint64_t> expected{0};
  cluster.everywhere(
      [&](FakeCluster::Rank& rank, std::size_t thread) {
        Node& node = *rank.node;
        std::minstd_rand random(static_cast<unsigned>(node.rank() * 16) + static_cast<unsigned>(thread) + 1);
        ASSERT_EQ(node.sem_open(100, 3), 0);
        for (int i = 0; i < 400; ++i) {
          const std::size_t lock = random() % locks;
          const unsigned what = random() % 8;
          if (what == 0) {
            ASSERT_EQ(node.sem_wait(100, false), 0);
            ASSERT_EQ(node.sem_post(100), 0);
          } else if (what == 1) {
            ASSERT_EQ(node.cond_signal(50 + lock, random() % 2 == 0), 0);
          } else {
            const int error = what > 3 ? node.acquire(lock) : node.try_acquire(lock);
            if (what <= 3 && error == EBUSY) continue;
            ASSERT_EQ(error, 0);
            ++counts[lock];
            expected.fetch_add(1);
            ASSERT_EQ(node.release(lock), 0);
          }
        }
      },
      4);
  std::uint64_t total = 0;
  for (const std::uint64_t count : counts) total += count;
  EXPECT_EQ(total, expected.load());
}

}  // namespace
}  // namespace dsm::node
