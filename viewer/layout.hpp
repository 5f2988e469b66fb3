// viewer/layout.hpp - which pane gets which lines of the screen. A pure function.
#pragma once
#include <cstddef>
#include <cstdint>

#include "viewer/grid.hpp"
#include "viewer/model.hpp"

namespace viewer {

inline constexpr Size smallest{40, 10};

// From top to bottom; the header is line 0, the keys are the last line. A pane with no lines is not shown: the hot pages go
// first when the screen gets lower, then the spark line; the legend goes when it gets narrower.
struct Layout {
  int table_y = 1;  // its heading; rows follow
  std::size_t table_rows = 0;
  int map_y = 0;                     // its heading; rows follow
  int map_rows = 0;                  // lines set aside
  int cells_per_row = 0;             // a power of two
  int label_digits = 3;              // of the page number that opens a row of the map
  std::uint64_t pages_per_cell = 1;  // a power of two: all pages up to the highest touched fit
  std::uint64_t pages = 0;           // shown in the map: 0 .. pages-1
  bool legend = false;
  int cursor_y = 0;
  int hot_y = 0, hot_rows = 0;
  int spark_y = 0;  // 0: none

  [[nodiscard]] int label_width() const { return label_digits + 1; }
  [[nodiscard]] std::uint64_t cells() const { return (pages + pages_per_cell - 1) / pages_per_cell; }
};

// REQUIRES: size is at least `smallest`, the model is not empty.
[[nodiscard]] Layout lay_out(const Model& model, Size size);

}  // namespace viewer
