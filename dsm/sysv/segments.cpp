// Segments as ipc/shm.c of Linux has them. The order of the checks is part of what a program sees.
#include "dsm/sysv/segments.hpp"

#include <sys/ipc.h>
#include <sys/shm.h>

#include <cerrno>
#include <stdexcept>
#include <utility>

#include "dsm/sysv/permissions.hpp"

namespace dsm::sysv {
namespace {

constexpr std::uint64_t linux_page = 4096;
constexpr std::uint32_t nine_bits = 0777, readable = 0444, writable = 0222, executable = 0111;
constexpr std::uint32_t no_such_user = ~0U;  // uid_t -1, which chown(2) takes for "leave it", is no user's

std::uint64_t pages_of(std::uint64_t size) { return size / linux_page + (size % linux_page != 0 ? 1 : 0); }

}  // namespace

Segments::Segments(SegmentLimits limits, std::function<std::int64_t()> now, std::function<void(std::int32_t)> destroyed)
    : limits_(limits), now_(std::move(now)), destroyed_(std::move(destroyed)) {
  limits_.max_count = std::min(limits_.max_count, static_cast<std::uint32_t>(ids_per_sequence));
}

Segments::Table::iterator Segments::at(std::int32_t id) {
  if (id < 0) return by_index_.end();
  const auto found = by_index_.find(index_of(id));
  return found != by_index_.end() && found->second.id == id ? found : by_index_.end();
}

const SegmentStat* Segments::find(std::int32_t id) const {
  if (id < 0) return nullptr;
  const auto found = by_index_.find(index_of(id));
  return found != by_index_.end() && found->second.id == id ? &found->second : nullptr;
}

int Segments::get(const Caller& caller, std::int32_t key, std::uint64_t size, std::int32_t flags, std::int32_t& id) {
  if (key == IPC_PRIVATE) return create(caller, key, size, flags, id);
  const auto found = index_by_key_.find(key);
  if (found == index_by_key_.end()) return (flags & IPC_CREAT) != 0 ? create(caller, key, size, flags, id) : ENOENT;
  if ((flags & IPC_CREAT) != 0 && (flags & IPC_EXCL) != 0) return EEXIST;
  const SegmentStat& segment = by_index_.at(found->second);
  if (segment.size < size) return EINVAL;
  if (!may_access(segment.perm, caller, static_cast<std::uint32_t>(flags))) return EACCES;
  id = segment.id;
  return 0;
}

int Segments::create(const Caller& caller, std::int32_t key, std::uint64_t size, std::int32_t flags, std::int32_t& id) {
  if (size < 1 || size > limits_.max_size) return EINVAL;
  const std::uint64_t pages = pages_of(size);
  if (pages > limits_.max_pages - pages_) return ENOSPC;
  if ((flags & SHM_HUGETLB) != 0) return ENOMEM;  // as Linux says where no huge pages were set aside
  if (by_index_.size() >= limits_.max_count) return ENOSPC;

  id = ids_.next(by_index_);
  by_index_[index_of(id)] = {.id = id,
                             .perm = {.key = key,
                                      .uid = caller.uid,
                                      .gid = caller.gid,
                                      .cuid = caller.uid,
                                      .cgid = caller.gid,
                                      .mode = static_cast<std::uint32_t>(flags) & nine_bits,
                                      .seq = static_cast<std::uint16_t>(sequence_of(id))},
                             .size = size,
                             .ctime = now_(),
                             .cpid = caller.pid};
  if (key != IPC_PRIVATE) index_by_key_[key] = index_of(id);
  pages_ += pages;
  return 0;
}

int Segments::attach(const Caller& caller, std::int32_t id, std::int32_t flags) {
  const auto found = at(id);
  if (found == by_index_.end()) return EINVAL;
  std::uint32_t wanted = readable;
  if ((flags & SHM_RDONLY) == 0) wanted |= writable;
  if ((flags & SHM_EXEC) != 0) wanted |= executable;
  SegmentStat& segment = found->second;
  if (!may_access(segment.perm, caller, wanted)) return EACCES;
  ++segment.nattch;
  segment.atime = now_();
  segment.lpid = caller.pid;
  return 0;
}

void Segments::inherit(std::int32_t id, Pid parent, std::uint64_t count) {
  const auto found = at(id);
  if (found == by_index_.end() || found->second.nattch < count)
    throw std::logic_error("sysv: a segment that is not attached was inherited");
  found->second.nattch += count;
  found->second.atime = now_();
  found->second.lpid = parent;
}

void Segments::detach(std::int32_t id, Pid lpid, std::uint64_t count) {
  const auto found = at(id);
  if (found == by_index_.end() || found->second.nattch < count)
    throw std::logic_error("sysv: a segment that is not attached was detached");
  SegmentStat& segment = found->second;
  segment.nattch -= count;
  segment.dtime = now_();
  segment.lpid = lpid;
  if (segment.nattch == 0 && (segment.perm.mode & SHM_DEST) != 0) destroy(found);
}

int Segments::remove(const Caller& caller, std::int32_t id) {
  const auto found = at(id);
  if (found == by_index_.end()) return EINVAL;
  SegmentStat& segment = found->second;
  if (!may_control(segment.perm, caller)) return EPERM;
  if (segment.nattch == 0) {
    destroy(found);
    return 0;
  }
  segment.perm.mode |= SHM_DEST;
  forget_key(segment);
  return 0;
}

// The key is free for another one; this one is reached by its id only.
void Segments::forget_key(SegmentStat& segment) {
  if (segment.perm.key != IPC_PRIVATE) index_by_key_.erase(segment.perm.key);
  segment.perm.key = IPC_PRIVATE;
}

void Segments::destroy(Table::iterator at) {
  const std::int32_t id = at->second.id;
  forget_key(at->second);
  pages_ -= pages_of(at->second.size);
  by_index_.erase(at);
  destroyed_(id);
}

int Segments::set(const Caller& caller, std::int32_t id, std::uint32_t uid, std::uint32_t gid, std::uint32_t mode) {
  const auto found = at(id);
  if (found == by_index_.end()) return EINVAL;
  SegmentStat& segment = found->second;
  if (!may_control(segment.perm, caller)) return EPERM;
  if (uid == no_such_user || gid == no_such_user) return EINVAL;
  segment.perm.uid = uid;
  segment.perm.gid = gid;
  segment.perm.mode = (segment.perm.mode & ~nine_bits) | (mode & nine_bits);
  segment.ctime = now_();
  return 0;
}

int Segments::lock(const Caller& caller, std::int32_t id, bool on) {
  const auto found = at(id);
  if (found == by_index_.end()) return EINVAL;
  SegmentStat& segment = found->second;
  if (!may_control(segment.perm, caller)) return EPERM;
  if (on) {
    segment.perm.mode |= SHM_LOCKED;
  } else {
    segment.perm.mode &= ~static_cast<std::uint32_t>(SHM_LOCKED);
  }
  return 0;
}

int Segments::stat(const Caller& caller, std::int32_t id, SegmentStat& out) const {
  const SegmentStat* const segment = find(id);
  if (segment == nullptr) return EINVAL;
  if (!may_access(segment->perm, caller, readable)) return EACCES;
  out = *segment;
  return 0;
}

// An id is taken for an index, too: Linux looks at its low bits only.
int Segments::stat_index(const Caller& caller, std::int32_t index, bool check, SegmentStat& out) const {
  if (index < 0) return EINVAL;
  const auto found = by_index_.find(index_of(index));
  if (found == by_index_.end()) return EINVAL;
  if (check && !may_access(found->second.perm, caller, readable)) return EACCES;
  out = found->second;
  return 0;
}

SegmentTotals Segments::totals() const {
  return {.limits = limits_,
          .used = static_cast<std::uint32_t>(by_index_.size()),
          .highest_index = by_index_.empty() ? 0 : by_index_.rbegin()->first,
          .pages = pages_};
}

}  // namespace dsm::sysv
