// viewer/grid.hpp - a screen as a value: what rendering makes, tests compare, and the shell copies to a terminal.
//
// Thread-safety: as for any value.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace viewer {

struct Size {
  int width = 0, height = 0;
  friend bool operator==(const Size&, const Size&) = default;
};

struct Style {
  std::uint8_t color = 0;  // 0: the terminal's own; 1..6: ranks, see rank_color()
  bool bold = false;
  bool reverse = false;
  friend bool operator==(const Style&, const Style&) = default;
};

struct Cell {
  char32_t character = U' ';  // one column wide
  Style style;
  friend bool operator==(const Cell&, const Cell&) = default;
};

class Grid {
 public:
  explicit Grid(Size size);
  [[nodiscard]] Size size() const { return size_; }
  [[nodiscard]] const Cell& at(int x, int y) const;

  // All of these clip at the edges. Text is ASCII; every other byte (of a host's name, say) becomes '?', so that nothing a
  // job says can steer the terminal. Returns the column after the last.
  int put(int x, int y, std::string_view text, Style style = {});
  void put(int x, int y, char32_t character, Style style = {});
  void fill(int y, char32_t character, Style style = {});
  void restyle(int x, int y, int width, Style style);

  // The characters as UTF-8, a line each, without blanks at the end of a line.
  [[nodiscard]] std::string text() const;
  // The same with SGR escape sequences (ECMA-48) for the styles.
  [[nodiscard]] std::string ansi() const;

  friend bool operator==(const Grid&, const Grid&) = default;

 private:
  [[nodiscard]] bool inside(int x, int y) const { return x >= 0 && y >= 0 && x < size_.width && y < size_.height; }
  Size size_;
  std::vector<Cell> cells_;
};

[[nodiscard]] std::string to_utf8(char32_t character);

}  // namespace viewer
