// Rows of shmget and shmctl.
#include <unistd.h>

#include <cerrno>

#include "dsm/tests/sysv_table.hpp"

namespace table {
namespace {

constexpr std::size_t page = 4096;

std::string control(int id, int command, void* buffer = nullptr) {
  return said(::shmctl(id, command, static_cast<shmid_ds*>(buffer)));
}
void* bad_buffer() { return reinterpret_cast<void*>(16); }
std::string get(key_t key, std::size_t size, int flags) { return said(get_segment(key, size, flags)); }

// The index of a segment in the server's table; -1: none.
int index_of(int id) {
  shm_info info{};
  const int highest = ::shmctl(0, SHM_INFO, reinterpret_cast<shmid_ds*>(&info));
  shmid_ds data{};
  for (int i = 0; i <= highest; ++i) {
    if (::shmctl(i, SHM_STAT_ANY, &data) == id) return i;
  }
  return -1;
}

std::string set_perm(int id, unsigned uid, unsigned gid, unsigned mode) {
  shmid_ds data{};
  data.shm_perm.uid = uid;
  data.shm_perm.gid = gid;
  data.shm_perm.mode = static_cast<decltype(data.shm_perm.mode)>(mode);
  data.shm_segsz = 1;  // what follows must be ignored
  data.shm_perm.cuid = 77;
  data.shm_nattch = 5;
  return control(id, IPC_SET, &data);
}

std::string existing(std::size_t size, int flags) {
  const int id = get_segment(key_number(1), 100, IPC_CREAT | 0600);
  const int again = get_segment(key_number(1), size, flags);
  Line result = Line() << said(again);
  return Line() << result
                << (again < 0     ? ""
                    : again == id ? ", the same"
                                  : ", another")
                << "; " << control(id, IPC_RMID);
}

std::string private_ones() {
  const int one = get_segment(IPC_PRIVATE, 10, 0600), two = get_segment(IPC_PRIVATE, 10, IPC_CREAT | IPC_EXCL | 0600);
  return Line() << said(one) << " " << said(two) << (one == two ? " the same; " : " two; ") << segment(two);
}

std::string number_limit() {
  std::vector<int> ids;
  for (;;) {
    const int id = get_segment(IPC_PRIVATE, 1, 0600);
    if (id < 0) break;
    ids.push_back(id);
  }
  const std::string why = said(-1L);
  shminfo limits{};
  ::shmctl(0, IPC_INFO, reinterpret_cast<shmid_ds*>(&limits));
  for (const int id : ids) ::shmctl(id, IPC_RMID, nullptr);
  return Line() << why << (ids.size() > limits.shmmni ? ", more than shmmni" : "")
                << "; and after removing: " << get(IPC_PRIVATE, 1, 0600);
}

std::string bad_ids() {
  const int gone = new_segment();
  Line line = Line() << control(gone, IPC_RMID);
  for (const int id : {gone, -1}) {
    shmid_ds data{};
    line << "; stat " << control(id, IPC_STAT, &data) << " set " << control(id, IPC_SET, &data) << " rmid "
         << control(id, IPC_RMID) << " lock " << control(id, SHM_LOCK) << " unlock " << control(id, SHM_UNLOCK)
         << " at " << said(::shmat(id, nullptr, 0));
  }
  return line;
}

std::string bad_buffers() {
  const int id = new_segment(), gone = new_segment();
  ::shmctl(gone, IPC_RMID, nullptr);
  return Line() << "stat " << control(id, IPC_STAT, bad_buffer()) << " set " << control(id, IPC_SET, bad_buffer())
                << " set null " << control(id, IPC_SET) << " stat null " << control(id, IPC_STAT) << " IPC_INFO "
                << control(0, IPC_INFO, bad_buffer()) << " SHM_INFO " << control(0, SHM_INFO, bad_buffer())
                << " SHM_STAT " << control(index_of(id), SHM_STAT, bad_buffer()) << "; of one that is gone: stat "
                << control(gone, IPC_STAT, bad_buffer()) << " set " << control(gone, IPC_SET, bad_buffer())
                << "; rmid needs none: " << control(id, IPC_RMID, bad_buffer());
}

std::string info() {
  shminfo limits{};
  shm_info totals{};
  const int id = new_segment(2 * page + 1);
  const int a = ::shmctl(0, IPC_INFO, reinterpret_cast<shmid_ds*>(&limits));
  const int b = ::shmctl(0, SHM_INFO, reinterpret_cast<shmid_ds*>(&totals));
  return text("%s %s shmmin=%lu shmmax%s1M shmseg%sshmmni used%s0 pages%s2 highest%smine", a == b ? "alike" : "unlike",
              a < 0 ? "failed" : "ok", limits.shmmin, limits.shmmax >= 1U << 20U ? ">=" : "<",
              limits.shmseg == limits.shmmni ? "==" : "!=", totals.used_ids > 0 ? ">" : "<=",
              totals.shm_tot > 2 ? ">" : "<=", b >= index_of(id) ? ">=" : "<");
}

std::string by_index() {
  const int id = new_segment();
  const int index = index_of(id);
  shmid_ds data{}, any{};
  const int one = ::shmctl(index, SHM_STAT, &data);
  const int two = ::shmctl(index, SHM_STAT_ANY, &any);
  Line line = Line() << std::string(one == id ? "its id; " : "not its id; ") << segment(data)
                     << (two == id && segment(data) == segment(any) ? "; any: the same" : "; any: not the same");
  ::shmctl(id, IPC_RMID, nullptr);
  return line << "; gone: " << control(index, SHM_STAT, &data) << " " << control(index, SHM_STAT_ANY, &any)
              << "; negative: " << control(-1, SHM_STAT, &data) << " " << control(-1, SHM_STAT_ANY, &any)
              << "; too high: " << control(32767, SHM_STAT, &data);
}

std::string ipc_set() {
  const int id = new_segment();
  Line line = Line() << set_perm(id, ::geteuid(), ::getegid(), 07640) << " " << segment(id);
  line << "; to others: " << set_perm(id, 1234, 2345, 0604) << " " << segment(id);
  line << "; no user: " << set_perm(id, ~0U, 2345, 0600) << " no group: " << set_perm(id, 1234, ~0U, 0600);
  // The creator stays one who may.
  return line << "; removed: " << control(id, IPC_RMID);
}

std::string locks() {
  const int id = new_segment();
  Line line = Line() << control(id, SHM_UNLOCK) << " " << control(id, SHM_LOCK) << " " << segment(id);
  line << "; " << control(id, SHM_LOCK) << " " << set_perm(id, ::geteuid(), ::getegid(), 0644) << " " << segment(id);
  return line << "; " << control(id, SHM_UNLOCK) << " " << segment(id);
}

// What a process without the rights may do to an object of these bits; `owner`, `group`: whose it is.
std::string denied(unsigned owner, unsigned group, unsigned mode, unsigned uid, unsigned gid,
                   const std::vector<gid_t>& groups = {}) {
  const int id = get_segment(key_number(2), 100, IPC_CREAT | 0600);
  set_perm(id, owner, group, mode);
  const int index = index_of(id);
  Line line = Line() << as(
                  uid, gid,
                  [=] {
                    shmid_ds data{};
                    return Line() << "get 0 " << get(key_number(2), 0, 0) << " 0400 " << get(key_number(2), 0, 0400)
                                  << " 0004 " << get(key_number(2), 0, 0004) << " 0600 " << get(key_number(2), 0, 0600)
                                  << " creat 0666 " << get(key_number(2), 100, IPC_CREAT | 0666) << " excl "
                                  << get(key_number(2), 100, IPC_CREAT | IPC_EXCL | 0666) << " larger "
                                  << get(key_number(2), 101, 0666) << "; at " << said(::shmat(id, nullptr, 0)) << " ro "
                                  << said(::shmat(id, nullptr, SHM_RDONLY)) << " exec "
                                  << said(::shmat(id, nullptr, SHM_RDONLY | SHM_EXEC)) << "; stat "
                                  << control(id, IPC_STAT, &data) << " by index " << control(index, SHM_STAT, &data)
                                  << " any " << control(index, SHM_STAT_ANY, &data) << " set "
                                  << set_perm(id, owner, group, mode) << " lock " << control(id, SHM_LOCK) << " unlock "
                                  << control(id, SHM_UNLOCK) << " rmid " << control(id, IPC_RMID);
                  },
                  groups);
  ::shmctl(id, IPC_RMID, nullptr);
  return line;
}

std::string owner_class() {
  const int id = get_segment(key_number(3), 100, IPC_CREAT | 0066);
  shmid_ds data{};
  return Line() << "get 0400 " << get(key_number(3), 0, 0400) << " at " << said(::shmat(id, nullptr, 0)) << " ro "
                << said(::shmat(id, nullptr, SHM_RDONLY)) << " stat " << control(id, IPC_STAT, &data) << " set "
                << set_perm(id, ::geteuid(), ::getegid(), 0600) << " at " << said(::shmat(id, nullptr, 0)) << " "
                << segment(id);
}

}  // namespace

std::vector<Row> get_rows() {
  const Who both = Who::both, root = Who::root;
  return {
      {"shmget absent", both,
       [] { return Line() << get(key_number(1), 100, 0600) << " excl " << get(key_number(1), 100, IPC_EXCL | 0600); }},
      {"shmget create", both,
       [] {
         return Line() << segment(get_segment(key_number(1), 4097, IPC_CREAT | IPC_EXCL | 0654)) << " "
                       << existing(1, 0);
       }},
      {"shmget again", both, [] { return existing(100, 0600); }},
      {"shmget again creat", both, [] { return existing(100, IPC_CREAT | 0600); }},
      {"shmget again excl", both, [] { return existing(100, IPC_CREAT | IPC_EXCL | 0600); }},
      {"shmget again excl alone", both, [] { return existing(100, IPC_EXCL | 0600); }},
      {"shmget again smaller", both, [] { return existing(1, 0600); }},
      {"shmget again size 0", both, [] { return existing(0, 0600); }},
      {"shmget again larger", both, [] { return existing(101, 0600); }},
      {"shmget again larger excl", both, [] { return existing(101, IPC_CREAT | IPC_EXCL | 0600); }},
      {"shmget again more rights", both, [] { return existing(100, 0777); }},
      {"shmget size 0", both,
       [] { return Line() << get(key_number(4), 0, IPC_CREAT | 0600) << " private " << get(IPC_PRIVATE, 0, 0600); }},
      {"shmget size max", both,
       [] {
         return Line() << get(key_number(4), ~std::size_t{0}, IPC_CREAT | 0600) << " absent "
                       << get(key_number(4), ~std::size_t{0}, 0600);
       }},
      {"shmget private", both, private_ones},
      {"shmget number limit", root, number_limit},
      {"shmctl bad ids", both, bad_ids},
      {"shmctl bad command", both,
       [] {
         return Line() << control(new_segment(), 9999) << " " << control(new_segment(), -1) << " of no segment "
                       << control(-1, 9999);
       }},
      {"shmctl bad buffers", both, bad_buffers},
      {"shmctl info", both, info},
      {"shmctl by index", both, by_index},
      {"shmctl set", both, ipc_set},
      {"shmctl lock", both, locks},
      {"shm owner's class", both, owner_class},
      {"shm others 0600", root, [] { return denied(0, 0, 0600, nobody, nobody); }},
      {"shm others 0644", root, [] { return denied(0, 0, 0644, nobody, nobody); }},
      {"shm others 0666", root, [] { return denied(0, 0, 0666, nobody, nobody); }},
      {"shm others 0622", root, [] { return denied(0, 0, 0622, nobody, nobody); }},
      {"shm others 0005", root, [] { return denied(0, 0, 0005, nobody, nobody); }},
      {"shm group 0640", root, [] { return denied(0, 4321, 0640, nobody, 4321); }},
      {"shm group 0606", root, [] { return denied(0, 4321, 0606, nobody, 4321); }},
      {"shm creator's group 0060", root, [] { return denied(0, 4321, 0060, nobody, 0); }},
      {"shm supplementary group 0660", root,
       [] {
         return denied(0, 4321, 0660, nobody, nobody, {7, 4321});
       }},
      {"shm new owner 0600", root, [] { return denied(nobody, 4321, 0600, nobody, nobody); }},
      {"shm new owner 0066", root, [] { return denied(nobody, 4321, 0066, nobody, nobody); }},
      {"shm root, of another", root, [] { return denied(nobody, nobody, 0, 0, 0); }},
  };
}

}  // namespace table
