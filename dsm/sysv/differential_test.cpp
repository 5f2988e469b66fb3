// Random calls of several processes and users, to this machine's kernel and to the values: all that can be seen must agree.
//
//   SYSV_SEED=7 SYSV_STEPS=100000 build/tests/sysv_test --gtest_filter='Differential.*'
#include "dsm/sysv/differential.hpp"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <deque>
#include <iostream>
#include <random>
#include <set>
#include <span>

namespace dsm::sysv::differential {
namespace {

constexpr int patience_s = 20;  // until something that must happen has not
constexpr std::size_t remembered = 30;

// The second that the kernel writes into its objects now.
std::int64_t kernel_seconds(long* nanoseconds = nullptr) {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME_COARSE, &now);
  if (nanoseconds != nullptr) *nanoseconds = now.tv_nsec;
  return now.tv_sec;
}

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// The kernel has a limit for what each user locks; the values have none.
bool may_lock_all() {
  rlimit limit{};
  return ::getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur >= 1'000'000;
}

class Walk {
 public:
  explicit Walk(std::uint64_t seed) : random_(seed) {}

  // What went wrong, or nothing.
  std::string run(std::uint64_t steps) {
    for (int seat = 0; seat < 3; ++seat) start(seat);
    for (std::uint64_t i = 0; i < steps && wrong_.empty(); ++i) {
      begin_second();
      step();
      const std::int64_t after = kernel_seconds();
      if (after != now_) straddled_.insert({now_, after});
      if (wrong_.empty()) compare_all();
    }
    if (wrong_.empty()) return {};
    std::string said = wrong_ + "\nafter:\n";
    for (const std::string& line : history_) said += "  " + line + "\n";
    return said;
  }

 private:
  // ---- chance
  int below(int n) { return std::uniform_int_distribution<int>(0, n - 1)(random_); }
  bool chance(int percent) { return below(100) < percent; }
  template <typename T>
  T one_of(std::initializer_list<T> all) {
    return *(all.begin() + below(static_cast<int>(all.size())));
  }
  template <typename T>
  T one_of(const std::vector<T>& all) {
    return all[static_cast<std::size_t>(below(static_cast<int>(all.size())))];
  }

  std::vector<int> seats_that_are(bool taken, bool waiting) const {
    std::vector<int> all;
    for (int seat = 0; seat < seats; ++seat) {
      if (taken_[static_cast<std::size_t>(seat)] == taken && waiting_[static_cast<std::size_t>(seat)] == waiting)
        all.push_back(seat);
    }
    return all;
  }

  // ---- steps
  // No call shall have the end of a second in it, if that can be helped.
  void begin_second() {
    long nanoseconds = 0;
    do now_ = kernel_seconds(&nanoseconds);
    while (nanoseconds > 990'000'000);
  }

  void start(int seat) {
    const pid_t pid = kernel_.start(seat);
    model_.start(seat, pid);
    taken_[static_cast<std::size_t>(seat)] = true;
    note("start seat " + std::to_string(seat) + " pid " + std::to_string(pid));
  }

  void step() {
    const std::vector<int> idle = seats_that_are(true, false), waiting = seats_that_are(true, true),
                           empty = seats_that_are(false, false);
    if (!empty.empty() && (idle.empty() || chance(3))) return start(one_of(empty));
    if (idle.empty() || (!waiting.empty() && chance(3))) return interrupt(one_of(waiting));
    if (chance(2)) return kill(one_of(waiting.empty() || chance(50) ? idle : waiting));
    const int seat = one_of(idle);
    Action action = choose(seat, empty);
    // Somebody must be left who can wake the others.
    if (idle.size() == 1)
      for (SemOp& op : action.ops) op.flags = static_cast<std::int16_t>(op.flags | IPC_NOWAIT);
    call(seat, action);
  }

  void kill(int seat) {
    note("kill seat " + std::to_string(seat));
    kernel_.kill(seat);
    model_.kill(seat);
    taken_[static_cast<std::size_t>(seat)] = waiting_[static_cast<std::size_t>(seat)] = false;
    expect_ended();
  }

