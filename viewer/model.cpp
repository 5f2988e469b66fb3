#include "viewer/model.hpp"

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

namespace viewer {
namespace {

constexpr std::uint64_t window_us = 1'000'000;
constexpr std::uint64_t gap_us = 2'000'000;  // longer than this between two snapshots: nobody looked
constexpr std::size_t seconds_kept = 600;
constexpr std::uint64_t covered_least_us = 200'000;  // of a second; less would make a rate out of one or two faults

std::uint64_t faults_of(const RankSample& rank) { return rank.read_faults + rank.write_faults; }

// A counter never falls; if it did (a rank scribbled over its segment) there is no difference to speak of.
std::uint64_t rise(std::uint64_t before, std::uint64_t after) { return after > before ? after - before : 0; }

const RankSample* find_rank(const Snapshot& snapshot, std::uint32_t rank) {
  const auto at = std::lower_bound(snapshot.ranks.begin(), snapshot.ranks.end(), rank,
                                   [](const RankSample& a, std::uint32_t b) { return a.rank < b; });
  return at != snapshot.ranks.end() && at->rank == rank ? &*at : nullptr;
}

std::size_t lower_bound_in(const Snapshot& snapshot, std::uint64_t page) {
  const auto at = std::lower_bound(snapshot.pages_touched.begin(), snapshot.pages_touched.end(), page,
                                   [](const PageSample& a, std::uint64_t b) { return a.page < b; });
  return static_cast<std::size_t>(at - snapshot.pages_touched.begin());
}

}  // namespace

void Model::clear() { *this = Model(); }

void Model::update(Snapshot next) {
  if (!empty()) {
    const Snapshot& last = now();
    if (next.job != last.job || next.elapsed_us < last.elapsed_us) {
      clear();
    } else if (next.elapsed_us == last.elapsed_us) {
      window_.pop_back();
    } else if (next.elapsed_us - last.elapsed_us > gap_us) {
      window_.clear();  // a rate over the gap would be no rate of now
    } else {
      remember_faults(last, next);
    }
  }
  window_.push_back(std::move(next));
  // The oldest that stays is the newest of those a whole window old: the rate then spans at least a window, once there is one.
  while (window_.size() > 2 && window_[1].elapsed_us + window_us <= now().elapsed_us) window_.pop_front();
  compare_pages();
}

void Model::remember_faults(const Snapshot& before, const Snapshot& after) {
  const std::uint64_t number = after.elapsed_us / 1'000'000;
  if (seconds_.empty() || seconds_.back().number != number) seconds_.push_back({number, 0, {}});
  while (seconds_.size() > seconds_kept) seconds_.pop_front();
  Second& second = seconds_.back();
  second.covered_us += after.elapsed_us - before.elapsed_us;
  second.faults.resize(std::max(second.faults.size(), after.ranks.size()));
  for (std::size_t i = 0; i < after.ranks.size(); ++i) {
    const RankSample* old = find_rank(before, after.ranks[i].rank);
    second.faults[i] += rise(old == nullptr ? 0 : faults_of(*old), faults_of(after.ranks[i]));
  }
}

void Model::compare_pages() {
  const std::vector<PageSample>& pages = now().pages_touched;
  recent_moves_.assign(pages.size(), 0);
  if (window_.size() < 2) return;
  const std::vector<PageSample>& old = window_.front().pages_touched;
  std::size_t j = 0;
  for (std::size_t i = 0; i < pages.size(); ++i) {
    while (j < old.size() && old[j].page < pages[i].page) ++j;
    const std::uint32_t before = j < old.size() && old[j].page == pages[i].page ? old[j].moves : 0;
    recent_moves_[i] = pages[i].moves - before;  // modulo 2^32, as the counter
  }
}

std::optional<Rates> Model::rates(std::size_t index) const {
  if (window_.size() < 2) return std::nullopt;
  const RankSample& after = now().ranks.at(index);
  const RankSample* before = find_rank(window_.front(), after.rank);
  if (before == nullptr) return std::nullopt;
  const double seconds = static_cast<double>(now().elapsed_us - window_.front().elapsed_us) * 1e-6;
  const auto rate = [=](std::uint64_t a, std::uint64_t b) { return static_cast<double>(rise(a, b)) / seconds; };
  return Rates{rate(faults_of(*before), faults_of(after)), rate(before->bytes_in, after.bytes_in),
               rate(before->bytes_out, after.bytes_out)};
}

std::optional<double> Model::moves_per_s(std::size_t index) const {
  if (window_.size() < 2) return std::nullopt;
  return recent_moves_.at(index) / (static_cast<double>(now().elapsed_us - window_.front().elapsed_us) * 1e-6);
}

bool Model::ping_pong(std::size_t index) const { return recent_moves_.at(index) >= ping_pong_moves; }

std::size_t Model::lower_bound(std::uint64_t page) const { return empty() ? 0 : lower_bound_in(now(), page); }

std::vector<HotPage> Model::hot(std::size_t most) const {
  if (empty()) return {};
  const std::vector<PageSample>& pages = now().pages_touched;
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < pages.size(); ++i) {
    if (pages[i].moves != 0) order.push_back(i);
  }
  most = std::min(most, order.size());
  std::partial_sort(
      order.begin(), order.begin() + static_cast<std::ptrdiff_t>(most), order.end(), [&](std::size_t a, std::size_t b) {
        return std::tie(recent_moves_[b], pages[b].moves, a) < std::tie(recent_moves_[a], pages[a].moves, b);
      });
  std::vector<HotPage> out;
  for (std::size_t i = 0; i < most; ++i) {
    const PageSample& page = pages[order[i]];
    std::set<std::uint8_t> owners;
    for (const Snapshot& snapshot : window_) {
      const std::size_t at = lower_bound_in(snapshot, page.page);
      if (at < snapshot.pages_touched.size() && snapshot.pages_touched[at].page == page.page) {
        owners.insert(snapshot.pages_touched[at].owner);
      }
    }
    out.push_back({page, moves_per_s(order[i]), {owners.begin(), owners.end()}});
  }
  return out;
}

std::vector<std::optional<double>> Model::history(std::size_t count, std::optional<std::size_t> index) const {
  std::vector<std::optional<double>> out(count);
  if (empty()) return out;
  const std::uint64_t present = now().elapsed_us / 1'000'000;
  for (const Second& second : seconds_) {
    if (second.number > present || present - second.number >= count) continue;
    if (second.covered_us < covered_least_us) continue;
    std::uint64_t faults = 0;
    for (std::size_t i = 0; i < second.faults.size(); ++i) {
      if (!index || *index == i) faults += second.faults[i];
    }
    out[count - 1 - (present - second.number)] =
        static_cast<double>(faults) / (static_cast<double>(second.covered_us) * 1e-6);
  }
  return out;
}

}  // namespace viewer
