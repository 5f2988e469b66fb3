// dsm_stress heap*: memory that one rank sets aside and another gives back.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <dsm/dsm.hpp>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "dsm/tests/stress.hpp"

namespace stress {

namespace {

bool wrong(const char* what) {
  std::fprintf(stderr, "heap: rank %d: %s\n", DSM_NODE_ID, what);
  return false;
}

// The most that one block can have. The same again means that nothing has been lost.
std::size_t largest_block() {
  std::size_t fits = 0;
  for (std::size_t step = dsm_size(); step != 0; step /= 2) {
    void* const block = dsm_malloc(fits + step);
    dsm_free(block);
    if (block != nullptr) fits += step;
  }
  return fits;
}

bool runs_out(void* block) { return block == nullptr && errno == ENOMEM; }

// ---- heap: blocks that go from hand to hand ----

constexpr std::size_t places = 256;

// What the ranks know of a block that lies at a place: where it is, how long, and whose. It also says what is in it.
struct Block {
  Word word = 0;

  Block() = default;
  explicit Block(Word known) : word(known) {}
  Block(const char* memory, const char* base, std::size_t bytes, Word number)
      : word((static_cast<Word>(memory - base) / 16) << 36U | static_cast<Word>(bytes) << 12U | (number & 63U) << 6U |
             static_cast<Word>(DSM_NODE_ID)) {}
  [[nodiscard]] char* memory(char* base) const { return base + (word >> 36U) * 16; }
  [[nodiscard]] std::size_t bytes() const { return word >> 12U & 0xffffffU; }
  [[nodiscard]] int maker() const { return static_cast<int>(word & 63U); }
  [[nodiscard]] char at(std::size_t i) const {
    return static_cast<char>(word * 0x9e3779b97f4a7c15U >> 32U) + static_cast<char>(i * 7);
  }
};

struct Table {
  Word at[places];
  Word freed[64], freed_of_others[64], messages[64];  // by rank
};

class Worker {
 public:
  Worker(Table& table, char* base, const Options& o, unsigned thread)
      : table_(table), base_(base), random_(o.seed * 4096 + static_cast<unsigned>(DSM_NODE_ID) * 64 + thread + 1) {}

  // Makes a block, fills it, leaves it at a place, and gives back the one that was there.
  bool turn() {
    const bool large = random_() % 16 == 0;
    const std::size_t bytes = 1 + random_() % (large ? 3 * dsm_page_size() : 300);
    auto* const memory = static_cast<char*>(dsm_malloc(bytes));
    if (memory == nullptr) return wrong("dsm_malloc has no room");
    const Block block(memory, base_, bytes, random_());
    for (std::size_t i = 0; i < bytes; ++i) memory[i] = block.at(i);
    return take(random_() % places, block);
  }
  // Leaves `next` at the place, checks the one that was there, and gives it back.
  bool take(std::size_t place, Block next) {
    const Block block(__atomic_exchange_n(&table_.at[place], next.word, __ATOMIC_ACQ_REL));
    if (block.word == 0) return true;
    const char* const memory = block.memory(base_);
    for (std::size_t i = 0; i < block.bytes(); ++i) {
      if (memory[i] != block.at(i)) return wrong("a block has not what its maker put into it");
    }
    dsm_free(block.memory(base_));
    ++freed;
    if (block.maker() != DSM_NODE_ID) ++freed_of_others;
    return true;
  }

  Word freed = 0, freed_of_others = 0;

 private:
  Table& table_;
  char* const base_;
  std::minstd_rand random_;
};

// This rank's threads; then what it finds at every DSM_NODE_NUM-th place. False: a block was not as it must be.
bool work(Table& table, char* base, const Options& o) {
  const Word turns = o.rounds / 2 / o.threads / static_cast<Word>(DSM_NODE_NUM);
  std::vector<Worker> workers;
  for (unsigned t = 0; t < o.threads; ++t) workers.emplace_back(table, base, o, t);
  std::vector<char> ok(o.threads, 1);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < o.threads; ++t) {
    threads.emplace_back([&, t] {
      for (Word i = 0; i < turns && ok[t] != 0; ++i) ok[t] = workers[t].turn() ? 1 : 0;
    });
  }
  for (auto& thread : threads) thread.join();
  struct dsm_stats stats {};
  dsm_stats(&stats);
  table.messages[DSM_NODE_ID] = stats.messages;
  dsm_barrier();
  bool good = std::find(ok.begin(), ok.end(), 0) == ok.end();
  for (std::size_t i = static_cast<std::size_t>(DSM_NODE_ID); i < places; i += static_cast<std::size_t>(DSM_NODE_NUM)) {
    good = workers[0].take(i, Block()) && good;
  }
  for (const Worker& worker : workers) {
    table.freed[DSM_NODE_ID] += worker.freed;
    table.freed_of_others[DSM_NODE_ID] += worker.freed_of_others;
  }
  dsm_barrier();
  return good;
}

}  // namespace

