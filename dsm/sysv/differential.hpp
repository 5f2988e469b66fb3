// dsm/sysv/differential.hpp - the same calls to this machine's kernel and to Segments and SemaphoreSets: for differential_test.
//
// An Action is one call of one process, a Reply what comes of it. Kernel has a real process on each seat, which makes the
// call; Model calls the values. Ids in an Action are the model's.
#pragma once
#include <sys/types.h>

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dsm/sysv/segments.hpp"
#include "dsm/sysv/semaphores.hpp"

namespace dsm::sysv::differential {

inline constexpr int seats = 5;
inline constexpr std::size_t max_ops = 7, max_values = 12;

// Both sides have these where the kernel can be told so, in a namespace of its own; else both have what Linux begins with.
inline constexpr SegmentLimits segment_limits{.max_size = 50'000, .max_pages = 40, .max_count = 6};
inline constexpr SetLimits set_limits{.per_set = 10, .all = 40, .per_call = 6, .sets = 6, .max_value = 32767};

enum class Kind : std::int32_t {
  shm_get,
  shm_attach,
  shm_detach,  // number: which of its attaches
  shm_munmap,
  shm_remove,
  shm_set,
  shm_stat,
  shm_stat_index,
  shm_stat_any,
  shm_lock,
  shm_unlock,
  shm_limits,
  shm_info,
  sem_get,
  sem_operate,
  sem_operate_timed,  // with a timeout of 0
  sem_get_value,
  sem_get_pid,
  sem_get_ncnt,
  sem_get_zcnt,
  sem_get_all,
  sem_set_value,
  sem_set_all,
  sem_remove,
  sem_set,
  sem_stat,
  sem_stat_index,
  sem_stat_any,
  sem_limits,
  sem_info,
  fork,  // number: the child's seat
  last = fork,
};
[[nodiscard]] bool makes_object(Kind kind);
[[nodiscard]] bool gives_id(Kind kind);
[[nodiscard]] bool is_about_sets(Kind kind);

struct Action {
  Kind kind{};
  std::int32_t user = 0;  // of users()
  std::int32_t id = 0, key = 0, flags = 0, number = 0, value = 0, count = 0;
  std::uint64_t size = 0;
  std::uint32_t uid = 0, gid = 0, mode = 0;
  std::array<SemOp, max_ops> ops{};  // `count` of them
  std::array<std::uint16_t, max_values> values{};
};
[[nodiscard]] std::string text(const Action& action);

// Of a stat, or of what info gives; those that a call does not give are 0.
namespace field {
enum : std::size_t {
  key,
  uid,
  gid,
  cuid,
  cgid,
  mode,
  seq,
  size,
  nattch,
  cpid,
  lpid,
  atime,
  dtime,
  ctime,
  otime,
  count
};
}
struct Reply {
  std::int32_t error = 0;
  std::int64_t value = 0;
  std::array<std::int64_t, field::count> fields{};
  std::array<std::uint16_t, max_values> values{};
};
[[nodiscard]] std::string text(const Reply& reply);

struct User {
  std::uint32_t uid, gid;
  std::vector<std::uint32_t> groups;
};
// Whom a process can be: several if this is root, else one.
[[nodiscard]] const std::vector<User>& users();

// The kernel, and one process on each seat that is taken. All are children of the caller.
class Kernel {
 public:
  Kernel();
  ~Kernel();  // ends the processes, removes what they have made
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;

  [[nodiscard]] bool own_namespace() const { return old_namespace_ >= 0; }
  // A new process on the seat. Its pid.
  pid_t start(int seat);
  void ask(int seat, const Action& action);
  // What was asked last has come to this; nothing within `seconds`: nothing.
  [[nodiscard]] std::optional<Reply> reply(int seat, int seconds);
  void interrupt(int seat);                                                        // a signal
  void kill(int seat);                                                             // and waits until it is gone
  void took(int seat, pid_t pid) { pids_[static_cast<std::size_t>(seat)] = pid; }  // after a fork

  void named(Kind kind, std::int32_t model_id, std::int32_t kernel_id);
  // Both id spaces, by what the model says.
  [[nodiscard]] std::int32_t id_of(Kind kind, std::int32_t model_id) const;

  // The caller itself makes the call.
  [[nodiscard]] Reply look(const Action& action) const;

 private:
  [[noreturn]] void serve(int seat) const noexcept;

  int old_namespace_ = -1;
  std::array<std::array<int, 2>, seats> sockets_{};  // ours, theirs
  std::array<pid_t, seats> pids_{};
  std::map<std::int32_t, std::int32_t> segments_{}, sets_{};  // model id -> kernel id; also of those that are gone
};

// The values, and what processes there are in their eyes.
class Model {
 public:
  Model(std::function<std::int64_t()> now, bool small_limits);

  void start(int seat, pid_t pid);
  // Nothing: it waits. `made`: the pid of a fork's child.
  [[nodiscard]] std::optional<Reply> apply(int seat, const Action& action, pid_t made);
  // A signal: false if it did not wait any more.
  [[nodiscard]] bool interrupt(int seat);
  void kill(int seat);
  // Who waits no more, and how it ended.
  [[nodiscard]] std::vector<std::pair<int, int>> ended();

  // What Kernel::look gives.
  [[nodiscard]] Reply look(const Action& action);
  [[nodiscard]] std::vector<std::int32_t> ids(bool sets) const;
  [[nodiscard]] const std::vector<std::int32_t>& attached(int seat) { return at(seat).attached; }

 private:
  struct Process {
    Pid pid{};
    Owner owner{};
    std::vector<std::int32_t> attached{};
    Ticket waits_as = 0;
  };
  [[nodiscard]] Process& at(int seat) { return processes_[static_cast<std::size_t>(seat)]; }
  [[nodiscard]] Reply segment_call(Process& process, const Caller& caller, const Action& action);
  [[nodiscard]] Reply set_call(const Caller& caller, const Action& action);

  Segments segments_;
  SemaphoreSets sets_;
  std::array<Process, seats> processes_{};
  ProcessNumber last_process_ = 0;
  Ticket last_ticket_ = 0;
};

}  // namespace dsm::sysv::differential
