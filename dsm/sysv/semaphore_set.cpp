// One set, operation by operation: perform_atomic_semop(), update_queue(), do_smart_update() of Linux's ipc/sem.c.
#include "dsm/sysv/semaphore_set.hpp"

#include <sys/ipc.h>
#include <sys/sem.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <stdexcept>

namespace dsm::sysv {
namespace {

constexpr int least_undo = std::numeric_limits<std::int16_t>::min(),
              most_undo = std::numeric_limits<std::int16_t>::max();

bool has(const SemOp& op, int flag) { return (op.flags & flag) != 0; }

}  // namespace

SemaphoreSet::SemaphoreSet(SetStat first, std::int32_t max_value)
    : stat_(first), max_value_(max_value), semaphores_(first.count) {}

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

void SemaphoreSet::remember(Owner owner) { undo_.try_emplace(owner, semaphores_.size()); }

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
    const int adjusted = has(op, SEM_UNDO) ? (*waiter.undo)[op.number] - op.change : 0;
    if (value > max_value_ || adjusted < least_undo || adjusted > most_undo) {
      roll_back(waiter, i);
      return ERANGE;
    }
    if (has(op, SEM_UNDO)) (*waiter.undo)[op.number] = static_cast<std::int16_t>(adjusted);
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
    std::int16_t& adjustment = (*waiter.undo)[op.number];
    adjustment = static_cast<std::int16_t>(adjustment + op.change);
  }
}

int SemaphoreSet::operate(Owner owner, Pid pid, std::span<const SemOp> ops, Ticket ticket, std::int64_t now,
                          Answers& answers) {
  Waiter waiter{.ticket = ticket, .pid = pid, .ops = {ops.begin(), ops.end()}};
  waiter.alters = std::any_of(ops.begin(), ops.end(), [](const SemOp& op) { return op.change != 0; });
  if (std::any_of(ops.begin(), ops.end(), [](const SemOp& op) { return has(op, SEM_UNDO); }))
    waiter.undo = &undo_.at(owner);

  const int result = attempt(waiter);
  if (result == waits) {
    enqueue(std::move(waiter));
  } else if (result == 0 && waiter.alters) {
    served(ops, true, now, answers);
  } else if (result == 0) {
    stat_.otime = std::max(stat_.otime, now);
  }
  split();
  return result;
}

// ---- who waits -------------------------------------------------------------------------------------------------------

void SemaphoreSet::enqueue(Waiter waiter) {
  const bool several = waiter.ops.size() > 1;
  if (several && with_several_ == 0) merge();
  if (several) ++with_several_;
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
  waiters_.erase(who->ticket);
  return alone;
}

// One line for all who want to change something. Linux puts each semaphore's before those that it has already.
void SemaphoreSet::merge() {
  for (auto& [number, line] : altering_) {
    for (Waiter& waiter : line) waiter.line = &altering_together_;
    altering_together_.splice(altering_together_.begin(), line);
  }
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
  (void)leave(waiters_.at(ticket));
  split();
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

// After a change by `ops`; of any semaphores, if that is empty. `operated`: it was an operation, for otime.
void SemaphoreSet::served(std::span<const SemOp> ops, bool operated, std::int64_t now, Answers& answers) {
  bool any = ops.empty() ? serve_zero_all(answers) : serve_zero(ops, answers);
  if (!altering_together_.empty()) {
    any |= serve_altering(altering_together_, nullptr, answers);
  } else if (ops.empty()) {
    for (auto& [number, line] : altering_) any |= serve_altering(line, &at(number), answers);
  } else {
    // All who wait want to take: only what has become more can help them.
    for (const SemOp& op : ops) {
      const auto line = altering_.find(op.number);
      if (op.change > 0 && line != altering_.end()) any |= serve_altering(line->second, &at(op.number), answers);
    }
  }
  if (operated || any) stat_.otime = std::max(stat_.otime, now);
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

bool SemaphoreSet::serve_zero(std::span<const SemOp> ops, Answers& answers) {
  bool any = false, zero = false;
  for (const SemOp& op : ops) {
    if (at(op.number).value != 0) continue;
    zero = true;
    const auto line = for_zero_.find(op.number);
    if (line != for_zero_.end()) any |= serve_zero(line->second, answers);
  }
  if (zero) any |= serve_zero(for_zero_together_, answers);
  return any;
}

bool SemaphoreSet::serve_zero_all(Answers& answers) {
  const auto is_zero = [](const Semaphore& semaphore) { return semaphore.value == 0; };
  if (std::none_of(semaphores_.begin(), semaphores_.end(), is_zero)) return false;
  bool any = false;
  for (auto& [number, line] : for_zero_) {
    if (at(number).value == 0) any |= serve_zero(line, answers);
  }
  return serve_zero(for_zero_together_, answers) || any;
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
      (void)serve_zero(waiter.ops, answers);
      if (!altering_together_.empty() || waiter.ops.size() > 1) at = line.begin();
    }
    answers.push_back({waiter.ticket, result});
  }
  return any;
}

// ---- semctl, and the end of a process --------------------------------------------------------------------------------

void SemaphoreSet::set_value(Pid pid, std::int32_t number, std::int32_t value, std::int64_t now, Answers& answers) {
  const auto place = static_cast<std::size_t>(number);
  for (auto& [owner, adjustments] : undo_) adjustments.at(place) = 0;
  semaphores_.at(place) = {.value = value, .pid = pid};
  stat_.ctime = now;
  served({}, false, now, answers);
  split();
}

void SemaphoreSet::set_all(Pid pid, std::span<const std::uint16_t> values, std::int64_t now, Answers& answers) {
  for (std::size_t i = 0; i < semaphores_.size(); ++i) semaphores_[i] = {.value = values[i], .pid = pid};
  for (auto& [owner, adjustments] : undo_) std::fill(adjustments.begin(), adjustments.end(), std::int16_t{0});
  stat_.ctime = now;
  served({}, false, now, answers);
  split();
}

void SemaphoreSet::undo(Owner owner, Pid pid, std::int64_t now, Answers& answers) {
  const auto owed = undo_.extract(owner);
  if (owed.empty()) return;
  for (std::size_t i = 0; i < semaphores_.size(); ++i) {
    const std::int16_t adjustment = owed.mapped()[i];
    if (adjustment == 0) continue;
    semaphores_[i] = {.value = std::clamp(semaphores_[i].value + adjustment, 0, max_value_), .pid = pid};
  }
  served({}, true, now, answers);
  split();
}

}  // namespace dsm::sysv
