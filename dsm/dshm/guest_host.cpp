// What is not as in the kernel: whose an object is, what stays put, and the end.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "dsm/dshm/guest.hpp"

namespace dsm::dshm::guest {
namespace {

bool kernel_has(int id) {
  shmid_ds status{};
  return ::syscall(SYS_shmctl, id, IPC_STAT, &status) == 0 && status.shm_cpid == ::getpid();
}

}  // namespace

// DSHM_KEYS=0x5e000000-0x5effffff
void filters() {
  const key_t ours = static_cast<key_t>(0x5e000000 | (::getpid() & 0xffffff));
  const key_t theirs = static_cast<key_t>(0x5f000000 | (::getpid() & 0xffffff));
  const int mine = ::shmget(ours, page, IPC_CREAT | IPC_EXCL | 0600);
  MUST(mine >= 0);
  FAILS(ENOENT, static_cast<int>(::syscall(SYS_shmget, ours, page, 0)));
  const int kernels = ::shmget(theirs, page, IPC_CREAT | IPC_EXCL | 0600);
  MUST(kernels >= 0 && kernel_has(kernels));
  auto* const where = static_cast<char*>(::shmat(kernels, nullptr, 0));
  MUST(where != reinterpret_cast<char*>(-1));
  where[0] = 1;
  MUST(::shmctl(kernels, IPC_RMID, nullptr) == 0 && ::shmdt(where) == 0 && !kernel_has(kernels));
  MUST(::shmctl(mine, IPC_RMID, nullptr) == 0);
  const int set = ::semget(theirs, 1, IPC_CREAT | IPC_EXCL | 0600);
  MUST(set >= 0 && ::syscall(SYS_semctl, set, 0, GETVAL, 0) == 0);
  sembuf give{0, 1, 0};
  MUST(::semop(set, &give, 1) == 0 && ::syscall(SYS_semctl, set, 0, GETVAL, 0) == 1);
  MUST(::semctl(set, 0, IPC_RMID) == 0);
}

void stays_put() {
  const Segment one(2);
  char* const where = one.attach();
  where[page] = 1;
  FAILS(EINVAL, ::mremap(where, 2 * page, 4 * page, MREMAP_MAYMOVE));
  MUST(where[page] == 1);
  void* const other = ::mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  MUST(::mremap(other, 2 * page, 2 * page, MREMAP_MAYMOVE | MREMAP_FIXED, where) == where);
  MUST(where[page] == 0 && one.attaches() == 0);
  FAILS(ENOENT, ::open("/proc/sysvipc/shm", O_RDONLY));
  MUST(::fopen("/proc/sysvipc/sem", "r") == nullptr && errno == ENOENT);
  const int other_file = ::open("/proc/sysvipc/msg", O_RDONLY);
  MUST(other_file >= 0);
}

void has_no_key() { FAILS(EIDRM, ::shmget(IPC_PRIVATE, page, 0600)); }

// As a set-user-id program that nobody can tell from one that its owner has started, but by how it began.
void has_no_key_as_owner() {
  MUST(::getuid() != ::geteuid());
  MUST(::setresgid(::getegid(), ::getegid(), ::getegid()) == 0);
  MUST(::setresuid(::geteuid(), ::geteuid(), ::geteuid()) == 0);
  has_no_key();
}

// Says "ready" when two pages of its segment are here and two are not, then waits for a line, and touches one: what
// comes then is what the test is about. With "calls": it does not touch, but asks.
void waits_for_the_end(int argc, char** argv) {
  static Segment& one = *new Segment(4);
  volatile char* const where = one.attach();
  where[0] = 1;
  where[page] = 1;
  MUST(::write(1, "ready\n", 6) == 6);
  const int line = ::open(argv[2], O_RDONLY);  // a FIFO
  char byte = 0;
  MUST(line >= 0 && ::read(line, &byte, 1) == 1);
  if (argc > 3) {
    FAILS(EIDRM, ::shmget(IPC_PRIVATE, page, 0600));
    FAILS(EIDRM, ::shmat(one.id, nullptr, 0));
    MUST(::shmdt(const_cast<char*>(where)) == 0);
  } else {
    where[byte == '0' ? 0 : 3 * page] = 2;
  }
}

}  // namespace dsm::dshm::guest