  void interrupt(int seat) {
    note("signal to seat " + std::to_string(seat));
    kernel_.interrupt(seat);
    if (!model_.interrupt(seat)) return fail("the model does not think that it waits");
    expect_reply(seat, {.error = EINTR});
  }

  void call(int seat, const Action& action) {
    note("seat " + std::to_string(seat) + ": " + text(action));
    kernel_.ask(seat, action);
    std::optional<Reply> got;
    pid_t made = 0;
    if (action.kind == Kind::fork) {
      got = kernel_.reply(seat, patience_s);
      if (!got || got->error != 0) return fail("no fork");
      made = static_cast<pid_t>(got->value);
      kernel_.took(action.number, made);
      taken_[static_cast<std::size_t>(action.number)] = true;
    }
    const std::optional<Reply> expected = model_.apply(seat, action, made);
    if (!expected) {
      waiting_[static_cast<std::size_t>(seat)] = true;
      note("  waits");
      return settle(action.id);
    }
    if (!got) got = kernel_.reply(seat, patience_s);
    if (!got) return fail("the kernel lets it wait, and should say " + text(*expected));
    note("  " + text(*got));
    compare(action, *got, *expected);
    expect_ended();
  }

  // Those whom the last call has let go on.
  void expect_ended() {
    for (const auto& [seat, error] : model_.ended()) expect_reply(seat, {.error = error});
  }

  void expect_reply(int seat, const Reply& expected) {
    waiting_[static_cast<std::size_t>(seat)] = false;
    const std::optional<Reply> got = kernel_.reply(seat, patience_s);
    note("  seat " + std::to_string(seat) + " waits no more: " + text(expected));
    if (!got) return fail("the kernel lets seat " + std::to_string(seat) + " wait on");
    if (got->error != expected.error) fail("the kernel says " + text(*got));
  }

  // ---- what to do
  Action choose(int seat, const std::vector<int>& empty) {
    Action action{.user = chance(40) ? 0 : below(static_cast<int>(users().size()))};
    if (!empty.empty() && chance(3)) {
      action.kind = Kind::fork;
      action.number = one_of(empty);
      return action;
    }
    action.kind = choose_kind(seat);
    choose_object(action);
    action.flags = one_of({0600, 0644, 0666, 0777, 0400, 0200, 0440, 0222, 0070, 0007, 0});
    action.mode = static_cast<std::uint32_t>(one_of({0600, 0644, 0666, 0777, 0400, 0200, 0460, 0060, 0006, 0, 077000}));
    if (!kernel_.own_namespace())
      action.flags |= 0600, action.mode |= 0600U;  // we must be able to look, and are not root
    const User& heir = one_of(users());
    action.uid = chance(3) ? ~0U : heir.uid;
    action.gid = chance(3) ? ~0U : heir.gid;
    if (makes_object(action.kind)) {
      if (chance(75)) action.flags |= IPC_CREAT;
      if (chance(20)) action.flags |= IPC_EXCL;
      action.size = one_of<std::uint64_t>({0, 1, 4095, 4096, 4097, 12288, 30000, 50000, 50001, ~std::uint64_t{0}});
      action.count = one_of({1, 1, 2, 2, 3, 5, 10, 0, 11, -1});
    } else if (action.kind == Kind::shm_attach) {
      action.flags = one_of({0, 0, SHM_RDONLY, SHM_EXEC, SHM_RDONLY | SHM_EXEC});
    } else if (action.kind == Kind::shm_detach || action.kind == Kind::shm_munmap) {
      const std::vector<std::int32_t>& attached = model_.attached(seat);
      action.number = below(static_cast<int>(attached.size()));
      const Action stat{.kind = Kind::shm_stat_any, .id = attached[static_cast<std::size_t>(action.number)]};
      action.size = static_cast<std::uint64_t>(model_.look(stat).fields[field::size]);
    } else {
      choose_values(action);
    }
    return action;
  }

