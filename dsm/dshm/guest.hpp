// dsm/dshm/guest.hpp - a program that uses System V IPC and knows nothing of us: what dshm_run_test runs under dshmrun.
//
// Each act checks itself, and is true of the kernel's own objects, too, but for those in guest_host.cpp: run without
// dshmrun it tests the test.
#pragma once
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>

namespace dsm::dshm::guest {

inline constexpr std::size_t page = 4096;

// Ends the process with a line that says where. Not assert(): in children, too, without unwinding or flushing.
#define MUST(condition)                                                                                 \
  do {                                                                                                  \
    if (!(condition)) {                                                                                 \
      ::dprintf(2, "%s:%d: %s (errno %s)\n", __FILE__, __LINE__, #condition, ::strerrorname_np(errno)); \
      ::_exit(1);                                                                                       \
    }                                                                                                   \
  } while (false)

// The call fails, and errno is this.
#define FAILS(error, call)              \
  do {                                  \
    errno = 0;                          \
    MUST((call) == decltype(call)(-1)); \
    MUST(errno == (error));             \
  } while (false)

// A segment, removed at the end.
class Segment {
 public:
  explicit Segment(std::size_t pages, int mode = 0600) : id(::shmget(IPC_PRIVATE, pages * page, IPC_CREAT | mode)) {
    MUST(id >= 0);
  }
  Segment(const Segment&) = delete;
  ~Segment() { ::shmctl(id, IPC_RMID, nullptr); }
  [[nodiscard]] char* attach(int flags = 0, void* at = nullptr) const {
    void* const where = ::shmat(id, at, flags);
    MUST(where != reinterpret_cast<void*>(-1));
    return static_cast<char*>(where);
  }
  [[nodiscard]] unsigned long attaches() const {
    shmid_ds status{};
    MUST(::shmctl(id, IPC_STAT, &status) == 0);
    return status.shm_nattch;
  }
  const int id;
};

// A child does this, and is waited for; its status as waitpid says it.
template <class Do>
int status_of_child(Do act) {
  const pid_t pid = ::fork();
  MUST(pid >= 0);
  if (pid == 0) {
    ::alarm(60);
    act();
    ::_exit(0);
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) == -1) MUST(errno == EINTR);
  return status;
}
template <class Do>
void in_child(Do act) {
  MUST(status_of_child(act) == 0);
}

// Asks again and again: for what no call waits for, as that somebody waits at a set. (That a semaphore has a value is
// waited for by semop; and what a child had is given back when wait() returns.)
template <class Condition>
void wait_for(Condition condition) {
  for (int i = 0; i < 6000 && !condition(); ++i) ::usleep(10'000);
  MUST(condition());
}

// guest_segments.cpp
void segments();
void mappings();
void read_only();
// guest_sets.cpp
void sets();
void interrupted();
void undone();
void forks_in_wait();
// guest_forks.cpp
void forks();
void forks_among_threads();
void spawns();
void users();
void closes();
void main_leaves();
void handlers();
// guest_masks.cpp
void masks();
// guest_transfer.cpp
void transfers();
void contend(int id, int side, int rounds);
// guest_host.cpp
void filters();
void stays_put();
void has_no_key();
void has_no_key_as_owner();
void waits_for_the_end(int argc, char** argv);

}  // namespace dsm::dshm::guest
