#include "dsm/tests/litmus_play.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace litmus {
namespace {

using Word = std::uint64_t;
using Clock = std::chrono::steady_clock;

// Page n of a job's region lives at rank n modulo the number of ranks: how locations get the homes that a shape asks for.
class Board {
 public:
  Board(const Shape& shape, std::size_t rounds, Ground& ground)
      : shape_(shape), page_(ground.page_bytes()), words_(page_ / sizeof(Word) - 1), members_(ground.members()) {
    const std::size_t sheets = rounds / (words_ * shape.homes.size()) + 1;
    const std::size_t blocks = sheets * shape.homes.size() * shape.locations + 1;
    char* const got = ground.allocate(blocks * members_ * page_);
    if (got == nullptr) return;
    const std::size_t page = static_cast<std::size_t>(got - ground.base()) / page_;
    first_ = got + (members_ - page % members_) % members_ * page_;
  }

  [[nodiscard]] bool there() const { return first_ != nullptr; }
  [[nodiscard]] Word* location(std::size_t round, std::size_t location) const {
    return page_of(round, location) + round / shape_.homes.size() % words_;
  }
  // A word that no round uses.
  [[nodiscard]] Word* spare(std::size_t round, std::size_t location) const { return page_of(round, location) + words_; }

 private:
  [[nodiscard]] Word* page_of(std::size_t round, std::size_t location) const {
    const std::size_t assignments = shape_.homes.size(), assignment = round % assignments;
    const std::size_t sheet = round / assignments / words_;
    const std::size_t block = (sheet * assignments + assignment) * shape_.locations + location;
    const std::size_t page = block * members_ + shape_.homes[assignment][location] % members_;
    return reinterpret_cast<Word*>(first_ + page * page_);
  }

  const Shape& shape_;
  std::size_t page_, words_, members_;
  char* first_ = nullptr;
};

// Sequentially consistent accesses, not plain ones: the processor's own store buffer lets a plain store be overtaken by
// a load of another page. What is tried here is whether the pages keep the order in which instructions take effect.
unsigned carry_out(const Access& access, Word* word) {
  if (!access.store) return static_cast<unsigned>(__atomic_load_n(word, __ATOMIC_SEQ_CST));
  __atomic_store_n(word, access.value, __ATOMIC_SEQ_CST);
  return 0;
}

// What one member does: its accesses, round after round.
class Player {
 public:
  Player(const Shape& shape, const Board& board, const Options& options, Ground& ground)
      : shape_(shape),
        board_(board),
        ground_(ground),
        rounds_(options.rounds),
        delays_(options.delays == "on"),
        random_(options.seed * 64 + static_cast<unsigned>(ground.me()) + 1) {
    if (ground.me() < shape.ranks.size()) mine_ = shape.ranks[ground.me()];
  }

  // What was loaded: one digit for each load of a round, round after round. Empty: a barrier failed.
  std::optional<std::string> play() {
    std::string loaded;
    for (std::size_t round = 0; round < rounds_; ++round) {
      if (!mine_.empty()) touch_something(round);
      if (!ground_.barrier()) return std::nullopt;
      if (delays_ && !mine_.empty() && random_() % 4 == 0) come_late();
      for (const Access& access : mine_) {
        Word* const word = board_.location(round, access.location);
        if (delays_) dawdle();
        const unsigned value = carry_out(access, word);
        if (!access.store) loaded += static_cast<char>('0' + value);
      }
    }
    return loaded;
  }

 private:
  // So that a round finds its pages sometimes here, sometimes there, with copies or without.
  void touch_something(std::size_t round) {
    for (std::size_t location = 0; location < shape_.locations; ++location) {
      const auto what = random_() % 8;
      if (what == 0) __atomic_fetch_add(board_.spare(round, location), 1, __ATOMIC_SEQ_CST);
      if (what == 1) (void)__atomic_load_n(board_.spare(round, location), __ATOMIC_SEQ_CST);
    }
  }

  // So that sometimes one rank has done all before another begins, though all that it needs is with the other. Asleep:
  // there may be more ranks than processors.
  void come_late() { std::this_thread::sleep_for(std::chrono::microseconds(random_() % 1024)); }

  // From nothing to a few times what a page takes to come, wherever this runs: short and long ones equally often.
  void dawdle() {
    const auto longest = 1U << random_() % 9;  // us
    const auto end = Clock::now() + std::chrono::microseconds(random_() % longest);
    while (Clock::now() < end) {
    }
  }

