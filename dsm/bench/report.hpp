// dsm/bench/report.hpp - a figure beside its limit, and how a list of them is shown and kept. Plain values.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace bench {

// `value` and `limit` are medians of `n` samples each, taken in turns, block by block, in the same run with the same
// pinning. `ratio` is the median of the blocks' own ratios: a machine that is slower for a while is so for both.
struct Figure {
  std::string name;    // "read_miss"
  std::string regime;  // "one_core", "two_cores"; of dshm_bench "uffd", "sigsegv"
  std::string unit;    // "us"
  double value = 0;
  double limit = 0;
  double ratio = 0;
  std::uint64_t n = 0;
  double messages = 0;  // sent by all ranks for each sample; 0: not counted, and shown as "-"
};

// One line of JSON, as a rank tells its figure. Throws nlohmann::json::exception if the text is none.
[[nodiscard]] std::string to_json(const Figure& figure);
[[nodiscard]] Figure from_json(const std::string& text);

// The table's first line, and a figure's. No newline.
[[nodiscard]] std::string header();
[[nodiscard]] std::string row(const Figure& figure);
[[nodiscard]] std::string file(const std::vector<Figure>& figures);  // {"figures": [...]}

}  // namespace bench
