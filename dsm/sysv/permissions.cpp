// Who may do what: ipcperms() and ipcctl_obtain_check() of Linux (ipc/util.c).
#include "dsm/sysv/permissions.hpp"

#include <algorithm>

namespace dsm::sysv {
namespace {

bool owns(const Permissions& perm, const Caller& caller) { return caller.uid == perm.cuid || caller.uid == perm.uid; }

bool in_group(const Caller& caller, std::uint32_t gid) {
  return caller.gid == gid || std::find(caller.groups.begin(), caller.groups.end(), gid) != caller.groups.end();
}

}  // namespace

bool may_access(const Permissions& perm, const Caller& caller, std::uint32_t wanted) {
  if (caller.uid == 0) return true;
  // Whichever class's place a bit stands in, it is asked of the caller's own class.
  const std::uint32_t asked = (wanted >> 6U | wanted >> 3U | wanted) & 07U;
  std::uint32_t granted = perm.mode;
  if (owns(perm, caller)) {
    granted >>= 6U;
  } else if (in_group(caller, perm.cgid) || in_group(caller, perm.gid)) {
    granted >>= 3U;
  }
  return (asked & ~granted) == 0;
}

bool may_control(const Permissions& perm, const Caller& caller) { return caller.uid == 0 || owns(perm, caller); }

}  // namespace dsm::sysv
