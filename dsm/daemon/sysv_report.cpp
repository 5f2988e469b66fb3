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
    if (text_.size() + line.size() < text_max && left_out_ == 0) {
      text_ += line + '\n';
    } else {
      ++left_out_;
    }
  }
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
    std::uint64_t writes = 0;
    for (const auto& [number, tenure] : agent.tenures) {
      writes += stores_.at(tenure.segment).pages->held_for_writing(tenure.slot);
    }
    lines.add(
        fmt::format("host {}: {} ({}), processes {}, attaches {}, segments open {}, pages held for writing {}, calls "
                    "that wait {}, heard {:.1f} s ago",
                    agent.host, short_name(agent), agent.address, agent.processes.size(), agent.attaches,
                    agent.tenures.size(), writes, agent.waiting.size(), seconds(now - agent.heard)));
  }
  for (const Lease& lease : leases_) {
    lines.add(fmt::format("{}: lost; its pages of segment {} wait {:.1f} s for its lease to end", lease.who,
                          lease.segment, seconds(lease.until - now)));
  }
  for (const Loss& loss : losses_) {
    lines.add(fmt::format("segment {}: lost {} s ago, pages to which {} had written: {}", loss.segment,
                          config_.seconds() - loss.when, loss.who, loss.pages));
  }
  for (std::int32_t index = 0; segments.used != 0 && index <= segments.highest_index; ++index) {
    sysv::SegmentStat segment;
    if (segments_.stat_index({}, index, false, segment) == 0) lines.add(line_about(segment));
  }
  return lines.text();
}

// Who has it open: as host numbers, for each agent one.
std::string SysvHome::line_about(const sysv::SegmentStat& segment) const {
  std::string open;
  for (const auto& [guest, agent] : agents_) {
    const auto is_it = [&](const auto& each) { return each.second.segment == segment.id; };
    if (std::any_of(agent.tenures.begin(), agent.tenures.end(), is_it)) open += fmt::format(" {}", agent.host);
  }
  return fmt::format("segment {}: key 0x{:08x}, {} bytes, attaches {}, open at hosts{}", segment.id,
                     static_cast<std::uint32_t>(segment.perm.key), segment.size, segment.nattch,
                     open.empty() ? " none" : open);
}

}  // namespace dsm::daemon
