#include "viewer/grid.hpp"

#include <algorithm>
#include <cstddef>

namespace viewer {
namespace {

std::string sgr(const Style& style) {
  std::string out = "\x1b[0";
  if (style.bold) out += ";1";
  if (style.reverse) out += ";7";
  if (style.color != 0) out += ";3" + std::to_string(style.color);
  return out + 'm';
}

}  // namespace

std::string to_utf8(char32_t c) {
  const auto byte = [](char32_t bits) { return static_cast<char>(bits); };
  if (c < 0x80) return {byte(c)};
  if (c < 0x800) return {byte(0xc0 | (c >> 6)), byte(0x80 | (c & 0x3f))};
  return {byte(0xe0 | (c >> 12)), byte(0x80 | ((c >> 6) & 0x3f)), byte(0x80 | (c & 0x3f))};
}

Grid::Grid(Size size)
    : size_{std::max(size.width, 0), std::max(size.height, 0)},
      cells_(static_cast<std::size_t>(size_.width) * static_cast<std::size_t>(size_.height)) {}

const Cell& Grid::at(int x, int y) const {
  return cells_.at(static_cast<std::size_t>(y) * static_cast<std::size_t>(size_.width) + static_cast<std::size_t>(x));
}

void Grid::put(int x, int y, char32_t character, Style style) {
  if (!inside(x, y)) return;
  cells_[static_cast<std::size_t>(y) * static_cast<std::size_t>(size_.width) + static_cast<std::size_t>(x)] = {
      character, style};
}

int Grid::put(int x, int y, std::string_view text, Style style) {
  for (const char c : text) put(x++, y, c >= ' ' && c <= '~' ? static_cast<char32_t>(c) : U'?', style);
  return x;
}

void Grid::fill(int y, char32_t character, Style style) {
  for (int x = 0; x < size_.width; ++x) put(x, y, character, style);
}

void Grid::restyle(int x, int y, int width, Style style) {
  for (int end = x + width; x < end; ++x) {
    if (inside(x, y)) put(x, y, at(x, y).character, style);
  }
}

std::string Grid::text() const {
  std::string out;
  for (int y = 0; y < size_.height; ++y) {
    std::string line;
    for (int x = 0; x < size_.width; ++x) line += to_utf8(at(x, y).character);
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + '\n';
  }
  return out;
}

std::string Grid::ansi() const {
  std::string out;
  for (int y = 0; y < size_.height; ++y) {
    Style last;
    for (int x = 0; x < size_.width; ++x) {
      const Cell& cell = at(x, y);
      if (!(cell.style == last)) out += sgr(last = cell.style);
      out += to_utf8(cell.character);
    }
    if (!(last == Style{})) out += sgr({});
    out += '\n';
  }
  return out;
}

}  // namespace viewer
