#include "dsm/examples/picture.hpp"

#include <algorithm>
#include <sstream>
#include <stdexcept>
#include <string_view>

// The assembler copies the file into this object (the path is from the top of the repository, where make runs), so that
// the program finds its picture wherever it is started, on every host.
asm(".pushsection .rodata\n"
    ".global example_picture_begin\n"
    ".global example_picture_end\n"
    "example_picture_begin:\n"
    ".incbin \"dsm/examples/picture.pgm\"\n"
    "example_picture_end:\n"
    ".popsection\n");

extern "C" {
extern const char example_picture_begin[];
extern const char example_picture_end[];
}

namespace example {
namespace {

// The next word; in a PGM a # opens a comment to the end of the line.
std::string word(std::istream& in) {
  std::string text;
  while (in >> text && text.front() == '#') std::getline(in, text);
  if (!in) throw std::runtime_error("the picture ends too early");
  return text;
}

std::size_t number(std::istream& in) {
  const std::string text = word(in);
  if (text.size() > 6 || text.find_first_not_of("0123456789") != std::string::npos) {
    throw std::runtime_error("the picture has '" + text + "' where a number belongs");
  }
  return std::stoul(text);
}

}  // namespace

Picture shipped_picture() {
  std::istringstream in(std::string(example_picture_begin, example_picture_end));
  if (word(in) != "P2") throw std::runtime_error("the picture is not a plain PGM (P2)");
  Picture picture;
  picture.width = number(in);
  picture.height = number(in);
  const std::size_t white = number(in);
  if (picture.width < 3 || picture.height < 3 || white == 0) throw std::runtime_error("the picture is too small");
  for (std::size_t i = 0; i < picture.width * picture.height; ++i) {
    picture.grey.push_back(255.0 * static_cast<double>(number(in)) / static_cast<double>(white));
  }
  return picture;
}

void smooth_row(const double* above, const double* row, const double* below, double* out, std::size_t width) {
  out[0] = row[0];
  for (std::size_t x = 1; x + 1 < width; ++x) out[x] = (row[x] + row[x - 1] + row[x + 1] + above[x] + below[x]) / 5;
  out[width - 1] = row[width - 1];
}

Picture smooth(const Picture& picture) {
  Picture next = picture;
  for (std::size_t y = 1; y + 1 < picture.height; ++y) {
    const double* row = &picture.grey[y * picture.width];
    smooth_row(row - picture.width, row, row + picture.width, &next.grey[y * picture.width], picture.width);
  }
  return next;
}

std::vector<std::string> as_text(const Picture& picture, std::size_t columns) {
  constexpr std::string_view ramp = " .:-=+*#%@";
  const std::size_t wide = std::max<std::size_t>(1, picture.width / columns);
  const std::size_t high = 2 * wide;  // a character is about twice as high as wide
  std::vector<std::string> lines;
  for (std::size_t top = 0; top + high <= picture.height; top += high) {
    std::string& line = lines.emplace_back();
    for (std::size_t left = 0; left + wide <= picture.width; left += wide) {
      double sum = 0;
      for (std::size_t y = top; y < top + high; ++y) {
        for (std::size_t x = left; x < left + wide; ++x) sum += picture.grey[y * picture.width + x];
      }
      const double mean = sum / static_cast<double>(wide * high);
      line += ramp[std::min(ramp.size() - 1, static_cast<std::size_t>(mean / 256 * static_cast<double>(ramp.size())))];
    }
  }
  return lines;
}

}  // namespace example
