// dsm_stress atomic: threads of all ranks draw numbers from one word, in every way there is. Each number must be drawn once.
#include <dsm/dsm.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <random>
#include <thread>
#include <vector>

#include "dsm/tests/stress.hpp"

namespace stress {

namespace {

enum class Way : unsigned { fetch_add, compare_swap, instruction, count };

// The next number. False if the word was not what it was said to be.
bool draw(Word* word, Way way, Word& number) {
  switch (way) {
    case Way::fetch_add:
      number = dsm_fetch_add_u64(word, 1);
      return true;
    case Way::compare_swap:
      number = 0;
      while (dsm_compare_swap_u64(word, &number, number + 1) != 0) {
        if (errno != EAGAIN) return (std::perror("dsm_compare_swap_u64"), false);
      }
      return true;
    case Way::instruction:  // this one brings the page here
      number = __atomic_fetch_add(word, 1, __ATOMIC_SEQ_CST);
      return true;
    case Way::count:
      break;
  }
  return false;
}

bool refuses(Word* word) {
  Word there = 1;
  const bool ok = dsm_compare_swap_u64(word, &there, 5) == -1 && errno == EAGAIN && there == 0 &&
                  dsm_compare_swap_u64(&there, &there, 5) == -1 && errno == EINVAL &&
                  dsm_compare_swap_u64(reinterpret_cast<Word*>(reinterpret_cast<char*>(word) + 4), &there, 5) == -1 &&
                  errno == EINVAL && dsm_compare_swap_u64(word, nullptr, 5) == -1 && errno == EINVAL;
  return same("atomic: what cannot be is refused", 1, ok ? 1 : 0);
}

bool each_once(const Word* times, Word numbers) {
  Word wrong = 0;
  for (Word i = 0; i < numbers; ++i) wrong += times[i] == 1 ? 0 : 1;
  return same("atomic: numbers that were not drawn exactly once", 0, wrong);
}

}  // namespace

bool atomic(const Options& o) {
  Word* const word = shared<Word>(1);
  const Word numbers = static_cast<Word>(DSM_NODE_NUM) * o.threads * o.rounds;
  Word* const times = shared<Word>(numbers);
  std::atomic<bool> ok{refuses(word)};
  dsm_barrier();
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < o.threads; ++t) {
    threads.emplace_back([&, t] {
      std::minstd_rand random(o.seed + 64 * static_cast<unsigned>(DSM_NODE_ID) + t + 1);
      for (Word i = 0; i < o.rounds; ++i) {
        Word number = 0;
        const auto way = static_cast<Way>(random() % static_cast<unsigned>(Way::count));
        if (!draw(word, way, number) || number >= numbers) {
          ok = false;
          return;
        }
        dsm_fetch_add_u64(&times[number], 1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  dsm_barrier();
  if (DSM_NODE_ID == 0) {
    ok = same("atomic: the word", numbers, *word) && each_once(times, numbers) && ok;
    std::printf("atomic: %llu numbers drawn once each\n", static_cast<unsigned long long>(numbers));
  }
  return ok;
}

}  // namespace stress
