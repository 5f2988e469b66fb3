// viewer/map.cpp - the page map, the line about the page under the cursor, and the help that explains both.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <string>
#include <string_view>

#include "dsm/core/coherence.hpp"
#include "viewer/panes.hpp"
#include "viewer/text.hpp"

namespace viewer {
namespace {

using State = dsm::core::View::State;

std::uint64_t cursor_cell(const View& view, const Layout& layout) {
  return std::min(view.cursor / layout.pages_per_cell,
                  layout.cells() - 1);  // the cell size changes as pages are touched
}

// The touched pages of one cell: [begin, end) in pages_touched.
struct Span {
  std::size_t begin, end;
};

Span pages_in(const Model& model, const Layout& layout, std::uint64_t cell) {
  return {model.lower_bound(cell * layout.pages_per_cell), model.lower_bound((cell + 1) * layout.pages_per_cell)};
}

std::uint8_t owner_of(const PageSample& page) {
  return static_cast<State>(page.state) == State::shared ? page.home : page.owner;
}

// What is most worth knowing wins: a ping-pong, a page on its way, owners that differ, exclusive, shared, nothing.
Cell cell_of(const Model& model, Span span) {
  const auto& pages = model.now().pages_touched;
  if (span.begin == span.end) return {U'.', {}};
  const std::uint8_t owner = owner_of(pages[span.begin]);
  bool moving = false, mixed = false, exclusive = false;
  for (std::size_t i = span.begin; i < span.end; ++i) {
    if (model.ping_pong(i)) return {U'!', {0, true, false}};
    const auto state = static_cast<State>(pages[i].state);
    moving = moving || state == State::moving;
    mixed = mixed || owner_of(pages[i]) != owner;
    exclusive = exclusive || state == State::exclusive;
  }
  if (moving) return {U'*', {0, true, false}};
  if (mixed) return {U'?', {}};
  return {static_cast<char32_t>(rank_letter(owner, exclusive)), {rank_color(owner), exclusive, false}};
}

std::string holder(const PageSample& page) {
  switch (static_cast<State>(page.state)) {
    case State::untouched:
      return "untouched";
    case State::shared:
      return "shared, home " + rank_name(page.home);
    case State::exclusive:
      return fmt::format("exclusive {}, home {}", rank_name(page.owner), rank_name(page.home));
    case State::moving:
      return fmt::format("moving, last {}, home {}", rank_name(page.owner), rank_name(page.home));
  }
  return "untouched";
}

// How many of the cell's pages each owner has, as far as there is room: "A 5, B 2".
std::string owners_text(const Model& model, Span span) {
  std::array<std::uint32_t, 256> owned{};
  std::uint32_t moving = 0;
  for (std::size_t i = span.begin; i < span.end; ++i) {
    const PageSample& page = model.now().pages_touched[i];
    static_cast<State>(page.state) == State::moving ? ++moving : ++owned[owner_of(page)];
  }
  std::string out;
  for (std::uint32_t rank = 0; rank < owned.size(); ++rank) {
    if (owned[rank] != 0) out += fmt::format("{}{} {}", out.empty() ? "" : ", ", rank_name(rank), owned[rank]);
  }
  if (moving != 0) out += fmt::format("{}moving {}", out.empty() ? "" : ", ", moving);
  return out;
}

// The page of the cell that moved most in the last second, then in all.
std::size_t hottest(const Model& model, Span span) {
  std::size_t best = span.begin;
  const auto heat = [&](std::size_t i) {
    return std::pair(model.moves_per_s(i).value_or(0), model.now().pages_touched[i].moves);
  };
  for (std::size_t i = span.begin; i < span.end; ++i) {
    if (heat(best) < heat(i)) best = i;
  }
  return best;
}

constexpr std::array<std::string_view, 6> legend = {"A excl",    "a shared", "* moving",
                                                    "! bounces", "? mixed",  ". unused"};

constexpr std::array<std::string_view, 22> help_lines = {
    "q quit    ? help    Space pause, go on",
    "arrows: cursor    PgUp PgDn: more ranks",
    "Map: a cell is one page or several.",
    "A: rank A may write   a: shared, home A",
    "*: moving             .: never touched",
    "!: ping-pong, 4 or more moves in 1 s",
    "?: a cell whose pages have many owners",
    "#: a rank beyond Z may write  +: shared",
    "",
    "Ranks 0 to 25 are A to Z. Later ones have the sign # or + in the map; the",
    "line under the map and the table give their number.",
    "STATE   run, FAULT page, LOCK id, BARR round, done; LOST: the rank has gone.",
    "OWNED   pages the rank may write now.  COPIES  pages it may only read now.",
    "FAULT/s page faults; IN and OUT: what it received and sent (1 kB: 1000 bytes),",
    "        each over about the last second; - is: not known yet.",
    "MOVES   how often a page went to another owner. A shared page is its home's.",
    "Page numbers are hexadecimal. A page's home is the rank that keeps its books.",
    "PAUSED  nothing is asked of the job: the picture stands still, not the job.",
    "ENDED   the job's last frame.",
    "faults/s  one character a second, scaled to the most; _ none, blank: unknown.",
    "",
    "Any key but q goes back.",
};

}  // namespace

void draw_map(Grid& grid, const Model& model, const View& view, const Layout& layout) {
  const Snapshot& s = model.now();
  std::string title = "No page has been touched yet";
  if (layout.pages != 0) {
    title =
        fmt::format("Pages {}-{}", page_text(0, layout.label_digits), page_text(layout.pages - 1, layout.label_digits));
    const bool wide = grid.size().width >= 80;
    const std::uint64_t per_cell = layout.pages_per_cell;
    // Narrow screens have no room for ten digits, and it is a power of two.
    const std::string count =
        wide || per_cell < 100'000 ? fmt::format("{}", per_cell) : fmt::format("2^{}", std::countr_zero(per_cell));
    title += wide ? fmt::format(", 1 cell = {} page{}", count, per_cell == 1 ? "" : "s") : ", " + count + " per cell";
    if (wide) title += fmt::format(", {} of {} touched", s.pages_touched.size(), s.pages);
    if (s.pages_left_out != 0) title += fmt::format(", {} more not shown", s.pages_left_out);
  }
  draw_rule(grid, layout.map_y, view, title);

  const std::uint64_t cells = layout.cells(), cursor = cells == 0 ? 0 : cursor_cell(view, layout);
  for (std::uint64_t cell = 0; cell < cells; ++cell) {
    const auto per_row = static_cast<std::uint64_t>(layout.cells_per_row);
    const int y = layout.map_y + 1 + static_cast<int>(cell / per_row);
    const int column = static_cast<int>(cell % per_row);
    if (column == 0) grid.put(0, y, page_text(cell * layout.pages_per_cell, layout.label_digits));
    Cell shown = cell_of(model, pages_in(model, layout, cell));
    shown.style.reverse = cell == cursor;
    grid.put(layout.label_width() + column, y, shown.character, shown.style);
  }
  if (!layout.legend) return;
  for (std::size_t i = 0; i < legend.size(); ++i) {
    grid.put(layout.label_width() + layout.cells_per_row + 1, layout.map_y + 1 + static_cast<int>(i), legend[i]);
  }
}

void draw_cursor_line(Grid& grid, const Model& model, const View& view, const Layout& layout) {
  if (layout.pages == 0) return;
  const std::uint64_t cell = cursor_cell(view, layout);
  const Span span = pages_in(model, layout, cell);
  const bool wide = grid.size().width >= 80, several = layout.pages_per_cell > 1;
  const std::uint64_t first = cell * layout.pages_per_cell;
  std::string text = "> " + page_text(first, layout.label_digits);
  if (several) text += "-" + page_text(first + layout.pages_per_cell - 1, layout.label_digits);
  if (span.begin == span.end) {
    text += ": untouched";
  } else {
    const std::size_t shown = hottest(model, span);
    const PageSample& page = model.now().pages_touched[shown];
    // What may be cut off at the right edge comes last.
    if (several) text = (wide ? text + ", hottest " : "> ") + page_text(page.page, layout.label_digits);
    text += ": " + holder(page);
    if (const auto rate = model.moves_per_s(shown)) text += ", " + rate_text(rate, 0) + (wide ? " moves/s" : "/s");
    if (wide && model.ping_pong(shown)) text += ", ping-pong";
    if (wide && !several) text += fmt::format(", {} moves in all", page.moves);
    if (wide && several) text += "; " + owners_text(model, span);
  }
  grid.put(0, layout.cursor_y, text, heading);
}

void draw_help(Grid& grid) {
  grid.put(1, 0, "dsmtop: who owns which page", heading);
  const bool wide = grid.size().width >= 80;
  for (std::size_t i = 0; i < help_lines.size(); ++i) {
    // The first lines fit the smallest terminal; the others need a wide one.
    if (i >= 8 && !wide) break;
    grid.put(1, 1 + static_cast<int>(i), help_lines[i]);
  }
}

}  // namespace viewer
