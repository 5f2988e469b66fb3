// dsm_stress checkerboard: every other page of a long stretch is touched, which makes a mapping of each (vm.max_map_count).
// dsm_stress pin: system calls into pages that another rank writes all the time.
// dsm_stress no-memory: a rank finds no memory for one more page.
//
//   $ build/bin/dsmexec -n 2 --size 1G machine_file dsm_stress checkerboard --pages 200000
//   $ build/bin/dsmexec -n 3 machine_file dsm_stress pin --rounds 20
#include <dsm/dsm.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "dsm/tests/stress.hpp"

namespace {

std::atomic<bool> no_memory_left{false};

}  // namespace

// In front of the C library's: memory is out when the program says so.
extern "C" int madvise(void* address, std::size_t length, int advice) noexcept {
  constexpr int populate_write = 23;  // MADV_POPULATE_WRITE
  if (advice != populate_write || !no_memory_left.load()) {
    return static_cast<int>(::syscall(SYS_madvise, address, length, advice));
  }
  errno = ENOMEM;
  return -1;
}

namespace stress {

namespace {

Word number_in(const char* file) {
  Word number = 0;
  std::ifstream(file) >> number;
  return number;
}

Word mappings() {
  Word lines = 0;
  std::ifstream maps("/proc/self/maps");
  while (maps.ignore(std::numeric_limits<std::streamsize>::max(), '\n')) ++lines;
  return lines;
}

class Checkerboard {
 public:
  explicit Checkerboard(std::size_t pages)
      : pages_(pages), step_(2 * dsm_page_size()), page_(shared<char>(pages * dsm_page_size())) {}

  // One rank does `work` on a word of every other page; all look at their mappings meanwhile, and wait.
  template <class Work>
  bool pass(int rank, const Work& work) {
    const std::size_t touched = (pages_ + 1) / 2;
    bool ok = true;
    for (std::size_t i = 0; DSM_NODE_ID == rank % DSM_NODE_NUM && i < touched; ++i) {
      work(i, *reinterpret_cast<Word*>(page_ + i * step_ + i % 512 * sizeof(Word)));
      if (i % 16384 == 16383) ok = count_mappings() && ok;
    }
    dsm_barrier();
    return count_mappings() && ok;
  }

  [[nodiscard]] Word most() const { return most_; }

 private:
  // Three quarters of what the kernel allows, of which the runs of the region are to be a half.
  bool count_mappings() {
    const Word now = mappings();
    most_ = std::max(most_, now);
    if (now <= limit_) return true;
    std::fprintf(stderr, "checkerboard: %llu mappings, more than %llu\n", static_cast<unsigned long long>(now),
                 static_cast<unsigned long long>(limit_));
    return false;
  }

  const std::size_t pages_;
  const std::size_t step_;
  char* const page_;
  const Word limit_ = number_in("/proc/sys/vm/max_map_count") * 3 / 4;
  Word most_ = 0;
};

}  // namespace

// The first rank writes, the second writes, the first writes again, the second reads: each adds something of its own.
bool checkerboard(const Options& o) {
  Checkerboard board(o.pages);
  const Word seed = o.seed;
  bool ok = board.pass(0, [seed](std::size_t i, Word& word) { word = i * i + seed; });
  ok = board.pass(1, [](std::size_t i, Word& word) { word += i; }) && ok;
  ok = board.pass(0, [](std::size_t i, Word& word) { word += 3 * i; }) && ok;
  Word sum = 0, expected = 0;
  ok = board.pass(1, [&sum](std::size_t, const Word& word) { sum += word; }) && ok;
  for (std::size_t i = 0; i < (o.pages + 1) / 2; ++i) expected += i * i + seed + 4 * i;
  if (DSM_NODE_ID == 1 % DSM_NODE_NUM) ok = same("checkerboard: the sum of all words", expected, sum) && ok;
  std::printf("checkerboard: every other one of %zu pages, at most %llu mappings\n", o.pages,
              static_cast<unsigned long long>(board.most()));
  return ok;
}

namespace {

constexpr std::size_t pin_bytes = 3 * 4096 + 100;  // on four pages or five: of different homes

// Longer than a page stays after a grant, pinned or not (Config::absence).
constexpr auto pinned_for = std::chrono::milliseconds(120);

// Pins the range; then has the kernel fill it, and looks whether what is written next stays so, again and again.
bool fill_pinned(char* range, int file, char with) {
  if (dsm_pin(range, pin_bytes, 1) != 0) return std::perror("pin: dsm_pin"), false;
  bool ok = true;
  for (const auto end = std::chrono::steady_clock::now() + pinned_for; ok && std::chrono::steady_clock::now() < end;) {
    ok = ::pread(file, range, pin_bytes, 0) == static_cast<ssize_t>(pin_bytes);
    if (!ok) std::perror("pin: pread into a pinned range");
    std::memset(range, with, pin_bytes);  // no fault either: nothing takes the pages away
    const bool same = std::all_of(range, range + pin_bytes, [with](char c) { return c == with; });
    if (!same) std::fprintf(stderr, "pin: another rank has written to a pinned range\n");
    ok = ok && same;
  }
  if (dsm_unpin(range, pin_bytes) != 0) return std::perror("pin: dsm_unpin"), false;
  return ok;
}

}  // namespace

// Ranks 0 and 1 pin one range, in which they meet, and read(2) into it; all others write there meanwhile.
bool pin(const Options& o) {
  char* const range = shared<char>(8 * dsm_page_size()) + dsm_page_size() / 2;
  auto* const done = shared<std::atomic<int>>(dsm_page_size() / sizeof(std::atomic<int>));
  const int file = ::open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  bool ok = true;
  dsm_barrier();
  if (DSM_NODE_ID < 2) {
    for (std::uint64_t i = 0; ok && i < o.rounds; ++i)
      ok = fill_pinned(range, file, static_cast<char>(DSM_NODE_ID + 1));
    done->fetch_add(1);
  } else {
    while (done->load() < 2) {
      for (std::size_t i = 0; i < pin_bytes; i += 1024) reinterpret_cast<volatile char&>(range[i]) = 9;
    }
  }
  ::close(file);
  dsm_barrier();
  std::printf("pin: %llu times\n", static_cast<unsigned long long>(o.rounds));
  return ok;
}

// The last rank has no memory for the page that it touches.
bool no_memory(const Options&) {
  char* const pages = shared<char>(64 * dsm_page_size());
  dsm_barrier();
  if (DSM_NODE_ID == DSM_NODE_NUM - 1) {
    no_memory_left.store(true);
    for (std::size_t i = 0; i < 64; ++i) pages[i * dsm_page_size()] = 1;
  }
  dsm_barrier();
  return true;
}

}  // namespace stress
