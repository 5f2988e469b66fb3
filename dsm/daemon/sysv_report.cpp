// What dsmd knows of System V IPC, for people: `dshmctl stat` prints it.
#include <fmt/format.h>

#include <algorithm>

#include "dsm/daemon/sysv_home.hpp"

namespace dsm::daemon {
namespace {

constexpr std::size_t text_max = sysv::max_frame / 2;  // bytes of a report

// Lines, as many as fit.
class Lines {
 public:
  void add(const std::string& line) {
    if (text_.size() + line.size() < text_max && !full()) {
      text_ += line + '\n';
    } else {
      ++left_out_;
    }
  }
  // Whoever asks need not make the others, but says how many there would have been.
  [[nodiscard]] bool full() const { return left_out_ != 0; }
  void leave_out(std::size_t lines) { left_out_ += lines; }
  [[nodiscard]] std::string text() const {
    return left_out_ == 0 ? text_ : text_ + fmt::format("{} lines more are left out here\n", left_out_);
  }

 private:
  std::string text_;
  std::size_t left_out_ = 0;
};

double seconds(Time::duration time) { return std::chrono::duration<double>(time).count(); }

}  // namespace

std::string SysvHome::report(Time now) const {
  Lines lines;
  const sysv::SegmentTotals segments = segments_.totals();
  const sysv::SetTotals sets = sets_.totals();
  lines.add(
      fmt::format("segments {} (at most {}), their pages {}; semaphore sets {} (at most {}), semaphores {}; agents {}; "
                  "pages lost {}",
                  segments.used, segments.limits.max_count, segments.pages, sets.sets, sets.limits.sets,
                  sets.semaphores, agents_.size(), pages_lost_));
  for (const auto& [guest, agent] : agents_) {
    if (lines.full()) {
      lines.leave_out(1);
      continue;
    }
    lines.add(
        fmt::format("host {}: {} ({}), processes {}, attaches {}, segments open {}, pages held for writing {}, calls "
                    "that wait {}, heard {:.1f} s ago",
                    agent.host, short_name(agent), agent.address, agent.processes.size(), agent.attaches,
                    agent.tenures.size(), agent.writes, agent.waiting.size(), seconds(now - agent.heard)));
  }
  std::size_t left = leases_.size();
  for (auto at = leases_.begin(); at != leases_.end() && !lines.full(); ++at, --left) {
    const auto& [until, lease] = *at;
    lines.add(fmt::format("{}: lost; its pages of segment {} wait {:.1f} s for its lease to end", lease.who,
                          lease.segment, seconds(until - now)));
  }
  if (left != 0) lines.leave_out(left);
  for (const Loss& loss : losses_) {
    lines.add(fmt::format("segment {}: lost {} s ago, pages to which {} had written: {}", loss.segment,
                          config_.seconds() - loss.when, loss.who, loss.pages));
  }
  left = segments.used;
  for (std::int32_t index = 0; left != 0 && !lines.full(); ++index) {
    sysv::SegmentStat segment;
    if (segments_.stat_index({}, index, false, segment) != 0) continue;
    lines.add(line_about(segment));
    --left;
  }
  if (left != 0) lines.leave_out(left);
  return lines.text();
}

// Who has it open: as host numbers, for each agent one.
std::string SysvHome::line_about(const sysv::SegmentStat& segment) const {
  std::vector<GuestId> guests;
  if (const auto store = stores_.find(segment.id); store != stores_.end()) {
    for (const Holder& holder : store->second.holders) {
      if (holder.guest != 0) guests.push_back(holder.guest);
    }
  }
  std::sort(guests.begin(), guests.end());
  std::string open;
  for (const GuestId guest : guests) open += fmt::format(" {}", agents_.at(guest).host);
  return fmt::format("segment {}: key 0x{:08x}, {} bytes, attaches {}, open at hosts{}", segment.id,
                     static_cast<std::uint32_t>(segment.perm.key), segment.size, segment.nattch,
                     open.empty() ? " none" : open);
}

}  // namespace dsm::daemon