  const Shape& shape_;
  const Board& board_;
  Ground& ground_;
  std::size_t rounds_;
  bool delays_;
  std::vector<Access> mine_;
  std::minstd_rand random_;
};

std::size_t loads_of(const std::vector<Access>& accesses) {
  std::size_t loads = 0;
  for (const Access& access : accesses) loads += access.store ? 0 : 1;
  return loads;
}

// How often each outcome was seen.
using Histogram = std::map<Outcome, std::size_t>;

// `papers`: what each rank has loaded, as Player::play gave it.
Histogram count(const Shape& shape, const Board& board, const std::vector<char*>& papers, std::size_t rounds) {
  Histogram histogram;
  for (std::size_t round = 0; round < rounds; ++round) {
    Outcome outcome;
    for (std::size_t rank = 0; rank < shape.ranks.size(); ++rank) {
      const std::size_t loads = loads_of(shape.ranks[rank]);
      outcome.append(papers[rank] + round * loads, loads);
    }
    for (std::size_t location = 0; shape.last_values && location < shape.locations; ++location) {
      outcome += static_cast<char>('0' + *board.location(round, location));
    }
    ++histogram[outcome];
  }
  return histogram;
}

// Prints it, and says what must not be.
bool judge(const Shape& shape, Histogram histogram, const Options& o) {
  const auto allowed = litmus::allowed(shape);
  const bool frequencies = o.delays == "on" && o.frequencies == "on" && shape.rarest_percent.has_value();
  std::size_t forbidden = 0, unseen = 0;
  bool ok = true;
  for (const Outcome& outcome : allowed) histogram.try_emplace(outcome, 0);
  for (const auto& [outcome, times] : histogram) {
    const bool may_be = allowed.contains(outcome);
    const double percent = 100.0 * static_cast<double>(times) / static_cast<double>(o.rounds);
    const bool rare = frequencies && (times == 0 || percent < *shape.rarest_percent);
    const std::string said = shape.name + ": " + litmus::text(shape, outcome);
    forbidden += may_be ? 0 : times;
    unseen += times == 0 ? 1 : 0;
    if (times != 0 || shape.rarest_percent.has_value()) {
      std::printf("%s: %zu of %zu (%.1f %%), %s\n", said.c_str(), times, o.rounds, percent,
                  may_be ? "allowed" : "FORBIDDEN");
    }
    if (!may_be) std::fprintf(stderr, "%s: forbidden, and seen %zu times\n", said.c_str(), times);
    if (may_be && rare) std::fprintf(stderr, "%s: too rare, %zu of %zu\n", said.c_str(), times, o.rounds);
    ok = ok && may_be && !rare;
  }
  std::printf("%s: %zu rounds, %zu of %zu allowed outcomes seen, %zu times a forbidden one\n", shape.name.c_str(),
              o.rounds, allowed.size() - unseen, allowed.size(), forbidden);
  return ok;
}

}  // namespace

bool run(const Shape& shape, const Options& options, Ground& ground) {
  const Board board(shape, options.rounds, ground);
  bool room = board.there();
  std::vector<char*> papers;
  for (const auto& accesses : shape.ranks) {
    papers.push_back(ground.allocate(options.rounds * std::max<std::size_t>(loads_of(accesses), 1)));
    room = room && papers.back() != nullptr;
  }
  if (!room) return std::perror("allocate"), false;
  const auto loaded = Player(shape, board, options, ground).play();
  if (!loaded.has_value()) return false;
  if (!loaded->empty()) loaded->copy(papers[ground.me()], loaded->size());
  if (!ground.barrier()) return false;
  return ground.me() != 0 || judge(shape, count(shape, board, papers, options.rounds), options);
}

bool understood(const Options& o) {
  const auto is_switch = [](const std::string& s) { return s == "on" || s == "off"; };
  return !shapes(o.name).empty() && is_switch(o.delays) && is_switch(o.frequencies) && o.rounds != 0;
}

bool run_all(const Options& options, Ground& ground, const char* program) {
  bool ok = true;
  for (const Shape& shape : shapes(options.name)) {
    if (ground.members() < shape.ranks.size()) {
      if (ground.me() == 0)
        std::fprintf(stderr, "%s: %s needs %zu ranks\n", program, options.name.c_str(), shape.ranks.size());
      return false;
    }
    ok = run(shape, options, ground) && ok;
  }
  return ok;
}

}  // namespace litmus
