#include "viewer/text.hpp"

#include <fmt/format.h>

#include <array>
#include <cmath>

namespace viewer {
namespace {

constexpr std::uint32_t letters = 26;

}  // namespace

std::string rank_name(std::uint32_t rank) {
  return rank < letters ? std::string(1, static_cast<char>('A' + rank)) : fmt::format("#{}", rank);
}

char rank_letter(std::uint32_t rank, bool exclusive) {
  if (rank >= letters) return exclusive ? '#' : '+';
  return static_cast<char>((exclusive ? 'A' : 'a') + static_cast<int>(rank));
}

// The colours that are legible on black and on white come first.
std::uint8_t rank_color(std::uint32_t rank) {
  constexpr std::array<std::uint8_t, 6> ansi = {2, 6, 5, 3, 1, 4};
  return ansi[rank % ansi.size()];
}

std::string state_text(const RankSample& rank) {
  switch (rank.state) {
    case RankState::starting:
      return "start";
    case RankState::running:
      return "run";
    case RankState::fault:
      return fmt::format("FAULT {:x}", rank.on_page);
    case RankState::lock:
      return rank.on_page < 65536 ? fmt::format("LOCK {}", rank.on_page) : "LOCK";  // else it has an address or a name
    case RankState::barrier:
      return fmt::format("BARR {}", rank.on_page);
    case RankState::finalized:
      return "done";
    case RankState::lost:
      return "LOST";
  }
  return "?";
}

const char* rank_state(RankState state) {
  switch (state) {
    case RankState::starting:
      return "starting";
    case RankState::running:
      return "running";
    case RankState::fault:
      return "fault";
    case RankState::lock:
      return "lock";
    case RankState::barrier:
      return "barrier";
    case RankState::finalized:
      return "finalized";
    case RankState::lost:
      return "lost";
  }
  return "lost";
}

const char* page_state(std::uint8_t state) {
  constexpr std::array<const char*, 4> names = {"none", "shared", "exclusive", "moving"};
  return state < names.size() ? names[state] : "none";
}

std::string count_text(double value, int width) {
  std::string out = fmt::format("{:.0f}", value);
  for (const char unit : std::string("kMGTPE")) {
    if (width == 0 || static_cast<int>(out.size()) <= width) break;
    value /= 1000;
    out = fmt::format("{:.{}f}{}", value, std::abs(value) < 9.995 ? 2 : std::abs(value) < 99.95 ? 1 : 0, unit);
  }
  return fmt::format("{:>{}}", out, width);
}

std::string rate_text(std::optional<double> per_second, int width) {
  if (!per_second) return fmt::format("{:>{}}", "-", width);
  if (*per_second > 0 && *per_second < 9.95) return fmt::format("{:>{}.1f}", *per_second, width);
  return count_text(*per_second, width);
}

std::string size_text(std::uint64_t bytes) {
  if (bytes != 0 && bytes % (1u << 20) == 0) return fmt::format("{}M", bytes >> 20);
  if (bytes != 0 && bytes % 1024 == 0) return fmt::format("{}K", bytes >> 10);
  return fmt::format("{}", bytes);
}

std::string elapsed_text(std::uint64_t elapsed_us) {
  const std::uint64_t seconds = elapsed_us / 1'000'000, tenths = elapsed_us / 100'000 % 10;
  if (seconds >= 3600) return fmt::format("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
  return fmt::format("{:02}:{:02}.{}", seconds / 60, seconds % 60, tenths);
}

std::string page_text(std::uint64_t page, int digits) { return fmt::format("{:0{}x}", page, digits); }

int hex_digits(std::uint64_t page) { return static_cast<int>(fmt::format("{:x}", page).size()); }

}  // namespace viewer
