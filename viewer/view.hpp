// viewer/view.hpp - what the user has chosen to see, and how keys change it. Values and pure functions.
#pragma once
#include <cstdint>
#include <string>

#include "viewer/grid.hpp"
#include "viewer/model.hpp"

namespace viewer {

enum class Key : std::uint8_t { other, quit, help, pause, left, right, up, down, page_up, page_down };

struct View {
  bool utf8 = false;           // shapes beyond ASCII may be drawn
  bool paused = false;         // nothing is asked for; the picture stands still
  bool help = false;           // the help screen instead of the first screen
  std::uint64_t cursor = 0;    // the page under the cursor
  std::size_t first_rank = 0;  // of the node table, when it does not fit
  bool gone = false;           // dsmexec went without a last word
  std::string notice;          // one line in place of the keys; empty: the keys
};

// False when the user wants to leave.
[[nodiscard]] bool apply(Key key, View& view, const Model& model, Size size);

}  // namespace viewer
