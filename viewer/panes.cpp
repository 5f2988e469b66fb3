#include "viewer/panes.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <string_view>

#include "viewer/text.hpp"

namespace viewer {
namespace {

constexpr std::string_view bars_ascii = ".:-=+*#@";
constexpr std::u32string_view bars_utf8 = U"▁▂▃▄▅▆▇█";

std::string fit(std::string_view text, int width) {
  return fmt::format("{:<{}}", text.substr(0, static_cast<std::size_t>(std::max(width, 0))), std::max(width, 0));
}

// What is printed of each rank: name, host and process, state, then numbers. Narrow screens keep what moves.
struct Columns {
  int host, state;
  bool all;  // copies and traffic too
};

Columns columns_for(int width) {
  if (width < 80) return {11, 9, false};
  return {width < 100 ? 20 : 30, 12, true};
}

std::string host_and_pid(const RankSample& rank, int width) {
  const std::string pid = rank.pid == 0 ? "" : fmt::format(":{}", rank.pid);
  const int room = width - 1 - static_cast<int>(pid.size());
  return fit(rank.host.substr(0, static_cast<std::size_t>(std::max(room, 0))) + pid, width);
}

}  // namespace

void draw_rule(Grid& grid, int y, const View& view, std::string_view title) {
  grid.fill(y, view.utf8 ? U'─' : U'-');
  grid.put(1, y, title, heading);
}

void draw_header(Grid& grid, const Model& model, const View& view) {
  const Snapshot& s = model.now();
  const int width = grid.size().width;
  const char* status = view.gone || s.ended ? "ENDED" : view.paused ? "PAUSED" : "LIVE";
  const std::string right = fmt::format(" {} {} ", status, elapsed_text(s.elapsed_us));

  // Left to right as shown; with the rank in which they go when there is no room (0 stays).
  struct Piece {
    std::string text;
    int goes;
  };
  std::vector<Piece> pieces = {{"dsmtop", 5},
                               {s.program, s.job.starts_with(s.program) ? 4 : 2},
                               {"job " + s.job, 0},
                               {fmt::format("{} ranks", s.ranks.size()), 1},
                               {s.pages == 0 ? "" : fmt::format("{} pages x {}", s.pages, size_text(s.page_size)), 3},
                               {s.protocol, 2}};
  std::erase_if(pieces, [](const Piece& piece) { return piece.text.empty(); });
  const auto length = [&] {
    std::size_t sum = 1;
    for (const Piece& piece : pieces) sum += piece.text.size() + 2;
    return static_cast<int>(sum);
  };
  while (pieces.size() > 1 && length() + static_cast<int>(right.size()) > width) {
    pieces.erase(
        std::max_element(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.goes < b.goes; }));
  }
  grid.fill(0, U' ', {0, true, true});
  int x = 1;
  for (const Piece& piece : pieces) x = grid.put(x, 0, piece.text, {0, true, true}) + 2;
  grid.put(width - static_cast<int>(right.size()), 0, right, {0, true, true});
}

void draw_table(Grid& grid, const Model& model, const View& view, const Layout& layout) {
  const auto& ranks = model.now().ranks;
  const int width = grid.size().width;
  const Columns columns = columns_for(width);
  const std::size_t rows = layout.table_rows, first = std::min(view.first_rank, ranks.size() - rows);
  std::string title = "HOST:PID";
  if (rows < ranks.size()) title = fmt::format("{}-{} of {}", first, first + rows - 1, ranks.size());
  std::string head = " N   " + fit(title, columns.host) + fit("STATE", columns.state) + "  OWNED";
  head += columns.all ? "  COPIES  FAULT/s  IN kB/s OUT kB/s" : " FAULT/s";
  grid.put(0, layout.table_y, head, heading);
  const int bars_x = static_cast<int>(head.size()) + 2, bars = std::min(width - bars_x - 1, 60);
  if (bars >= 16) grid.put(bars_x, layout.table_y, fmt::format("faults/s, last {} s", bars), heading);

  for (std::size_t row = 0; row < rows; ++row) {
    const RankSample& rank = ranks[first + row];
    const auto rates = model.rates(first + row);
    const auto rate = [&](double Rates::*which, double unit) {
      return rates ? std::optional<double>(*rates.*which / unit) : std::nullopt;
    };
    const int y = layout.table_y + 1 + static_cast<int>(row);
    const bool waits = rank.state == RankState::fault || rank.state == RankState::lock ||
                       rank.state == RankState::barrier || rank.state == RankState::lost;
    int x = grid.put(1, y, fit(rank_name(rank.rank), 4), {rank_color(rank.rank), true, false});
    x = grid.put(x, y, host_and_pid(rank, columns.host));
    x = grid.put(x, y, fit(state_text(rank), columns.state), {0, waits, false});
    x = grid.put(x, y, count_text(static_cast<double>(rank.owned), 7));
    if (columns.all) x = grid.put(x, y, count_text(static_cast<double>(rank.copies), 8));
    x = grid.put(x, y, rate_text(rate(&Rates::faults, 1), columns.all ? 9 : 8));
    if (columns.all) {
      x = grid.put(x, y, rate_text(rate(&Rates::bytes_in, 1000), 9));
      grid.put(x, y, rate_text(rate(&Rates::bytes_out, 1000), 9));
    }
    if (bars < 16) continue;
    const auto history = model.history(static_cast<std::size_t>(bars), first + row);
    double most = 0;
    for (const auto& value : history) most = std::max(most, value.value_or(0));
    draw_bars(grid, bars_x, y, view, history, most);
  }
}

