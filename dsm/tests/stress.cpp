// dsm_stress - programs that make ranks quarrel about pages, and know what must come out.
//
//   $ build/bin/dsmexec machine_file dsm_stress rmw --rounds 500
//   $ build/bin/dsmexec -n 2 machine_file dsm_stress hammer --threads 4 --seconds 2
//
// Each ends with exit 0 and one line on rank 0, or says what was wrong and exits 1.
#include "dsm/tests/stress.hpp"

#include <dsm/dsm.h>
#include <pthread.h>

#include <array>
#include <atomic>
#include <boost/program_options.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "dsm/tests/command_line.hpp"

namespace {

namespace po = boost::program_options;

using stress::Options;
using stress::same;
using stress::shared;
using stress::Word;

// Four pages of counters; every rank adds to random ones: with an atomic instruction, or plainly under a lock.
bool rmw(const Options& o) {
  constexpr std::size_t pages = 4;
  const std::size_t words = pages * dsm_page_size() / sizeof(Word);
  Word* counters = shared<Word>(words);
  Word* added = shared<Word>(64 * 512);  // each rank's own page: what it has added in all
  std::minstd_rand random(o.seed * 64 + static_cast<unsigned>(DSM_NODE_ID) + 1);
  Word sum = 0;
  for (std::uint64_t i = 0; i < o.rounds; ++i) {
    const std::size_t at = random() % words;
    const Word by = random() % 100;
    if (i % 2 == 0) {
      __atomic_fetch_add(&counters[at & ~std::size_t{1}], by, __ATOMIC_SEQ_CST);
    } else {
      const auto lock = static_cast<unsigned>(at % 7);
      if (dsm_lock(lock) != 0) return false;
      Word& mine = counters[lock * 64 + 1];  // a word that only this lock guards
      mine = mine + by;
      if (dsm_unlock(lock) != 0) return false;
    }
    sum += by;
  }
  added[DSM_NODE_ID * 512] = sum;
  dsm_barrier();
  if (DSM_NODE_ID != 0) return true;
  Word expected = 0, found = 0;
  for (int r = 0; r < DSM_NODE_NUM; ++r) expected += added[r * 512];
  for (std::size_t i = 0; i < words; ++i) found += counters[i];
  std::printf("rmw: %d ranks added %llu\n", DSM_NODE_NUM, static_cast<unsigned long long>(found));
  return same("rmw: sum of the counters", expected, found);
}

// All threads of all ranks add to one word. Exact, and nobody is left out.
bool hammer(const Options& o) {
  constexpr std::size_t max_threads = 64;
  Word* counter = shared<Word>(1);
  Word* shares = shared<Word>(64 * 512);
  std::vector<std::array<Word, 8>> done(o.threads);  // a cache line each
  std::atomic<unsigned> ready{0};
  if (o.threads > max_threads) return false;
  dsm_barrier();
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(o.seconds);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < o.threads; ++t) {
    threads.emplace_back([&, t] {
      ready.fetch_add(1);
      while (ready.load() < o.threads) std::this_thread::yield();
      while (std::chrono::steady_clock::now() < end) {
        for (int i = 0; i < 64; ++i) __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
        done[t][0] += 64;
      }
    });
  }
  for (auto& t : threads) t.join();
  for (unsigned t = 0; t < o.threads; ++t) shares[static_cast<unsigned>(DSM_NODE_ID) * 512 + t] = done[t][0];
  struct dsm_stats stats {};
  dsm_stats(&stats);
  shares[static_cast<unsigned>(DSM_NODE_ID) * 512 + 64] = stats.grants;
  shares[static_cast<unsigned>(DSM_NODE_ID) * 512 + 65] = stats.wasted_grants;
  dsm_barrier();
  if (DSM_NODE_ID != 0) return true;
  Word total = 0, least = ~Word{0}, grants = 0, wasted = 0;
  for (int r = 0; r < DSM_NODE_NUM; ++r) {
    for (unsigned t = 0; t < o.threads; ++t) {
      total += shares[r * 512 + static_cast<int>(t)];
      least = std::min(least, shares[r * 512 + static_cast<int>(t)]);
    }
    grants += shares[r * 512 + 64];
    wasted += shares[r * 512 + 65];
  }
  const Word fair = total / (static_cast<Word>(DSM_NODE_NUM) * o.threads);
  std::printf("hammer: total %llu, fair share %llu, least %llu, grants %llu, wasted %llu\n",
              static_cast<unsigned long long>(total), static_cast<unsigned long long>(fair),
              static_cast<unsigned long long>(least), static_cast<unsigned long long>(grants),
              static_cast<unsigned long long>(wasted));
  bool ok = same("hammer: the counter", total, *counter);
  if (least * 10 < fair)
    ok = (std::fprintf(stderr, "hammer: a thread got less than a tenth of its fair share\n"), false);
  if (wasted * 100 > grants) ok = (std::fprintf(stderr, "hammer: more than 1 %% of the grants were wasted\n"), false);
  return ok;
}

// Faults inside printf, while it holds stdout's lock, with a second thread that wants the lock.
bool print(const Options& o) {
  char* text = shared<char>(dsm_page_size());
  for (std::uint64_t i = 0; i < o.rounds; ++i) {
    if (DSM_NODE_ID == static_cast<int>(i % static_cast<Word>(DSM_NODE_NUM))) {
      std::snprintf(text, dsm_page_size(), "line %llu", static_cast<unsigned long long>(i));
    }
    dsm_barrier();
    std::thread other([i] { std::printf("other %llu\n", static_cast<unsigned long long>(i)); });
    std::printf("%s\n", text);
    other.join();
    dsm_barrier();
  }
  return true;
}

