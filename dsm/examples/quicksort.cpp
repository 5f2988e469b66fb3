// quicksort - a shared stack of work, and a condition variable to wait at when it is empty.
//
// Whoever takes a range from the stack splits it, puts one half back for others and goes on with the other half, until
// it is small enough to be sorted at once. In the beginning there is one range and everybody else waits. That the stack
// is empty does not mean the end: a rank at work may put something there. So the ranges that are not sorted yet are
// counted, too, and the waiting ones are woken for either: a new range, or none left.
//
// The array is in shared memory, and goes where the work goes: who splits a range pulls its pages over. The last ranges
// are larger than a page (--leaf), else most of the time would go into pages with two owners.
//
// Numbers in order are the same whoever sorts them: the result is exactly that of std::sort.
//
// In dsmtop: one letter for all of the array, then two, then four; and the page of the stack, which goes round.
//
//   $ build/bin/dsmexec machine_file quicksort --count 1000000
//   [Proc 0 : localhost : stdout] quicksort: OK
#include <optional>
#include <random>

#include "dsm/examples/example.hpp"

namespace {

using example::Range;

struct Work {
  dsm::Mutex mutex;
  dsm::ConditionVariable changed;
  std::size_t waiting;   // ranges on the stack
  std::size_t unsorted;  // those, and the ones that somebody works at
};

class Stack {
 public:
  Stack(dsm::Job& job, std::size_t most) : work_(job.alloc<Work>(1).front()), ranges_(job.alloc<Range>(most)) {}

  void push(Range range) {
    const std::scoped_lock lock(work_.mutex);
    ranges_[work_.waiting++] = range;
    ++work_.unsorted;
    work_.changed.notify_one();
  }
  // Waits for a range; nothing when all are sorted.
  std::optional<Range> pop() {
    std::unique_lock lock(work_.mutex);
    work_.changed.wait(lock, [this] { return work_.waiting > 0 || work_.unsorted == 0; });
    if (work_.waiting == 0) return std::nullopt;
    return ranges_[--work_.waiting];
  }
  // What this rank had from the stack is sorted.
  void done() {
    const std::scoped_lock lock(work_.mutex);
    if (--work_.unsorted == 0) work_.changed.notify_all();
  }

 private:
  Work& work_;
  std::span<Range> ranges_;
};

void fill(std::span<int> numbers, std::size_t seed) {
  std::minstd_rand random(static_cast<unsigned>(seed) + 1);
  for (int& number : numbers) number = static_cast<int>(random() % 1'000'000);
}

// Splits a range at one of its numbers; those equal to it are in their place then. Returns what is left to sort.
std::pair<Range, Range> split(std::span<int> numbers, Range range) {
  const std::span<int> part = numbers.subspan(range.begin, range.size());
  const int a = part.front(), b = part[part.size() / 2], c = part.back();
  const int pivot = std::max(std::min(a, b), std::min(std::max(a, b), c));
  const auto equal = std::partition(part.begin(), part.end(), [pivot](int n) { return n < pivot; });
  const auto greater = std::partition(equal, part.end(), [pivot](int n) { return n == pivot; });
  const auto index = [&](auto at) { return range.begin + static_cast<std::size_t>(at - part.begin()); };
  return {{range.begin, index(equal)}, {index(greater), range.end}};
}

// Sorts a range, all but what is put on the stack for others.
void sort_range(std::span<int> numbers, Range range, std::size_t leaf, Stack& stack) {
  while (range.size() > leaf) {
    auto [mine, other] = split(numbers, range);
    if (mine.size() < other.size()) std::swap(mine, other);
    if (other.size() > leaf) {
      stack.push(other);
    } else {  // not worth a message
      std::sort(numbers.data() + other.begin, numbers.data() + other.end);
    }
    range = mine;
  }
  std::sort(numbers.data() + range.begin, numbers.data() + range.end);
}

}  // namespace

int main(int argc, char** argv) {
  std::size_t count = 0, leaf = 0, seed = 0;
  example::Program program(argc, argv, "a shared stack of ranges to sort, and waiting for them");
  program.number("count", count, 200'000, {1, 1'000'000'000}, "numbers to sort");
  program.number("leaf", leaf, 4096, {1, 1'000'000'000}, "numbers that one rank sorts at once");
  program.number("seed", seed, 1, {0, 1'000'000}, "which numbers");

  return program.run([&](dsm::Job& job, example::Check& check) {
    const std::span<int> numbers = job.alloc<int>(count);
    Stack stack(job, count / leaf + 1);  // ranges on the stack are larger than a leaf, and do not overlap
    if (job.rank() == 0) {
      fill(numbers, seed);
      stack.push({0, count});
    }
    job.barrier();

    while (const std::optional<Range> range = stack.pop()) {
      sort_range(numbers, *range, leaf, stack);
      stack.done();
    }

    return check.verify([&] {
      std::vector<int> expected(count);
      fill(expected, seed);
      std::sort(expected.begin(), expected.end());
      return check.same("number", numbers, std::span(expected));
    });
  });
}