bool heap(const Options& o) {
  char* const base = shared<char>(1);  // the region's
  Table* const table = shared<Table>(1);
  std::size_t before = 0;
  if (DSM_NODE_ID == 0) before = largest_block();
  dsm_barrier();
  const auto began = std::chrono::steady_clock::now();
  const bool ok = work(*table, base, o);
  if (DSM_NODE_ID != 0) return ok;
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  Word freed = 0, of_others = 0, messages = 0;
  for (int rank = 0; rank < DSM_NODE_NUM; ++rank) {
    freed += table->freed[rank];
    of_others += table->freed_of_others[rank];
    messages += table->messages[rank];
  }
  const Word threads = o.threads * static_cast<Word>(DSM_NODE_NUM), operations = 2 * freed;
  std::printf(
      "heap: %llu operations by %llu threads in %.1f s, %.1f messages each; %llu of %llu blocks were freed by another "
      "rank; %zu bytes are one block again\n",
      static_cast<unsigned long long>(operations), static_cast<unsigned long long>(threads), took.count(),
      static_cast<double>(messages) / static_cast<double>(operations), static_cast<unsigned long long>(of_others),
      static_cast<unsigned long long>(freed), before);
  if (DSM_NODE_NUM > 1 && of_others == 0) return wrong("no block was freed by another rank than its maker");
  return same("heap: blocks freed", o.rounds / 2 / threads * threads, freed) &&
         same("heap: the largest block", before, largest_block()) && ok;
}

// ---- heap-map: a container that all ranks change ----

namespace {

using Map = std::map<int, dsm::String, std::less<int>, dsm::Allocator<std::pair<const int, dsm::String>>>;

struct Book {
  dsm::Mutex mutex;
  Map map;
  std::size_t before = 0;
};

constexpr int entries = 100;

std::string text_of(int i) { return "an entry that is too long for the string itself: " + std::to_string(i); }

// Every rank puts in entries of its own, lengthens everybody's, and takes some out.
void extend(Book& book, int round) {
  const std::scoped_lock lock(book.mutex);
  const int mine = (1 + round * DSM_NODE_NUM + DSM_NODE_ID) * entries;
  for (int i = 0; i < entries; ++i) book.map[mine + i] = text_of(mine + i).c_str();
  for (int i = 0; i < entries; ++i) book.map[i] += '+';
  book.map.erase(mine);
}

bool as_it_must_be(const Book& book, int rounds) {
  const int all = entries + rounds * DSM_NODE_NUM * (entries - 1);
  bool ok = same("heap-map: entries", static_cast<Word>(all), book.map.size());
  for (const auto& [key, text] : book.map) {
    const int plus = key < entries ? rounds * DSM_NODE_NUM : 0;
    ok = ok && std::string_view(text) == text_of(key) + std::string(static_cast<std::size_t>(plus), '+');
  }
  return ok || wrong("the map has not what was put into it");
}

}  // namespace

bool heap_map(const Options& o) {
  const int rounds = static_cast<int>(o.rounds);
  Book& book = *dsm::Constructor<Book>("book")();
  if (DSM_NODE_ID == 0) {
    book.before = largest_block();
    for (int i = 0; i < entries; ++i) book.map[i] = text_of(i).c_str();
  }
  dsm_barrier();
  bool ok = as_it_must_be(book, 0);
  dsm_barrier();
  for (int round = 0; round < rounds; ++round) extend(book, round);
  dsm_barrier();
  ok = as_it_must_be(book, rounds) && ok;
  dsm_barrier();
  if (DSM_NODE_ID != DSM_NODE_NUM - 1) return ok;
  std::printf("heap-map: %zu entries\n", book.map.size());
  book.map.clear();
  return same("heap-map: the largest block", book.before, largest_block()) && ok;
}

// ---- heap-named: who constructs ----

namespace {

struct Once {
  Once(Word& tries, Word& made) {
    if (__atomic_add_fetch(&tries, 1, __ATOMIC_ACQ_REL) == 1) throw std::runtime_error("the first try");
    memory = dsm_malloc(100);  // the heap is there for a constructor, too
    __atomic_add_fetch(&made, 1, __ATOMIC_ACQ_REL);
  }
  void* memory = nullptr;
};

bool is_of_another_size() {
  try {
    dsm::Constructor<char>("once")();
  } catch (const dsm::Error& e) {
    return std::strstr(e.what(), "\"once\"") != nullptr && std::strstr(e.what(), "another name") != nullptr;
  }
  return false;
}

}  // namespace

