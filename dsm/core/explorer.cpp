#include "dsm/core/explorer.hpp"

#include <deque>
#include <stdexcept>
#include <utility>
#include <vector>

#include "dsm/core/explorer_ladder.hpp"
#include "dsm/core/explorer_world.hpp"

namespace dsm::core::explorer {

namespace {

using Index = std::uint32_t;
constexpr Index nowhere = ~Index{0};

// Which worlds have been seen, by digest. With 64 bits, even among 40 million worlds the chance that any two are taken for
// one another is below 1 in 20,000. Open addressing: 32 to 64 bytes a world, one cache line a look.
class Seen {
 public:
  Seen() : slots_(std::size_t{1} << 16U) {}

  // The number of the world, and whether it is a new one.
  std::pair<Index, bool> insert(std::uint64_t digest) {
    if (size_ * 2 >= slots_.size()) grow();
    Slot& slot = slots_[place(digest)];
    if (slot.index != nowhere) return {slot.index, false};
    slot = {digest, size_++};
    return {slot.index, true};
  }
  [[nodiscard]] bool contains(std::uint64_t digest) const { return slots_[place(digest)].index != nowhere; }
  [[nodiscard]] std::size_t size() const { return size_; }

 private:
  struct Slot {
    std::uint64_t digest = 0;
    Index index = nowhere;
  };
  [[nodiscard]] std::size_t place(std::uint64_t digest) const {
    std::size_t at = digest & (slots_.size() - 1);
    while (slots_[at].index != nowhere && slots_[at].digest != digest) at = (at + 1) & (slots_.size() - 1);
    return at;
  }
  void grow() {
    std::vector<Slot> old(slots_.size() * 2);
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.index != nowhere) slots_[place(slot.digest)] = slot;
    }
  }
  std::vector<Slot> slots_;
  Index size_ = 0;
};

// Breadth first, but all worlds that k operations lead to before any that takes k + 1. A world is thus first reached with
// the most operations left, so that how many are left need not be part of it.
class Search {
 public:
  explicit Search(const Setup& setup) : setup_(setup), rules_(setup) {}

  Result run() {
    std::vector<Step> begun = {{rules_.initial(), nowhere, {}}};
    for (unsigned used = 0; used <= setup_.operations && !stopped(); ++used) {
      for (const Step& step : std::exchange(begun, {})) arrive(step.world, step.parent, step.choice);
      Seen offered;
      while (!layer_.empty() && !stopped()) {
        const auto [world, index] = layer_.front();
        layer_.pop_front();
        leave(world, index, used < setup_.operations ? &begun : nullptr, offered);
      }
    }
    if (!stopped()) finish();
    result_.states = seen_.size();
    result_.locals = rules_.nodes().size();
    return std::move(result_);
  }

 private:
  struct Step {
    World world;
    Index parent;
    Choice choice;
  };
  struct Link {
    Index parent;
    std::uint32_t stimulus;
    std::uint8_t kind, node, thread, channel;
  };

  [[nodiscard]] bool stopped() const { return !result_.violation.empty(); }

  Index arrive(const World& world, Index parent, const Choice& choice) {
    const auto [index, fresh] = seen_.insert(world.digest());
    if (!fresh) return index;
    links_.push_back(pack(parent, choice));
    ends_.push_back(false);
    layer_.push_back({world, index});
    if (seen_.size() > setup_.states_max) fail(index, "more states than this setup is allowed");
    return index;
  }

  void leave(const World& world, Index index, std::vector<Step>* begun, Seen& offered) {
    rules_.choices(world, choices_);
    if (const std::string wrong = rules_.check(world, choices_); !wrong.empty()) return fail(index, wrong);
    ends_[index] = !choices_.busy || choices_.cut_off;
    for (const Choice& choice : choices_.list) {
      const bool operation = choice.kind == Choice::Kind::operation;
      if (operation && begun == nullptr) continue;
      World next = world;
      std::string wrong = rules_.apply(next, choice);
      for (Choice then; wrong.empty() && rules_.forced(next, then);) wrong = rules_.apply(next, then);
      if (!wrong.empty()) return fail(index, wrong, &choice);
      ++result_.steps;
      if (!operation) {
        const Index to = arrive(next, index, choice);
        if (!is_extra(choice)) edges_.emplace_back(index, to);
      } else if (const std::uint64_t digest = next.digest(); !seen_.contains(digest) && offered.insert(digest).second) {
        begun->push_back({next, index, choice});
      }
    }
  }

