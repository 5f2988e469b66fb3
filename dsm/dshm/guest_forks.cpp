#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <atomic>
#include <csetjmp>
#include <string>
#include <thread>
#include <vector>

#include "dsm/dshm/guest.hpp"

extern char** environ;

namespace dsm::dshm::guest {
namespace {

sigjmp_buf way_out;
volatile sig_atomic_t caught = 0;

void note_and_leave(int, siginfo_t*, void*) {
  caught = caught + 1;
  ::siglongjmp(way_out, 1);
}

bool dies_elsewhere() {
  static char* const closed = static_cast<char*>(::mmap(nullptr, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  const sig_atomic_t before = caught;
  if (sigsetjmp(way_out, 1) == 0) *const_cast<volatile char*>(closed) = 1;
  return caught == before + 1;
}

// Works, for sure: a fresh segment, and what is attached already.
void still_works(const Segment& known, volatile char* where) {
  where[page] = 42;
  const Segment fresh(3);
  volatile char* const other = fresh.attach();
  other[2 * page] = 1;
  MUST(fresh.attaches() == 1 && other[2 * page] == 1 && where[page] == 42 && known.attaches() >= 1);
  MUST(::shmdt(const_cast<char*>(other)) == 0 && fresh.attaches() == 0);
}

}  // namespace

void forks() {
  const Segment one(3);
  volatile int* const where = reinterpret_cast<int*>(one.attach());
  where[0] = 1;
  for (int i = 0; i < 20; ++i) {
    where[page / 4] = i;
    in_child([&] {
      MUST(where[0] == 1 && where[page / 4] == i && one.attaches() == 2);
      shmid_ds status{};
      MUST(::shmctl(one.id, IPC_STAT, &status) == 0 && status.shm_lpid == ::getppid());
      where[2 * page / 4] = i + 1;
      in_child([&] { MUST(where[2 * page / 4] == i + 1 && one.attaches() == 3); });
      if (i % 2 == 0) MUST(::shmdt(const_cast<int*>(where)) == 0);
    });
    MUST(where[2 * page / 4] == i + 1);
    MUST(one.attaches() == 1);
  }
  MUST(::munmap(const_cast<int*>(where), page) == 0);
  in_child([&] {
    where[page / 4] = 77;
    MUST(::shmdt(const_cast<int*>(where)) == 0);
  });
  MUST(where[page / 4] == 77);
  // Without attaches, too; and a child that begins where its parent had not.
  MUST(::shmdt(const_cast<int*>(where)) == 0);
  in_child([&one] {
    char* const again = one.attach();
    MUST(again[page] == 77);
  });
  MUST(one.attaches() == 0);
}

// Others attach, detach, ask and wait, while one forks.
void forks_among_threads() {
  const Segment one(4);
  volatile char* const where = one.attach();
  const int set = ::semget(IPC_PRIVATE, 1, 0600);
  MUST(set >= 0);
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    sembuf take{0, -1, 0};
    while (!stop) MUST(::semop(set, &take, 1) == 0);
  });
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      while (!stop) {
        char* const mine = one.attach();
        mine[3 * page] = 1;
        MUST(::shmdt(mine) == 0);
      }
    });
  }
  for (int i = 0; i < 40; ++i) {
    where[0] = static_cast<char>(i);
    in_child([&] {
      MUST(where[0] == static_cast<char>(i));
      where[page] = static_cast<char>(i);
      still_works(one, where);
    });
    MUST(where[0] == static_cast<char>(i));
  }
  stop = true;
  sembuf give{0, 2, 0};
  MUST(::semop(set, &give, 1) == 0);
  for (std::thread& thread : threads) thread.join();
  MUST(::semctl(set, 0, IPC_RMID) == 0);
  MUST(one.attaches() == 1);
}

// posix_spawn, system and vfork are nobody's business; exec detaches, and the process goes on as another program.
void spawns() {
  const Segment one(1);
  char* const where = one.attach();
  where[0] = 1;
  pid_t pid = 0;
  const char* const arguments[] = {"true", nullptr};
  MUST(::posix_spawnp(&pid, "true", nullptr, nullptr, const_cast<char* const*>(arguments), environ) == 0);
  int status = 0;
  MUST(::waitpid(pid, &status, 0) == pid && status == 0);
  MUST(::system("exit 3") == 3 << 8 && where[0] == 1);
  pid = ::fork();
  MUST(pid >= 0);
  if (pid == 0) {
    const std::string id = std::to_string(one.id);
    ::execl("/proc/self/exe", "guest", "attached", id.c_str(), "1", nullptr);
    ::_exit(127);
  }
  MUST(::waitpid(pid, &status, 0) == pid && status == 0);
  MUST(one.attaches() == 1);
}

