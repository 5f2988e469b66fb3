// dsm_stress checkerboard: every other page of a long stretch is touched, which makes a mapping of each (vm.max_map_count).
//
//   $ build/bin/dsmexec -n 2 --size 1G machine_file dsm_stress checkerboard --pages 200000
#include <dsm/dsm.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#include "dsm/tests/stress.hpp"

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

}  // namespace stress
