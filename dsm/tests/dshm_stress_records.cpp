// dshm_stress records, check, stop: what is read while processes and hosts go at any moment.
//
// A record fills a page: its number, a body that follows from the number, the number again. Whoever sees both numbers equal
// and unchanged must see that body, whatever has been killed. And nobody may see an older one than the last that was
// finished before he looked: that is known from a file (dshm_truth.hpp) which all of them have mapped, whatever becomes of
// the segment.
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstdlib>

#include "dsm/tests/dshm_stress.hpp"
#include "dsm/tests/dshm_truth.hpp"
#include "ipc/program.hpp"

namespace dshm_stress {
namespace {

constexpr std::size_t words = page / sizeof(std::uint64_t) - 2;

struct Record {
  std::atomic<std::uint64_t> begun;
  std::array<std::atomic<std::uint64_t>, words> body;
  std::atomic<std::uint64_t> done;
};
static_assert(sizeof(Record) == page);

std::uint64_t word_of(std::uint64_t number, std::size_t slot, std::size_t i) {
  std::uint64_t x = number * 0x9e3779b97f4a7c15U + slot * 512 + i;  // splitmix64
  x = (x ^ (x >> 30U)) * 0xbf58476d1ce4e5b9U;
  return x ^ (x >> 27U);
}

bool told_to_stop(const Segment& segment) { return segment.control().stop.load() != 0; }

// Whether there was a whole record to be read: then `number` is its number.
bool read_record(const Record& record, std::size_t slot, std::uint64_t& number) {
  std::array<std::uint64_t, words> body{};
  number = record.done.load();
  for (std::size_t i = 0; i < words; ++i) body[i] = record.body[i].load();
  if (number == 0 || record.begun.load() != number || record.done.load() != number) return false;
  for (std::size_t i = 0; i < words; ++i) {
    if (body[i] == word_of(number, slot, i)) continue;
    throw std::runtime_error("record " + std::to_string(slot) + " is numbered " + std::to_string(number) + ", word " +
                             std::to_string(i) + " is of another one");
  }
  return true;
}

}  // namespace

// The descriptor is the environment's; without one, in memory of our own.
Truth& truth() {
  const char* const number = std::getenv(truth_variable);
  const int fd = number == nullptr ? -1 : std::atoi(number);
  void* const at =
      ::mmap(nullptr, sizeof(Truth), PROT_READ | PROT_WRITE, fd == -1 ? MAP_SHARED | MAP_ANONYMOUS : MAP_SHARED, fd, 0);
  ipc::check(reinterpret_cast<std::intptr_t>(at), "mmap");
  return *static_cast<Truth*>(at);
}

int records(const Options& options) {
  const Segment segment(options.key, slots);
  const auto slot = static_cast<std::size_t>(options.slot);
  auto& record = segment.at<Record>(slot);
  Truth& known = truth();
  std::uint64_t number = std::max(record.begun.load(), record.done.load());
  bool first = true;
  ipc::say("writes " + std::to_string(segment.id()));
  while (!told_to_stop(segment)) {
    record.begun.store(++number);
    for (std::size_t i = 0; i < words; ++i) record.body[i].store(word_of(number, slot, i));
    record.done.store(number);
    known.finished[slot].store(number);
    if (first) known.lost[slot].store(false);  // from here on; whoever wrote before us does not say so
    first = false;
    ::usleep(300);  // so that it can be read, too
  }
  return 0;
}

int check(const Options& options) {
  const Segment segment(options.key, slots);
  Truth& known = truth();
  std::uint64_t whole = 0;
  ipc::say("reads " + std::to_string(segment.id()));
  while (!told_to_stop(segment)) {
    for (std::size_t slot = 0; slot < slots; ++slot) {
      const std::uint32_t losses = known.losses[slot].load();
      const bool lost = known.lost[slot].load();
      const std::uint64_t finished = known.finished[slot].load();
      auto& record = segment.at<Record>(slot);
      const std::uint64_t seen = record.done.load();
      std::uint64_t number = 0;
      if (read_record(record, slot, number)) ++whole;
      if (seen >= finished || lost || known.losses[slot].load() != losses) continue;
      throw std::runtime_error("record " + std::to_string(slot) + ": " + std::to_string(seen) + " is stale, " +
                               std::to_string(finished) + " had been finished");
    }
    ::sched_yield();
  }
  ipc::say("check: " + std::to_string(whole) + " records seen whole");
  return 0;
}

int stop(const Options& options) {
  const Segment segment(options.key, slots);
  segment.control().stop.store(1);
  segment.remove();
  return 0;
}

}  // namespace dshm_stress