  static bool is_extra(const Choice& choice) {
    using Kind = Stimulus::Kind;
    const Kind kind = choice.what.kind;
    return choice.kind == Choice::Kind::event &&
           (kind == Kind::drop || kind == Kind::write_back || kind == Kind::prefetch || kind == Kind::perform ||
            kind == Kind::left);
  }

  // From every world, without anybody beginning something new, all who wait can come to an end.
  void finish() {
    if (const std::string wrong = rules_.nodes().check_digests(); !wrong.empty()) {
      result_.violation = wrong;
      return;
    }
    std::vector<Index> first(seen_.size() + 1, 0), from(edges_.size());
    for (const auto& [a, b] : edges_) ++first[b + 1];
    for (std::size_t i = 1; i < first.size(); ++i) first[i] += first[i - 1];
    std::vector<Index> fill(first.begin(), first.end() - 1);
    for (const auto& [a, b] : edges_) from[fill[b]++] = a;
    std::deque<Index> todo;
    for (Index i = 0; i < ends_.size(); ++i) {
      if (ends_[i]) todo.push_back(i);
    }
    while (!todo.empty()) {
      const Index to = todo.front();
      todo.pop_front();
      for (Index e = first[to]; e < first[to + 1]; ++e) {
        if (ends_[from[e]]) continue;
        ends_[from[e]] = true;
        todo.push_back(from[e]);
      }
    }
    for (Index i = 0; i < ends_.size(); ++i) {
      if (!ends_[i]) return fail(i, "from here on those who wait can never come to an end");
    }
  }

  void fail(Index index, const std::string& what, const Choice* last = nullptr) {
    std::vector<Choice> way;
    if (last != nullptr) way.push_back(*last);
    for (Index i = index; links_[i].parent != nowhere; i = links_[i].parent) way.push_back(unpack(links_[i]));
    result_.violation = what;
    result_.ladder = ladder(setup_, rules_, {way.rbegin(), way.rend()});
  }

  static Link pack(Index parent, const Choice& c) {
    return {parent, c.what.packed(), static_cast<std::uint8_t>(c.kind), c.node, c.thread, c.channel};
  }
  static Choice unpack(const Link& l) {
    return {static_cast<Choice::Kind>(l.kind), l.node, l.thread, l.channel, Stimulus::unpack(l.stimulus)};
  }

  Setup setup_;
  Rules rules_;
  Seen seen_;
  std::vector<Link> links_;
  std::vector<bool> ends_;  // worlds in which nobody waits; then: from which such a world can be reached
  std::vector<std::pair<Index, Index>> edges_;
  std::deque<std::pair<World, Index>> layer_;
  Choices choices_;
  Result result_;
};

}  // namespace

Result explore(const Setup& setup) {
  if (setup.nodes < 2 || setup.nodes > max_nodes || setup.pages < 1 || setup.pages > max_pages || setup.threads < 1 ||
      setup.threads * setup.nodes > max_threads) {
    throw std::invalid_argument("a world of this size does not fit the explorer");
  }
  return Search(setup).run();
}

std::string text(const Setup& s) {
  const auto count = [](unsigned n, const std::string& what) { return std::to_string(n) + " " + what; };
  std::string out = count(s.nodes, "nodes x ");
  if (s.threads > 1) out += count(s.threads, "threads x ");
  out += count(s.pages, s.pages == 1 ? "page x " : "pages x ") + count(s.operations, "operations, ");
  out += std::string(name(s.protocol)) + ", hold " + std::to_string(s.hold);
  if (s.absence != 0) out += ", with Resumed";
  if (s.placement != Placement::cyclic) out += ", " + std::string(name(s.placement));
  if (s.drops != 0) out += ", " + count(s.drops, "drops");
  if (s.write_backs != 0) out += ", " + count(s.write_backs, "write-backs");
  if (s.prefetches != 0) out += ", " + count(s.prefetches, "prefetches");
  if (s.leaves != 0) out += ", " + count(s.leaves, "leaves");
  if (s.daemon_touches) out += ", daemon touches";
  if (s.atomics != 0) out += ", " + count(s.atomics, "atomics");
  if (s.any_lane) out += ", any lane";
  return out;
}

}  // namespace dsm::core::explorer
