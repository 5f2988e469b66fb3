// shmget, shmat, shmdt, shmctl: in the order in which Linux checks (ipc/shm.c), so that of two mistakes the same is named.
#include <errno.h>
#include <sys/shm.h>

#include "dsm/dshm/connections.hpp"
#include "dsm/dshm/guarded.hpp"
#include "dsm/dshm/objects.hpp"
#include "dsm/dshm/process.hpp"
#include "dsm/dshm/routes.hpp"
#include "dsm/dshm/segment_map.hpp"

namespace dsm::dshm {
namespace {

using sysv::Call;
using sysv::Object;
using sysv::Question;

shmid_ds layout_of(const sysv::SegmentStat& segment) {
  shmid_ds out{};
  out.shm_perm = dshm::layout_of(segment.perm);
  out.shm_segsz = segment.size;
  out.shm_atime = segment.atime;
  out.shm_dtime = segment.dtime;
  out.shm_ctime = segment.ctime;
  out.shm_cpid = segment.cpid.pid;
  out.shm_lpid = segment.lpid.pid;
  out.shm_nattch = segment.nattch;
  return out;
}

Question about(Call call, int id) {
  Question question{.call = call};
  question.kind = Object::segment;
  question.id = id;
  return question;
}

int get_stat(int id, int command, shmid_ds* buffer) {
  Question question = about(command == IPC_STAT ? Call::stat : Call::stat_index, id);
  if (command != IPC_STAT) {
    question.id = 0;
    question.number = id;
    question.flags = command == SHM_STAT_ANY ? 1 : 0;
  }
  sysv::Answer answer;
  if (const int error = ask_quietly(question, answer); error != 0) return fail(error);
  if (!answer.segment) return fail(EIDRM);
  const shmid_ds out = layout_of(*answer.segment);
  if (!copy_out(buffer, &out, sizeof out)) return fail(EFAULT);
  return command == IPC_STAT ? 0 : static_cast<int>(answer.value);
}

int get_info(int command, void* buffer) {
  Question question = about(Call::info, 0);
  sysv::Answer answer;
  if (const int error = ask_quietly(question, answer); error != 0) return fail(error);
  if (!answer.segment_totals) return fail(EIDRM);
  const sysv::SegmentTotals& totals = *answer.segment_totals;
  bool well = false;
  if (command == IPC_INFO) {
    struct shminfo out {};
    out.shmmax = totals.limits.max_size;
    out.shmmin = 1;
    out.shmmni = out.shmseg = totals.limits.max_count;
    out.shmall = totals.limits.max_pages;
    well = copy_out(buffer, &out, sizeof out);
  } else {
    struct shm_info out {};  // what is resident, or swapped, nobody counts across hosts: 0
    out.used_ids = static_cast<int>(totals.used);
    out.shm_tot = totals.pages;
    well = copy_out(buffer, &out, sizeof out);
  }
  return well ? totals.highest_index : fail(EFAULT);
}

int set(int id, const shmid_ds* buffer) {
  shmid_ds in{};
  if (!copy_in(&in, buffer, sizeof in)) return fail(EFAULT);
  Question question = about(Call::set, id);
  question.uid = in.shm_perm.uid;
  question.gid = in.shm_perm.gid;
  question.mode = in.shm_perm.mode & 0777U;
  return result_of(question);
}

int control(int id, int command, shmid_ds* buffer) {
  if (command < 0 || id < 0) return fail(EINVAL);
  Question question;
  switch (command) {
    case IPC_INFO:
    case SHM_INFO:
      return get_info(command, buffer);
    case IPC_STAT:
    case SHM_STAT:
    case SHM_STAT_ANY:
      return get_stat(id, command, buffer);
    case IPC_SET:
      return set(id, buffer);
    case IPC_RMID:
      question = about(Call::remove, id);
      return result_of(question);
    case SHM_LOCK:
    case SHM_UNLOCK:
      question = about(command == SHM_LOCK ? Call::lock : Call::unlock, id);
      return result_of(question);
    default:
      return fail(EINVAL);
  }
}

bool about_all(int command) {
  return command == IPC_INFO || command == SHM_INFO || command == SHM_STAT || command == SHM_STAT_ANY;
}

// do_shmat's first part.
int place(const void* wanted, int flags, Address& at, bool& fixed) {
  at = reinterpret_cast<Address>(wanted);
  fixed = at != 0;
  const Address page = Attaches::page_size();  // SHMLBA
  if (!fixed) return (flags & SHM_REMAP) != 0 ? EINVAL : 0;
  if (at % page == 0) return 0;
  if ((flags & SHM_RND) == 0) return EINVAL;
  at -= at % page;
  return at == 0 && (flags & SHM_REMAP) != 0 ? EINVAL : 0;
}

void* attach(int id, const void* wanted, int flags) {
  void* const failed = reinterpret_cast<void*>(-1);
  Address at = 0;
  bool fixed = false;
  int error = id < 0 ? EINVAL : place(wanted, flags, at, fixed);
  Address where = 0;
  if (error == 0) error = attach_segment(id, at, fixed, flags, where);
  if (error == 0) return reinterpret_cast<void*>(where);
  errno = error;
  return failed;
}

}  // namespace
}  // namespace dsm::dshm

using namespace dsm::dshm;

extern "C" {

int shmget(key_t key, size_t size, int flags) noexcept {
  switch (route_key(key)) {
    case Route::refused:
      return fail(EINVAL);
    case Route::kernel:
      return note_kernel(dsm::sysv::Object::segment, ::syscall(SYS_shmget, key, size, flags));
    case Route::ours:
      break;
  }
  return get_object(dsm::sysv::Object::segment, key, size, flags);
}

void* shmat(int id, const void* address, int flags) noexcept {
  switch (route_id(dsm::sysv::Object::segment, id)) {
    case Route::refused:
      errno = EINVAL;
      return reinterpret_cast<void*>(-1);
    case Route::kernel:
      return reinterpret_cast<void*>(::syscall(SYS_shmat, id, address, flags));
    case Route::ours:
      break;
  }
  return attach(id, address, flags);
}

int shmdt(const void* address) noexcept {
  const auto base = reinterpret_cast<Address>(address);
  bool ours = false;
  if (process().attaches.maybe(base, base + 1) && base % Attaches::page_size() == 0) {
    const int error = detach_segment(base, ours);
    if (ours) return error == 0 ? 0 : fail(error);
  }
  return static_cast<int>(::syscall(SYS_shmdt, address));
}

int shmctl(int id, int command, struct shmid_ds* buffer) noexcept {
  switch (about_all(command) ? route_all() : route_id(dsm::sysv::Object::segment, id)) {
    case Route::refused:
      return fail(EINVAL);
    case Route::kernel:
      return static_cast<int>(::syscall(SYS_shmctl, id, command, buffer));
    case Route::ours:
      break;
  }
  return control(id, command, buffer);
}

}  // extern "C"
