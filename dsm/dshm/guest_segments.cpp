#include <sys/mman.h>

#include <initializer_list>

#include "dsm/dshm/guest.hpp"

namespace dsm::dshm::guest {
namespace {

void* const nowhere = nullptr;
void* const invalid = reinterpret_cast<void*>(8);  // no address of anything

key_t own_key() { return static_cast<key_t>(0x5d000000 | (::getpid() & 0xffffff)); }

void keys() {
  const key_t key = own_key();
  FAILS(ENOENT, ::shmget(key, page, 0600));
  FAILS(ENOENT, ::shmget(key, page, IPC_EXCL | 0600));
  FAILS(EINVAL, ::shmget(key, 0, IPC_CREAT | 0600));
  const int id = ::shmget(key, 5000, IPC_CREAT | IPC_EXCL | 0640);
  MUST(id >= 0);
  FAILS(EEXIST, ::shmget(key, 5000, IPC_CREAT | IPC_EXCL | 0640));
  FAILS(EINVAL, ::shmget(key, 5001, 0640));
  MUST(::shmget(key, 100, 0) == id);
  MUST(::shmget(key, 0, IPC_CREAT) == id);
  shmid_ds status{};
  MUST(::shmctl(id, IPC_STAT, &status) == 0);
  MUST(status.shm_perm.__key == key && status.shm_segsz == 5000 && (status.shm_perm.mode & 0777) == 0640);
  MUST(status.shm_perm.uid == ::geteuid() && status.shm_perm.cgid == ::getegid());
  MUST(status.shm_cpid == ::getpid() && status.shm_lpid == 0 && status.shm_nattch == 0);
  MUST(status.shm_atime == 0 && status.shm_dtime == 0 && status.shm_ctime > 0);
  MUST(::shmctl(id, IPC_RMID, nullptr) == 0);
  FAILS(EINVAL, ::shmctl(id, IPC_STAT, &status));
  FAILS(ENOENT, ::shmget(key, page, 0600));
}

void controls() {
  const Segment one(2);
  shmid_ds status{};
  FAILS(EINVAL, ::shmctl(-1, IPC_STAT, &status));
  FAILS(EINVAL, ::shmctl(one.id, 4711, &status));
  FAILS(EFAULT, ::shmctl(one.id, IPC_STAT, static_cast<shmid_ds*>(invalid)));
  FAILS(EFAULT, ::shmctl(one.id, IPC_SET, static_cast<shmid_ds*>(nowhere)));
  MUST(::shmctl(one.id, IPC_STAT, &status) == 0);
  status.shm_perm.mode = 07444;
  MUST(::shmctl(one.id, IPC_SET, &status) == 0);
  MUST(::shmctl(one.id, IPC_STAT, &status) == 0 && (status.shm_perm.mode & 07777) == 0444);
  MUST(::shmctl(one.id, SHM_LOCK, nullptr) == 0);
  MUST(::shmctl(one.id, IPC_STAT, &status) == 0 && (status.shm_perm.mode & SHM_LOCKED) != 0);
  MUST(::shmctl(one.id, SHM_UNLOCK, nullptr) == 0);
  struct shm_info info {};
  const int highest = ::shmctl(0, SHM_INFO, reinterpret_cast<shmid_ds*>(&info));
  MUST(highest >= 0 && info.used_ids >= 1 && info.shm_tot >= 2);
  bool found = false;
  for (int index = 0; index <= highest; ++index) found = ::shmctl(index, SHM_STAT, &status) == one.id || found;
  MUST(found);
  struct shminfo limits {};
  MUST(::shmctl(0, IPC_INFO, reinterpret_cast<shmid_ds*>(&limits)) >= 0 && limits.shmmin == 1 && limits.shmmax > 0);
}

void places() {
  const Segment one(3);
  FAILS(EINVAL, ::shmat(-1, nullptr, 0));
  FAILS(EINVAL, ::shmat(one.id, nullptr, SHM_REMAP));
  char* const where = one.attach();
  MUST(reinterpret_cast<std::size_t>(where) % page == 0 && where[0] == 0 && where[3 * page - 1] == 0);
  MUST(one.attaches() == 1);
  FAILS(EINVAL, ::shmat(one.id, where + 1, 0));
  FAILS(EINVAL, ::shmat(one.id, where, 0));                   // occupied
  FAILS(EINVAL, ::shmat(one.id, where + 2 * page, SHM_RND));  // partly
  FAILS(EINVAL, ::shmat(one.id, reinterpret_cast<void*>(1), SHM_RND | SHM_REMAP));
  MUST(one.attaches() == 1);
  char* const again = one.attach();
  ::strcpy(where + page, "one memory");
  MUST(::strcmp(again + page, "one memory") == 0 && one.attaches() == 2);
  FAILS(EINVAL, ::shmdt(again + 1));
  FAILS(EINVAL, ::shmdt(again + page));
  FAILS(EINVAL, ::shmdt(nullptr));
  MUST(::shmdt(again) == 0);
  FAILS(EINVAL, ::shmdt(again));
  MUST(one.attach(SHM_RND, again + 123) == again);
  MUST(::shmdt(again) == 0 && ::shmdt(where) == 0 && one.attaches() == 0);
  shmid_ds status{};
  MUST(::shmctl(one.id, IPC_STAT, &status) == 0);
  MUST(status.shm_lpid == ::getpid() && status.shm_atime > 0 && status.shm_dtime > 0);
}

void removed_while_attached() {
  const int id = ::shmget(IPC_PRIVATE, page, 0600);
  MUST(id >= 0);
  auto* const where = static_cast<char*>(::shmat(id, nullptr, 0));
  where[0] = 7;
  MUST(::shmctl(id, IPC_RMID, nullptr) == 0);
  shmid_ds status{};
  MUST(::shmctl(id, IPC_STAT, &status) == 0 && (status.shm_perm.mode & SHM_DEST) != 0);
  auto* const again = static_cast<char*>(::shmat(id, nullptr, 0));
  MUST(again[0] == 7 && ::shmdt(where) == 0 && ::shmdt(again) == 0);
  FAILS(EINVAL, ::shmctl(id, IPC_STAT, &status));
}

}  // namespace

void segments() {
  keys();
  controls();
  places();
  removed_while_attached();
}

void mappings() {
  const Segment one(4);
  const Segment other(2);
  char* where = one.attach();
  MUST(::munmap(where, 4 * page) == 0 && one.attaches() == 0);
  FAILS(EINVAL, ::shmdt(where));

  where = one.attach();
  where[3 * page] = 3;
  MUST(::munmap(where, page) == 0);  // the rest stays
  MUST(where[3 * page] == 3);
  where[2 * page] = 2;
  MUST(::shmdt(where) == 0 && one.attaches() == 0);

  where = one.attach();
  MUST(where[2 * page] == 2 && where[3 * page] == 3);
  MUST(other.attach(SHM_REMAP, where) == where);  // over its first half
  MUST(where[0] == 0 && where[2 * page] == 2 && other.attaches() == 1);
  where[0] = 1;
  MUST(::munmap(where + 2 * page, 2 * page) == 0 && one.attaches() == 0);
  MUST(::shmdt(where) == 0 && other.attaches() == 0);

  where = one.attach();
  MUST(::mmap(where, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == where);
  MUST(where[2 * page] == 0 && one.attaches() == 0);
  MUST(one.attach(SHM_REMAP, where) == where && where[2 * page] == 2 && one.attaches() == 1);
  MUST(::mprotect(where, 2 * page, PROT_READ) == 0 && ::mprotect(where, 4 * page, PROT_READ | PROT_WRITE) == 0);
  where[0] = 9;
  MUST(where[0] == 9 && ::shmdt(where) == 0);
}

void read_only() {
  const Segment one(2);
  char* const writing = one.attach();
  char* const reading = one.attach(SHM_RDONLY);
  writing[page] = 5;
  MUST(reading[page] == 5);
  writing[page] = 6;
  MUST(reading[page] == 6);
  for (const int writable : {PROT_WRITE, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE | PROT_EXEC}) {
    FAILS(EACCES, ::mprotect(reading, page, writable));
    FAILS(EACCES, ::mprotect(reading + page, 1, writable));
    FAILS(EACCES, ::pkey_mprotect(reading, 2 * page, writable, -1));
    in_child([=] { FAILS(EACCES, ::mprotect(reading, 2 * page, writable)); });
  }
  MUST(reading[0] == 0 && reading[page] == 6);
  MUST(::mprotect(reading, page, PROT_NONE) == 0 && ::mprotect(reading, page, PROT_READ) == 0);
  const int status = status_of_child([reading] { *const_cast<volatile char*>(reading) = 1; });
  MUST(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
  MUST(::mprotect(writing, page, PROT_READ) == 0);
  const int other = status_of_child([writing] { *const_cast<volatile char*>(writing) = 1; });
  MUST(WIFSIGNALED(other) && WTERMSIG(other) == SIGSEGV);
  MUST(::shmdt(reading) == 0 && ::shmdt(writing) == 0);
}

}  // namespace dsm::dshm::guest
