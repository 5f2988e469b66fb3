#include "dsm/daemon/turned_away.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace dsm::daemon {
namespace {

constexpr std::chrono::seconds interval{10};
constexpr std::size_t kinds_max = 16;  // strangers have a say in what is wrong with them
constexpr const char* others = "something else";

}  // namespace

void TurnedAway::add(const std::string& line, Time now) {
  const std::size_t colon = line.find(": ");
  std::string why = colon == std::string::npos ? line : line.substr(colon + 2);
  if (kinds_.size() >= kinds_max && !kinds_.contains(why)) why = others;
  const auto [kind, is_first] = kinds_.try_emplace(why, Kind{now + interval});
  if (is_first) return say_(line);
  ++kind->second.more;
}

void TurnedAway::tick(Time now) {
  std::erase_if(kinds_, [&](const auto& each) {
    const auto& [why, kind] = each;
    if (now < kind.until) return false;
    if (kind.more != 0) say_(fmt::format("strangers: {}: {} more in {} s", why, kind.more, interval.count()));
    return true;
  });
}

Time TurnedAway::next_deadline() const {
  Time first = Time::max();
  for (const auto& [why, kind] : kinds_) first = std::min(first, kind.until);
  return first;
}

}  // namespace dsm::daemon
