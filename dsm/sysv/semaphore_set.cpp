// One set, operation by operation: perform_atomic_semop(), update_queue(), do_smart_update() of Linux's ipc/sem.c.
#include "dsm/sysv/semaphore_set.hpp"

#include <sys/ipc.h>
#include <sys/sem.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <set>
#include <stdexcept>

namespace dsm::sysv {
namespace {

constexpr int least_undo = std::numeric_limits<std::int16_t>::min(),
              most_undo = std::numeric_limits<std::int16_t>::max();

bool has(const SemOp& op, int flag) { return (op.flags & flag) != 0; }

}  // namespace

SemaphoreSet::SemaphoreSet(SetStat first, const SetLimits& limits)
    : stat_(first), max_value_(limits.max_value), together_max_(limits.together), semaphores_(first.count) {}

const SemaphoreSet::Semaphore& SemaphoreSet::at(std::int32_t number) const {
  return semaphores_.at(static_cast<std::size_t>(number));
}

std::int32_t SemaphoreSet::waiting(std::int32_t number, bool for_zero) const {
  const Lines& lines = for_zero ? for_zero_ : altering_;
  const auto own = lines.find(number);
  std::size_t count = own == lines.end() ? 0 : own->second.size();
  const auto here = [&](const Waiter& waiter) {
    const SemOp& op = waiter.ops[waiter.blocking];
    return op.number == number && (for_zero ? op.change == 0 : op.change < 0);
  };
  count += static_cast<std::size_t>(std::count_if(altering_together_.begin(), altering_together_.end(), here));
  count += static_cast<std::size_t>(std::count_if(for_zero_together_.begin(), for_zero_together_.end(), here));
  return static_cast<std::int32_t>(count);
}

std::size_t SemaphoreSet::remember(Owner owner, std::span<const SemOp> ops) {
  const auto [at, is_new] = undo_.try_emplace(owner);
  const std::size_t before = at->second.size();
  for (const SemOp& op : ops) {
    if (has(op, SEM_UNDO)) at->second.try_emplace(op.number);
  }
  return at->second.size() - before + (is_new ? 1 : 0);
}

std::size_t SemaphoreSet::unremembered(Owner owner, std::span<const SemOp> ops) const {
  const auto found = undo_.find(owner);
  std::set<std::int32_t> fresh;
  for (const SemOp& op : ops) {
    if (has(op, SEM_UNDO) && (found == undo_.end() || !found->second.contains(op.number))) fresh.insert(op.number);
  }
  return fresh.size() + (found == undo_.end() ? 1 : 0);
}

std::size_t SemaphoreSet::remembered(Owner owner) const { return 1 + undo_.at(owner).size(); }

std::int16_t& SemaphoreSet::adjustment(Adjustments& of, std::int32_t number) const {
  Adjustment& found = of.at(number);
  if (const std::uint64_t settings = at(number).settings; found.settings != settings) found = {0, settings};
  return found.value;
}

std::vector<Owner> SemaphoreSet::owners() const {
  std::vector<Owner> all;
  for (const auto& [owner, adjustments] : undo_) all.push_back(owner);
  return all;
}

// ---- one array of operations: all or none ----------------------------------------------------------------------------

// 0: done, EAGAIN, ERANGE: over without a change, waits.
int SemaphoreSet::attempt(Waiter& waiter) {
  for (std::size_t i = 0; i < waiter.ops.size(); ++i) {
    const SemOp& op = waiter.ops[i];
    Semaphore& semaphore = semaphores_[op.number];
    const int value = semaphore.value + op.change;
    if ((op.change == 0 && semaphore.value != 0) || value < 0) {
      roll_back(waiter, i);
      waiter.blocking = i;
      return has(op, IPC_NOWAIT) ? EAGAIN : waits;
    }
    const int adjusted = has(op, SEM_UNDO) ? adjustment(*waiter.undo, op.number) - op.change : 0;
    if (value > max_value_ || adjusted < least_undo || adjusted > most_undo) {
      roll_back(waiter, i);
      return ERANGE;
    }
    if (has(op, SEM_UNDO)) adjustment(*waiter.undo, op.number) = static_cast<std::int16_t>(adjusted);
    semaphore.value = value;
  }
  for (const SemOp& op : waiter.ops) semaphores_[op.number].pid = waiter.pid;
  return 0;
}

void SemaphoreSet::roll_back(const Waiter& waiter, std::size_t done) {
  for (std::size_t i = 0; i < done; ++i) {
    const SemOp& op = waiter.ops[i];
    semaphores_[op.number].value -= op.change;
    if (!has(op, SEM_UNDO)) continue;
    std::int16_t& owed = adjustment(*waiter.undo, op.number);
    owed = static_cast<std::int16_t>(owed + op.change);
  }
}

int SemaphoreSet::operate(Owner owner, Pid pid, std::span<const SemOp> ops, Ticket ticket, std::int64_t now,
                          Answers& answers) {
  Waiter waiter{.ticket = ticket, .pid = pid, .ops = {ops.begin(), ops.end()}};
  waiter.alters = std::any_of(ops.begin(), ops.end(), [](const SemOp& op) { return op.change != 0; });
  if (std::any_of(ops.begin(), ops.end(), [](const SemOp& op) { return has(op, SEM_UNDO); }))
    waiter.undo = &undo_.at(owner);

  const int result = attempt(waiter);
  if (result == waits && !has_room_for(waiter)) return ENOMEM;
  if (result == waits) {
    enqueue(std::move(waiter));
  } else if (result == 0 && waiter.alters) {
    served(ops, Cause::operation, now, answers);
  } else if (result == 0) {
    stat_.otime = std::max(stat_.otime, now);
  }
  split();
  return result;
}

// ---- who waits -------------------------------------------------------------------------------------------------------

// When all stand in one line, each change looks at each operation in it, and again after each who proceeds: the work is
// quadratic in their number, and done while nobody else is heard.
bool SemaphoreSet::has_room_for(const Waiter& waiter) const {
  const bool together = with_several_ != 0 || waiter.ops.size() > 1;
  return !together || operations_ + waiter.ops.size() <= together_max_;
}

void SemaphoreSet::enqueue(Waiter waiter) {
  const bool several = waiter.ops.size() > 1;
  if (several && with_several_ == 0) merge();
  if (several) ++with_several_;
  operations_ += waiter.ops.size();
  const std::int32_t number = waiter.ops.front().number;
  Line* line = &altering_together_;
  if (!waiter.alters) {
    line = several ? &for_zero_together_ : &for_zero_[number];
  } else if (with_several_ == 0) {
    line = &altering_[number];
  }
  waiter.line = line;
  const Ticket ticket = waiter.ticket;
  line->push_back(std::move(waiter));
  if (!waiters_.emplace(ticket, std::prev(line->end())).second)
    throw std::logic_error("sysv: two calls wait under one ticket");
}

// Out of its line, into one of its own.
SemaphoreSet::Line SemaphoreSet::leave(Line::iterator who) {
  Line alone;
  alone.splice(alone.begin(), *who->line, who);
  if (who->ops.size() > 1) --with_several_;
  operations_ -= who->ops.size();
  waiters_.erase(who->ticket);
  return alone;
}

// One line for all who want to change something. Linux puts each semaphore's before those that it has already.
void SemaphoreSet::merge() {
  for (auto& [number, line] : altering_) {
    for (Waiter& waiter : line) waiter.line = &altering_together_;
    altering_together_.splice(altering_together_.begin(), line);
  }
  altering_.clear();
}

// Nobody waits with several operations any more: back to one line for each semaphore.
void SemaphoreSet::split() {
  if (with_several_ != 0) return;
  while (!altering_together_.empty()) {
    Waiter& first = altering_together_.front();
    Line& line = altering_[first.ops.front().number];
    first.line = &line;
    line.splice(line.end(), altering_together_, altering_together_.begin());
  }
}

void SemaphoreSet::cancel(Ticket ticket) {
  const Line gone = leave(waiters_.at(ticket));
  const std::int32_t number = gone.front().ops.front().number;
  drop_if_empty(altering_, number);
  drop_if_empty(for_zero_, number);
  split();
}

void SemaphoreSet::drop_if_empty(Lines& lines, std::int32_t number) {
  const auto line = lines.find(number);
  if (line != lines.end() && line->second.empty()) lines.erase(line);
}

void SemaphoreSet::dismiss(Answers& answers) {
  const auto all = [&](const Line& line) {
    for (const Waiter& waiter : line) answers.push_back({waiter.ticket, EIDRM});
  };
  all(for_zero_together_);
  all(altering_together_);
  for (const auto& [number, line] : for_zero_) all(line);
  for (const auto& [number, line] : altering_) all(line);
}

// ---- who can proceed now ---------------------------------------------------------------------------------------------

// After these changes, of any sign. All others wait for what has not changed.
void SemaphoreSet::served(std::span<const SemOp> changed, Cause cause, std::int64_t now, Answers& answers) {
  bool any = serve_zero(changed, cause != Cause::operation, answers);
  if (!altering_together_.empty()) {
    any |= serve_altering(altering_together_, nullptr, answers);
  } else {
    // All who wait want to take: only what has become more can help them.
    for (const SemOp& op : changed) {
      const auto line = altering_.find(op.number);
      if (op.change <= 0 || line == altering_.end()) continue;
      any |= serve_altering(line->second, &at(op.number), answers);
      drop_if_empty(altering_, op.number);
    }
  }
  if (cause != Cause::setting || any) stat_.otime = std::max(stat_.otime, now);
}

bool SemaphoreSet::serve_zero(Line& line, Answers& answers) {
  bool any = false;
  for (auto at = line.begin(); at != line.end();) {
    const auto who = at++;
    const int result = attempt(*who);
    if (result == waits) continue;
    any |= result == 0;
    answers.push_back({leave(who).front().ticket, result});
  }
  return any;
}

// `whole`: those with several operations are looked at as long as any semaphore of the set is 0. Linux does so where it
// does not say what has changed; one of them that does not wait for all (IPC_NOWAIT) may end by that.
bool SemaphoreSet::serve_zero(std::span<const SemOp> changed, bool whole, Answers& answers) {
  const auto is_zero = [](const Semaphore& semaphore) { return semaphore.value == 0; };
  bool any = false, zero = false;
  for (const SemOp& op : changed) {
    if (!is_zero(at(op.number))) continue;
    zero = true;
    const auto line = for_zero_.find(op.number);
    if (line == for_zero_.end()) continue;
    any |= serve_zero(line->second, answers);
    drop_if_empty(for_zero_, op.number);
  }
  if (for_zero_together_.empty()) return any;
  zero = zero || (whole && std::any_of(semaphores_.begin(), semaphores_.end(), is_zero));
  if (zero) any |= serve_zero(for_zero_together_, answers);
  return any;
}

// `only`: the semaphore whose line it is; nullptr: of all. One who proceeds may let an earlier one proceed, if either has
// several operations: then it begins again.
bool SemaphoreSet::serve_altering(Line& line, const Semaphore* only, Answers& answers) {
  bool any = false;
  for (auto at = line.begin(); at != line.end();) {
    if (only != nullptr && only->value == 0) break;
    const auto who = at++;
    const int result = attempt(*who);
    if (result == waits) continue;
    const Line gone = leave(who);
    const Waiter& waiter = gone.front();
    if (result == 0) {
      any = true;
      (void)serve_zero(waiter.ops, false, answers);
      if (!altering_together_.empty() || waiter.ops.size() > 1) at = line.begin();
    }
    answers.push_back({waiter.ticket, result});
  }
  return any;
}

// ---- semctl, and the end of a process --------------------------------------------------------------------------------

void SemaphoreSet::set(std::size_t number, std::int32_t value, Pid pid) {
  Semaphore& semaphore = semaphores_.at(number);
  semaphore = {.value = value, .pid = pid, .settings = semaphore.settings + 1};
}

void SemaphoreSet::set_value(Pid pid, std::int32_t number, std::int32_t value, std::int64_t now, Answers& answers) {
  set(static_cast<std::size_t>(number), value, pid);
  stat_.ctime = now;
  const SemOp changed{.number = static_cast<std::uint16_t>(number), .change = 1};
  served({&changed, 1}, Cause::setting, now, answers);
  split();
}

void SemaphoreSet::set_all(Pid pid, std::span<const std::uint16_t> values, std::int64_t now, Answers& answers) {
  std::vector<SemOp> changed;
  for (std::size_t i = 0; i < semaphores_.size(); ++i) {
    set(i, values[i], pid);
    changed.push_back({.number = static_cast<std::uint16_t>(i), .change = 1});
  }
  stat_.ctime = now;
  served(changed, Cause::setting, now, answers);
  split();
}

void SemaphoreSet::undo(Owner owner, Pid pid, std::int64_t now, Answers& answers) {
  auto owed = undo_.extract(owner);
  if (owed.empty()) return;
  std::vector<SemOp> changed;
  for (const auto& [number, _] : owed.mapped()) {
    const std::int16_t adjusted = adjustment(owed.mapped(), number);
    if (adjusted == 0) continue;
    Semaphore& semaphore = semaphores_.at(static_cast<std::size_t>(number));
    semaphore.value = std::clamp(semaphore.value + adjusted, 0, max_value_);
    semaphore.pid = pid;
    changed.push_back({.number = static_cast<std::uint16_t>(number), .change = adjusted});
  }
  served(changed, Cause::end, now, answers);
  split();
}

}  // namespace dsm::sysv