// One instruction that needs two pages, while another rank does the same the other way round.
void straddle_once(char* first, char* second, bool forward, Word value) {
  char* from = forward ? first : second;
  char* to = forward ? second : first;
#if defined(__x86_64__)
  std::memcpy(from, &value, sizeof value);
  asm volatile("movsq" : "+S"(from), "+D"(to) : : "memory");  // reads one page and writes the other
#else
  std::memmove(to, from, sizeof value);
#endif
}

bool straddle(const Options& o) {
  const std::size_t page = dsm_page_size();
  char* region = shared<char>(4 * page);
  auto* across = reinterpret_cast<Word*>(region + page - 4);  // unaligned: four bytes on each page
  const bool forward = DSM_NODE_ID % 2 == 0;
  for (std::uint64_t i = 0; i < o.rounds; ++i) {
    straddle_once(region + 2 * page + 64, region + 3 * page + 128, forward, i);
#if defined(__x86_64__)
    asm volatile("addq $1, %0" : "+m"(*across) : : "cc");
#else
    std::memcpy(across, &i, sizeof i);
#endif
  }
  dsm_barrier();
  if (DSM_NODE_ID == 0)
    std::printf("straddle: %llu rounds on each of %d ranks\n", static_cast<unsigned long long>(o.rounds), DSM_NODE_NUM);
  return true;
}

// One rank that misbehaves, for tests of how a job fails.
bool wild() {
  dsm_barrier();
  static int* volatile nowhere = nullptr;
  if (DSM_NODE_ID == DSM_NODE_NUM - 1) *(nowhere + 2) = 1;
  dsm_barrier();
  return true;
}

bool leave() {
  dsm_barrier();
  if (DSM_NODE_ID == DSM_NODE_NUM - 1) std::_Exit(0);
  dsm_barrier();
  return true;
}

bool unlike() {
  (void)dsm_alloc(DSM_NODE_ID == 2 ? 8192 : 4096);
  dsm_barrier();
  return true;
}

bool unlike_broadcast() {
  char byte = 0;
  return dsm_broadcast(DSM_NODE_ID == 1 ? 1 : 0, &byte, 1) == 0;
}

bool astray() {
  static std::uint64_t mine = 0;
  dsm_barrier();
  if (DSM_NODE_ID == 1) dsm_fetch_add_u64(&mine, 1);
  return true;
}

bool late() {
  dsm_finalize();
  if (DSM_NODE_ID == 1) (void)dsm_lock(3);
  std::exit(0);
}

struct Test {
  const char* name;
  bool (*run)(const Options& o);
};

constexpr Test tests[] = {
    {"rmw", rmw},
    {"hammer", hammer},
    {"print", print},
    {"straddle", straddle},
    {"sync", stress::sync},
    {"barriers", stress::barriers},
    {"messages", stress::messages},
    {"atomic", stress::atomic},
    {"syscalls", stress::syscalls},
    {"collective", stress::collective},
    {"heap", stress::heap},
    {"heap-map", stress::heap_map},
    {"heap-named", stress::heap_named},
    {"heap-full", stress::heap_full},
    {"heap-misuse", stress::heap_misuse},
    {"checkerboard", stress::checkerboard},
    {"homes", stress::homes},
    {"tables", stress::tables},
    {"alarms", stress::alarms},
    {"pin", stress::pin},
    {"no-memory", stress::no_memory},
    // one rank that misbehaves
    {"wild", [](const Options&) { return wild(); }},
    {"leave", [](const Options&) { return leave(); }},
    {"unlike", [](const Options&) { return unlike(); }},
    {"unlike-broadcast", [](const Options&) { return unlike_broadcast(); }},
    {"astray", [](const Options&) { return astray(); }},
    {"late", [](const Options&) { return late(); }},
};

std::string names() {
  std::string all;
  for (const Test& test : tests) all += (all.empty() ? "" : "|") + std::string(test.name);
  return all;
}

bool run(const Options& o) {
  for (const Test& test : tests) {
    if (o.what == test.name) return test.run(o);
  }
  std::fprintf(stderr, "dsm_stress: no such test '%s'; there are %s\n", o.what.c_str(), names().c_str());
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  po::options_description options("dsm_stress " + names());
  options.add_options()("help,h", "this text")("what", po::value(&o.what)->required(), "the test")(
      "rounds", po::value(&o.rounds), "how often; of heap: how many dsm_malloc and dsm_free in all")(
      "threads", po::value(&o.threads), "of each rank (hammer, sync, atomic, heap, heap-named)")(
      "seconds", po::value(&o.seconds), "how long (hammer, sync)")("seed", po::value(&o.seed), "of what is random")(
      "how", po::value(&o.how),
      "which misuse (heap-misuse): foreign|alloc|inside|misaligned|twice|late-malloc|late-free|late-finalize|late-read|"
      "late-write; which --home (homes)")(
      "pages", po::value(&o.pages), "to touch every other one of (checkerboard), or all of (tables)")(
      "migrate", po::bool_switch(&o.migrate), "the protocol is migrate (messages)");
  if (const auto code = command_line::read(argc, argv, "dsm_stress", options, "what")) return *code;
  return command_line::run_in_job(argc, argv, [&o](char* region) {
    o.region = region;
    return run(o);
  });
}
