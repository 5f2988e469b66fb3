// Rows of two processes that were started apart, on one host or on two, and have nothing in common but a key.
//
// a makes a set of two semaphores, by which each tells the other that it may go on; the objects of a row have keys of
// their own. What differs between a and b is in the line, so each has its own text.
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "dsm/tests/sysv_table.hpp"

namespace table {
namespace {

constexpr std::size_t page = 4096;
enum Keys { turns_key, memory_key, removed_key, waits_key, undo_key, gone_key, atomics_key, pages_key, race_key };

class Turns {
 public:
  explicit Turns(bool a) : a_(a) {
    if (a) {
      id_ = get_set(key_number(turns_key), 2, IPC_CREAT | 0666);
      operate(id_, {{0, 0, 0}});  // otime says that it is ready
      return;
    }
    until([&] {
      semid_ds data{};
      id_ = ::semget(key_number(turns_key), 2, 0666);
      return id_ >= 0 && ::semctl(id_, 0, IPC_STAT, Semun{.buf = &data}) == 0 && data.sem_otime != 0;
    });
  }
  void tell() { operate(id_, {{static_cast<unsigned short>(a_ ? 0 : 1), 1, 0}}); }
  void hear() {
    const auto mine = static_cast<unsigned short>(a_ ? 1 : 0);
    while (operate(id_, {{mine, -1, 0}}) != 0 && errno == EINTR) {
    }
  }
  // Both have come here.
  void meet() {
    tell();
    hear();
  }

