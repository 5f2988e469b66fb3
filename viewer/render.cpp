#include "viewer/render.hpp"

#include <fmt/format.h>

#include <sstream>
#include <string>

#include "viewer/layout.hpp"
#include "viewer/panes.hpp"

namespace viewer {
namespace {

// Words that do not fit go to the next line.
void put_wrapped(Grid& grid, int y, const std::string& text) {
  std::istringstream words(text);
  std::string line;
  for (std::string word; words >> word;) {
    if (!line.empty() && static_cast<int>(line.size() + word.size()) + 3 > grid.size().width) {
      grid.put(1, y++, line);
      line.clear();
    }
    line += (line.empty() ? "" : " ") + word;
  }
  grid.put(1, y, line);
}

void draw_waiting(Grid& grid, const View& view) {
  grid.put(1, 0, "dsmtop", heading);
  put_wrapped(grid, grid.size().height / 2 - 1, view.notice);
  View keys = view;
  keys.notice.clear();
  draw_keys(grid, keys);
}

}  // namespace

Grid render(const Model& model, const View& view, Size size) {
  Grid grid(size);
  if (size.width < smallest.width || size.height < smallest.height) {
    grid.put(0, 0, fmt::format("terminal too small: {}x{}", size.width, size.height));
    grid.put(0, 1, fmt::format("dsmtop needs {}x{}", smallest.width, smallest.height));
    return grid;
  }
  if (view.help) {
    draw_help(grid);
    return grid;
  }
  if (model.empty()) {
    draw_waiting(grid, view);
    return grid;
  }
  const Layout layout = lay_out(model, size);
  draw_header(grid, model, view);
  draw_table(grid, model, view, layout);
  draw_map(grid, model, view, layout);
  draw_cursor_line(grid, model, view, layout);
  if (layout.hot_rows > 0) draw_hot_pages(grid, model, view, layout);
  if (layout.spark_y > 0) draw_spark(grid, model, view, layout);
  draw_keys(grid, view);
  return grid;
}

}  // namespace viewer
