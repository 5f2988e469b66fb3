// What agents ask SysvHome, call by call. The objects themselves are in dsm/sysv.
#include <algorithm>
#include <cerrno>
#include <limits>
#include <new>
#include <system_error>

#include "dsm/daemon/sysv_home.hpp"

namespace dsm::daemon {
namespace {

using sysv::Answer;
using sysv::Call;
using sysv::Object;
using sysv::Question;

constexpr std::int32_t stat_any = 1;  // Call::stat_index: SHM_STAT_ANY, SEM_STAT_ANY

// Calls that only one kind of object has do not say which.
Object object_of(const Question& q) {
  if (q.call >= Call::get_value && q.call <= Call::get_zcnt) return Object::set;
  return q.call == Call::lock || q.call == Call::unlock ? Object::segment : q.kind;
}

Time time_limit(Time now, std::int64_t timeout_ns) {
  if (timeout_ns < 0) return Time::max();
  const std::chrono::nanoseconds timeout(timeout_ns);
  return timeout < Time::max() - now ? now + timeout : Time::max();
}

}  // namespace

void SysvHome::ask(Agent& agent, Question q, Time now) {
  if (!sysv::type_of(q.call) || q.call == Call::hello) return misbehaved(agent, "it asked what no agent asks", now);
  if (q.call == Call::cancel) return cancel(agent, static_cast<std::uint32_t>(q.other), EINTR);
  if (agent.waiting.contains(q.request)) return misbehaved(agent, "it gave two calls the same number", now);
  q.caller.pid.host = agent.host;
  Answer a{.request = q.request};
  int error = 0;
  try {
    error = call(agent, q, a, now);
  } catch (const std::bad_alloc&) {
    error = ENOMEM;
  }
  if (error == sysv::waits) return;
  if (error != 0) a = {.request = q.request, .error = error};
  answer(agent.guest, agent.host, std::move(a));
}

int SysvHome::call(Agent& agent, const Question& q, Answer& a, Time now) {
  switch (q.call) {
    case Call::attach:
      return attach(agent, q, a);
    case Call::fork:
      return fork(agent, q);
    case Call::detach:
      return detach(agent, q);
    case Call::exec:
    case Call::exit: {
      const auto found = agent.processes.find(q.process);
      if (found == agent.processes.end()) return 0;
      found->second.pid = q.caller.pid;
      if (q.call == Call::exit) {
        end_process(agent, q.process, found->second);
      } else {
        detach_all(agent, found->second);
      }
      return 0;
    }
    case Call::leave:
      leave(agent, q.tenure);
      return 0;
    case Call::beat:
      a.value = static_cast<std::int64_t>(q.size);
      return 0;
    case Call::operate:
      return operate(agent, q, now);
    case Call::report:
      a.text = report(now);
      return 0;
    default:
      return object_of(q) == Object::segment ? call_segment(q, a) : call_set(agent, q, a);
  }
}

int SysvHome::call_segment(const Question& q, Answer& a) {
  std::int32_t id = 0;
  int error = 0;
  switch (q.call) {
    case Call::get:
      error = segments_.get(q.caller, q.key, q.size, q.flags, id);
      a.value = id;
      return error;
    case Call::remove:
      return segments_.remove(q.caller, q.id);
    case Call::set:
      return segments_.set(q.caller, q.id, q.uid, q.gid, q.mode);
    case Call::lock:
    case Call::unlock:
      return segments_.lock(q.caller, q.id, q.call == Call::lock);
    case Call::stat:
      return segments_.stat(q.caller, q.id, a.segment.emplace());
    case Call::stat_index:
      error = segments_.stat_index(q.caller, q.number, q.flags != stat_any, a.segment.emplace());
      a.value = a.segment->id;
      return error;
    case Call::info:
      a.segment_totals = segments_.totals();
      return 0;
    default:
      return EINVAL;
  }
}

int SysvHome::call_set(const Agent& agent, const Question& q, Answer& a) {
  std::int32_t value = 0;
  sysv::Pid pid;
  int error = 0;
  switch (q.call) {
    case Call::get:
      if (q.size > std::numeric_limits<std::int32_t>::max()) return EINVAL;
      error = sets_.get(q.caller, q.key, static_cast<std::int32_t>(q.size), q.flags, value);
      break;
    case Call::remove:
      return sets_.remove(q.caller, q.id);
    case Call::set:
      return sets_.set(q.caller, q.id, q.uid, q.gid, q.mode);
    case Call::stat:
      return sets_.stat(q.caller, q.id, a.set.emplace());
    case Call::stat_index:
      error = sets_.stat_index(q.caller, q.number, q.flags != stat_any, a.set.emplace());
      value = a.set->id;
      break;
    case Call::info:
      a.set_totals = sets_.totals();
      return 0;
    case Call::get_value:
      error = sets_.get_value(q.caller, q.id, q.number, value);
      break;
    case Call::get_all:
      return sets_.get_all(q.caller, q.id, a.values);
    case Call::set_value:
      return sets_.set_value(q.caller, q.id, q.number, q.key);
    case Call::set_all:
      return sets_.set_all(q.caller, q.id, q.values);
    case Call::get_pid:
      error = sets_.get_pid(q.caller, q.id, q.number, pid);
      value = sysv::shown_to(agent.host, pid);
      break;
    case Call::get_ncnt:
    case Call::get_zcnt:
      error = sets_.get_waiting(q.caller, q.id, q.number, q.call == Call::get_zcnt, value);
      break;
    default:
      return EINVAL;
  }
  a.value = value;
  return error;
}

// ---- attaches ---------------------------------------------------------------------------------------------------------

// REQUIRES: there is room for it.
SysvHome::Process& SysvHome::process_of(Agent& agent, const Question& q) {
  const auto [at, is_new] = agent.processes.try_emplace(q.process);
  if (is_new) ++processes_;
  Process& process = at->second;
  process.pid = q.caller.pid;
  return process;
}

bool SysvHome::has_room_for(const Agent& agent, sysv::ProcessNumber process) const {
  if (process == 0 || agent.processes.contains(process)) return process != 0;
  return agent.processes.size() < config_.limits.processes && processes_ < config_.limits.all_processes;
}

bool SysvHome::may_attach(const Agent& agent, std::size_t more) const {
  return agent.attaches + more <= config_.limits.attaches && attaches_ + more <= config_.limits.all_attaches;
}

int SysvHome::attach(Agent& agent, const Question& q, Answer& a) {
  if (!has_room_for(agent, q.process) || !may_attach(agent, 1)) return ENOMEM;
  if (const int error = segments_.attach(q.caller, q.id, q.flags); error != 0) return error;
  const sysv::SegmentStat& segment = *segments_.find(q.id);
  if (!open(agent, segment, a)) {
    segments_.detach(q.id, q.caller.pid);
    return ENOMEM;
  }
  ++process_of(agent, q).attaches[q.id];
  ++agent.attaches;
  ++attaches_;
  a.value = static_cast<std::int64_t>(segment.size);
  return 0;
}

// The agent's tenure of the segment; a new one if it has none. False if there is no room.
bool SysvHome::open(Agent& agent, const sysv::SegmentStat& segment, Answer& a) {
  const std::int32_t id = segment.id;
  const auto had = agent.tenure_of.find(id);
  auto at = had == agent.tenure_of.end() ? agent.tenures.end() : agent.tenures.find(had->second);
  if (at == agent.tenures.end()) {
    auto store = stores_.find(id);
    if (store == stores_.end()) {
      try {
        auto pages = std::make_unique<SysvPages>(
            segment.size, [this, id](core::Node to, const core::Message& message, const std::uint8_t* page) {
              deliver(id, to, message, page);
            });
        store = stores_.emplace(id, Segment{.pages = std::move(pages)}).first;
      } catch (const std::bad_alloc&) {
        return false;
      } catch (const std::system_error&) {
        return false;
      }
    }
    const std::optional<core::Node> slot = store->second.pages->open(agent.writes);
    if (!slot) return false;
    if (next_tenure_ == 0) ++next_tenure_;
    store->second.holders[*slot] = {agent.guest, next_tenure_};
    agent.tenure_of[id] = next_tenure_;
    at = agent.tenures.emplace(next_tenure_++, Tenure{id, *slot}).first;
  }
  a.tenure = at->first;
  a.slot = at->second.slot;
  return true;
}

// The child has no pid yet: until it speaks itself, its parent's stands for it.
int SysvHome::fork(Agent& agent, const Question& q) {
  const auto parent = agent.processes.find(q.other);
  if (q.process == 0 || agent.processes.contains(q.process)) return EINVAL;
  if (parent == agent.processes.end()) return 0;
  std::size_t inherited = 0;
  for (const auto& [id, count] : parent->second.attaches) inherited += count;
  if (inherited == 0) return 0;
  if (!has_room_for(agent, q.process) || !may_attach(agent, inherited)) return ENOMEM;
  agent.attaches += inherited;
  attaches_ += inherited;
  for (const auto& [id, count] : parent->second.attaches) {
    segments_.inherit(id, q.caller.pid, count);
  }
  process_of(agent, q).attaches = parent->second.attaches;
  return 0;
}

int SysvHome::detach(Agent& agent, const Question& q) {
  const auto process = agent.processes.find(q.process);
  if (process == agent.processes.end()) return EINVAL;
  const auto attach = process->second.attaches.find(q.id);
  if (attach == process->second.attaches.end()) return EINVAL;
  process->second.pid = q.caller.pid;
  if (--attach->second == 0) process->second.attaches.erase(attach);
  --agent.attaches;
  --attaches_;
  segments_.detach(q.id, q.caller.pid);
  return 0;
}

void SysvHome::detach_all(Agent& agent, Process& process) {
  for (const auto& [id, count] : std::exchange(process.attaches, {})) {
    agent.attaches -= count;
    attaches_ -= count;
    segments_.detach(id, process.pid, count);
  }
}

// In Linux's order: memory first, then semaphores.
void SysvHome::end_process(Agent& agent, sysv::ProcessNumber number, Process& process) {
  detach_all(agent, process);
  for (const std::uint32_t request : std::exchange(process.waiting, {})) cancel(agent, request, EINTR);
  sets_.ended({agent.number, number}, process.pid);
  processes_ -= agent.processes.erase(number);
}

// Attaches are counted apart: they may end before this, or after it. What the agent has not sent back it has not got: a
// grant was on its way, and met nobody.
void SysvHome::leave(Agent& agent, std::uint32_t tenure) {
  const auto found = agent.tenures.find(tenure);
  if (found == agent.tenures.end()) return;  // its segment is gone, or it has been left before
  const auto [segment, slot] = found->second;
  agent.tenures.erase(found);
  agent.tenure_of.erase(segment);
  Segment& store = stores_.at(segment);
  store.holders[slot] = {};
  static_cast<void>(store.pages->close(slot));
}

// ---- semaphore operations that wait -----------------------------------------------------------------------------------

int SysvHome::operate(Agent& agent, const Question& q, Time now) {
  if (q.timeout_ns < -1) return EINVAL;
  if (!has_room_for(agent, q.process)) return ENOMEM;
  Process& process = process_of(agent, q);  // refused or not: it may owe undo values, or touch the set at its end
  const sysv::Ticket ticket = next_ticket_++;
  const int error = sets_.operate(q.caller, {agent.number, q.process}, q.id, q.ops, ticket);
  if (error != 0 && error != sysv::waits) return error;
  if (error == 0) return 0;
  if (q.timeout_ns == 0) {
    sets_.cancel(ticket);
    return EAGAIN;
  }
  // Not before: who would let the others go must not be refused because so many wait.
  if (agent.waiting.size() >= config_.limits.waiting || waiting_.size() >= config_.limits.all_waiting) {
    sets_.cancel(ticket);
    return ENOMEM;
  }
  const Time until = time_limit(now, q.timeout_ns);
  agent.waiting[q.request] = ticket;
  process.waiting.insert(q.request);
  waiting_[ticket] = {agent.guest, q.request, q.process, until};
  if (until != Time::max()) timeouts_.emplace(until, ticket);
  return sysv::waits;
}

void SysvHome::cancel(Agent& agent, std::uint64_t request, int error) {
  if (request > std::numeric_limits<std::uint32_t>::max()) return;
  const auto found = agent.waiting.find(static_cast<std::uint32_t>(request));
  if (found == agent.waiting.end()) return;  // it is over, and has been answered
  const sysv::Ticket ticket = found->second;
  if (sets_.cancel(ticket)) answer_waiting(ticket, error);
}

void SysvHome::answer_waiting(sysv::Ticket ticket, int error) {
  const auto found = waiting_.find(ticket);
  if (found == waiting_.end()) return;
  const Waiting waiting = found->second;
  waiting_.erase(found);
  timeouts_.erase({waiting.until, ticket});
  Agent& agent = agents_.at(waiting.guest);
  agent.waiting.erase(waiting.request);
  if (const auto process = agent.processes.find(waiting.process); process != agent.processes.end()) {
    process->second.waiting.erase(waiting.request);
  }
  answer(agent.guest, agent.host, {.request = waiting.request, .error = error});
}

// Pids as that host's programs are to see them.
void SysvHome::answer(GuestId to, sysv::HostNumber viewer, Answer answer) {
  if (answer.segment) {
    for (sysv::Pid* const pid : {&answer.segment->cpid, &answer.segment->lpid}) {
      *pid = {.host = 0, .pid = sysv::shown_to(viewer, *pid)};
    }
  }
  tell(to, answer);
}

}  // namespace dsm::daemon
