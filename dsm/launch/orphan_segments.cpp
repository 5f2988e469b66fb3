#include "dsm/launch/orphan_segments.hpp"

#include <sys/ipc.h>
#include <sys/shm.h>
#include <unistd.h>

#include "dsm/launch/processes.hpp"
#include "dsm/telemetry/segment.hpp"

namespace dsm::launch {
namespace {

// One whose maker lives may be about to be attached. The maker's number may have gone to another process meanwhile; then
// the segment stays until a later job ends. A number of 0 is a process of another pid namespace: not ours to judge.
bool is_orphan(const shmid_ds& segment) {
  const ipc_perm& owner = segment.shm_perm;
  return (owner.mode & 0777) == telemetry::segment_mode && owner.__key == IPC_PRIVATE && owner.cuid == ::geteuid() &&
         segment.shm_nattch == 0 && segment.shm_cpid > 0 && is_gone(segment.shm_cpid);
}

}  // namespace

int remove_orphan_segments() {
  struct shm_info info {};
  const int last = ::shmctl(0, SHM_INFO, reinterpret_cast<shmid_ds*>(&info));
  int removed = 0;
  for (int index = 0; index <= last; ++index) {
    shmid_ds segment{};
    const int id = ::shmctl(index, SHM_STAT, &segment);  // -1: nothing there, or not ours to read
    if (id != -1 && is_orphan(segment) && ::shmctl(id, IPC_RMID, nullptr) == 0) ++removed;
  }
  return removed;
}

}  // namespace dsm::launch
