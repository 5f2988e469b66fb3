// dsm/sysv/semaphores.hpp - all semaphore sets of one dsmd, as a value: atomic arrays of operations, who waits, who owes.
//
// Behaves as Linux's ipc/sem.c does, call by call. A call that must wait is remembered under its ticket, and answered
// later: take_answers(). Every function returns 0, an errno value, or `waits`.
// Order of service: as in Linux, an operation that can proceed does so as soon as it can, in the order of arrival among
// those that can. Thread-safety: none. Not async-signal-safe.
#pragma once
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <vector>

#include "dsm/sysv/ids.hpp"
#include "dsm/sysv/types.hpp"

namespace dsm::sysv {

inline constexpr int waits = -1;

struct SetLimits {                 // as /proc/sys/kernel/sem
  std::uint32_t per_set = 32000;   // SEMMSL
  std::uint32_t all = 1'024'000;   // SEMMNS: Linux has 1000 times that, which would be gigabytes
  std::uint32_t per_call = 500;    // SEMOPM
  std::uint32_t sets = 32000;      // SEMMNI
  std::int32_t max_value = 32767;  // SEMVMX
  // Where Linux has only the memory there is, and a process's right to it; beyond them semop is ENOMEM.
  std::uint32_t undos = 1u << 18;  // of one agent's processes: sets that they have used with SEM_UNDO, and semaphores
  std::uint32_t all_undos = 1u << 21;
  std::uint32_t together = 8192;  // operations that wait at one set while somebody waits there with several
};

struct SetTotals {
  SetLimits limits{};
  std::uint32_t sets = 0, semaphores = 0;
  std::int32_t highest_index = 0;
};

// Whose undo values: a process of a host. It keeps them over exec, and does not pass them to children.
struct Owner {
  HostNumber agent = 0;  // dsmd's number of the agent's connection (not of the host: a host may have several agents)
  ProcessNumber process = 0;
  friend auto operator<=>(const Owner&, const Owner&) = default;
};

using Ticket = std::uint64_t;  // chosen by the caller, of one waiting call

class SemaphoreSet;

class SemaphoreSets {
 public:
  struct Answer {
    Ticket ticket;
    int error;  // 0; EIDRM; EAGAIN, ERANGE: an array that met such an operation only after it had waited for another
    friend bool operator==(const Answer&, const Answer&) = default;
  };
  // `now`: seconds since 1970.
  SemaphoreSets(SetLimits limits, std::function<std::int64_t()> now);
  ~SemaphoreSets();

  // semget(2).
  [[nodiscard]] int get(const Caller& caller, std::int32_t key, std::int32_t count, std::int32_t flags,
                        std::int32_t& id);
  // semop(2), semtimedop(2): 0, an errno value, or `waits`: then `ticket` is answered later, or cancelled (a timeout, a
  // signal, the end of the process). REQUIRES: no other call waits under this ticket.
  [[nodiscard]] int operate(const Caller& caller, Owner owner, std::int32_t id, std::span<const SemOp> ops,
                            Ticket ticket);
  // It waits no more, and gets no answer. False if it did not wait (any more).
  bool cancel(Ticket ticket);
  // The process has ended: its undo values are applied, its calls cancelled.
  void ended(Owner owner, Pid pid);

  // semctl(2)
  [[nodiscard]] int get_value(const Caller& caller, std::int32_t id, std::int32_t number, std::int32_t& out) const;
  [[nodiscard]] int get_all(const Caller& caller, std::int32_t id, std::vector<std::uint16_t>& out) const;
  [[nodiscard]] int set_value(const Caller& caller, std::int32_t id, std::int32_t number, std::int32_t value);
  // Checks in Linux's order: permissions, then values (ERANGE). `values.size()` must be the set's count, else EINVAL.
  [[nodiscard]] int set_all(const Caller& caller, std::int32_t id, std::span<const std::uint16_t> values);
  [[nodiscard]] int get_pid(const Caller& caller, std::int32_t id, std::int32_t number, Pid& out) const;
  [[nodiscard]] int get_waiting(const Caller& caller, std::int32_t id, std::int32_t number, bool for_zero,
                                std::int32_t& out) const;  // GETNCNT, GETZCNT
  [[nodiscard]] int stat(const Caller& caller, std::int32_t id, SetStat& out) const;
  [[nodiscard]] int stat_index(const Caller& caller, std::int32_t index, bool check, SetStat& out) const;
  [[nodiscard]] int set(const Caller& caller, std::int32_t id, std::uint32_t uid, std::uint32_t gid,
                        std::uint32_t mode);
  [[nodiscard]] int remove(const Caller& caller, std::int32_t id);  // all who wait get EIDRM
  [[nodiscard]] SetTotals totals() const;

  // Of waiting calls that are over, since the last time, in the order in which they ended.
  [[nodiscard]] std::vector<Answer> take_answers();

 private:
  struct Waiting {
    std::int32_t id;
    Owner owner;
  };
  [[nodiscard]] SemaphoreSet* find(std::int32_t id) const;
  [[nodiscard]] int create(const Caller& caller, std::int32_t key, std::int32_t count, std::int32_t flags,
                           std::int32_t& id);
  [[nodiscard]] int readable_one(const Caller& caller, std::int32_t id, std::int32_t number, SemaphoreSet*& out) const;
  [[nodiscard]] bool may_owe(Owner owner, std::size_t more) const;
  void used(Owner owner, std::int32_t id);
  void forget(Ticket ticket);
  void count_undos(HostNumber agent, std::size_t more, std::size_t less);

  SetLimits limits_;
  std::function<std::int64_t()> now_;
  std::map<std::int32_t, std::unique_ptr<SemaphoreSet>> by_index_;
  std::map<std::int32_t, std::int32_t> index_by_key_{};
  Ids ids_{};
  std::uint32_t semaphores_ = 0;
  std::map<Ticket, Waiting> waiting_{};
  std::set<std::pair<Owner, Ticket>> waiting_of_{};  // the same
  // Of a process: ids of the sets that hold undo values of it, last used first. In this order they are applied.
  struct Debts {
    std::list<std::int32_t> sets{};
    std::map<std::int32_t, std::list<std::int32_t>::iterator> places{};
  };
  std::map<Owner, Debts> undo_of_{};
  std::map<HostNumber, std::size_t> undos_{};  // by agent: see SetLimits
  std::size_t all_undos_ = 0;
  std::vector<Answer> answers_{};
};

}  // namespace dsm::sysv
