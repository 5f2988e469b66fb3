#include "dsm/dshm/keys.hpp"

#include <algorithm>
#include <charconv>

namespace dsm::dshm {
namespace {

constexpr std::uint32_t openssl_key = 114;

// Text from outside, fit for one line.
std::string quoted(std::string_view text) {
  constexpr std::size_t most = 40;
  std::string shown(text.substr(0, most));
  std::replace_if(
      shown.begin(), shown.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return "'" + shown + (text.size() > most ? "...'" : "'");
}

// A key is 32 bits; those of ftok may have the highest one.
bool parse_key(std::string_view text, std::uint32_t& key) {
  int base = 10;
  if (text.starts_with("0x") || text.starts_with("0X")) {
    base = 16;
    text.remove_prefix(2);
  }
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), key, base);
  return !text.empty() && error == std::errc{} && end == text.data() + text.size();
}

}  // namespace

KeyFilter::KeyFilter() : ranges_{{0, openssl_key - 1}, {openssl_key + 1, UINT32_MAX}} {}

std::optional<KeyFilter::Range> KeyFilter::parse_range(std::string_view text, std::string& why) {
  const std::size_t dash = text.find('-');
  Range range{};
  if (!parse_key(text.substr(0, dash), range.low) ||
      !parse_key(dash == std::string_view::npos ? text : text.substr(dash + 1), range.high)) {
    why = quoted(text) + " is no key and no LOW-HIGH; keys are from 0 to 0xffffffff, decimal or with 0x";
    return {};
  }
  if (range.low > range.high) {
    why = quoted(text) + " ends before it begins";
    return {};
  }
  return range;
}

std::optional<KeyFilter> KeyFilter::parse(std::string_view text, std::string& why) {
  KeyFilter filter;
  if (text == "all") {
    filter.ranges_ = {{0, UINT32_MAX}};
    return filter;
  }
  filter.ranges_.clear();
  if (text == "none") {
    filter.none_ = true;
    return filter;
  }
  for (;;) {
    const std::size_t comma = text.find(',');
    const std::optional<Range> range = parse_range(text.substr(0, comma), why);
    if (!range) return {};
    filter.ranges_.push_back(*range);
    if (comma == std::string_view::npos) return filter;
    text.remove_prefix(comma + 1);
  }
}

bool KeyFilter::ours(std::int32_t key) const {
  if (none_) return false;
  if (key == 0) return true;  // IPC_PRIVATE
  const auto value = static_cast<std::uint32_t>(key);
  return std::any_of(ranges_.begin(), ranges_.end(),
                     [value](const Range& range) { return range.low <= value && value <= range.high; });
}

}  // namespace dsm::dshm
