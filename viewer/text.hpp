// viewer/text.hpp - how ranks, numbers and states are written. Pure functions.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "viewer/model.hpp"

namespace viewer {

// Ranks 0..25 are A..Z. Beyond, letters would clash with the rule that case tells exclusive from shared: in the map they
// are '#' (exclusive) and '+' (shared), elsewhere '#' and the number.
[[nodiscard]] std::string rank_name(std::uint32_t rank);
[[nodiscard]] char rank_letter(std::uint32_t rank, bool exclusive);
[[nodiscard]] std::uint8_t rank_color(std::uint32_t rank);

// "run", "FAULT 1f" (the page), "LOCK 7", "BARR 3", "start", "done", "LOST"; capitals: it waits.
[[nodiscard]] std::string state_text(const RankSample& rank);
// none|shared|exclusive|moving, as in JSON.
[[nodiscard]] const char* page_state(std::uint8_t state);
[[nodiscard]] const char* rank_state(RankState state);  // the word in JSON

// Right-aligned in `width` characters, 1234567 as "1.23M" when it does not fit otherwise; 0: as long as it is.
[[nodiscard]] std::string count_text(double value, int width);
// Like count_text, with one decimal below 10; "-" while unknown.
[[nodiscard]] std::string rate_text(std::optional<double> per_second, int width);
[[nodiscard]] std::string size_text(std::uint64_t bytes);                 // "4K", "1M", "12345"
[[nodiscard]] std::string elapsed_text(std::uint64_t elapsed_us);         // "00:12.4", "1:02:03"
[[nodiscard]] std::string page_text(std::uint64_t page, int digits = 0);  // hexadecimal, at least so many digits
[[nodiscard]] int hex_digits(std::uint64_t page);

}  // namespace viewer
