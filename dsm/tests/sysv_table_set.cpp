// Rows of semget and semctl.
#include <unistd.h>

#include <cerrno>

#include "dsm/tests/sysv_table.hpp"

namespace table {
namespace {

std::string get(key_t key, int count, int flags) { return said(get_set(key, count, flags)); }
std::string remove(int id) { return said(::semctl(id, 0, IPC_RMID)); }
unsigned short* bad_buffer() { return reinterpret_cast<unsigned short*>(16); }
std::string control(int id, int number, int command) {
  return said(::semctl(id, number, command, Semun{.array = nullptr}));
}
std::string with_bad_buffer(int id, int command) {
  return said(::semctl(id, 0, command, Semun{.array = bad_buffer()}));
}

seminfo limits(int command = IPC_INFO) {
  seminfo info{};
  ::semctl(0, 0, command, Semun{.info = &info});
  return info;
}

int index_of(int id) {
  seminfo info{};
  const int highest = ::semctl(0, 0, SEM_INFO, Semun{.info = &info});
  semid_ds data{};
  for (int i = 0; i <= highest; ++i) {
    if (::semctl(i, 0, SEM_STAT_ANY, Semun{.buf = &data}) == id) return i;
  }
  return -1;
}

std::string set_perm(int id, unsigned uid, unsigned gid, unsigned mode) {
  semid_ds data{};
  data.sem_perm.uid = uid;
  data.sem_perm.gid = gid;
  data.sem_perm.mode = static_cast<decltype(data.sem_perm.mode)>(mode);
  data.sem_nsems = 9;
  return said(::semctl(id, 0, IPC_SET, Semun{.buf = &data}));
}

std::string existing(int count, int flags) {
  const int id = get_set(key_number(11), 3, IPC_CREAT | 0600);
  const int again = get_set(key_number(11), count, flags);
  Line result = Line() << said(again);
  return result << (again < 0 ? "" : again == id ? ", the same" : ", another") << "; " << remove(id);
}

std::string counts() {
  const int most = limits().semmsl;
  return Line() << "0 " << get(key_number(12), 0, IPC_CREAT | 0600) << " -1 "
                << get(key_number(12), -1, IPC_CREAT | 0600) << " most " << get(IPC_PRIVATE, most, 0600) << " more "
                << get(IPC_PRIVATE, most + 1, 0600) << " absent " << get(key_number(12), most + 1, 0600);
}

std::string private_ones() {
  const int one = get_set(IPC_PRIVATE, 1, 0600), two = get_set(IPC_PRIVATE, 1, IPC_CREAT | IPC_EXCL | 0600);
  return Line() << said(one) << " " << said(two) << (one == two ? " the same; " : " two; ") << set(two);
}

std::string bad_ids() {
  const int gone = new_set(1);
  Line line = Line() << remove(gone);
  for (const int id : {gone, -1}) {
    line << "; stat " << set(id) << " set " << set_perm(id, 0, 0, 0600) << " rmid " << remove(id) << " op "
         << said(operate(id, {{0, 1, 0}})) << " undo " << said(operate(id, {{0, 1, SEM_UNDO}}));
    for (const int command : {GETVAL, GETPID, GETNCNT, GETZCNT, GETALL, SETALL})
      line << " " << with_bad_buffer(id, command);
    line << " setval " << said(set_value(id, 0, 1)) << " too much " << said(set_value(id, 0, 32768));
  }
  return line;
}

std::string bad_numbers() {
  const int id = new_set(2);
  Line line;
  for (const int number : {-1, 2, 65536}) {
    line << text("%d:", number);
    for (const int command : {GETVAL, GETPID, GETNCNT, GETZCNT}) line << " " << control(id, number, command);
    line << " setval " << said(set_value(id, number, 1)) << " too much " << said(set_value(id, number, 40'000)) << "; ";
  }
  return line << "not looked at: stat " << said(::semctl(id, -1, IPC_STAT, Semun{.buf = nullptr})) << " rmid "
              << said(::semctl(id, -1, IPC_RMID));
}

std::string bad_buffers() {
  const int id = new_set(2), gone = new_set(1);
  remove(gone);
  Line line;
  for (const int command : {IPC_STAT, IPC_SET, GETALL, SETALL, IPC_INFO, SEM_INFO})
    line << with_bad_buffer(id, command) << " ";
  line << "by index " << said(::semctl(index_of(id), 0, SEM_STAT, Semun{.array = bad_buffer()}));
  return line << "; of one that is gone: stat " << with_bad_buffer(gone, IPC_STAT) << " set "
              << with_bad_buffer(gone, IPC_SET) << " " << values(id);
}

std::string set_values_rows() {
  const int id = new_set(3);
  Line line = Line() << values(id) << "; " << said(set_value(id, 1, 5)) << " " << values(id) << " "
                     << said(set_value(id, 1, 32767)) << " " << values(id);
  line << "; " << said(set_value(id, 1, 32768)) << " " << said(set_value(id, 1, -1)) << " " << values(id);
  line << "; all " << said(set_values(id, {1, 2, 3})) << " " << values(id) << " " << said(set_values(id, {4, 32768, 5}))
       << " " << said(set_values(id, {65535, 0, 0})) << " " << values(id);
  line << "; val " << text("%d %d %d", value(id, 0), value(id, 1), value(id, 2));
  return line << "; " << set(id);
}

std::string pids() {
  const int id = new_set(3);
  const auto all = [=] {
    Line line;
    for (int i = 0; i < 3; ++i) line << " " << who(::semctl(id, i, GETPID));
    return line;
  };
  Line line = Line() << "new" << all();
  set_value(id, 1, 1);
  line << "; setval" << all();
  operate(id, {{2, 1, 0}, {0, 0, 0}});
  line << "; semop" << all();
  in_child([=] { return said(set_values(id, {0, 0, 1})); });
  line << "; setall by a child" << all();
  const std::string failed = said(operate(id, {{2, -1, 0}, {1, -1, IPC_NOWAIT}}));
  return line << "; " << failed << all();
}

std::string info() {
  seminfo some{}, all{};
  const int id = new_set(3);
  const int a = ::semctl(0, 0, IPC_INFO, Semun{.info = &some}), b = ::semctl(0, 0, SEM_INFO, Semun{.info = &all});
  return text(
      "%s semvmx=%d semaem=%d semmsl%s100 semopm%s100 semmni%s100 semmns%s1000 sets%s0 semaphores%s2 highest%smine "
      "alike=%d",
      a == b ? "ok" : "unlike", some.semvmx, some.semaem, some.semmsl > 100 ? ">" : "<", some.semopm > 100 ? ">" : "<",
      some.semmni > 100 ? ">" : "<", some.semmns > 1000 ? ">" : "<",
      all.semusz > 0 ? ">" : "<=", all.semaem > 2 ? ">" : "<=", b >= index_of(id) ? ">=" : "<",
      some.semmsl == all.semmsl && some.semopm == all.semopm);
}

std::string by_index() {
  const int id = new_set(2);
  const int index = index_of(id);
  semid_ds data{}, any{};
  const int one = ::semctl(index, 0, SEM_STAT, Semun{.buf = &data}),
            two = ::semctl(index, 0, SEM_STAT_ANY, Semun{.buf = &any});
  Line line = Line() << std::string(one == id ? "its id; " : "not its id; ") << set(data)
                     << (two == id && set(data) == set(any) ? "; any: the same" : "; any: not the same");
  remove(id);
  const auto at = [](int i, int command) {
    semid_ds room{};
    return said(::semctl(i, 0, command, Semun{.buf = &room}));
  };
  return line << "; gone: " << at(index, SEM_STAT) << " " << at(index, SEM_STAT_ANY)
              << "; negative: " << at(-1, SEM_STAT) << "; too high: " << at(32767, SEM_STAT);
}

std::string ipc_set() {
  const int id = new_set(2);
  Line line = Line() << set_perm(id, ::geteuid(), ::getegid(), 07640) << " " << set(id);
  line << "; to others: " << set_perm(id, 1234, 2345, 0604) << " " << set(id);
  line << "; no user: " << set_perm(id, ~0U, 2345, 0600) << " no group: " << set_perm(id, 1234, ~0U, 0600);
  return line << "; removed: " << remove(id);
}

std::string removed() {
  const int id = get_set(key_number(13), 2, IPC_CREAT | 0600);
  operate(id, {{0, 1, SEM_UNDO}});
  Line line = Line() << remove(id) << " " << set(id) << " get " << get(key_number(13), 0, 0);
  const int other = get_set(key_number(13), 2, IPC_CREAT | IPC_EXCL | 0600);
  return line << std::string(", anew ") << said(other) << (other == id ? " the same" : " another") << " "
              << values(other);
}

std::string denied(unsigned owner, unsigned group, unsigned mode, unsigned uid, unsigned gid,
                   const std::vector<gid_t>& groups = {}) {
  const int id = get_set(key_number(14), 2, IPC_CREAT | 0600);
  set_perm(id, owner, group, mode);
  const int index = index_of(id);
  Line line =
      Line() << as(
          uid, gid,
          [=] {
            semid_ds room{};
            unsigned short all[2] = {0, 0};
            Line result = Line() << "get 0 " << get(key_number(14), 0, 0) << " 0400 " << get(key_number(14), 0, 0400)
                                 << " 0002 " << get(key_number(14), 0, 0002) << " more " << get(key_number(14), 3, 0666)
                                 << " excl " << get(key_number(14), 2, IPC_CREAT | IPC_EXCL);
            result << "; op +1 " << said(operate(id, {{0, 1, 0}})) << " zero " << said(operate(id, {{1, 0, 0}}))
                   << " both " << said(operate(id, {{1, 0, 0}, {0, 1, 0}})) << " number "
                   << said(operate(id, {{2, 1, 0}})) << " zero undo " << said(operate(id, {{1, 0, SEM_UNDO}}));
            for (const int command : {GETVAL, GETPID, GETNCNT, GETZCNT}) result << " " << control(id, 0, command);
            result << " number " << control(id, 5, GETVAL) << " getall "
                   << said(::semctl(id, 0, GETALL, Semun{.array = all})) << " setval " << said(set_value(id, 0, 0))
                   << " number " << said(set_value(id, 5, 0)) << " too much " << said(set_value(id, 0, -1))
                   << " setall " << said(set_values(id, {0, 0})) << " too much " << said(set_values(id, {0, 40'000}));
            return result << "; stat " << set(id).substr(0, 4) << " by index "
                          << said(::semctl(index, 0, SEM_STAT, Semun{.buf = &room})) << " any "
                          << said(::semctl(index, 0, SEM_STAT_ANY, Semun{.buf = &room})) << " set "
                          << set_perm(id, owner, group, mode) << " rmid " << remove(id);
          },
          groups);
  remove(id);
  return line;
}

std::string owner_class() {
  const int id = get_set(key_number(15), 1, IPC_CREAT | 0066);
  return Line() << "get 0400 " << get(key_number(15), 0, 0400) << " op " << said(operate(id, {{0, 1, 0}})) << " zero "
                << said(operate(id, {{0, 0, IPC_NOWAIT}})) << " getval " << control(id, 0, GETVAL) << " set "
                << set_perm(id, ::geteuid(), ::getegid(), 0600) << " op " << said(operate(id, {{0, 1, 0}})) << " "
                << set(id);
}

}  // namespace

std::vector<Row> set_rows() {
  const Who both = Who::both, root = Who::root;
  return {
      {"semget absent", both,
       [] { return Line() << get(key_number(11), 1, 0600) << " excl " << get(key_number(11), 1, IPC_EXCL | 0600); }},
      {"semget create", both,
       [] { return Line() << set(get_set(key_number(11), 3, IPC_CREAT | 07654)) << " " << existing(1, 0); }},
      {"semget again", both, [] { return existing(3, 0600); }},
      {"semget again creat", both, [] { return existing(3, IPC_CREAT | 0600); }},
      {"semget again excl", both, [] { return existing(3, IPC_CREAT | IPC_EXCL | 0600); }},
      {"semget again excl alone", both, [] { return existing(3, IPC_EXCL | 0600); }},
      {"semget again fewer", both, [] { return existing(1, 0600); }},
      {"semget again 0", both, [] { return existing(0, 0600); }},
      {"semget again more", both, [] { return existing(4, 0600); }},
      {"semget again -1", both, [] { return existing(-1, 0600); }},
      {"semget again more rights", both, [] { return existing(3, 0777); }},
      {"semget counts", both, counts},
      {"semget private", both, private_ones},
      {"semctl bad ids", both, bad_ids},
      {"semctl bad numbers", both, bad_numbers},
      {"semctl bad command", both,
       [] {
         return Line() << control(new_set(1), 0, 9999) << " " << control(new_set(1), 0, -1) << " of no set "
                       << control(-1, 0, 9999);
       }},
      {"semctl bad buffers", both, bad_buffers},
      {"semctl values", both, set_values_rows},
      {"semctl pids", both, pids},
      {"semctl info", both, info},
      {"semctl by index", both, by_index},
      {"semctl set", both, ipc_set},
      {"semctl rmid", both, removed},
      {"sem owner's class", both, owner_class},
      {"sem others 0600", root, [] { return denied(0, 0, 0600, nobody, nobody); }},
      {"sem others 0644", root, [] { return denied(0, 0, 0644, nobody, nobody); }},
      {"sem others 0622", root, [] { return denied(0, 0, 0622, nobody, nobody); }},
      {"sem others 0666", root, [] { return denied(0, 0, 0666, nobody, nobody); }},
      {"sem group 0640", root, [] { return denied(0, 4321, 0640, nobody, 4321); }},
      {"sem group 0606", root, [] { return denied(0, 4321, 0606, nobody, 4321); }},
      {"sem supplementary group 0660", root,
       [] {
         return denied(0, 4321, 0660, nobody, nobody, {7, 4321});
       }},
      {"sem new owner 0600", root, [] { return denied(nobody, 4321, 0600, nobody, nobody); }},
      {"sem root, of another", root, [] { return denied(nobody, nobody, 0, 0, 0); }},
  };
}

}  // namespace table
