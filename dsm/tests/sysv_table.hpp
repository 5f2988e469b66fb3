// dsm/tests/sysv_table.hpp - what the rows of sysv_table have in common: names instead of numbers, children to talk with,
// and a list of what was made, so that it can be removed whatever happened.
//
// Plain System V calls only; nothing of this project is linked: the same program runs on a bare kernel and under dshmrun.
#pragma once
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace table {

// As whom a row is run. A root-only row is skipped where the program was started by somebody else.
enum class Who { both, root, user };
inline constexpr unsigned nobody = 65534;

// A row runs in a process of its own and returns what its line says.
struct Row {
  const char* name;
  Who who;
  std::function<std::string()> run;
};
std::vector<Row> get_rows();                          // shmget, shmctl
std::vector<Row> attach_rows();                       // shmat, shmdt, munmap
std::vector<Row> process_rows();                      // fork, exec, exit, kill, credentials
std::vector<Row> set_rows();                          // semget, semctl
std::vector<Row> operation_rows();                    // semop, waiting, undo
std::vector<Row> age_rows();                          // which times change: these wait for the next second
std::vector<Row> pair_rows(const std::string& role);  // between two that were started apart: the same key for both

// ---- words

// What a row says, put together from left to right: `<<` is evaluated in that order, `+` need not be.
class Line : public std::string {
 public:
  Line& operator<<(const std::string& more) {
    append(more);
    return *this;
  }
};
// "ENOENT", if `result` is -1; else "ok".
std::string said(long result);
std::string said(const void* address);
// "me", "parent", "child", "child2" ..., "0", "other".
std::string who(pid_t pid);
// "0"; "set", if it is within an hour of now; else the number.
std::string when(std::int64_t seconds);
// All fields of IPC_STAT, or its error.
std::string segment(int id);
std::string segment(const shmid_ds& data);
std::string set(int id);
std::string set(const semid_ds& data);
std::string values(int id);  // "1,0,3", or the error
// printf.
std::string text(const char* format, ...) __attribute__((format(printf, 1, 2)));

// ---- objects: noted in memory that all processes of the program share

key_t key_number(int n);  // of this run; n below 256. pair_rows: of this --key
int get_segment(key_t key, std::size_t size, int flags);
int get_set(key_t key, int count, int flags);
// Must not fail, or the row ends here.
int new_segment(std::size_t size = 100, int flags = 0600);
int new_set(int count, int flags = 0600);
char* attach(int id, int flags = 0);

union Semun {
  int val;
  semid_ds* buf;
  unsigned short* array;
  seminfo* info;
};
int operate(int id, std::vector<sembuf> ops);
int set_value(int id, int number, int value);
int set_values(int id, std::vector<unsigned short> all);
int value(int id, int number = 0);
// Tries again until it holds; the row's time limit is the limit.
void until(const std::function<bool()>& holds);
// Until `count` wait for the semaphore to become more.
void until_waiting(int id, int count, int number = 0);

// ---- processes

// A process that runs `body` and is reaped. What body returns comes back.
class Child {
 public:
  explicit Child(const std::function<std::string(Child&)>& body);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // Either side: one word to the other side, one from it.
  void tell();
  void hear();
  // What body returned, once the process has ended; "died by SIGKILL" if it ended otherwise.
  std::string ended();
  void signal(int number) const;
  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] int out() const { return out_; }  // in the child: where tell() and the result go
  [[nodiscard]] int in() const { return in_; }

 private:
  pid_t pid_ = 0;
  int in_ = -1, out_ = -1;
};
// The whole story in a child: what body returns, or how it died.
std::string in_child(const std::function<std::string()>& body);
// In a child, with these effective ids and no other groups.
std::string as(unsigned uid, unsigned gid, const std::function<std::string()>& body,
               const std::vector<gid_t>& groups = {});
// In a child: this program begins anew, tells that it has, and waits for a word.
[[noreturn]] void exec_and_hold(const Child& self);
int hold(int in, int out);

}  // namespace table
