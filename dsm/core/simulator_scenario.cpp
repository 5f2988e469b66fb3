#include "dsm/core/simulator_scenario.hpp"

#include <algorithm>

namespace dsm::core::simulator {

namespace {

// How a program treats memory: mostly reading or mostly writing, all threads after one word or spread out.
struct Taste {
  std::uint32_t writes = 0;     // of 8 touches
  std::uint32_t two_pages = 0;  // of 8 instructions
  std::uint32_t hot = 0;        // of 8 touches, those of the first page
  std::uint32_t atomics = 0;    // of 8 instructions; most are additions, or most are comparisons
  bool compares = false;
};

Touch draw_touch(Random& random, const std::vector<Page>& pages, const Taste& taste) {
  const bool hot = random.below(8) < taste.hot;
  const auto count = static_cast<std::uint32_t>(pages.size());
  Touch touch{.page = pages[hot ? 0 : random.below(count)],
              .word = static_cast<std::uint8_t>(random.below(page_words))};
  touch.writes = random.below(8) < taste.writes;
  touch.reads = !touch.writes || random.one_in(3);
  return touch;
}

Instruction draw_instruction(Random& random, const std::vector<Page>& pages, const Taste& taste) {
  Instruction instruction;
  instruction.touch[0] = draw_touch(random, pages, taste);
  if (random.below(8) < taste.atomics) {
    const bool usual = !random.one_in(4);
    instruction.atomic = taste.compares == usual ? Atomic::Kind::compare_swap : Atomic::Kind::add;
    return instruction;
  }
  if (pages.size() == 1 || random.below(8) >= taste.two_pages) return instruction;
  do {
    instruction.touch[1] = draw_touch(random, pages, taste);
    instruction.touch[1].page = pages[random.below(static_cast<std::uint32_t>(pages.size()))];
  } while (instruction.touch[1].page == instruction.touch[0].page);
  instruction.touches = 2;
  return instruction;
}

std::vector<Page> draw_pages(Random& random, std::uint8_t nodes) {
  std::vector<Page> pages;
  const std::uint32_t count = std::min<std::uint32_t>(random.between(1, 4), nodes + 2U);
  while (pages.size() < count) {
    const Page page = random.below(nodes + 2U);
    if (std::find(pages.begin(), pages.end(), page) == pages.end()) pages.push_back(page);
  }
  return pages;
}

void draw_programs(Random& random, Scenario& s, std::uint32_t quarrel) {
  const bool crowd = s.nodes > 6;
  s.threads_max = crowd ? 1 : random.between(1, 3);
  const std::uint32_t length_max = crowd ? 3 : random.any(std::array<std::uint32_t, 6>{2, 4, 8, 8, 12, 30});
  const Taste taste{.writes = random.between(1, 7),
                    .two_pages = random.one_in(2) ? 0 : random.between(1, 4),
                    .hot = random.below(8),
                    .atomics = random.one_in(2) ? 0 : random.between(1, 6),
                    .compares = random.one_in(2)};
  Taste simple = taste;
  simple.two_pages = 0;
  const std::uint32_t most = s.pace == 0 ? std::max(1U, quarrel - 1) : quarrel;  // in lockstep, luck does not help
  const auto first = static_cast<Node>(random.below(s.nodes));
  const std::uint32_t quarrelling = std::min<std::uint32_t>(s.nodes, random.between(1, most));
  for (Node node = 0; node < s.nodes; ++node) {
    const bool quarrels = (node + 0U + s.nodes - first) % s.nodes < quarrelling;
    for (std::uint32_t thread = random.between(1, s.threads_max); thread > 0; --thread) {
      Program program{.node = node, .code = {}};
      if (s.placement == Placement::first_touch &&
          taste.atomics != 0) {  // who asks for one must know where the page lives
        for (const Page page : s.pages) program.code.push_back({.touch = {Touch{.page = page, .reads = true}}});
      }
      for (std::uint32_t i = random.between(1, length_max); i > 0; --i) {
        program.code.push_back(draw_instruction(random, s.pages, quarrels ? taste : simple));
      }
      s.programs.push_back(std::move(program));
    }
  }
}

}  // namespace

Scenario draw(Random& random, const Limits& limits) {
  Scenario s;
  const Protocol drawn = random.one_in(3) ? Protocol::migrate : Protocol::msi;
  s.protocol = limits.protocol.value_or(drawn);
  s.nodes = static_cast<std::uint8_t>(random.one_in(300) ? random.between(7, 64) : random.between(2, 6));
  s.pages = draw_pages(random, s.nodes);
  s.call_lanes = static_cast<Lane>(random.below(3));
  s.hold = random.any(std::array<Micros, 5>{0, 0, 20, 100, 1000});
  s.absence = random.any(std::array<Micros, 4>{0, 0, 5, 500}) * std::max<Micros>(s.hold, 10);
  s.pins = static_cast<std::uint16_t>(random.below(4));
  s.in_place = random.one_in(2);
  s.pace = random.any(std::array<Micros, 6>{0, 2, 20, 20, 200, 3000});
  s.skew = random.any(std::array<std::uint32_t, 4>{0, 3, 6, 9});
  s.stalls = random.any(std::array<std::uint32_t, 4>{0, 4, 8, 32});
  s.extras = random.any(std::array<std::uint32_t, 4>{0, 10, 40, 200});
  s.extra_weight = std::uint32_t{1} << random.below(s.skew + 1);
  if (random.one_in(8)) {
    s.death = random.between(1, 300);
    s.victim = static_cast<Node>(random.below(s.nodes));
  }
  constexpr std::array placements = {Placement::cyclic, Placement::cyclic, Placement::block, Placement::first_touch};
  s.placement = random.any(placements);
  draw_programs(random, s, limits.quarrel);
  return s;
}

std::string text(const Scenario& s) {
  std::string out = std::string(name(s.protocol)) + ", " + std::string(name(s.placement)) + ", " +
                    std::to_string(s.nodes) + " nodes, " + std::to_string(s.programs.size()) + " threads, pages";
  for (const Page page : s.pages) out += " p" + std::to_string(page);
  out += ", " + std::to_string(s.call_lanes) + " call lanes, hold " + std::to_string(s.hold) + ", absence " +
         std::to_string(s.absence) + ", pins " + std::to_string(s.pins) + ", pace " + std::to_string(s.pace) +
         ", skew " + std::to_string(s.skew) + ", stalls " + std::to_string(s.stalls) + ", extras " +
         std::to_string(s.extras) + (s.in_place ? ", received in place" : "");
  if (s.death != 0) out += ", node " + std::to_string(s.victim) + " lost in step " + std::to_string(s.death);
  return out;
}

std::string text(const Touch& touch) {
  return "p" + std::to_string(touch.page) + "[" + std::to_string(touch.word) + "]";
}

}  // namespace dsm::core::simulator