void draw_hot_pages(Grid& grid, const Model& model, const View& view, const Layout& layout) {
  draw_rule(grid, layout.hot_y, view, "Hot pages: moved most in the last second, then in all");
  const auto pages = model.hot(static_cast<std::size_t>(layout.hot_rows - 1));
  const int digits = layout.label_digits;
  int y = layout.hot_y + 1;
  if (pages.empty()) {
    grid.put(1, y, "no page has moved yet");
    return;
  }
  grid.put(0, y++,
           fmt::format(" {:<{}}  MOVES/s   MOVES  STATE      OWNER HOME  OWNERS SEEN", "PAGE", std::max(digits, 4)),
           heading);
  for (const HotPage& hot : pages) {
    std::string owners;
    for (const std::uint8_t owner : hot.owners) owners += (owners.empty() ? "" : " ") + rank_name(owner);
    const bool moving = hot.page.state == 3;
    grid.put(0, y++,
             fmt::format(" {:<{}} {} {}  {:<9}  {:<5} {:<4}  {}", page_text(hot.page.page, digits), std::max(digits, 4),
                         rate_text(hot.moves_per_s, 8), count_text(hot.page.moves, 7), page_state(hot.page.state),
                         moving ? "-" : rank_name(hot.page.state == 1 ? hot.page.home : hot.page.owner),
                         rank_name(hot.page.home), owners));
  }
}

void draw_bars(Grid& grid, int x, int y, const View& view, const std::vector<std::optional<double>>& values,
               double most) {
  for (const auto& value : values) {
    char32_t bar = U' ';
    if (value && *value > 0) {
      const auto step = static_cast<std::size_t>(std::clamp(std::ceil(*value / most * 8) - 1, 0.0, 7.0));
      bar = view.utf8 ? bars_utf8[step] : static_cast<char32_t>(bars_ascii[step]);
    } else if (value) {
      bar = U'_';
    }
    grid.put(x++, y, bar);
  }
}

void draw_spark(Grid& grid, const Model& model, const View& view, const Layout& layout) {
  constexpr std::string_view title = " faults/s, 1 char = 1 s ";
  const int width = grid.size().width, right = 14, count = width - static_cast<int>(title.size()) - right;
  if (count <= 0) return;
  const auto values = model.history(static_cast<std::size_t>(count));
  double most = 0;
  for (const auto& value : values) most = std::max(most, value.value_or(0));
  const int x = grid.put(0, layout.spark_y, title, heading);
  draw_bars(grid, x, layout.spark_y, view, values, most);
  grid.put(x + count, layout.spark_y, " most " + rate_text(most, 0));
}

void draw_keys(Grid& grid, const View& view) {
  const int y = grid.size().height - 1;
  if (!view.notice.empty()) {
    grid.put(1, y, view.notice, {0, true, false});
    return;
  }
  const bool wide = grid.size().width >= 80;
  grid.put(1, y,
           wide ? "q quit   ? help   Space pause   arrows: cursor   PgUp PgDn: more ranks"
                : "q quit  ? help  Space pause  arrows");
}

}  // namespace viewer
