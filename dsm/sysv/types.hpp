// dsm/sysv/types.hpp - the words of System V IPC, as dsmd and the agents say them to each other. Plain data.
//
// All numbers are those of Linux (svipc(7), shmget(2), semget(2)): errno values, IPC_CREAT, SHM_RDONLY, modes.
// Thread-safety: plain values.
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <vector>

namespace dsm::sysv {

using HostNumber = std::uint16_t;     // dsmd's number of a host, from 1 on; 0: nobody
using ProcessNumber = std::uint64_t;  // an agent's number of a process, from 1 on; never used twice by one agent

// A process id, and of which host. A program on that host sees the pid, others a number that is no pid of theirs.
struct Pid {
  HostNumber host = 0;
  std::int32_t pid = 0;
  friend bool operator==(const Pid&, const Pid&) = default;
};
// What a process on host `viewer` is shown for it: the pid itself, or one number for each (host, pid), above all pids.
// Linux has pids up to 2^22.
[[nodiscard]] constexpr std::int32_t shown_to(HostNumber viewer, Pid pid) {
  if (pid.host == viewer || pid.host == 0) return pid.pid;
  return static_cast<std::int32_t>((static_cast<std::uint32_t>(pid.host) % 512U) << 22U) | (pid.pid & 0x3fffff);
}

// Who calls: the ids that the kernel vouched for at the agent, at the time of the call.
struct Caller {
  Pid pid{};
  std::uint32_t uid = 0, gid = 0;       // effective
  std::vector<std::uint32_t> groups{};  // supplementary
};

// What both kinds of object have; as ipc_perm.
struct Permissions {
  std::int32_t key = 0;
  std::uint32_t uid = 0, gid = 0, cuid = 0, cgid = 0;
  std::uint32_t mode = 0;  // nine bits, and SHM_DEST, SHM_LOCKED
  std::uint16_t seq = 0;
};

// As shmid_ds; times in seconds since 1970.
struct SegmentStat {
  std::int32_t id = 0;
  Permissions perm{};
  std::uint64_t size = 0;
  std::int64_t atime = 0, dtime = 0, ctime = 0;
  Pid cpid{}, lpid{};
  std::uint64_t nattch = 0;
};

// As semid_ds.
struct SetStat {
  std::int32_t id = 0;
  Permissions perm{};
  std::int64_t otime = 0, ctime = 0;
  std::uint64_t count = 0;  // semaphores in the set
};

// One of semop's operations; as sembuf.
struct SemOp {
  std::uint16_t number = 0;
  std::int16_t change = 0;
  std::int16_t flags = 0;  // IPC_NOWAIT, SEM_UNDO
  friend bool operator==(const SemOp&, const SemOp&) = default;
};

}  // namespace dsm::sysv
