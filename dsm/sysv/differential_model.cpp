// The values' side, and the words for both.
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/shm.h>

#include <cerrno>
#include <cstring>
#include <sstream>
#include <utility>

#include "dsm/sysv/differential.hpp"

namespace dsm::sysv::differential {
namespace {

constexpr HostNumber host = 1;
constexpr std::int32_t most = 4095;  // of an index that nobody has

void put(Reply& reply, const Permissions& perm) {
  reply.fields[field::key] = perm.key;
  reply.fields[field::uid] = perm.uid;
  reply.fields[field::gid] = perm.gid;
  reply.fields[field::cuid] = perm.cuid;
  reply.fields[field::cgid] = perm.cgid;
  reply.fields[field::mode] = perm.mode;
  reply.fields[field::seq] = perm.seq;
}

void put(Reply& reply, const SegmentStat& data) {
  put(reply, data.perm);
  reply.fields[field::size] = static_cast<std::int64_t>(data.size);
  reply.fields[field::nattch] = static_cast<std::int64_t>(data.nattch);
  reply.fields[field::cpid] = shown_to(host, data.cpid);
  reply.fields[field::lpid] = shown_to(host, data.lpid);
  reply.fields[field::atime] = data.atime;
  reply.fields[field::dtime] = data.dtime;
  reply.fields[field::ctime] = data.ctime;
}

void put(Reply& reply, const SetStat& data) {
  put(reply, data.perm);
  reply.fields[field::size] = static_cast<std::int64_t>(data.count);
  reply.fields[field::otime] = data.otime;
  reply.fields[field::ctime] = data.ctime;
}

template <typename Stat>
Reply stat_reply(int error, const Stat& stat, bool gives) {
  Reply reply{.error = error};
  if (error == 0) put(reply, stat);
  if (error == 0 && gives) reply.value = stat.id;
  return reply;
}

template <typename T>
Reply value_reply(int error, T value) {
  return {.error = error, .value = error == 0 ? static_cast<std::int64_t>(value) : 0};
}

constexpr std::array<const char*, static_cast<std::size_t>(Kind::last) + 1> kind_names{
    "shm_get",      "shm_attach",     "shm_detach",     "shm_munmap",        "shm_remove",    "shm_set",
    "shm_stat",     "shm_stat_index", "shm_stat_any",   "shm_lock",          "shm_unlock",    "shm_limits",
    "shm_info",     "sem_get",        "sem_operate",    "sem_operate_timed", "sem_get_value", "sem_get_pid",
    "sem_get_ncnt", "sem_get_zcnt",   "sem_get_all",    "sem_set_value",     "sem_set_all",   "sem_remove",
    "sem_set",      "sem_stat",       "sem_stat_index", "sem_stat_any",      "sem_limits",    "sem_info",
    "fork"};
constexpr std::array<const char*, field::count> field_names{"key",  "uid",   "gid",   "cuid",   "cgid",
                                                            "mode", "seq",   "size",  "nattch", "cpid",
                                                            "lpid", "atime", "dtime", "ctime",  "otime"};

}  // namespace

bool makes_object(Kind kind) { return kind == Kind::shm_get || kind == Kind::sem_get; }
bool gives_id(Kind kind) {
  return makes_object(kind) || kind == Kind::shm_stat_index || kind == Kind::shm_stat_any ||
         kind == Kind::sem_stat_index || kind == Kind::sem_stat_any;
}
bool is_about_sets(Kind kind) { return kind >= Kind::sem_get && kind <= Kind::sem_info; }

std::string text(const Action& action) {
  std::ostringstream out;
  out << kind_names.at(static_cast<std::size_t>(action.kind)) << " user " << action.user << " id " << action.id
      << " key " << action.key << std::oct << " flags 0" << action.flags << " mode 0" << action.mode << std::dec
      << " number " << action.number << " value " << action.value << " count " << action.count << " size "
      << action.size << " uid " << static_cast<std::int32_t>(action.uid) << " gid "
      << static_cast<std::int32_t>(action.gid);
  if (action.kind == Kind::sem_operate || action.kind == Kind::sem_operate_timed) {
    for (std::size_t i = 0; i < static_cast<std::size_t>(action.count); ++i) {
      const SemOp& op = action.ops[i];
      out << " {" << op.number << " " << op.change << ((op.flags & IPC_NOWAIT) != 0 ? " NOWAIT" : "")
          << ((op.flags & SEM_UNDO) != 0 ? " UNDO" : "") << "}";
    }
  }
  if (action.kind == Kind::sem_set_all)
    for (const std::uint16_t value : action.values) out << " " << value;
  return out.str();
}

std::string text(const Reply& reply) {
  std::ostringstream out;
  out << (reply.error == 0 ? "0" : ::strerrorname_np(reply.error)) << " value " << reply.value;
  for (std::size_t i = 0; i < field::count; ++i)
    if (reply.fields[i] != 0) out << " " << field_names[i] << " " << reply.fields[i];
  out << " values";
  for (const std::uint16_t value : reply.values) out << " " << value;
  return out.str();
}

Model::Model(std::function<std::int64_t()> now, bool small_limits)
    : segments_(small_limits ? segment_limits : SegmentLimits{}, now, [](std::int32_t) {}),
      sets_(small_limits ? set_limits : SetLimits{}, now) {}

void Model::start(int seat, pid_t pid) {
  at(seat) = {.pid = {.host = host, .pid = pid}, .owner = {.agent = 1, .process = ++last_process_}};
}

std::optional<Reply> Model::apply(int seat, const Action& action, pid_t made) {
  Process& process = at(seat);
  const User& user = users()[static_cast<std::size_t>(action.user)];
  const Caller caller{.pid = process.pid, .uid = user.uid, .gid = user.gid, .groups = user.groups};
  if (action.kind == Kind::fork) {
    start(action.number, made);
    for (const std::int32_t id : process.attached) segments_.inherit(id, process.pid);
    at(action.number).attached = process.attached;
    return Reply{.value = made};
  }
  if (action.kind == Kind::sem_operate || action.kind == Kind::sem_operate_timed) {
    const Ticket ticket = ++last_ticket_;
    const std::span ops(action.ops.data(), static_cast<std::size_t>(action.count));
    int error = sets_.operate(caller, process.owner, action.id, ops, ticket);
    if (error == waits && action.kind == Kind::sem_operate_timed) {
      if (!sets_.cancel(ticket)) return Reply{.error = -1};
      error = EAGAIN;
    }
    if (error != waits) return Reply{.error = error};
    process.waits_as = ticket;
    return std::nullopt;
  }
  return is_about_sets(action.kind) ? set_call(caller, action) : segment_call(process, caller, action);
}

Reply Model::segment_call(Process& process, const Caller& caller, const Action& action) {
  SegmentStat stat;
  const SegmentTotals totals = segments_.totals();
  switch (action.kind) {
    case Kind::shm_get: {
      std::int32_t id = 0;
      const int error = segments_.get(caller, action.key, action.size, action.flags, id);
      return value_reply(error, id);
    }
    case Kind::shm_attach: {
      const int error = segments_.attach(caller, action.id, action.flags);
      if (error == 0) process.attached.push_back(action.id);
      return {.error = error};
    }
    case Kind::shm_detach:
    case Kind::shm_munmap: {
      const auto which = process.attached.begin() + action.number;
      segments_.detach(*which, process.pid);
      process.attached.erase(which);
      return {};
    }
    case Kind::shm_remove:
      return {.error = segments_.remove(caller, action.id)};
    case Kind::shm_set:
      return {.error = segments_.set(caller, action.id, action.uid, action.gid, action.mode)};
    case Kind::shm_stat: {
      const int error = segments_.stat(caller, action.id, stat);
      return stat_reply(error, stat, false);
    }
    case Kind::shm_stat_index:
    case Kind::shm_stat_any: {
      const int error = segments_.stat_index(caller, action.id, action.kind == Kind::shm_stat_index, stat);
      return stat_reply(error, stat, true);
    }
    case Kind::shm_lock:
    case Kind::shm_unlock:
      return {.error = segments_.lock(caller, action.id, action.kind == Kind::shm_lock)};
    default:
      break;
  }
  Reply reply{.value = totals.highest_index};
  if (action.kind == Kind::shm_limits) {
    reply.fields[field::size] = static_cast<std::int64_t>(totals.limits.max_size);
    reply.fields[field::nattch] = totals.limits.max_count;
    reply.fields[field::key] = static_cast<std::int64_t>(totals.limits.max_pages);
  } else {
    reply.fields[field::nattch] = totals.used;
    reply.fields[field::key] = static_cast<std::int64_t>(totals.pages);
  }
  return reply;
}

Reply Model::set_call(const Caller& caller, const Action& action) {
  std::int32_t value = 0;
  SetStat stat;
  switch (action.kind) {
    case Kind::sem_get: {
      const int error = sets_.get(caller, action.key, action.count, action.flags, value);
      return value_reply(error, value);
    }
    case Kind::sem_get_value: {
      const int error = sets_.get_value(caller, action.id, action.number, value);
      return value_reply(error, value);
    }
    case Kind::sem_get_pid: {
      Pid pid;
      const int error = sets_.get_pid(caller, action.id, action.number, pid);
      return value_reply(error, shown_to(host, pid));
    }
    case Kind::sem_get_ncnt:
    case Kind::sem_get_zcnt: {
      const int error = sets_.get_waiting(caller, action.id, action.number, action.kind == Kind::sem_get_zcnt, value);
      return value_reply(error, value);
    }
    case Kind::sem_get_all: {
      std::vector<std::uint16_t> all;
      Reply reply{.error = sets_.get_all(caller, action.id, all)};
      std::copy(all.begin(), all.end(), reply.values.begin());
      return reply;
    }
    case Kind::sem_set_value:
      return {.error = sets_.set_value(caller, action.id, action.number, action.value)};
    case Kind::sem_set_all:
      return {.error =
                  sets_.set_all(caller, action.id, {action.values.data(), static_cast<std::size_t>(action.count)})};
    case Kind::sem_remove:
      return {.error = sets_.remove(caller, action.id)};
    case Kind::sem_set:
      return {.error = sets_.set(caller, action.id, action.uid, action.gid, action.mode)};
    case Kind::sem_stat: {
      const int error = sets_.stat(caller, action.id, stat);
      return stat_reply(error, stat, false);
    }
    case Kind::sem_stat_index:
    case Kind::sem_stat_any: {
      const int error = sets_.stat_index(caller, action.id, action.kind == Kind::sem_stat_index, stat);
      return stat_reply(error, stat, true);
    }
    default:
      break;
  }
  const SetTotals totals = sets_.totals();
  Reply reply{.value = totals.highest_index};
  if (action.kind == Kind::sem_limits) {
    reply.fields[field::size] = totals.limits.per_set;
    reply.fields[field::nattch] = totals.limits.sets;
    reply.fields[field::key] = totals.limits.all;
    reply.fields[field::mode] = totals.limits.per_call;
  } else {
    reply.fields[field::nattch] = totals.sets;
    reply.fields[field::key] = totals.semaphores;
  }
  return reply;
}

bool Model::interrupt(int seat) {
  const bool waited = sets_.cancel(at(seat).waits_as);
  at(seat).waits_as = 0;
  return waited;
}

// As exit does: the memory goes, then what is owed to semaphores is paid.
void Model::kill(int seat) {
  Process& process = at(seat);
  for (const std::int32_t id : process.attached) segments_.detach(id, process.pid);
  sets_.ended(process.owner, process.pid);
  process = {};
}

std::vector<std::pair<int, int>> Model::ended() {
  std::vector<std::pair<int, int>> all;
  for (const auto& [ticket, error] : sets_.take_answers()) {
    for (int seat = 0; seat < seats; ++seat) {
      if (at(seat).waits_as != ticket) continue;
      at(seat).waits_as = 0;
      all.emplace_back(seat, error);
    }
  }
  return all;
}

Reply Model::look(const Action& action) {
  const User& user = users().front();
  const Caller caller{.uid = user.uid, .gid = user.gid, .groups = user.groups};
  Process nobody;
  return is_about_sets(action.kind) ? set_call(caller, action) : segment_call(nobody, caller, action);
}

std::vector<std::int32_t> Model::ids(bool sets) const {
  std::vector<std::int32_t> all;
  const Caller root{};
  for (std::int32_t index = 0; index <= most; ++index) {
    SegmentStat segment;
    SetStat set;
    if (sets && sets_.stat_index(root, index, false, set) == 0) all.push_back(set.id);
    if (!sets && segments_.stat_index(root, index, false, segment) == 0) all.push_back(segment.id);
  }
  return all;
}

}  // namespace dsm::sysv::differential
