#include "viewer/layout.hpp"

#include <algorithm>

#include "viewer/text.hpp"

namespace viewer {
namespace {

constexpr int legend_lines = 6;
constexpr int legend_width = 10;  // with the blank before it
constexpr int hot_lines_least = 3;

}  // namespace

Layout lay_out(const Model& model, Size size) {
  Layout out;
  const auto& touched = model.now().pages_touched;
  out.pages = touched.empty() ? 0 : std::uint64_t{touched.back().page} + 1;

  out.label_digits = std::max(3, hex_digits(out.pages == 0 ? 0 : out.pages - 1));
  out.cells_per_row = 16;
  while (out.label_width() + 2 * out.cells_per_row <= size.width) out.cells_per_row *= 2;
  const bool room_beside = out.label_width() + out.cells_per_row + legend_width <= size.width;

  const bool spark = size.height >= 14, hot = size.height >= 18;
  // Header, two headings, cursor line, keys.
  const int free = size.height - 5 - (spark ? 1 : 0) - (hot ? 1 + hot_lines_least : 0);
  const int ranks = static_cast<int>(model.now().ranks.size());
  const int table = std::min(ranks, (free + 1) / 2), map_most = free - table;
  out.table_rows = static_cast<std::size_t>(table);

  const auto cells_per_row = static_cast<std::uint64_t>(out.cells_per_row);
  const auto rows_for = [&](std::uint64_t per_cell) {
    const std::uint64_t cells = (out.pages + per_cell - 1) / per_cell;
    return (cells + cells_per_row - 1) / cells_per_row;
  };
  while (rows_for(out.pages_per_cell) > static_cast<std::uint64_t>(map_most)) out.pages_per_cell *= 2;
  out.legend = room_beside && map_most >= legend_lines;
  const int needed = std::max(static_cast<int>(rows_for(out.pages_per_cell)), out.legend ? legend_lines : 1);
  // Few pages: what the map does not need goes to the hot pages, or stays blank when they are not shown.
  out.map_rows = hot ? std::min(map_most, needed) : map_most;

  out.map_y = out.table_y + 1 + table;
  out.cursor_y = out.map_y + 1 + out.map_rows;
  int y = out.cursor_y + 1;
  if (hot) {
    out.hot_y = y;
    out.hot_rows = hot_lines_least + map_most - out.map_rows;
    y += 1 + out.hot_rows;
  }
  if (spark) out.spark_y = y;
  return out;
}

}  // namespace viewer