  Kind choose_kind(int seat) {
    if (chance(50)) return chance(95) ? Kind::sem_operate : Kind::sem_operate_timed;
    for (;;) {
      const Kind kind = static_cast<Kind>(below(static_cast<int>(Kind::last)));
      if ((kind == Kind::shm_detach || kind == Kind::shm_munmap) && model_.attached(seat).empty()) continue;
      const bool whole =
          kind == Kind::shm_limits || kind == Kind::shm_info || kind == Kind::sem_limits || kind == Kind::sem_info;
      const bool any_index = gives_id(kind) && !makes_object(kind);
      if (!kernel_.own_namespace() && (whole || any_index)) continue;
      if (kind == Kind::shm_lock && !may_lock_all_) continue;
      if (kind == Kind::sem_remove && chance(60)) continue;  // or nobody would ever wait for long
      return kind;
    }
  }

  // Mostly one that is there; also one that was, and one that never was.
  void choose_object(Action& action) {
    const bool sets = is_about_sets(action.kind);
    const std::vector<std::int32_t> live = model_.ids(sets);
    const std::vector<std::int32_t>& known = sets ? known_sets_ : known_segments_;
    action.key = chance(20) ? IPC_PRIVATE : first_key_ + below(5);
    action.id = one_of({-1, -32768, 5 * 32768 + 3000, 32767});
    if (!kernel_.own_namespace()) action.id = -1;
    if (!known.empty() && chance(50)) action.id = one_of(known);
    if (!live.empty() && chance(95)) action.id = one_of(live);
    count_ = 1;
    if (sets)
      count_ =
          std::max(1, static_cast<int>(model_.look({.kind = Kind::sem_stat_any, .id = action.id}).fields[field::size]));
  }

  void choose_values(Action& action) {
    action.number = chance(95) ? below(count_) : one_of({-1, count_, 1000});
    action.value = one_of({0, 0, 1, 1, 2, 3, 5, 32766, 32767, 32768, -1});
    if (action.kind == Kind::sem_set_all) {
      action.count = count_;
      for (std::uint16_t& value : std::span(action.values).first(static_cast<std::size_t>(count_)))
        value = static_cast<std::uint16_t>(one_of({0, 0, 1, 2, 3}));
      if (chance(10)) action.values[0] = static_cast<std::uint16_t>(one_of({32767, 32768, 65535}));
    }
    if (action.kind != Kind::sem_operate && action.kind != Kind::sem_operate_timed) return;
    action.count = chance(97) ? one_of({1, 1, 1, 2, 2, 3, 4, 6}) : one_of({0, static_cast<int>(max_ops)});
    for (SemOp& op : action.ops) {
      op.number = static_cast<std::uint16_t>(chance(99) ? below(count_) : count_);
      op.change = static_cast<std::int16_t>(chance(97) ? one_of({-3, -2, -1, -1, -1, 0, 0, 1, 1, 2})
                                                       : one_of({-32768, -32767, 32767, 32766, 20000}));
      if (chance(15)) op.flags = IPC_NOWAIT;
      if (chance(35)) op.flags = static_cast<std::int16_t>(op.flags | SEM_UNDO);
    }
  }

  // ---- comparing
  void compare(const Action& action, const Reply& got, const Reply& expected) {
    Reply wanted = expected;
    if (wanted.error == 0 && makes_object(action.kind)) learn(action, got, wanted);
    if (wanted.error != 0 && got.error == 0 && makes_object(action.kind))  // wrong, but it shall not be left behind
      kernel_.named(action.kind, -2, static_cast<std::int32_t>(got.value));
    if (wanted.error == 0 && gives_id(action.kind))
      wanted.value = kernel_.id_of(action.kind, static_cast<std::int32_t>(wanted.value));
    if (!same_ids_) wanted.fields[field::seq] = got.fields[field::seq];
    for (const std::size_t i : {field::atime, field::dtime, field::ctime, field::otime}) {
      if (straddled_.contains(std::minmax(got.fields[i], wanted.fields[i]))) wanted.fields[i] = got.fields[i];
    }
    if (got.error != wanted.error || got.value != wanted.value || got.fields != wanted.fields ||
        got.values != wanted.values)
      fail(text(action) + "\n  kernel " + text(got) + "\n  values " + text(wanted));
  }

