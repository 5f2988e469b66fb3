// semget, semop, semtimedop, semctl: in the order in which Linux checks (ipc/sem.c).
#include <errno.h>
#include <stdarg.h>
#include <sys/sem.h>

#include <algorithm>
#include <vector>

#include "dsm/dshm/connections.hpp"
#include "dsm/dshm/guarded.hpp"
#include "dsm/dshm/objects.hpp"
#include "dsm/dshm/process.hpp"
#include "dsm/dshm/routes.hpp"

namespace dsm::dshm {
namespace {

using sysv::Call;
using sysv::Object;
using sysv::Question;

// The caller of semctl is to define it (semctl(2)).
union Argument {
  int value;
  semid_ds* buffer;
  std::uint16_t* array;
  void* any;
};

Question about(Call call, int id, int number = 0) {
  Question question{.call = call};
  question.kind = Object::set;
  question.id = id;
  question.number = number;
  return question;
}

// ---- operations ----

// Whether the kernel could put the caller to sleep at all: if not, no signal cuts the call short.
bool may_wait(const std::vector<sysv::SemOp>& ops) {
  return std::any_of(ops.begin(), ops.end(),
                     [](const sysv::SemOp& op) { return op.change <= 0 && (op.flags & IPC_NOWAIT) == 0; });
}

// Signals are open while it waits, and only then. Cut short, it is cancelled; as `cancel` goes the way of the question,
// and behind it, what could be done at once has been done, and is not taken back. A child that a handler makes has not
// asked for anything: for it the wait was cut short, as the kernel has it.
int operate(Question& question) {
  if (const int error = begin(); error != 0) return error;
  const kernel::Quiet quiet(kernel::Quiet::Kind::calls);
  Connection connection;
  if (!connection.take() || connection.send(question) != 0) return EIDRM;
  if (may_wait(question.ops) && connection.wait(quiet.before()) == EINTR) {
    if (connection.left_to_parent()) return EINTR;
    Question cancel = about(Call::cancel, question.id);
    cancel.other = question.request;
    if (connection.send(cancel) != 0) return EIDRM;
  }
  sysv::Answer answer;
  int passed = -1;
  const int error = connection.receive(answer, passed);
  if (passed != -1) kernel::close(passed);
  return error != 0 ? error : answer.error;
}

int timed_operate(int id, const sembuf* ops, std::size_t count, const timespec* timeout) {
  timespec limit{};
  if (timeout != nullptr && !copy_in(&limit, timeout, sizeof limit)) return EFAULT;
  if (count > sysv::SetLimits{}.per_call) return E2BIG;
  if (count < 1) return EINVAL;
  std::vector<sembuf> wanted(count);
  if (!copy_in(wanted.data(), ops, count * sizeof(sembuf))) return EFAULT;
  if (id < 0) return EINVAL;
  constexpr long second = 1'000'000'000;
  if (timeout != nullptr && (limit.tv_sec < 0 || limit.tv_nsec < 0 || limit.tv_nsec >= second)) return EINVAL;
  Question question = about(Call::operate, id);
  for (const sembuf& op : wanted) question.ops.push_back({op.sem_num, op.sem_op, op.sem_flg});
  if (timeout != nullptr) {
    question.timeout_ns = limit.tv_sec >= INT64_MAX / second ? INT64_MAX : limit.tv_sec * second + limit.tv_nsec;
  }
  return operate(question);
}

// ---- semctl ----

semid_ds layout_of(const sysv::SetStat& set) {
  semid_ds out{};
  out.sem_perm = dshm::layout_of(set.perm);
  out.sem_otime = set.otime;
  out.sem_ctime = set.ctime;
  out.sem_nsems = set.count;
  return out;
}

int get_info(int command, void* buffer) {
  Question question = about(Call::info, 0);
  sysv::Answer answer;
  if (const int error = ask_quietly(question, answer); error != 0) return fail(error);
  if (!answer.set_totals) return fail(EIDRM);
  const sysv::SetTotals& totals = *answer.set_totals;
  struct seminfo out {};
  out.semmni = static_cast<int>(totals.limits.sets);
  out.semmsl = static_cast<int>(totals.limits.per_set);
  out.semmns = out.semmnu = out.semmap = static_cast<int>(totals.limits.all);
  out.semopm = out.semume = static_cast<int>(totals.limits.per_call);
  out.semvmx = totals.limits.max_value;
  constexpr int undo_size = 20;  // SEMUSZ of linux/sem.h: what it is said to be
  out.semusz = command == SEM_INFO ? static_cast<int>(totals.sets) : undo_size;
  out.semaem = command == SEM_INFO ? static_cast<int>(totals.semaphores) : totals.limits.max_value;
  return copy_out(buffer, &out, sizeof out) ? totals.highest_index : fail(EFAULT);
}

int get_stat(int id, int command, void* buffer) {
  Question question = command == IPC_STAT ? about(Call::stat, id) : about(Call::stat_index, 0, id);
  question.flags = command == SEM_STAT_ANY ? 1 : 0;
  sysv::Answer answer;
  if (const int error = ask_quietly(question, answer); error != 0) return fail(error);
  if (!answer.set) return fail(EIDRM);
  const semid_ds out = layout_of(*answer.set);
  if (!copy_out(buffer, &out, sizeof out)) return fail(EFAULT);
  return command == IPC_STAT ? 0 : static_cast<int>(answer.value);
}

int set(int id, const semid_ds* buffer) {
  semid_ds in{};
  if (!copy_in(&in, buffer, sizeof in)) return fail(EFAULT);
  Question question = about(Call::set, id);
  question.uid = in.sem_perm.uid;
  question.gid = in.sem_perm.gid;
  question.mode = in.sem_perm.mode & 0777U;
  return result_of(question);
}

int get_all(int id, std::uint16_t* array) {
  Question question = about(Call::get_all, id);
  sysv::Answer answer;
  if (const int error = ask_quietly(question, answer); error != 0) return fail(error);
  const std::size_t size = answer.values.size() * sizeof(std::uint16_t);
  return copy_out(array, answer.values.data(), size) ? 0 : fail(EFAULT);
}

// How many values the program has there, only the set knows; to know that takes no permission. Who may not set them is
// told so before the values are looked at: an unreadable array is sent as an empty one, which is refused in any case.
int set_all(int id, const std::uint16_t* array) {
  constexpr int indexes = 32768;  // IPCMNI
  Question size = about(Call::stat_index, 0, id % indexes);
  size.flags = 1;
  sysv::Answer answer;
  if (const int error = ask_quietly(size, answer); error != 0 && error != EINVAL) return fail(error);
  const bool found = answer.set && answer.value == id;
  Question question = about(Call::set_all, id);
  if (found) question.values.resize(answer.set->count);
  const bool well = !found || copy_in(question.values.data(), array, question.values.size() * sizeof(std::uint16_t));
  if (!well) question.values.clear();
  const int error = ask_quietly(question, answer);
  if (!well) return fail(error == EACCES || error == EIDRM ? error : EFAULT);
  return error == 0 ? 0 : fail(error);
}

int get_number(Call call, int id, int number) {
  Question question = about(call, id, number);
  sysv::Answer answer;
  const int error = ask_quietly(question, answer);
  return error == 0 ? static_cast<int>(answer.value) : fail(error);
}

int control(int id, int number, int command, Argument argument) {
  if (id < 0) return fail(EINVAL);
  Question question;
  switch (command) {
    case IPC_INFO:
    case SEM_INFO:
      return get_info(command, argument.any);
    case IPC_STAT:
    case SEM_STAT:
    case SEM_STAT_ANY:
      return get_stat(id, command, argument.any);
    case GETALL:
      return get_all(id, argument.array);
    case SETALL:
      return set_all(id, argument.array);
    case GETVAL:
      return get_number(Call::get_value, id, number);
    case GETPID:
      return get_number(Call::get_pid, id, number);
    case GETNCNT:
      return get_number(Call::get_ncnt, id, number);
    case GETZCNT:
      return get_number(Call::get_zcnt, id, number);
    case SETVAL:
      question = about(Call::set_value, id, number);
      question.key = argument.value;
      return result_of(question);
    case IPC_SET:
      return set(id, argument.buffer);
    case IPC_RMID:
      question = about(Call::remove, id);
      return result_of(question);
    default:
      return fail(EINVAL);
  }
}

bool about_all(int command) {
  return command == IPC_INFO || command == SEM_INFO || command == SEM_STAT || command == SEM_STAT_ANY;
}

bool has_argument(int command) {
  return about_all(command) || command == SETVAL || command == GETALL || command == SETALL || command == IPC_STAT ||
         command == IPC_SET;
}

}  // namespace
}  // namespace dsm::dshm