// Who has become somebody else is somebody else to the object, and still at the same agent. (As root.)
void users() {
  constexpr uid_t nobody = 65534;
  const Segment closed(1, 0600);
  const Segment open(1, 0644);
  const int set = ::semget(IPC_PRIVATE, 1, 0622);
  MUST(set >= 0);
  const auto as_nobody = [&] {
    sembuf give{0, 1, 0};
    MUST(::semop(set, &give, 1) == 0);
    FAILS(EACCES, ::semctl(set, 0, GETVAL));
    FAILS(EACCES, ::shmat(closed.id, nullptr, 0));
    FAILS(EACCES, ::shmat(open.id, nullptr, 0));
    MUST(open.attach(SHM_RDONLY)[0] == 0);
    FAILS(EPERM, ::shmctl(open.id, IPC_RMID, nullptr));
  };
  in_child([&] {
    MUST(::setgid(nobody) == 0 && ::setuid(nobody) == 0);
    as_nobody();
  });
  MUST(::seteuid(nobody) == 0);
  as_nobody();
  MUST(::seteuid(0) == 0);
  MUST(::semctl(set, 0, GETVAL) == 2 && ::semctl(set, 0, IPC_RMID) == 0);
}

// Daemons close what they do not know. The calls go on; also after system calls that nobody sees.
void closes() {
  const Segment one(4);
  volatile char* const where = one.attach();
  where[0] = 1;
  ::closefrom(3);
  still_works(one, where);
  for (int fd = 3; fd < 1024; ++fd) ::close(fd);
  still_works(one, where);
  MUST(::close_range(3, ~0U, 0) == 0);
  still_works(one, where);
  const int null = ::open("/dev/null", O_RDWR);
  MUST(null == 3);
  for (int fd = 4; fd < 1024; ++fd) MUST(::dup2(null, fd) == fd || errno == EBUSY);
  still_works(one, where);
  for (int fd = 4; fd < 1024; ++fd) ::close(fd);
  in_child([&] {
    ::closefrom(0);
    still_works(one, where);
  });
}

// The process ends with its last thread, though that is not the main thread; what is to be done at its end is done.
void main_leaves() {
  static const Segment& one = *new Segment(3);
  static char* const where = one.attach();
  static const pthread_t main = ::pthread_self();
  MUST(std::atexit([] {
         where[2 * page] = 1;
         MUST(where[page] == 1 && one.attaches() == 1 && ::shmctl(one.id, IPC_RMID, nullptr) == 0);
         ::dprintf(1, "well\n");
       }) == 0);
  std::thread([] {
    MUST(::pthread_join(main, nullptr) == 0);
    where[page] = 1;
    const int set = ::semget(IPC_PRIVATE, 1, 0600);
    sembuf take{0, -1, 0};
    const timespec long_enough{0, 300'000'000};  // for the library to look at who is left
    FAILS(EAGAIN, ::semtimedop(set, &take, 1, &long_enough));
    MUST(one.attaches() == 1 && ::semctl(set, 0, IPC_RMID) == 0);
  }).detach();
  ::pthread_exit(nullptr);
}

// A handler of the program's own gets the faults that are its own, and no other; a thread may block SIGSEGV.
void handlers() {
  const Segment one(8);
  volatile char* const where = one.attach();
  struct sigaction action {};
  action.sa_sigaction = note_and_leave;
  action.sa_flags = SA_SIGINFO;
  MUST(::sigaction(SIGSEGV, &action, nullptr) == 0);
  where[0] = 1;
  MUST(caught == 0 && dies_elsewhere());
  where[page] = 1;
  MUST(caught == 1);
  struct sigaction now {};
  MUST(::sigaction(SIGSEGV, nullptr, &now) == 0 && now.sa_sigaction == note_and_leave);
  sigset_t all;
  ::sigfillset(&all);
  MUST(::pthread_sigmask(SIG_BLOCK, &all, nullptr) == 0);
  where[2 * page] = 1;
  MUST(where[3 * page] == 0);
  MUST(::pthread_sigmask(SIG_UNBLOCK, &all, nullptr) == 0);
  char* const reading = one.attach(SHM_RDONLY);
  MUST(reading[2 * page] == 1 && caught == 1);
  if (sigsetjmp(way_out, 1) == 0) const_cast<volatile char*>(reading)[2 * page] = 2;
  MUST(caught == 2 && reading[2 * page] == 1);
  MUST(::signal(SIGSEGV, SIG_DFL) != SIG_ERR);
  const int status = status_of_child([] { (void)dies_elsewhere(); });
  MUST(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
  where[4 * page] = 1;
}

}  // namespace dsm::dshm::guest
