#include <sys/time.h>

#include <atomic>
#include <thread>

#include "dsm/dshm/guest.hpp"

namespace dsm::dshm::guest {
namespace {

union Argument {
  int value;
  semid_ds* buffer;
  unsigned short* array;
  struct seminfo* info;
};

class Set {
 public:
  explicit Set(int count) : id(::semget(IPC_PRIVATE, count, IPC_CREAT | 0600)) { MUST(id >= 0); }
  Set(const Set&) = delete;
  ~Set() { ::semctl(id, 0, IPC_RMID); }
  void put(int number, int value) const { MUST(::semctl(id, number, SETVAL, Argument{.value = value}) == 0); }
  [[nodiscard]] int get(int number) const { return ::semctl(id, number, GETVAL); }
  int change(int number, int by, int flags = 0) const {
    sembuf op{static_cast<unsigned short>(number), static_cast<short>(by), static_cast<short>(flags)};
    return ::semop(id, &op, 1);
  }
  const int id;
};

void on_signal(int) {}

void values(const Set& set) {
  unsigned short all[3] = {1, 2, 3};
  MUST(::semctl(set.id, 0, SETALL, Argument{.array = all}) == 0);
  unsigned short back[3] = {};
  MUST(::semctl(set.id, 0, GETALL, Argument{.array = back}) == 0);
  MUST(back[0] == 1 && back[1] == 2 && back[2] == 3 && set.get(1) == 2);
  FAILS(EFAULT, ::semctl(set.id, 0, SETALL, Argument{.array = reinterpret_cast<unsigned short*>(8)}));
  FAILS(EFAULT, ::semctl(set.id, 0, GETALL, Argument{.array = nullptr}));
  FAILS(ERANGE, ::semctl(set.id, 0, SETVAL, Argument{.value = 32768}));
  FAILS(ERANGE, ::semctl(set.id, 0, SETVAL, Argument{.value = -1}));
  FAILS(EINVAL, ::semctl(set.id, 3, GETVAL));
  FAILS(EINVAL, ::semctl(-1, 0, GETVAL));
  FAILS(EINVAL, ::semctl(set.id, 0, 4711));
  semid_ds status{};
  MUST(::semctl(set.id, 0, IPC_STAT, Argument{.buffer = &status}) == 0 && status.sem_nsems == 3);
  FAILS(EFAULT, ::semctl(set.id, 0, IPC_SET, Argument{.buffer = nullptr}));
  struct seminfo info {};
  MUST(::semctl(0, 0, SEM_INFO, Argument{.info = &info}) >= 0 && info.semusz >= 1 && info.semopm >= 500);
}

void operations(const Set& set) {
  FAILS(EAGAIN, set.change(0, -2, IPC_NOWAIT));
  FAILS(EAGAIN, set.change(0, 0, IPC_NOWAIT));
  MUST(set.change(0, 4) == 0 && set.change(0, -5) == 0 && set.change(0, 0) == 0);
  sembuf both[2] = {{1, -1, 0}, {0, -1, IPC_NOWAIT}};
  FAILS(EAGAIN, ::semop(set.id, both, 2));
  MUST(set.get(1) == 2 && ::semctl(set.id, 0, GETPID) == ::getpid());
  FAILS(EFBIG, set.change(3, 1));
  FAILS(EINVAL, ::semop(set.id, both, 0));
  FAILS(EINVAL, ::semop(-1, both, 2));
  FAILS(EFAULT, ::semop(set.id, nullptr, 1));
  sembuf many[501] = {};
  FAILS(E2BIG, ::semop(set.id, many, 501));
  sembuf take{0, -1, 0};
  timespec limit{0, 50'000'000};
  FAILS(EAGAIN, ::semtimedop(set.id, &take, 1, &limit));
  limit.tv_nsec = 1'000'000'000;
  FAILS(EINVAL, ::semtimedop(set.id, &take, 1, &limit));
  FAILS(EFAULT, ::semtimedop(set.id, &take, 1, reinterpret_cast<timespec*>(8)));
}

}  // namespace

void sets() {
  const Set set(3);
  values(set);
  operations(set);
  FAILS(EINVAL, ::semget(IPC_PRIVATE, 0, 0600));
  FAILS(EINVAL, ::semget(IPC_PRIVATE, -1, 0600));
  set.put(0, 0);
  std::thread other([&set] { MUST(set.change(0, -1) == 0); });
  wait_for([&set] { return ::semctl(set.id, 0, GETNCNT) == 1; });
  MUST(set.change(0, 1) == 0);
  other.join();
  Set* const going = new Set(1);
  std::thread waiting([going] { FAILS(EIDRM, going->change(0, -1)); });
  wait_for([going] { return ::semctl(going->id, 0, GETNCNT) == 1; });
  MUST(::semctl(going->id, 0, IPC_RMID) == 0);
  waiting.join();
  FAILS(EINVAL, going->change(0, 1));
  delete going;
}

// A signal cuts a wait short, even with SA_RESTART; what can be done at once is done however many come.
void interrupted() {
  const Set set(2);
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  MUST(::sigaction(SIGALRM, &action, nullptr) == 0);
  itimerval often{{0, 2000}, {0, 2000}};
  MUST(::setitimer(ITIMER_REAL, &often, nullptr) == 0);
  for (int i = 0; i < 100; ++i) {
    FAILS(EINTR, set.change(0, -1));
    MUST(::semctl(set.id, 0, GETNCNT) == 0 && set.get(0) == 0);
    MUST(set.change(1, 1) == 0 && set.change(1, -1) == 0);
  }
  often = {};
  MUST(::setitimer(ITIMER_REAL, &often, nullptr) == 0 && set.get(1) == 0);
  // Given up or given: never both.
  int taken = 0;
  for (int i = 0; i < 200; ++i) {
    in_child([&] {
      const pid_t parent = ::getppid();
      ::kill(parent, SIGALRM);
      MUST(set.change(0, 1) == 0);
    });
    if (set.change(0, -1, IPC_NOWAIT) == 0) ++taken;
  }
  MUST(taken == 200 && set.get(0) == 0);
}

void undone() {
  const Set set(2);
  set.put(0, 1);
  in_child([&set] { MUST(set.change(0, -1, SEM_UNDO) == 0); });
  MUST(set.get(0) == 1);
  int ends[2];
  MUST(::pipe(ends) == 0);
  const pid_t pid = ::fork();
  if (pid == 0) {
    MUST(set.change(0, -1, SEM_UNDO) == 0 && ::write(ends[1], "x", 1) == 1);
    for (;;) ::pause();
  }
  char byte = 0;
  MUST(::read(ends[0], &byte, 1) == 1 && set.get(0) == 0);
  MUST(::kill(pid, SIGKILL) == 0);
  MUST(set.change(0, -1) == 0);  // comes when the child has gone
  MUST(::waitpid(pid, nullptr, 0) == pid);
}

// A handler forks in the middle of a semop: both come back with EINTR, and the child has nothing to do with what its
// parent waited for. With something attached, and without.
void forks_in_wait() {
  static volatile pid_t child = 0;
  const Set set(2);
  const Segment one(1);
  volatile char* where = nullptr;
  struct sigaction action {};
  action.sa_handler = [](int) { child = ::fork(); };
  MUST(::sigaction(SIGUSR1, &action, nullptr) == 0);
  for (int i = 0; i < 10; ++i) {
    if (i == 5) where = one.attach();
    std::thread other([&set, waiting = ::pthread_self()] {
      wait_for([&set] { return ::semctl(set.id, 0, GETNCNT) == 1; });
      MUST(::pthread_kill(waiting, SIGUSR1) == 0);
    });
    FAILS(EINTR, set.change(0, -1));
    MUST(child != -1);
    if (child == 0) {
      MUST(set.change(1, 1) == 0 && set.change(1, -1) == 0 && set.change(1, 1) == 0);
      if (where != nullptr) *where = static_cast<char>(i);
      ::_exit(0);
    }
    other.join();
    int status = 0;
    MUST(::waitpid(child, &status, 0) == child && status == 0);
    MUST(where == nullptr || *where == i);
    MUST(set.get(1) == i + 1 && set.get(0) == 0 && ::semctl(set.id, 0, GETNCNT) == 0);
  }
}

}  // namespace dsm::dshm::guest
