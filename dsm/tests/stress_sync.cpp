// dsm_stress sync, barriers: threads of several ranks at locks, condition variables, semaphores and barriers.
#include <dsm/dsm.h>

#include <chrono>
#include <cstdio>
#include <random>
#include <thread>
#include <vector>

#include "dsm/tests/stress.hpp"

namespace stress {

namespace {

constexpr std::size_t cells = 16;
constexpr std::size_t room = 3;  // places in the queue
constexpr unsigned permits = 3;  // of the semaphore
constexpr std::size_t page_words = 512;

// What the threads share. Each field on a page of its own, and those of a cell on pages of different homes.
struct Shared {
  struct Cell {
    Word left[page_words], right[page_words];  // each guarded by the lock at `left`, and equal when nobody holds it
  };
  Cell cell[cells];
  struct {
    Word size, put, taken;
    Word items[room];
    char not_full, not_empty;
    Word rest[page_words];
  } queue;                       // guarded by the lock at its address
  Word inside[page_words];       // threads that have a permit; atomic
  Word counted[64][page_words];  // by rank: how often its threads have counted
};

struct Tally {
  Word counted = 0;
  bool ok = true;
};

bool good(int result, const char* what) {
  if (result != 0) std::perror(what);
  return result == 0;
}

bool use_a_cell(Shared::Cell& cell, bool attempt, Tally& tally) {
  if (attempt) {
    if (dsm_trylock_at(cell.left) != 0) return errno == EBUSY;
  } else if (!good(dsm_lock_at(cell.left), "dsm_lock_at")) {
    return false;
  }
  const bool equal = same("sync: the two halves of a cell", cell.left[0], cell.right[0]);
  ++cell.left[0];
  ++cell.right[0];
  ++tally.counted;
  return good(dsm_unlock_at(cell.left), "dsm_unlock_at") && equal;
}

// Puts one, then takes one: as many threads are about to take as there are items, so nobody waits for ever.
bool use_the_queue(Shared& s, Word item) {
  auto& q = s.queue;
  bool ok = good(dsm_lock_at(&q), "dsm_lock_at");
  while (ok && q.size == room) ok = good(dsm_cond_wait_at(&q.not_full, &q), "dsm_cond_wait_at");
  if (!ok) return false;
  q.items[q.size++] = item;
  q.put += item;
  ok = ok && good(dsm_cond_signal_at(&q.not_empty), "dsm_cond_signal_at") && good(dsm_unlock_at(&q), "dsm_unlock_at") &&
       good(dsm_lock_at(&q), "dsm_lock_at");
  while (ok && q.size == 0) ok = good(dsm_cond_wait_at(&q.not_empty, &q), "dsm_cond_wait_at");
  if (!ok) return false;
  q.taken += q.items[--q.size];
  return ok && good(dsm_cond_broadcast_at(&q.not_full), "dsm_cond_broadcast_at") &&
         good(dsm_unlock_at(&q), "dsm_unlock_at");
}

bool use_the_semaphore(Shared& s, dsm_sem_t* sem, bool attempt) {
  if (attempt) {
    if (dsm_sem_trywait(sem) != 0) return errno == EAGAIN;
  } else if (!good(dsm_sem_wait(sem), "dsm_sem_wait")) {
    return false;
  }
  const Word now = __atomic_add_fetch(&s.inside[0], 1, __ATOMIC_SEQ_CST);
  if (now > permits)
    std::fprintf(stderr, "sync: %llu threads inside, %u permits\n", static_cast<unsigned long long>(now), permits);
  __atomic_fetch_sub(&s.inside[0], 1, __ATOMIC_SEQ_CST);
  return good(dsm_sem_post(sem), "dsm_sem_post") && now <= permits;
}

void work(Shared& s, dsm_sem_t* sem, unsigned seed, std::chrono::steady_clock::time_point end, Tally& tally) {
  std::minstd_rand random(seed);
  while (tally.ok && std::chrono::steady_clock::now() < end) {
    const auto what = random() % 8;
    if (what < 4) {
      tally.ok = use_a_cell(s.cell[random() % cells], what == 0, tally);
    } else if (what < 6) {
      tally.ok = use_the_queue(s, random() % 1000);
    } else {
      tally.ok = use_the_semaphore(s, sem, what == 6);
    }
  }
}

bool totals_are_right(Shared& s) {
  Word expected = 0, left = 0, right = 0;
  for (int rank = 0; rank < DSM_NODE_NUM; ++rank) expected += s.counted[rank][0];
  for (const Shared::Cell& cell : s.cell) left += cell.left[0], right += cell.right[0];
  std::printf("sync: %d ranks counted to %llu\n", DSM_NODE_NUM, static_cast<unsigned long long>(left));
  const bool counts = same("sync: left", expected, left) && same("sync: right", expected, right);
  return same("sync: taken from the queue", s.queue.put, s.queue.taken) && same("sync: inside", 0, s.inside[0]) &&
         counts;
}

}  // namespace

bool sync(const Options& o) {
  Shared& s = *shared<Shared>(1);
  dsm_sem_t* const sem = dsm_sem_open("stress", permits);
  if (sem == nullptr) return good(-1, "dsm_sem_open");
  dsm_barrier();
  const auto end = std::chrono::steady_clock::now() +
                   std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::duration<double>(o.seconds));
  std::vector<Tally> tallies(o.threads);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < o.threads; ++t) {
    const unsigned seed = (o.seed * 64 + static_cast<unsigned>(DSM_NODE_ID)) * 64 + t + 1;
    threads.emplace_back([&, t, seed] { work(s, sem, seed, end, tallies[t]); });
  }
  for (std::thread& thread : threads) thread.join();
  bool ok = good(dsm_sem_close(sem), "dsm_sem_close");
  for (const Tally& tally : tallies) {
    s.counted[DSM_NODE_ID][0] += tally.counted;
    ok = ok && tally.ok;
  }
  dsm_barrier();
  return (DSM_NODE_ID != 0 || totals_are_right(s)) && ok;
}

// Between two barriers each rank adds one to its word, and sees that all others have done so as often.
bool barriers(const Options& o) {
  Word* const passed = shared<Word>(static_cast<std::size_t>(DSM_NODE_NUM) * page_words);
  for (Word round = 1; round <= o.rounds; ++round) {
    if (round % 100 == 1) ++passed[static_cast<std::size_t>(DSM_NODE_ID) * page_words];
    if (!good(dsm_barrier(), "dsm_barrier")) return false;
    for (int rank = 0; round % 100 == 1 && rank < DSM_NODE_NUM; ++rank) {
      if (!same("barriers: a rank's round", round / 100 + 1, passed[static_cast<std::size_t>(rank) * page_words]))
        return false;
    }
    if (round % 100 == 1 && !good(dsm_barrier(), "dsm_barrier")) return false;
  }
  if (DSM_NODE_ID == 0) std::printf("barriers: %llu passed\n", static_cast<unsigned long long>(o.rounds));
  return true;
}

}  // namespace stress
