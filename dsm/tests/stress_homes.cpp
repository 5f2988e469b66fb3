// dsm_stress homes --how cyclic|block|first-touch: where pages live under dsmexec --home, told by what touching them costs.
//
//   $ build/bin/dsmexec -n 3 --home block machine_file dsm_stress homes --how block
//
// One allocation of as many equal parts as there are ranks. Each rank in its turn writes its own part, then its neighbour's,
// and counts the questions that it has asked: nobody else does anything meanwhile.
//
// dsm_stress alarms: atomic operations on pages that this rank has never had, while a signal handler touches others.
//
// dsm_stress tables: how many bytes libdsm keeps for each page that all ranks have touched.
#include <dsm/dsm.h>
#include <signal.h>
#include <sys/time.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <string>

#include "dsm/tests/stress.hpp"

namespace stress {

namespace {

constexpr std::size_t part = 30;  // pages

class Array {
 public:
  explicit Array(const Options& o)
      : words_(shared<Word>(static_cast<std::size_t>(DSM_NODE_NUM) * part * dsm_page_size() / sizeof(Word))),
        first_(static_cast<std::size_t>(reinterpret_cast<char*>(words_) - o.region) / dsm_page_size()) {}
  [[nodiscard]] volatile Word& word(std::size_t page) const { return words_[page * dsm_page_size() / sizeof(Word)]; }
  // Of one rank's part, those pages of which this rank is home or manager if pages are dealt in turn.
  [[nodiscard]] Word in_turn_here(int rank) const {
    Word count = 0;
    for (std::size_t i = 0; i < part; ++i) {
      const std::size_t page = first_ + static_cast<std::size_t>(rank) * part + i;
      count += page % static_cast<std::size_t>(DSM_NODE_NUM) == static_cast<std::size_t>(DSM_NODE_ID) ? 1 : 0;
    }
    return count;
  }

 private:
  Word* words_;
  std::size_t first_;
};

Word messages() {
  struct dsm_stats now {};
  dsm_stats(&now);
  return now.messages;
}

// Each rank in its turn; true if the number of messages that this one has sent in its own is right.
bool in_turns(const char* what, Word expected, const std::function<void()>& act) {
  Word sent = 0;
  for (int rank = 0; rank < DSM_NODE_NUM; ++rank) {
    if (dsm_barrier() != 0) return false;
    if (rank != DSM_NODE_ID) continue;
    const Word before = messages();
    act();
    sent = messages() - before;
  }
  return same(what, expected, sent);
}

// KiB of this process's own memory, and of what it publishes for dsmtop (a System V segment).
long own_kib() {
  long sum = 0;
  bool published = false;
  std::ifstream maps("/proc/self/smaps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find(" kB") == std::string::npos) published = line.find("SYSV") != std::string::npos;  // a mapping begins
    const bool counts = line.rfind("Anonymous:", 0) == 0 || (published && line.rfind("Rss:", 0) == 0);
    if (counts) sum += std::atol(line.c_str() + line.find(':') + 1);
  }
  return sum;
}

Word* touched_by_alarms = nullptr;
std::size_t alarm_page = 0;
constexpr std::size_t alarm_pages = 500;

void on_alarm(int) {
  const std::size_t page = alarm_page++ % alarm_pages;
  __atomic_fetch_add(&touched_by_alarms[page * dsm_page_size() / sizeof(Word)], 1, __ATOMIC_RELAXED);
}

}  // namespace

bool alarms(const Options&) {
  constexpr std::size_t pages = 500;
  const std::size_t stride = dsm_page_size() / sizeof(Word);
  touched_by_alarms = shared<Word>(alarm_pages * stride);
  Word* const counters = shared<Word>(pages * stride);
  if (dsm_barrier() != 0) return false;
  struct sigaction action {};
  action.sa_handler = on_alarm;
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGALRM, &action, nullptr);
  const itimerval often{{0, 1000}, {0, 1000}}, never{};  // microseconds
  ::setitimer(ITIMER_REAL, &often, nullptr);
  for (std::size_t page = 0; page < pages; ++page) dsm_fetch_add_u64(&counters[page * stride], page);
  ::setitimer(ITIMER_REAL, &never, nullptr);
  if (dsm_barrier() != 0) return false;
  bool ok = alarm_page > 10;
  if (!ok) std::fprintf(stderr, "alarms: only %zu signals came\n", alarm_page);
  for (std::size_t page = 0; page < pages; ++page) {
    ok = same("alarms: a counter", page * static_cast<Word>(DSM_NODE_NUM), counters[page * stride]) && ok;
  }
  return ok;
}

// Every page is read by every rank, and so has its entry in all tables. First each rank reads its own part: under
// first-touch a page's home keeps the larger tables, and one rank might else be the home of all.
bool tables(const Options& o) {
  const volatile char* const bytes = shared<char>(o.pages * dsm_page_size());
  const auto read = [&](std::size_t first, std::size_t end) {
    for (std::size_t page = first; page < end; ++page) static_cast<void>(bytes[page * dsm_page_size()]);
    return dsm_barrier() == 0;
  };
  const auto rank = static_cast<std::size_t>(DSM_NODE_ID), ranks = static_cast<std::size_t>(DSM_NODE_NUM);
  if (!read(0, 0)) return false;
  const long before = own_kib();
  if (!read(o.pages * rank / ranks, o.pages * (rank + 1) / ranks) || !read(0, o.pages)) return false;
  const double each = static_cast<double>(own_kib() - before) * 1024 / static_cast<double>(o.pages);
  std::printf("tables: %.1f bytes a page\n", each);
  if (each > 5 && each <= 24) return true;
  std::fprintf(stderr, "tables: %.1f bytes a page, not 5 to 24\n", each);
  return false;
}

bool homes(const Options& o) {
  const Array array(o);
  const int neighbour = (DSM_NODE_ID + 1) % DSM_NODE_NUM;
  const auto write = [&](int rank, Word value) {
    for (std::size_t i = 0; i < part; ++i) {  // one instruction, and so one fault
      __atomic_fetch_add(&array.word(static_cast<std::size_t>(rank) * part + i), value + i, __ATOMIC_RELAXED);
    }
  };
  const Word far_own = part - array.in_turn_here(DSM_NODE_ID), far_next = part - array.in_turn_here(neighbour);
  const bool cyclic = o.how == "cyclic", block = o.how == "block";
  if (!cyclic && !block && o.how != "first-touch") {
    std::fprintf(stderr, "homes: --how cyclic, block or first-touch is needed\n");
    return false;
  }
  // cyclic: asks the home. block: lives here. first-touch: asks the manager where the page lives: here.
  bool ok = in_turns("homes: questions about the own part", block ? 0 : far_own, [&] { write(DSM_NODE_ID, 1); });
  // The neighbour has written it: the page is asked for at its home, or called back from there, once. Where it lives must
  // be asked first, if that is where it was touched first.
  ok = in_turns("homes: questions about the neighbour's part", cyclic || block ? part : part + far_next,
                [&] { write(neighbour, 100); }) &&
       ok;
  dsm_barrier();
  Word sum = 0, expected = 0;
  for (std::size_t page = 0; page < static_cast<std::size_t>(DSM_NODE_NUM) * part; ++page) {
    sum += array.word(page);
    expected += 101 + 2 * (page % part);
  }
  return same("homes: the sum of what was written", expected, sum) && ok;
}

}  // namespace stress