 private:
  bool a_;
  int id_ = -1;
};

// The row's segment: made by a.
int common_segment(Turns& turns, bool a, int key, std::size_t size) {
  if (a) get_segment(key_number(key), size, IPC_CREAT | 0666);
  turns.meet();
  return ::shmget(key_number(key), 0, 0);
}
int common_set(Turns& turns, bool a, int key, int count) {
  if (a) get_set(key_number(key), count, IPC_CREAT | 0666);
  turns.meet();
  return ::semget(key_number(key), 0, 0);
}

std::string memory(bool a) {
  Turns turns(a);
  const int id = common_segment(turns, a, memory_key, 100);
  char* const at = attach(id);
  if (a) at[0] = 1;
  turns.meet();
  Line line = Line() << text("%d ", at[0]);
  turns.meet();
  if (!a) at[0] = 2;
  turns.meet();
  shmid_ds data{};
  ::shmctl(id, IPC_STAT, &data);
  line << text("%d nattch=%lu cpid=%s", at[0], static_cast<unsigned long>(data.shm_nattch), who(data.shm_cpid).c_str());
  turns.meet();
  if (a) ::shmdt(at);
  turns.meet();
  ::shmctl(id, IPC_STAT, &data);
  line << text("; nattch=%lu lpid=%s", static_cast<unsigned long>(data.shm_nattch), who(data.shm_lpid).c_str());
  turns.meet();
  return line;
}

std::string removed(bool a) {
  Turns turns(a);
  const int id = common_segment(turns, a, removed_key, 100);
  char* const at = attach(id);
  turns.meet();
  Line line = Line() << (a ? said(::shmctl(id, IPC_RMID, nullptr)) : "");
  turns.meet();
  line << " by key " << said(::shmget(key_number(removed_key), 0, 0));
  if (a) ::shmdt(at);
  turns.meet();
  if (!a) line << " again " << said(::shmat(id, nullptr, 0)) << " " << said(::shmdt(at));
  turns.meet();
  if (a) {
    shmid_ds data{};
    ::shmctl(id, IPC_STAT, &data);
    line << text(" mode=%05o nattch=%lu by id ", data.shm_perm.mode, static_cast<unsigned long>(data.shm_nattch))
         << said(attach(id));
  }
  turns.meet();
  return line;
}

std::string waits(bool a) {
  Turns turns(a);
  const int id = common_set(turns, a, waits_key, 1);
  Line line;
  if (a) {
    until_waiting(id, 1);
    line << text("ncnt=%d ", ::semctl(id, 0, GETNCNT)) << said(operate(id, {{0, 1, 0}}));
  } else {
    line << said(operate(id, {{0, -1, 0}}));
  }
  turns.meet();
  return line << text(" %d pid=", value(id)) << who(::semctl(id, 0, GETPID));
}

std::string undoes(bool a) {
  Turns turns(a);
  const int id = common_set(turns, a, undo_key, 1);
  if (a) set_value(id, 0, 1);
  turns.meet();
  if (!a) {
    Child child([=](Child& self) {
      operate(id, {{0, -1, SEM_UNDO}});
      self.tell();
      self.hear();
      return std::string();
    });
    child.hear();
    until_waiting(id, 1);
    child.signal(SIGKILL);
    Line line = Line() << child.ended();
    turns.meet();
    return line << text(" %d", value(id));
  }
  until([=] { return value(id) == 0; });
  Line line = Line() << said(operate(id, {{0, -1, 0}}));
  const int left = value(id);
  turns.meet();
  return line << text(" %d pid=", left) << who(::semctl(id, 0, GETPID));
}

std::string gone(bool a) {
  Turns turns(a);
  const int id = common_set(turns, a, gone_key, 1);
  if (!a) return said(operate(id, {{0, -1, 0}}));
  until_waiting(id, 1);
  return said(::semctl(id, 0, IPC_RMID));
}

std::string atomics(bool a) {
  Turns turns(a);
  int* const counter = reinterpret_cast<int*>(attach(common_segment(turns, a, atomics_key, sizeof(int))));
  turns.meet();
  for (int i = 0; i < 2'000; ++i) __atomic_fetch_add(counter, 1, __ATOMIC_SEQ_CST);
  turns.meet();
  const int all = *counter;
  turns.meet();
  return std::to_string(all);
}

std::string pages(bool a) {
  Turns turns(a);
  constexpr std::size_t count = 64;
  char* const at = attach(common_segment(turns, a, pages_key, count * page));
  const auto fill = [&](int by) {
    for (std::size_t i = 0; i < count * page; ++i)
      at[i] = static_cast<char>(i / page + static_cast<std::size_t>(by) * (i % 251));
  };
  const auto wrong = [&](int by) {
    std::size_t n = 0;
    for (std::size_t i = 0; i < count * page; ++i)
      n += at[i] != static_cast<char>(i / page + static_cast<std::size_t>(by) * (i % 251));
    return n;
  };
  if (a) fill(1);
  turns.meet();
  Line line = Line() << text("%zu wrong", wrong(1));
  turns.meet();
  if (!a) fill(3);
  turns.meet();
  line << text(" %zu wrong", wrong(3));
  turns.meet();
  return line;
}

// Both want to make it: one does.
std::string race(bool a) {
  Turns turns(a);
  auto* const made = reinterpret_cast<int*>(attach(common_segment(turns, a, race_key, 2 * page)));
  turns.meet();
  const int id = get_set(key_number(race_key), 1, IPC_CREAT | IPC_EXCL | 0666);
  if (id >= 0) __atomic_fetch_add(made, 1, __ATOMIC_SEQ_CST);
  turns.meet();
  const int all = *made;
  const bool there = ::semget(key_number(race_key), 1, 0) >= 0;
  turns.meet();  // then who comes to its end first may remove it
  return Line() << text("%d of two", all) << (there ? ", there" : ", not there");
}

}  // namespace

std::vector<Row> pair_rows(const std::string& role) {
  const bool a = role == "a";
  std::vector<Row> rows;
  const auto add = [&](const char* name, std::string (*run)(bool)) {
    rows.push_back({name, Who::both, [=] { return run(a); }});
  };
  if (a) {
    add("pair a memory", memory);
    add("pair a rmid", removed);
    add("pair a waits", waits);
    add("pair a undo", undoes);
    add("pair a removed set", gone);
    add("pair a atomics", atomics);
    add("pair a pages", pages);
    add("pair a race", race);
  } else {
    add("pair b memory", memory);
    add("pair b rmid", removed);
    add("pair b waits", waits);
    add("pair b undo", undoes);
    add("pair b removed set", gone);
    add("pair b atomics", atomics);
    add("pair b pages", pages);
    add("pair b race", race);
  }
  return rows;
}

}  // namespace table
