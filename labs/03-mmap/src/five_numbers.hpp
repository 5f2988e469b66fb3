// five_numbers.hpp - what `writer` and `reader` have agreed upon: five ints, 20 bytes, in this machine's order of bytes,
// at the beginning of the file.
#pragma once
#include <array>
#include <string>

using FiveNumbers = std::array<int, 5>;
static_assert(sizeof(FiveNumbers) == 20);

// " a b c d e"
inline std::string text_of(const FiveNumbers& numbers) {
  std::string text;
  for (const int number : numbers) text += " " + std::to_string(number);
  return text;
}
