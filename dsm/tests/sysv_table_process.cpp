// Rows of what becomes of segments when processes fork, exec, end, and when segments are removed meanwhile.
#include <pthread.h>
#include <semaphore.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <thread>

#include "dsm/tests/sysv_table.hpp"

namespace table {
namespace {

constexpr std::size_t page = 4096;

std::string remove(int id) { return said(::shmctl(id, IPC_RMID, nullptr)); }

std::string forks() {
  const int id = new_segment();
  char* const at = attach(id);
  at[0] = 1;
  Child child([&](Child& self) {
    at[0] = 2;
    self.tell();
    self.hear();
    return text("sees %d", at[1]);
  });
  child.hear();
  Line line = Line() << text("%d ", at[0]) << segment(id);
  at[1] = 3;
  child.tell();
  line << "; child " << child.ended();
  return line << "; " << segment(id);
}

std::string fork_of_two() {
  const int id = new_segment();
  attach(id);
  attach(id, SHM_RDONLY);
  Child child([](Child& self) {
    self.tell();
    self.hear();
    Child grandchild([](Child& its) {
      its.tell();
      its.hear();
      return std::string();
    });
    grandchild.hear();
    self.tell();
    self.hear();
    grandchild.tell();
    grandchild.ended();
    return std::string();
  });
  child.hear();
  Line line = Line() << segment(id);
  child.tell();
  child.hear();
  shmid_ds data{};
  ::shmctl(id, IPC_STAT, &data);
  line +=
      text("; and again: nattch=%lu lpid=%s", static_cast<unsigned long>(data.shm_nattch), who(data.shm_lpid).c_str());
  child.tell();
  child.ended();
  return line << "; " << segment(id);
}

std::string killed() {
  const int id = new_segment();
  Child child([&](Child& self) {
    attach(id);
    self.tell();
    self.hear();
    return std::string();
  });
  child.hear();
  Line line = Line() << segment(id);
  child.signal(SIGKILL);
  return line << "; " << child.ended() << " " << segment(id);
}

std::string exits(bool detaches) {
  const int id = new_segment();
  const std::string child = in_child([&] {
    char* const at = attach(id);
    return detaches ? said(::shmdt(at)) : said(at);
  });
  return Line() << child << " " << segment(id);
}

std::string execs() {
  const int id = new_segment();
  attach(id);
  Child child([](Child& self) {
    exec_and_hold(self);
    return std::string();
  });
  child.hear();
  Line line = Line() << segment(id);
  child.tell();
  return line << "; " << child.ended() << text(" ended; ") << segment(id);
}

std::string spawns() {
  const int id = new_segment();
  char* const at = attach(id);
  at[0] = 4;
  char name[] = "sysv_table", option[] = "--no-such-option";
  char* arguments[] = {name, option, nullptr};
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addclose(&actions, STDERR_FILENO);
  pid_t pid = 0;
  const int error = ::posix_spawn(&pid, "/proc/self/exe", &actions, nullptr, arguments, environ);
  int status = 0;
  ::waitpid(pid, &status, 0);
  ::posix_spawn_file_actions_destroy(&actions);
  return Line() << text("%d exit %d reads %d ", error, WEXITSTATUS(status), at[0]) << segment(id);
}

std::string removed_unattached() {
  const int id = get_segment(key_number(5), 10, IPC_CREAT | 0600);
  Line line = Line() << remove(id) << " " << segment(id) << " again " << remove(id) << " get "
                     << said(get_segment(key_number(5), 0, 0));
  return line;
}

std::string removed_attached() {
  const int id = get_segment(key_number(5), 10, IPC_CREAT | 0640);
  char* const at = attach(id);
  at[0] = 11;
  Line line = Line() << remove(id) << " " << segment(id) << "; by key " << said(get_segment(key_number(5), 0, 0));
  const int other = get_segment(key_number(5), 20, IPC_CREAT | IPC_EXCL | 0600);
  line << std::string(", anew ") << said(other) << (other == id ? " the same" : " another");
  const char* const again = attach(id);
  line << text("; by id %d; rmid again ", again[0]) << remove(id);
  shmid_ds data{};
  data.shm_perm.uid = ::geteuid();
  data.shm_perm.gid = ::getegid();
  data.shm_perm.mode = 0600;
  line << " set " << said(::shmctl(id, IPC_SET, &data)) << " " << segment(id);
  line << "; detach " << said(::shmdt(again)) << " " << segment(id) << "; last " << said(::shmdt(at)) << " "
       << segment(id);
  line << "; at " << said(::shmat(id, nullptr, 0)) << " rmid " << remove(id);
  return line << "; the other: " << segment(other);
}

std::string removed_and_ended() {
  const int id = new_segment();
  Child child([&](Child& self) {
    attach(id)[0] = 6;
    self.tell();
    self.hear();
    return std::string();
  });
  child.hear();
  Line line = Line() << remove(id) << " " << segment(id) << text("; reads %d", attach(id)[0]);
  child.signal(SIGKILL);
  line << "; " << child.ended() << " " << segment(id);
  return line;
}

std::string removed_and_forked() {
  const int id = new_segment();
  char* const at = attach(id);
  Line line = Line() << remove(id);
  Child child([&](Child& self) {
    self.tell();
    self.hear();
    return Line() << segment(id) << text(" reads %d", at[0]);
  });
  child.hear();
  at[0] = 8;
  line << " " << said(::shmdt(at));
  child.tell();
  return line << "; child: " << child.ended() << "; then " << segment(id);
}

// The memory is one, with all that processor and kernel do there.
std::string atomics() {
  const int id = new_segment();
  auto* const counter = new (attach(id)) std::atomic<int>(0);
  const auto count = [=](Child&) {
    for (int i = 0; i < 10'000; ++i) ++*counter;
    return std::string();
  };
  Child one(count), two(count);
  one.ended();
  two.ended();
  return text("%d", counter->load());
}

std::string futexes() {
  const int id = new_segment();
  struct Shared {
    sem_t ask, answer;
    pthread_mutex_t mutex;
    int number;
  };
  auto* const shared = new (attach(id)) Shared{};
  ::sem_init(&shared->ask, 1, 0);
  ::sem_init(&shared->answer, 1, 0);
  pthread_mutexattr_t attributes;
  ::pthread_mutexattr_init(&attributes);
  ::pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  ::pthread_mutex_init(&shared->mutex, &attributes);
  Child child([=](Child&) {
    auto* const mine = reinterpret_cast<Shared*>(attach(id));  // at another address
    for (int i = 0; i < 100; ++i) {
      ::sem_wait(&mine->ask);
      ::pthread_mutex_lock(&mine->mutex);
      ++mine->number;
      ::pthread_mutex_unlock(&mine->mutex);
      ::sem_post(&mine->answer);
    }
    return std::string("done");
  });
  for (int i = 0; i < 100; ++i) {
    ::sem_post(&shared->ask);
    ::pthread_mutex_lock(&shared->mutex);
    ++shared->number;
    ::pthread_mutex_unlock(&shared->mutex);
    ::sem_wait(&shared->answer);
  }
  return Line() << child.ended() << text(" %d", shared->number);
}

std::string threads() {
  const int id = new_segment();
  char* at = nullptr;
  std::thread([&] { at = attach(id); }).join();
  at[0] = 12;
  Line line = Line() << segment(id);
  int result = -1;
  std::thread([&] { result = ::shmdt(at); }).join();
  return line << "; " << said(result) << " " << segment(id);
}

// Credentials are those at the time of the call, not those of an earlier one.
std::string changes_user() {
  const int id = new_segment(100, 0600);
  attach(id);
  const std::string child = in_child([=]() -> std::string {
    Line line = Line() << said(::shmat(id, nullptr, 0));
    if (::seteuid(nobody) != 0) return said(-1L);
    line << " as an ordinary user " << said(::shmat(id, nullptr, 0)) << " rmid " << remove(id);
    const int own = get_segment(IPC_PRIVATE, 10, 0600);
    line << " own: " << segment(own);
    if (::seteuid(0) != 0) return said(-1L);
    return line << "; as root again " << said(::shmat(id, nullptr, 0)) << " " << segment(own);
  });
  return Line() << child << "; " << segment(id);
}

// Rights are looked at when attaching, and never again.
std::string loses_right() {
  const int id = new_segment(page, 0666);
  return in_child([=]() -> std::string {
    if (::seteuid(nobody) != 0) return said(-1L);
    char* const at = attach(id);
    if (::seteuid(0) != 0) return said(-1L);
    shmid_ds data{};
    ::shmctl(id, IPC_SET, &data);
    if (::seteuid(nobody) != 0) return said(-1L);
    at[0] = 3;
    return Line() << text("writes %d", at[0]) << " attach " << said(::shmat(id, nullptr, SHM_RDONLY)) << " detach "
                  << said(::shmdt(at));
  });
}

}  // namespace

std::vector<Row> process_rows() {
  const Who both = Who::both, root = Who::root;
  return {
      {"shm fork", both, forks},
      {"shm fork, two attaches", both, fork_of_two},
      {"shm killed", both, killed},
      {"shm exit", both, [] { return exits(false); }},
      {"shm detach and exit", both, [] { return exits(true); }},
      {"shm exec", both, execs},
      {"shm posix_spawn", both, spawns},
      {"shm rmid unattached", both, removed_unattached},
      {"shm rmid attached", both, removed_attached},
      {"shm rmid, then the last is killed", both, removed_and_ended},
      {"shm rmid, then fork", both, removed_and_forked},
      {"shm atomics", both, atomics},
      {"shm futexes", both, futexes},
      {"shm threads", both, threads},
      {"shm seteuid", root, changes_user},
      {"shm right lost later", root, loses_right},
  };
}

}  // namespace table
