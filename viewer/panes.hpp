// viewer/panes.hpp - the parts of the first screen, each drawn into its place. For render.cpp only.
#pragma once
#include "viewer/grid.hpp"
#include "viewer/layout.hpp"
#include "viewer/model.hpp"
#include "viewer/view.hpp"

namespace viewer {

inline constexpr Style heading{0, true, false};

void draw_header(Grid& grid, const Model& model, const View& view);
void draw_table(Grid& grid, const Model& model, const View& view, const Layout& layout);
void draw_map(Grid& grid, const Model& model, const View& view, const Layout& layout);
void draw_cursor_line(Grid& grid, const Model& model, const View& view, const Layout& layout);
void draw_hot_pages(Grid& grid, const Model& model, const View& view, const Layout& layout);
void draw_spark(Grid& grid, const Model& model, const View& view, const Layout& layout);
void draw_keys(Grid& grid, const View& view);
void draw_help(Grid& grid);

// A horizontal rule with a title in it.
void draw_rule(Grid& grid, int y, const View& view, std::string_view title);
// One character for each value, scaled to `most`; blank where nothing is known, '_' for none.
void draw_bars(Grid& grid, int x, int y, const View& view, const std::vector<std::optional<double>>& values,
               double most);

}  // namespace viewer
