#include <utility>

#include "dsm/tests/litmus.hpp"

namespace litmus {
namespace {

constexpr std::size_t x = 0, y = 1;

// Each rank stores, then looks whether the other has stored: one of them must see it.
Shape store_buffering(std::string name, std::vector<std::vector<std::size_t>> homes) {
  return {.name = std::move(name),
          .locations = 2,
          .ranks = {{store(x, 1), load(y)}, {store(y, 1), load(x)}},
          .homes = std::move(homes),
          .rarest_percent = 1};
}

// Who sees the flag sees what was written before it.
Shape message_passing(std::string name, std::vector<std::vector<std::size_t>> homes) {
  return {.name = std::move(name),
          .locations = 2,
          .ranks = {{store(x, 1), store(y, 1)}, {load(y), load(x)}},
          .homes = std::move(homes),
          .rarest_percent = 1};
}

// Independent reads of independent writes: two readers agree on which write came first.
Shape iriw() {
  return {.name = "iriw",
          .locations = 2,
          .ranks = {{store(x, 1)}, {store(y, 1)}, {load(x), load(y)}, {load(y), load(x)}},
          .homes = {{0, 1}, {2, 3}, {1, 0}, {3, 2}},
          .rarest_percent = 0};
}

// Coherence of one location: nobody sees it go back, and all see two writes in one order, the last one last.
Shape coherence() {
  return {.name = "corr",
          .locations = 1,
          .ranks = {{store(x, 1)}, {store(x, 2)}, {load(x), load(x)}, {load(x), load(x)}},
          .last_values = true,
          .homes = {{0}, {2}},
          .rarest_percent = {}};
}

// Both write both locations, in opposite order: the first write of each cannot win both.
Shape two_plus_two_writes(std::string name, std::vector<std::vector<std::size_t>> homes) {
  return {.name = std::move(name),
          .locations = 2,
          .ranks = {{store(x, 1), store(y, 2)}, {store(y, 1), store(x, 2)}},
          .last_values = true,
          .homes = std::move(homes),
          .rarest_percent = {}};
}

// Takes one step of any rank that has one left, in all ways.
class Walk {
 public:
  explicit Walk(const Shape& shape)
      : shape_(shape), memory_(shape.locations, '0'), next_(shape.ranks.size(), 0), loaded_(shape.ranks.size()) {}

  std::set<Outcome> outcomes() {
    step();
    return std::move(outcomes_);
  }

 private:
  void step() {
    bool ended = true;
    for (std::size_t rank = 0; rank < shape_.ranks.size(); ++rank) {
      if (next_[rank] == shape_.ranks[rank].size()) continue;
      ended = false;
      const Access access = shape_.ranks[rank][next_[rank]++];
      char& cell = memory_[access.location];
      const char before = cell;
      if (access.store) {
        cell = static_cast<char>('0' + access.value);
      } else {
        loaded_[rank] += cell;
      }
      step();
      cell = before;
      if (!access.store) loaded_[rank].pop_back();
      --next_[rank];
    }
    if (ended) note();
  }

  void note() {
    Outcome outcome;
    for (const std::string& digits : loaded_) outcome += digits;
    outcomes_.insert(shape_.last_values ? outcome + memory_ : outcome);
  }

  const Shape& shape_;
  std::string memory_;
  std::vector<std::size_t> next_;
  std::vector<std::string> loaded_;
  std::set<Outcome> outcomes_;
};

}  // namespace

std::vector<Shape> shapes(std::string_view name) {
  const std::vector<std::vector<std::size_t>> same = {{0, 0}, {1, 1}}, different = {{0, 1}, {1, 0}};
  if (name == "sb") return {store_buffering("sb", same)};
  if (name == "mp") return {message_passing("mp", same)};
  if (name == "iriw") return {iriw()};
  if (name == "corr") return {coherence()};
  std::vector<Shape> two_homes = {store_buffering("two-homes-sb", different),
                                  message_passing("two-homes-mp", different),
                                  two_plus_two_writes("two-homes-2+2w", different)};
  if (name != "two-homes") std::erase_if(two_homes, [&](const Shape& shape) { return shape.name != name; });
  return two_homes;
}

std::set<Outcome> allowed(const Shape& shape) { return Walk(shape).outcomes(); }

std::string text(const Shape& shape, const Outcome& outcome) {
  const std::size_t loads = outcome.size() - (shape.last_values ? shape.locations : 0);
  std::string out;
  for (std::size_t i = 0; i < outcome.size(); ++i) {
    if (i != 0) out += ' ';
    out += i < loads ? "r" + std::to_string(i) : std::string(1, "xyz"[i - loads]);
    out += {'=', outcome[i]};
  }
  return out;
}

}  // namespace litmus