using namespace dsm::dshm;

extern "C" {

int semget(key_t key, int count, int flags) noexcept {
  switch (route_key(key)) {
    case Route::refused:
      return fail(EINVAL);
    case Route::kernel:
      return note_kernel(dsm::sysv::Object::set, ::syscall(SYS_semget, key, count, flags));
    case Route::ours:
      break;
  }
  return get_object(dsm::sysv::Object::set, key, static_cast<std::uint64_t>(std::int64_t{count}), flags);
}

int semtimedop(int id, struct sembuf* ops, size_t count, const struct timespec* timeout) noexcept {
  switch (route_id(dsm::sysv::Object::set, id)) {
    case Route::refused:
      return fail(EINVAL);
    case Route::kernel:
      return static_cast<int>(::syscall(SYS_semtimedop, id, ops, count, timeout));
    case Route::ours:
      break;
  }
  const int error = timed_operate(id, ops, count, timeout);
  return error == 0 ? 0 : fail(error);
}

int semop(int id, struct sembuf* ops, size_t count) noexcept { return semtimedop(id, ops, count, nullptr); }

int semctl(int id, int number, int command, ...) noexcept {
  Argument argument{};
  if (has_argument(command)) {
    va_list list;
    va_start(list, command);
    argument = va_arg(list, Argument);
    va_end(list);
  }
  switch (about_all(command) ? route_all() : route_id(dsm::sysv::Object::set, id)) {
    case Route::refused:
      return fail(EINVAL);
    case Route::kernel:
      return static_cast<int>(::syscall(SYS_semctl, id, number, command, argument.any));
    case Route::ours:
      break;
  }
  return control(id, number, command, argument);
}

}  // extern "C"
