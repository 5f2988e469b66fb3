// dsm/sysv/segments.hpp - all shared memory segments of one dsmd, as a value: who made them, who may use them, how often
// each is attached. No pages: those are in the store of whoever drives this (dsm/daemon/sysv_home.hpp).
//
// Behaves as Linux's ipc/shm.c does, call by call. Every function returns 0 or an errno value.
// Thread-safety: none. Not async-signal-safe.
#pragma once
#include <cstdint>
#include <functional>
#include <map>

#include "dsm/sysv/ids.hpp"
#include "dsm/sysv/types.hpp"

namespace dsm::sysv {

struct SegmentLimits {
  std::uint64_t max_size = std::uint64_t{1} << 36U;   // shmmax: bytes of one segment
  std::uint64_t max_pages = std::uint64_t{1} << 26U;  // shmall: pages (4096 bytes) of all; dsmd has --shm-size for it
  std::uint32_t max_count = 4096;                     // shmmni
};

// What IPC_INFO and SHM_INFO report.
struct SegmentTotals {
  SegmentLimits limits{};
  std::uint32_t used = 0;          // segments there are
  std::int32_t highest_index = 0;  // of the table's used entries; 0 if there is none
  std::uint64_t pages = 0;         // of all segments
};

class Segments {
 public:
  // `now`: seconds since 1970. `destroyed` is called with the id of each segment that has gone for good.
  Segments(SegmentLimits limits, std::function<std::int64_t()> now, std::function<void(std::int32_t)> destroyed);

  // shmget(2).
  [[nodiscard]] int get(const Caller& caller, std::int32_t key, std::uint64_t size, std::int32_t flags,
                        std::int32_t& id);
  // The part of shmat(2) that is about the object: permissions by flags (SHM_RDONLY, SHM_EXEC), then the counts.
  [[nodiscard]] int attach(const Caller& caller, std::int32_t id, std::int32_t flags);
  // Attaches of a process end: shmdt, munmap, exec, exit, a lost host (`lpid`: who ended). REQUIRES: there were so many.
  void detach(std::int32_t id, Pid lpid, std::uint64_t count = 1);
  // A fork: so many attaches more, lpid is the parent. REQUIRES: there are so many.
  void inherit(std::int32_t id, Pid parent, std::uint64_t count = 1);
  // IPC_RMID.
  [[nodiscard]] int remove(const Caller& caller, std::int32_t id);
  // IPC_SET: uid, gid, nine bits of mode.
  [[nodiscard]] int set(const Caller& caller, std::int32_t id, std::uint32_t uid, std::uint32_t gid,
                        std::uint32_t mode);
  // SHM_LOCK, SHM_UNLOCK: notes SHM_LOCKED; nothing is swapped out anyway.
  [[nodiscard]] int lock(const Caller& caller, std::int32_t id, bool on);
  // IPC_STAT.
  [[nodiscard]] int stat(const Caller& caller, std::int32_t id, SegmentStat& out) const;
  // SHM_STAT (`check`), SHM_STAT_ANY: by index in the table; out.id is what the call returns.
  [[nodiscard]] int stat_index(const Caller& caller, std::int32_t index, bool check, SegmentStat& out) const;
  [[nodiscard]] SegmentTotals totals() const;

  // For the driver, without permissions: nullptr if there is none of that id (any more).
  [[nodiscard]] const SegmentStat* find(std::int32_t id) const;

 private:
  using Table = std::map<std::int32_t, SegmentStat>;  // by index
  // Of this id, or by_index_.end().
  [[nodiscard]] Table::iterator at(std::int32_t id);
  [[nodiscard]] int create(const Caller& caller, std::int32_t key, std::uint64_t size, std::int32_t flags,
                           std::int32_t& id);
  void forget_key(SegmentStat& segment);
  void destroy(Table::iterator at);

  SegmentLimits limits_;
  std::function<std::int64_t()> now_;
  std::function<void(std::int32_t)> destroyed_;
  Table by_index_{};
  std::map<std::int32_t, std::int32_t> index_by_key_{};
  Ids ids_{};
  std::uint64_t pages_ = 0;
};

}  // namespace dsm::sysv
