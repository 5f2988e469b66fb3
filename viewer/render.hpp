// viewer/render.hpp - the whole screen as a function of what is known and what is chosen. No terminal, no clock, no I/O.
#pragma once
#include "viewer/grid.hpp"
#include "viewer/model.hpp"
#include "viewer/view.hpp"

namespace viewer {

// Complete without colour and in ASCII; colours and (view.utf8) finer shapes only repeat what letters say.
[[nodiscard]] Grid render(const Model& model, const View& view, Size size);

}  // namespace viewer