bool heap_named(const Options& o) {
  struct Seen {
    Word tries, made, failed;
    Once* object[64][16];
  };
  Seen& seen = *shared<Seen>(1);
  if (o.threads > 16) return false;
  dsm_barrier();
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < o.threads; ++t) {
    threads.emplace_back([&seen, t] {
      try {
        seen.object[DSM_NODE_ID][t] = dsm::Constructor<Once>("once")(seen.tries, seen.made);
      } catch (const std::runtime_error&) {
        __atomic_add_fetch(&seen.failed, 1, __ATOMIC_ACQ_REL);
        seen.object[DSM_NODE_ID][t] = dsm::Constructor<Once>("once")(seen.tries, seen.made);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  dsm_barrier();
  const Once* const object = seen.object[0][0];
  bool ok = object != nullptr && object->memory != nullptr;
  for (unsigned t = 0; t < o.threads; ++t) ok = ok && seen.object[DSM_NODE_ID][t] == object;
  if (!ok) return wrong("threads have found different objects of one name");
  if (!is_of_another_size()) return wrong("no dsm::Error for a name of another size");
  return same("heap-named: constructors begun", 2, seen.tries) && same("heap-named: objects made", 1, seen.made) &&
         same("heap-named: exceptions", 1, seen.failed);
}

// ---- heap-full: no room, and dsm_alloc beside the heap ----

namespace {

// All ranks have got the same, zero-filled (or all of them nothing).
bool alike(void* mine, std::size_t bytes) {
  struct Places {
    void* of[64];
  };
  auto* const seen = dsm::Constructor<Places>("places")();
  seen->of[DSM_NODE_ID] = mine;
  const char* const memory = static_cast<char*>(mine);
  const bool zero = mine == nullptr || std::all_of(memory, memory + bytes, [](char c) { return c == 0; });
  dsm_barrier();
  const bool ok = std::all_of(seen->of, seen->of + DSM_NODE_NUM, [mine](void* p) { return p == mine; });
  dsm_barrier();
  return (zero || wrong("dsm_alloc has given memory that is not zero-filled")) &&
         (ok || wrong("dsm_alloc has given different memory to another rank"));
}

}  // namespace

bool heap_full(const Options&) {
  const std::size_t page = dsm_page_size();
  dsm::Semaphore begun("begun", 0);
  void* const first = dsm_alloc(page);
  if (DSM_NODE_ID != 0) begun.acquire();
  void* const second = dsm_alloc(2 * page + 1);  // others than rank 0: when the heap has begun
  if (!runs_out(dsm_malloc(dsm_size())) || !runs_out(dsm_malloc(SIZE_MAX))) return wrong("too much is not refused");
  if (DSM_NODE_ID == 0) {
    for (int rank = 1; rank < DSM_NODE_NUM; ++rank) begun.release();
  }
  bool ok = alike(first, page) && alike(second, 2 * page + 1);
  std::vector<void*> blocks;
  if (DSM_NODE_ID == 0) {  // all of it, and not zero
    for (std::size_t bytes = dsm_size(); bytes >= 64; bytes /= 2) {
      for (void* block = dsm_malloc(bytes); block != nullptr; block = dsm_malloc(bytes)) {
        std::memset(block, 0xee, bytes);
        blocks.push_back(block);
      }
    }
  }
  dsm_barrier();
  ok = (runs_out(dsm_malloc(100)) || wrong("there is room where none is")) && ok;
  dsm_barrier();
  if (DSM_NODE_ID == 0) {  // room for a note, but not for four pages
    dsm_free(blocks.back());
    blocks.pop_back();
  }
  dsm_barrier();
  void* const none = dsm_alloc(4 * page);
  ok = (runs_out(none) || wrong("dsm_alloc has room where none is")) && alike(none, 4 * page) && ok;
  for (void* block : blocks) dsm_free(block);
  dsm_barrier();
  ok = alike(dsm_alloc(4 * page), 4 * page) && ok;
  void* const fits = dsm_malloc(page);
  dsm_free(fits);
  if (DSM_NODE_ID == 0) std::puts("heap-full: it goes on");
  return ok && fits != nullptr;
}

// ---- heap-misuse: what ends a rank ----

bool heap_misuse(const Options& o) {
  void* const pages = shared<char>(1);
  auto** const shelf = shared<char*>(1);
  if (DSM_NODE_ID == 0) *shelf = static_cast<char*>(dsm_malloc(5000));
  dsm_barrier();
  char* const block = *shelf;
  int elsewhere = 0;
  if (DSM_NODE_ID == 1) {
    dsm_free(nullptr);
    if (o.how == "foreign") dsm_free(&elsewhere);
    if (o.how == "alloc") dsm_free(pages);
    if (o.how == "inside") dsm_free(block + 4096);
    if (o.how == "misaligned") dsm_free(block + 8);
    if (o.how == "twice") dsm_free(block);
  }
  dsm_barrier();
  if (o.how == "twice" && DSM_NODE_ID == 1) dsm_free(block);
  dsm_barrier();
  dsm_finalize();
  if (o.how == "late-malloc" && DSM_NODE_ID == 1) dsm_malloc(1);
  if (o.how == "late-free" && DSM_NODE_ID == 1) dsm_free(block);
  if (o.how == "late-finalize" && DSM_NODE_ID == 1) dsm_finalize();
  if (o.how == "late-read" && DSM_NODE_ID == 1) std::exit(*static_cast<volatile char*>(pages));
  if (o.how == "late-write" && DSM_NODE_ID == 1) *static_cast<volatile char*>(pages) = 1;
  std::exit(0);
}

}  // namespace stress
