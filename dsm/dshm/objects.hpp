// dsm/dshm/objects.hpp - what shm.cpp and sem.cpp have in common.
//
// Thread-safe. Not async-signal-safe.
#pragma once
#include <errno.h>
#include <sys/ipc.h>

#include <cstdint>

#include "dsm/sysv/wire.hpp"

namespace dsm::dshm {

inline int fail(int error) noexcept {
  errno = error;
  return -1;
}

// ask() of connections.hpp, with signals blocked, after begin(): 0 or an errno value.
[[nodiscard]] int ask_quietly(sysv::Question& question, sysv::Answer& answer);
// The same, as a call's result: 0, or -1 and errno.
[[nodiscard]] int result_of(sysv::Question& question);
// shmget, semget at dsmd.
[[nodiscard]] int get_object(sysv::Object kind, std::int32_t key, std::uint64_t size, int flags);
// What the kernel's shmget or semget has returned; it remembers the id.
[[nodiscard]] int note_kernel(sysv::Object kind, long result);

[[nodiscard]] ipc_perm layout_of(const sysv::Permissions& perm);

}  // namespace dsm::dshm
