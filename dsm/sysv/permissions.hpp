// dsm/sysv/permissions.hpp - who may do what with an object: ipcperms() of Linux (ipc/util.c), as a function.
//
// The owner's class decides for the owner, even when others have more; root (effective uid 0) may do everything. There are
// no capabilities here: an agent tells dsmd effective ids only.
#pragma once
#include "dsm/sysv/types.hpp"

namespace dsm::sysv {

// `wanted`: permission bits in any of the three classes' places (0400, 0600, 0444 ...), as shmget's flags have them.
[[nodiscard]] bool may_access(const Permissions& perm, const Caller& caller, std::uint32_t wanted);
// IPC_SET, IPC_RMID: the owner, the creator, or root.
[[nodiscard]] bool may_control(const Permissions& perm, const Caller& caller);

}  // namespace dsm::sysv
