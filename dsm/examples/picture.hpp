// dsm/examples/picture.hpp - the picture that demo smooths: a sailing boat, compiled into the program.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace example {

struct Picture {
  std::size_t width = 0, height = 0;
  std::vector<double> grey;  // row by row, 0 black .. 255 white
};

// picture.pgm. Throws std::runtime_error if it is not a plain PGM ("P2").
Picture shipped_picture();

// Smooths a row: each point becomes the mean of itself and its four neighbours. `above` and `below` are the rows beside
// it; the first and last point stay. The serial and the parallel run both call this, so they agree to the last bit.
void smooth_row(const double* above, const double* row, const double* below, double* out, std::size_t width);

// The whole picture, by one process; the first and last row stay.
Picture smooth(const Picture& picture);

// As lines of characters, dark to bright, `columns` wide.
std::vector<std::string> as_text(const Picture& picture, std::size_t columns);

}  // namespace example
