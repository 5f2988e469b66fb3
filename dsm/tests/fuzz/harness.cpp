#include "dsm/tests/fuzz/harness.hpp"

#include <algorithm>

namespace dsm::fuzz {

void check(bool holds, const char* what) {
  if (!holds) throw Broken(what);
}

void check_line(std::string_view text, const char* what) {
  check(!text.empty() && std::none_of(text.begin(), text.end(),
                                      [](char c) {
                                        const auto byte = static_cast<unsigned char>(c);
                                        return byte < 0x20 || byte == 0x7f;
                                      }),
        what);
}

std::uint8_t Script::byte() {
  if (left_.empty()) return 0;
  const std::uint8_t value = left_.front();
  left_ = left_.subspan(1);
  return value;
}

std::string Script::bytes(std::size_t most) {
  const Input taken = left_.first(std::min(most, left_.size()));
  left_ = left_.subspan(taken.size());
  return {taken.begin(), taken.end()};
}

}  // namespace dsm::fuzz
