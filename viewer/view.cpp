#include "viewer/view.hpp"

#include <algorithm>

#include "viewer/layout.hpp"

namespace viewer {
namespace {

// The cursor steps over cells, not pages, and stays on the map.
void move_cursor(View& view, const Layout& layout, std::int64_t cells) {
  if (layout.pages == 0) return;
  const auto last = static_cast<std::int64_t>(layout.cells() - 1);
  const auto here = static_cast<std::int64_t>(std::min(view.cursor / layout.pages_per_cell, layout.cells() - 1));
  const std::int64_t there = here + cells;
  if (there < 0 || there > last) return;
  view.cursor = static_cast<std::uint64_t>(there) * layout.pages_per_cell;
}

}  // namespace

bool apply(Key key, View& view, const Model& model, Size size) {
  if (key == Key::quit) return false;
  if (view.help) {
    view.help = false;
    return true;
  }
  if (key == Key::help) view.help = true;
  if (key == Key::pause) view.paused = !view.paused;
  if (model.empty() || size.width < smallest.width || size.height < smallest.height) return true;

  const Layout layout = lay_out(model, size);
  const std::size_t ranks = model.now().ranks.size(), rows = layout.table_rows;
  switch (key) {
    case Key::left:
      move_cursor(view, layout, -1);
      break;
    case Key::right:
      move_cursor(view, layout, +1);
      break;
    case Key::up:
      move_cursor(view, layout, -layout.cells_per_row);
      break;
    case Key::down:
      move_cursor(view, layout, +layout.cells_per_row);
      break;
    case Key::page_up:
      view.first_rank -= std::min(view.first_rank, rows);
      break;
    case Key::page_down:
      view.first_rank = std::min(view.first_rank + rows, ranks - rows);
      break;
    default:
      break;
  }
  return true;
}

}  // namespace viewer