  void learn(const Action& action, const Reply& got, const Reply& expected) {
    std::vector<std::int32_t>& known = is_about_sets(action.kind) ? known_sets_ : known_segments_;
    const auto id = static_cast<std::int32_t>(expected.value);
    if (got.error != 0 || std::find(known.begin(), known.end(), id) != known.end()) return;
    known.push_back(id);
    // In a namespace that has had nothing else in it, the ids are the same.
    kernel_.named(action.kind, id, same_ids_ ? id : static_cast<std::int32_t>(got.value));
  }

  void look(const Action& action) { compare(action, kernel_.look(action), model_.look(action)); }

  void compare_all() {
    for (const std::int32_t id : model_.ids(false)) look({.kind = Kind::shm_stat, .id = id});
    for (const std::int32_t id : model_.ids(true)) {
      look({.kind = Kind::sem_stat, .id = id});
      const auto count = static_cast<std::int32_t>(model_.look({.kind = Kind::sem_stat, .id = id}).fields[field::size]);
      for (const Kind kind : {Kind::sem_get_value, Kind::sem_get_pid, Kind::sem_get_ncnt, Kind::sem_get_zcnt}) {
        for (std::int32_t i = 0; i < count; ++i) look({.kind = kind, .id = id, .number = i});
      }
    }
    if (!kernel_.own_namespace()) return;
    look({.kind = Kind::shm_info});
    look({.kind = Kind::sem_info});
  }

  // The process is on its way to where it waits: until the kernel counts as many as the model.
  void settle(std::int32_t id) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(patience_s);
    while (std::chrono::steady_clock::now() < until) {
      bool all = true;
      for (const Kind kind : {Kind::sem_get_ncnt, Kind::sem_get_zcnt}) {
        for (std::int32_t i = 0; i < count_ && all; ++i) {
          const Action action{.kind = kind, .id = id, .number = i};
          all = kernel_.look(action).value == model_.look(action).value;
        }
      }
      if (all) return;
      ::sched_yield();
    }
    fail("the kernel does not let it wait, or elsewhere");
  }

  void note(const std::string& line) {
    history_.push_back(line);
    if (history_.size() > remembered) history_.pop_front();
  }
  void fail(const std::string& why) {
    if (wrong_.empty()) wrong_ = why;
  }

  std::mt19937_64 random_;
  std::int64_t now_ = kernel_seconds();
  Kernel kernel_{};
  Model model_{[this] { return now_; }, kernel_.own_namespace()};
  // Linux makes longer ids if it is told so at boot.
  bool same_ids_ = kernel_.own_namespace();
  std::int32_t first_key_ = kernel_.own_namespace() ? 1 : 0x5a000000 + ::getpid() * 8 % 0x1000000;
  std::array<bool, seats> taken_{}, waiting_{};
  std::vector<std::int32_t> known_segments_{}, known_sets_{};
  int count_ = 1;  // of the chosen set
  std::set<std::pair<std::int64_t, std::int64_t>> straddled_{};
  std::deque<std::string> history_{};
  std::string wrong_{};
  bool may_lock_all_ = may_lock_all();
};

TEST(Differential, TheKernelAndTheValuesAgree) {
  const std::uint64_t first = from_environment("SYSV_SEED", std::random_device{}());
  const std::uint64_t steps = from_environment("SYSV_STEPS", 1000);
  for (std::uint64_t seed = first; seed < first + 3; ++seed) {
    std::cout << "seed " << seed << std::endl;
    Walk walk(seed);
    const std::string wrong = walk.run(steps);
    if (!wrong.empty()) FAIL() << "SYSV_SEED=" << seed << " shows it again\n" << wrong;
  }
}

}  // namespace
}  // namespace dsm::sysv::differential
