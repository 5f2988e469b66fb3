// dsm/sysv/semaphore_set.hpp - one semaphore set: its values, who waits for them, who owes what. struct sem_array of Linux's
// ipc/sem.c, without the locks.
//
// Who is served next, when several could be: Linux keeps a line for each semaphore as long as all who wait have one
// operation only; as soon as one waits with several, all who want to change something stand in one line. So does this,
// because programs see it. Those who wait for zero only have lines of their own, and go first.
//
// Used by SemaphoreSets only, which knows ids, keys and permissions. Thread-safety: none.
#pragma once
#include <cstdint>
#include <list>
#include <map>
#include <span>
#include <vector>

#include "dsm/sysv/semaphores.hpp"

namespace dsm::sysv {

class SemaphoreSet {
 public:
  using Answers = std::vector<SemaphoreSets::Answer>;

  // All values are 0.
  SemaphoreSet(SetStat first, const SetLimits& limits);

  [[nodiscard]] SetStat& stat() { return stat_; }
  [[nodiscard]] std::int32_t count() const { return static_cast<std::int32_t>(semaphores_.size()); }
  [[nodiscard]] std::int32_t value(std::int32_t number) const { return at(number).value; }
  [[nodiscard]] Pid pid(std::int32_t number) const { return at(number).pid; }
  // How many wait for it to become more, or zero; each counts only where its first operation that cannot proceed is.
  [[nodiscard]] std::int32_t waiting(std::int32_t number, bool for_zero) const;

  // From now on the process has undo values here, of these semaphores too; all 0 at first. How many places that took.
  std::size_t remember(Owner owner, std::span<const SemOp> ops);
  [[nodiscard]] std::size_t unremembered(Owner owner, std::span<const SemOp> ops) const;  // places that this would take
  [[nodiscard]] std::size_t remembered(Owner owner) const;                                // places in all
  [[nodiscard]] std::vector<Owner> owners() const;

  // What follows serves all who can proceed by it, and adds their answers. `now`: seconds since 1970.
  // 0, EAGAIN, ERANGE, ENOMEM (nobody may wait so here: SetLimits::together) or `waits`.
  // REQUIRES: numbers are below count(); remember(owner, ops) if there is a SEM_UNDO.
  [[nodiscard]] int operate(Owner owner, Pid pid, std::span<const SemOp> ops, Ticket ticket, std::int64_t now,
                            Answers& answers);
  void set_value(Pid pid, std::int32_t number, std::int32_t value, std::int64_t now, Answers& answers);
  void set_all(Pid pid, std::span<const std::uint16_t> values, std::int64_t now, Answers& answers);
  // Its undo values are applied and forgotten. REQUIRES: none of its calls waits here any more.
  void undo(Owner owner, Pid pid, std::int64_t now, Answers& answers);

  [[nodiscard]] bool waits_here(Ticket ticket) const { return waiters_.contains(ticket); }
  // It waits no more. REQUIRES: it waits here.
  void cancel(Ticket ticket);
  // The set goes: all who wait get EIDRM.
  void dismiss(Answers& answers);

 private:
  struct Semaphore {
    std::int32_t value = 0;
    Pid pid{};                   // of who changed it last
    std::uint64_t settings = 0;  // by SETVAL, SETALL: each makes all undo values 0
  };
  struct Adjustment {
    std::int16_t value = 0;      // semadj; 0 if the semaphore has been set
    std::uint64_t settings = 0;  // since it had been so often
  };
  using Adjustments = std::map<std::int32_t, Adjustment>;  // by semaphore; none: 0
  struct Waiter;
  using Line = std::list<Waiter>;
  struct Waiter {
    Ticket ticket = 0;
    Pid pid{};
    std::vector<SemOp> ops{};
    Adjustments* undo = nullptr;  // if one of ops has SEM_UNDO
    bool alters = false;
    std::size_t blocking = 0;  // the operation that could not proceed, the last time that it was tried
    Line* line = nullptr;      // in which it stands
  };
  using Lines = std::map<std::int32_t, Line>;  // by semaphore; none: nobody has waited there

  [[nodiscard]] const Semaphore& at(std::int32_t number) const;
  [[nodiscard]] std::int16_t& adjustment(Adjustments& of, std::int32_t number) const;
  void set(std::size_t number, std::int32_t value, Pid pid);
  [[nodiscard]] bool has_room_for(const Waiter& waiter) const;
  [[nodiscard]] int attempt(Waiter& waiter);
  void roll_back(const Waiter& waiter, std::size_t done);
  void enqueue(Waiter waiter);
  [[nodiscard]] Line leave(Line::iterator who);
  void merge();
  void split();

  enum class Cause { operation, setting, end };  // semop; SETVAL, SETALL; the end of a process
  void served(std::span<const SemOp> changed, Cause cause, std::int64_t now, Answers& answers);
  [[nodiscard]] bool serve_zero(Line& line, Answers& answers);
  static void drop_if_empty(Lines& lines, std::int32_t number);
  [[nodiscard]] bool serve_zero(std::span<const SemOp> changed, bool whole, Answers& answers);
  [[nodiscard]] bool serve_altering(Line& line, const Semaphore* only, Answers& answers);

  SetStat stat_;
  std::int32_t max_value_;
  std::size_t together_max_;
  std::vector<Semaphore> semaphores_;
  std::map<Owner, Adjustments> undo_{};

  Lines altering_{}, for_zero_{};                   // who waits with one operation
  Line altering_together_{}, for_zero_together_{};  // with several; the first also those with one, meanwhile
  std::size_t with_several_ = 0;                    // of all who wait
  std::size_t operations_ = 0;                      // of all who wait
  std::map<Ticket, Line::iterator> waiters_{};
};

}  // namespace dsm::sysv
