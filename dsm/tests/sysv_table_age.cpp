// Rows of times: which of them a call renews. They wait until the second in which their objects were made is over: it is
// time itself that must pass.
#include <sys/mman.h>
#include <unistd.h>

#include <ctime>

#include "dsm/tests/sysv_table.hpp"

namespace table {
namespace {

// Whoever's clock is looked at: it shows another second.
void next_second() {
  timespec left{1, 50'000'000};
  while (::nanosleep(&left, &left) != 0) {
  }
}

std::string compared(const char* name, time_t before, time_t after) {
  return Line() << std::string(" ") << name
                << (after == 0        ? " 0"
                    : before == after ? " as before"
                    : after > before  ? " later"
                                      : " earlier");
}

// Segments, and a way to do something to each; then which times have changed.
struct Case {
  const char* name;
  std::function<void(int)> act;
};

std::string segments() {
  static char* mapped = nullptr;
  const std::vector<Case> cases{
      {"get", [](int) { get_segment(key_number(20), 0, 0); }},
      {"stat", [](int id) { segment(id); }},
      {"attach", [](int id) { attach(id); }},
      {"detach", [](int) { ::shmdt(mapped); }},
      {"set",
       [](int id) {
         shmid_ds data{};
         data.shm_perm.mode = 0600;
         data.shm_perm.uid = ::geteuid();
         data.shm_perm.gid = ::getegid();
         ::shmctl(id, IPC_SET, &data);
       }},
      {"lock", [](int id) { ::shmctl(id, SHM_LOCK, nullptr); }},
      {"remove", [](int id) { ::shmctl(id, IPC_RMID, nullptr); }},
      {"fork", [](int) { in_child([] { return std::string(); }); }},
      {"write", [](int) { mapped[0] = 1; }},
  };
  std::vector<int> ids;
  std::vector<char*> addresses;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    ids.push_back(i == 0 ? get_segment(key_number(20), 100, IPC_CREAT | 0600) : new_segment());
    addresses.push_back(attach(ids[i]));
  }
  std::vector<shmid_ds> before(cases.size());
  for (std::size_t i = 0; i < cases.size(); ++i) ::shmctl(ids[i], IPC_STAT, &before[i]);
  next_second();
  Line line;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    // A fork is one of all attaches that are left: of the last case's, too.
    mapped = addresses[i];
    cases[i].act(ids[i]);
    shmid_ds after{};
    ::shmctl(ids[i], IPC_STAT, &after);
    line << std::string(i == 0 ? "" : "; ") << cases[i].name << compared("atime", before[i].shm_atime, after.shm_atime)
         << compared("dtime", before[i].shm_dtime, after.shm_dtime)
         << compared("ctime", before[i].shm_ctime, after.shm_ctime);
    ::shmdt(mapped);
  }
  return line;
}

std::string sets() {
  const std::vector<Case> cases{
      {"get", [](int) { get_set(key_number(21), 0, 0); }},
      {"getval", [](int id) { value(id); }},
      {"semop",
       [](int id) {
         operate(id, {{0, 1, 0}});
       }},
      {"zero",
       [](int id) {
         operate(id, {{1, 0, 0}});
       }},
      {"failed",
       [](int id) {
         operate(id, {{0, -9, IPC_NOWAIT}});
       }},
      {"setval", [](int id) { set_value(id, 0, 1); }},
      {"setall",
       [](int id) {
         set_values(id, {1, 1});
       }},
      {"set",
       [](int id) {
         semid_ds data{};
         data.sem_perm.mode = 0600;
         data.sem_perm.uid = ::geteuid();
         data.sem_perm.gid = ::getegid();
         ::semctl(id, 0, IPC_SET, Semun{.buf = &data});
       }},
      {"undo", [](int id) { in_child([=] {
                              return said(operate(id, {{9, 1, SEM_UNDO}}));
                            }); }},
      {"setval that lets go",
       [](int id) {
         Child child([=](Child&) { return said(operate(id, {{0, -2, 0}})); });
         until_waiting(id, 1);
         set_value(id, 0, 2);
         child.ended();
       }},
  };
  std::vector<int> ids;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    ids.push_back(i == 0 ? get_set(key_number(21), 2, IPC_CREAT | 0600) : new_set(2));
    operate(ids[i], {{0, 1, 0}});
  }
  std::vector<semid_ds> before(cases.size());
  for (std::size_t i = 0; i < cases.size(); ++i) ::semctl(ids[i], 0, IPC_STAT, Semun{.buf = &before[i]});
  next_second();
  Line line;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    cases[i].act(ids[i]);
    semid_ds after{};
    ::semctl(ids[i], 0, IPC_STAT, Semun{.buf = &after});
    line << std::string(i == 0 ? "" : "; ") << cases[i].name << compared("otime", before[i].sem_otime, after.sem_otime)
         << compared("ctime", before[i].sem_ctime, after.sem_ctime);
  }
  return line;
}

}  // namespace

std::vector<Row> age_rows() { return {{"shm times", Who::both, segments}, {"sem times", Who::both, sets}}; }

}  // namespace table
