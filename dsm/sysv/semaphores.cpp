// The table of sets: ids, keys, permissions, in the order in which Linux's ipc/sem.c checks them.
#include "dsm/sysv/semaphores.hpp"

#include <sys/ipc.h>
#include <sys/sem.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <utility>

#include "dsm/sysv/permissions.hpp"
#include "dsm/sysv/semaphore_set.hpp"

namespace dsm::sysv {
namespace {

constexpr std::uint32_t nine_bits = 0777, readable = 0444, writable = 0222;
constexpr std::uint32_t no_such_user = ~0U;

}  // namespace

SemaphoreSets::SemaphoreSets(SetLimits limits, std::function<std::int64_t()> now)
    : limits_(limits), now_(std::move(now)) {
  limits_.sets = std::min(limits_.sets, static_cast<std::uint32_t>(ids_per_sequence));
}

SemaphoreSets::~SemaphoreSets() = default;

SemaphoreSet* SemaphoreSets::find(std::int32_t id) const {
  if (id < 0) return nullptr;
  const auto found = by_index_.find(index_of(id));
  return found != by_index_.end() && found->second->stat().id == id ? found->second.get() : nullptr;
}

int SemaphoreSets::get(const Caller& caller, std::int32_t key, std::int32_t count, std::int32_t flags,
                       std::int32_t& id) {
  if (count < 0 || static_cast<std::uint32_t>(count) > limits_.per_set) return EINVAL;
  if (key == IPC_PRIVATE) return create(caller, key, count, flags, id);
  const auto found = index_by_key_.find(key);
  if (found == index_by_key_.end()) return (flags & IPC_CREAT) != 0 ? create(caller, key, count, flags, id) : ENOENT;
  if ((flags & IPC_CREAT) != 0 && (flags & IPC_EXCL) != 0) return EEXIST;
  SemaphoreSet& set = *by_index_.at(found->second);
  if (count > set.count()) return EINVAL;
  if (!may_access(set.stat().perm, caller, static_cast<std::uint32_t>(flags))) return EACCES;
  id = set.stat().id;
  return 0;
}

int SemaphoreSets::create(const Caller& caller, std::int32_t key, std::int32_t count, std::int32_t flags,
                          std::int32_t& id) {
  if (count == 0) return EINVAL;
  const auto wanted = static_cast<std::uint32_t>(count);
  if (wanted > limits_.all - std::min(limits_.all, semaphores_)) return ENOSPC;
  if (by_index_.size() >= limits_.sets) return ENOSPC;

  id = ids_.next(by_index_);
  const SetStat first{.id = id,
                      .perm = {.key = key,
                               .uid = caller.uid,
                               .gid = caller.gid,
                               .cuid = caller.uid,
                               .cgid = caller.gid,
                               .mode = static_cast<std::uint32_t>(flags) & nine_bits,
                               .seq = static_cast<std::uint16_t>(sequence_of(id))},
                      .ctime = now_(),
                      .count = wanted};
  by_index_[index_of(id)] = std::make_unique<SemaphoreSet>(first, limits_);
  if (key != IPC_PRIVATE) index_by_key_[key] = index_of(id);
  semaphores_ += wanted;
  return 0;
}

int SemaphoreSets::operate(const Caller& caller, Owner owner, std::int32_t id, std::span<const SemOp> ops,
                           Ticket ticket) {
  if (ops.size() > limits_.per_call) return E2BIG;
  if (ops.empty()) return EINVAL;
  SemaphoreSet* const set = find(id);
  if (set == nullptr) return EINVAL;
  bool undoes = false, alters = false;
  std::int32_t highest = 0;
  for (const SemOp& op : ops) {
    undoes = undoes || (op.flags & SEM_UNDO) != 0;
    alters = alters || op.change != 0;
    highest = std::max(highest, std::int32_t{op.number});
  }
  // Before the checks: so a call that is refused makes the set one of those that the end of the process touches (otime).
  if (undoes && !may_owe(owner, set->unremembered(owner, ops))) return ENOMEM;
  if (undoes) used(owner, id);
  if (highest >= set->count()) return EFBIG;
  if (!may_access(set->stat().perm, caller, alters ? writable : readable)) return EACCES;

  if (waiting_.contains(ticket)) throw std::logic_error("sysv: two calls wait under one ticket");
  if (undoes) count_undos(owner.agent, set->remember(owner, ops), 0);
  const int result = set->operate(owner, caller.pid, ops, ticket, now_(), answers_);
  if (result != waits) return result;
  waiting_[ticket] = {.id = id, .owner = owner};
  waiting_of_.emplace(owner, ticket);
  return result;
}

bool SemaphoreSets::may_owe(Owner owner, std::size_t more) const {
  const auto found = undos_.find(owner.agent);
  return (found == undos_.end() ? 0 : found->second) + more <= limits_.undos && all_undos_ + more <= limits_.all_undos;
}

void SemaphoreSets::used(Owner owner, std::int32_t id) {
  count_undos(owner.agent, find(id)->remember(owner, {}), 0);
  Debts& debts = undo_of_[owner];
  const auto [place, is_new] = debts.places.try_emplace(id);
  if (is_new) {
    place->second = debts.sets.insert(debts.sets.begin(), id);
  } else {
    debts.sets.splice(debts.sets.begin(), debts.sets, place->second);
  }
}

void SemaphoreSets::count_undos(HostNumber agent, std::size_t more, std::size_t less) {
  std::size_t& count = undos_[agent];
  count = count + more - less;
  all_undos_ = all_undos_ + more - less;
  if (count == 0) undos_.erase(agent);
}

void SemaphoreSets::forget(Ticket ticket) {
  const auto found = waiting_.find(ticket);
  if (found == waiting_.end()) return;
  waiting_of_.erase({found->second.owner, ticket});
  waiting_.erase(found);
}

bool SemaphoreSets::cancel(Ticket ticket) {
  const auto found = waiting_.find(ticket);
  if (found == waiting_.end()) return false;
  SemaphoreSet* const set = find(found->second.id);
  if (set == nullptr || !set->waits_here(ticket)) return false;  // it has its answer already, which nobody has taken
  set->cancel(ticket);
  forget(ticket);
  return true;
}

void SemaphoreSets::ended(Owner owner, Pid pid) {
  std::vector<Ticket> tickets;
  for (auto at = waiting_of_.lower_bound({owner, 0}); at != waiting_of_.end() && at->first == owner; ++at) {
    tickets.push_back(at->second);
  }
  for (const Ticket ticket : tickets) cancel(ticket);
  const auto debts = undo_of_.extract(owner);
  if (debts.empty()) return;
  for (const std::int32_t id : debts.mapped().sets) {
    SemaphoreSet& set = *find(id);
    count_undos(owner.agent, 0, set.remembered(owner));
    set.undo(owner, pid, now_(), answers_);
  }
}

// ---- semctl ----------------------------------------------------------------------------------------------------------

int SemaphoreSets::readable_one(const Caller& caller, std::int32_t id, std::int32_t number, SemaphoreSet*& out) const {
  out = find(id);
  if (out == nullptr) return EINVAL;
  if (!may_access(out->stat().perm, caller, readable)) return EACCES;
  return number < 0 || number >= out->count() ? EINVAL : 0;
}

int SemaphoreSets::get_value(const Caller& caller, std::int32_t id, std::int32_t number, std::int32_t& out) const {
  SemaphoreSet* set = nullptr;
  const int error = readable_one(caller, id, number, set);
  if (error == 0) out = set->value(number);
  return error;
}

int SemaphoreSets::get_pid(const Caller& caller, std::int32_t id, std::int32_t number, Pid& out) const {
  SemaphoreSet* set = nullptr;
  const int error = readable_one(caller, id, number, set);
  if (error == 0) out = set->pid(number);
  return error;
}

int SemaphoreSets::get_waiting(const Caller& caller, std::int32_t id, std::int32_t number, bool for_zero,
                               std::int32_t& out) const {
  SemaphoreSet* set = nullptr;
  const int error = readable_one(caller, id, number, set);
  if (error == 0) out = set->waiting(number, for_zero);
  return error;
}

int SemaphoreSets::get_all(const Caller& caller, std::int32_t id, std::vector<std::uint16_t>& out) const {
  SemaphoreSet* set = nullptr;
  const int error = readable_one(caller, id, 0, set);
  if (error != 0) return error;
  out.clear();
  out.reserve(static_cast<std::size_t>(set->count()));
  for (std::int32_t i = 0; i < set->count(); ++i) out.push_back(static_cast<std::uint16_t>(set->value(i)));
  return 0;
}

// The value is looked at before the set.
int SemaphoreSets::set_value(const Caller& caller, std::int32_t id, std::int32_t number, std::int32_t value) {
  if (id < 0) return EINVAL;
  if (value < 0 || value > limits_.max_value) return ERANGE;
  SemaphoreSet* const set = find(id);
  if (set == nullptr || number < 0 || number >= set->count()) return EINVAL;
  if (!may_access(set->stat().perm, caller, writable)) return EACCES;
  set->set_value(caller.pid, number, value, now_(), answers_);
  return 0;
}

int SemaphoreSets::set_all(const Caller& caller, std::int32_t id, std::span<const std::uint16_t> values) {
  SemaphoreSet* const set = find(id);
  if (set == nullptr) return EINVAL;
  if (!may_access(set->stat().perm, caller, writable)) return EACCES;
  if (values.size() != static_cast<std::size_t>(set->count())) return EINVAL;
  const auto too_much = [&](std::uint16_t value) { return value > limits_.max_value; };
  if (std::any_of(values.begin(), values.end(), too_much)) return ERANGE;
  set->set_all(caller.pid, values, now_(), answers_);
  return 0;
}

int SemaphoreSets::stat(const Caller& caller, std::int32_t id, SetStat& out) const {
  SemaphoreSet* set = nullptr;
  const int error = readable_one(caller, id, 0, set);
  if (error == 0) out = set->stat();
  return error;
}

// An id is taken for an index, too: Linux looks at its low bits only.
int SemaphoreSets::stat_index(const Caller& caller, std::int32_t index, bool check, SetStat& out) const {
  if (index < 0) return EINVAL;
  const auto found = by_index_.find(index_of(index));
  if (found == by_index_.end()) return EINVAL;
  if (check && !may_access(found->second->stat().perm, caller, readable)) return EACCES;
  out = found->second->stat();
  return 0;
}

int SemaphoreSets::set(const Caller& caller, std::int32_t id, std::uint32_t uid, std::uint32_t gid,
                       std::uint32_t mode) {
  SemaphoreSet* const set = find(id);
  if (set == nullptr) return EINVAL;
  Permissions& perm = set->stat().perm;
  if (!may_control(perm, caller)) return EPERM;
  if (uid == no_such_user || gid == no_such_user) return EINVAL;
  perm.uid = uid;
  perm.gid = gid;
  perm.mode = (perm.mode & ~nine_bits) | (mode & nine_bits);
  set->stat().ctime = now_();
  return 0;
}

int SemaphoreSets::remove(const Caller& caller, std::int32_t id) {
  SemaphoreSet* const set = find(id);
  if (set == nullptr) return EINVAL;
  if (!may_control(set->stat().perm, caller)) return EPERM;
  set->dismiss(answers_);
  for (const Owner owner : set->owners()) {
    count_undos(owner.agent, 0, set->remembered(owner));
    const auto debts = undo_of_.find(owner);
    const auto place = debts->second.places.find(id);
    debts->second.sets.erase(place->second);
    debts->second.places.erase(place);
    if (debts->second.sets.empty()) undo_of_.erase(debts);
  }
  semaphores_ -= static_cast<std::uint32_t>(set->count());
  if (set->stat().perm.key != IPC_PRIVATE) index_by_key_.erase(set->stat().perm.key);
  by_index_.erase(index_of(id));
  return 0;
}

SetTotals SemaphoreSets::totals() const {
  return {.limits = limits_,
          .sets = static_cast<std::uint32_t>(by_index_.size()),
          .semaphores = semaphores_,
          .highest_index = by_index_.empty() ? 0 : by_index_.rbegin()->first};
}

std::vector<SemaphoreSets::Answer> SemaphoreSets::take_answers() {
  for (const Answer& answer : answers_) forget(answer.ticket);
  return std::exchange(answers_, {});
}

}  // namespace dsm::sysv
