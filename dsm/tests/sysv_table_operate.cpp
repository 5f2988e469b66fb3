// Rows of semop and semtimedop: arrays, waiting, who is served, SEM_UNDO.
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <ctime>
#include <memory>

#include "dsm/tests/sysv_table.hpp"

namespace table {
namespace {

constexpr short no_wait = IPC_NOWAIT, undo = SEM_UNDO;

std::string op(int id, std::vector<sembuf> ops) { return said(operate(id, std::move(ops))); }
std::string counts(int id, int number = 0) {
  return text("ncnt=%d zcnt=%d", ::semctl(id, number, GETNCNT), ::semctl(id, number, GETZCNT));
}
std::string timed(int id, sembuf one, const timespec* timeout) { return said(::semtimedop(id, &one, 1, timeout)); }
void until_zero_waiting(int id, int count, int number = 0) {
  until([=] { return ::semctl(id, number, GETZCNT) == count; });
}

// A child that makes one call, which may wait; the parent is told how it ended.
class Waiting {
 public:
  Waiting(int id, std::vector<sembuf> ops) : child_([=](Child&) { return op(id, ops); }) {}
  std::string ended() { return child_.ended(); }
  Child& child() { return child_; }

 private:
  Child child_;
};

std::string errors() {
  const int id = new_set(2);
  sembuf one{0, 1, 0};
  seminfo info{};
  ::semctl(0, 0, IPC_INFO, Semun{.info = &info});
  const auto most = static_cast<std::size_t>(info.semopm);
  Line line = Line() << "none " << said(::semop(id, &one, 0)) << " most "
                     << op(id, std::vector<sembuf>(most, sembuf{1, 0, 0})) << " more "
                     << op(id, std::vector<sembuf>(most + 1, sembuf{1, 0, 0})) << " more of a bad id "
                     << op(-1, std::vector<sembuf>(most + 1, sembuf{1, 0, 0}));
  line << " number " << op(id, {{2, 1, 0}}) << " second number " << op(id, {{0, 1, 0}, {65535, 1, 0}}) << " null "
       << said(::semop(id, nullptr, 1)) << " of a bad id " << said(::semop(-1, nullptr, 1));
  return line << " " << values(id);
}

std::string simple() {
  const int id = new_set(2);
  Line line = Line() << set(id) << "; +3 " << op(id, {{0, 3, 0}}) << " -1 " << op(id, {{0, -1, 0}}) << " " << values(id)
                     << " " << set(id);
  line << "; -3 " << op(id, {{0, -3, no_wait}}) << " zero " << op(id, {{0, 0, no_wait}}) << " zero of the other "
       << op(id, {{1, 0, no_wait}});
  line << "; to the most " << op(id, {{0, 32765, 0}}) << " one more " << op(id, {{0, 1, 0}}) << " " << values(id);
  return line << " all down " << op(id, {{0, -32767, 0}}) << " zero " << op(id, {{0, 0, 0}});
}

std::string arrays() {
  const int id = new_set(3);
  Line line = Line() << "all or none: " << op(id, {{0, 1, 0}, {1, -1, no_wait}}) << " " << values(id) << " "
                     << op(id, {{0, 1, 0}, {1, 2, 0}}) << " " << values(id);
  line << "; up and down " << op(id, {{2, 1, 0}, {2, -1, 0}}) << " down and up "
       << op(id, {{2, -1, no_wait}, {2, 1, 0}}) << " up and zero " << op(id, {{2, 1, 0}, {2, 0, no_wait}});
  line << " zero and up " << op(id, {{2, 0, 0}, {2, 1, 0}}) << " " << values(id);
  line << "; too high " << op(id, {{0, 1, 0}, {1, 32767, 0}}) << " " << values(id);
  // Only the operation that would wait is asked whether it may.
  return line << "; no wait elsewhere " << op(id, {{0, -1, no_wait}, {1, -1, no_wait}, {0, 0, 0}}) << " " << values(id);
}

std::string timeouts() {
  const int id = new_set(1);
  const timespec none{0, 0}, some{0, 30'000'000}, negative{-1, 0}, odd{0, 1'000'000'000};
  Line line = Line() << "0 " << timed(id, {0, -1, 0}, &none) << " some " << timed(id, {0, -1, 0}, &some)
                     << " zero, some " << op(id, {{0, 1, 0}}) << " " << timed(id, {0, 0, 0}, &some);
  line << "; negative " << timed(id, {0, -1, 0}, &negative) << " odd " << timed(id, {0, -1, 0}, &odd) << " null "
       << timed(id, {0, -1, 0}, nullptr) << " " << values(id);
  line << "; bad " << timed(id, {0, 1, 0}, reinterpret_cast<timespec*>(16)) << " no wait "
       << timed(id, {0, -1, no_wait}, &some) << " in time " << timed(id, {0, 1, 0}, &none);
  timespec before{}, after{};
  ::clock_gettime(CLOCK_MONOTONIC, &before);
  timed(id, {0, -5, 0}, &some);
  ::clock_gettime(CLOCK_MONOTONIC, &after);
  const double waited =
      static_cast<double>(after.tv_sec - before.tv_sec) + static_cast<double>(after.tv_nsec - before.tv_nsec) / 1e9;
  return line << "; " << counts(id) << (waited >= 0.03 ? " not too early" : " too early");
}

std::string waits_for_more() {
  const int id = new_set(2);
  Waiting one(id, {{0, -2, 0}});
  until_waiting(id, 1);
  Line line = Line() << counts(id) << " " << op(id, {{0, 1, 0}}) << " " << counts(id) << " " << values(id) << "; "
                     << op(id, {{0, 1, 0}}) << " " << one.ended();
  return line << " " << counts(id) << " " << values(id) << " pid=" << who(::semctl(id, 0, GETPID));
}

std::string waits_for_zero() {
  const int id = new_set(2);
  set_value(id, 0, 2);
  Waiting one(id, {{0, 0, 0}}), two(id, {{0, 0, 0}, {1, 1, 0}});
  until_zero_waiting(id, 2);
  Line line = Line() << counts(id) << " " << op(id, {{0, -1, 0}}) << " " << counts(id) << "; " << op(id, {{0, -1, 0}})
                     << " " << one.ended() << " " << two.ended();
  return line << " " << counts(id) << " " << values(id) << " " << set(id);
}

// A call counts where its first operation that cannot proceed is.
std::string counted_once() {
  const int id = new_set(3);
  set_value(id, 2, 1);
  Waiting one(id, {{0, -1, 0}, {1, -1, 0}, {2, 0, 0}});
  until_waiting(id, 1);
  const auto all = [=] { return Line() << counts(id, 0) << ", " << counts(id, 1) << ", " << counts(id, 2); };
  Line line = Line() << all();
  op(id, {{0, 1, 0}});
  line << "; " << all();
  op(id, {{1, 1, 0}});
  line << "; " << all() << " " << values(id);
  op(id, {{2, -1, 0}});
  return line << "; " << one.ended() << " " << all() << " " << values(id);
}

std::string by_setting() {
  const int id = new_set(2);
  Waiting one(id, {{0, -3, 0}});
  until_waiting(id, 1);
  Line line = Line() << said(set_value(id, 0, 5)) << " " << one.ended() << " " << values(id);
  Waiting two(id, {{1, -3, 0}});
  until_waiting(id, 1, 1);
  line << "; " << said(set_values(id, {1, 4})) << " " << two.ended() << " " << values(id);
  Waiting zero(id, {{1, 0, 0}});
  until_zero_waiting(id, 1, 1);
  return line << "; " << said(set_value(id, 1, 0)) << " " << zero.ended() << " " << values(id)
              << " pid=" << who(::semctl(id, 1, GETPID));
}

std::string removed() {
  const int id = new_set(2);
  Waiting one(id, {{0, -1, 0}}), two(id, {{1, -1, undo}, {0, 1, 0}});
  until_waiting(id, 1, 0);
  until_waiting(id, 1, 1);
  Line line = Line() << said(::semctl(id, 0, IPC_RMID));
  return line << " " << one.ended() << " " << two.ended();
}

std::string interrupted(int flags) {
  const int id = new_set(1);
  Child child([=](Child&) {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    action.sa_flags = flags;
    ::sigaction(SIGUSR1, &action, nullptr);
    return op(id, {{0, -1, undo}});
  });
  until_waiting(id, 1);
  child.signal(SIGUSR1);
  return Line() << child.ended() << " " << counts(id) << " " << values(id);
}

std::string killed() {
  const int id = new_set(2);
  op(id, {{1, 1, 0}});
  Waiting one(id, {{1, -1, undo}, {0, -1, undo}});
  until_waiting(id, 1);
  one.child().signal(SIGKILL);
  return Line() << one.ended() << " " << counts(id) << " " << values(id);
}

// Who is served: whoever can proceed, in the order of arrival.
std::string order(std::vector<std::vector<sembuf>> calls, std::vector<std::vector<sembuf>> then) {
  const int id = new_set(2);
  std::vector<std::unique_ptr<Waiting>> all;
  for (std::size_t i = 0; i < calls.size(); ++i) {
    all.push_back(std::make_unique<Waiting>(id, calls[i]));
    until([=] { return ::semctl(id, 0, GETNCNT) + ::semctl(id, 1, GETNCNT) == static_cast<int>(i + 1); });
  }
  Line line;
  for (const std::vector<sembuf>& one : then)
    line << op(id, one) << " " << values(id) << " " << counts(id) << " pid=" << who(::semctl(id, 0, GETPID)) << "; ";
  for (const auto& one : all) line << one->ended() << " ";
  return line << values(id);
}

std::string zero_goes_first() {
  const int id = new_set(1);
  set_value(id, 0, 2);
  Waiting taker(id, {{0, -3, 0}});
  until_waiting(id, 1);
  Waiting zero(id, {{0, 0, 0}, {0, 5, 0}});
  until_zero_waiting(id, 1);
  return Line() << op(id, {{0, 1, 0}}) << " " << taker.ended() << " " << zero.ended() << " " << values(id);
}

// An array that meets, after it has waited, what ends it without a change.
std::string ends_badly(sembuf second, int second_value) {
  const int id = new_set(2);
  set_value(id, 1, second_value);
  Waiting one(id, {{0, -1, 0}, second});
  until_waiting(id, 1);
  return Line() << op(id, {{0, 1, 0}}) << " " << one.ended() << " " << values(id) << " " << counts(id);
}

// Who waits for zero is looked at only when something has become zero.
std::string not_asked() {
  const int id = new_set(2);
  set_value(id, 1, 1);
  Waiting one(id, {{0, 0, no_wait}, {1, 0, 0}});
  until_zero_waiting(id, 1, 1);
  Line line;
  line << said(set_values(id, {1, 1})) << " " << counts(id, 0) << ", " << counts(id, 1);
  return line << "; " << said(set_value(id, 1, 0)) << " " << one.ended() << " " << counts(id, 1);
}

// What the child has done, undone or not when it ends.
std::string undone(const std::function<std::string(int)>& child, const std::function<void(int)>& meanwhile = nullptr,
                   int start = 0, bool kill = false) {
  const int id = new_set(2);
  set_value(id, 0, start);
  Child process([&](Child& self) {
    Line result = Line() << child(id);
    self.tell();
    self.hear();
    return result;
  });
  process.hear();
  Line line = Line() << values(id);
  if (meanwhile) meanwhile(id);
  line << " " << values(id);
  if (kill) process.signal(SIGKILL);
  if (!kill) process.tell();
  line << "; " << process.ended() << "; " << values(id) << " pid=" << who(::semctl(id, 0, GETPID));
  return line << " " << set(id);
}

std::string undo_exec() {
  const int id = new_set(1);
  Child child([=](Child& self) {
    operate(id, {{0, 4, SEM_UNDO}});
    exec_and_hold(self);
    return std::string();
  });
  child.hear();
  Line line = Line() << values(id);
  child.tell();
  return line << " " << child.ended() << "; " << values(id);
}

std::string undo_fork() {
  return undone([](int id) {
    Line line = Line() << op(id, {{0, 5, undo}});
    in_child([=] { return op(id, {{0, 1, 0}}); });
    line << " " << values(id);
    in_child([=] { return op(id, {{0, 2, undo}}); });
    return line << " " << values(id);
  });
}

std::string undo_range() {
  return undone([](int id) {
    Line line = Line() << op(id, {{0, 32767, undo}}) << " " << op(id, {{0, -32767, 0}}) << " 1 more "
                       << op(id, {{0, 1, undo}}) << " 2 more " << op(id, {{0, 1, undo}}) << " " << values(id);
    set_value(id, 0, 0);
    line << "; " << op(id, {{0, 1, undo}}) << " " << op(id, {{0, -1, undo}}) << " array "
         << op(id, {{1, 1, undo}, {0, 32767, undo}, {0, -32767, 0}, {0, 3, undo}});
    return line << " " << values(id);
  });
}

std::string undo_lets_go() {
  const int id = new_set(1);
  set_value(id, 0, 1);
  Child holder([=](Child& self) {
    operate(id, {{0, -1, SEM_UNDO}});
    self.tell();
    self.hear();
    return std::string();
  });
  holder.hear();
  Waiting next(id, {{0, -1, undo}});
  until_waiting(id, 1);
  holder.signal(SIGKILL);
  Line line = Line() << holder.ended() << " " << next.ended();
  return line << "; " << values(id) << " pid=" << who(::semctl(id, 0, GETPID));
}

}  // namespace

std::vector<Row> operation_rows() {
  const Who both = Who::both;
  const auto up = [](int by) { return [=](int id) { return op(id, {{0, static_cast<short>(by), undo}}); }; };
  return {
      {"semop errors", both, errors},
      {"semop simple", both, simple},
      {"semop arrays", both, arrays},
      {"semtimedop", both, timeouts},
      {"semop waits for more", both, waits_for_more},
      {"semop waits for zero", both, waits_for_zero},
      {"semop counted once", both, counted_once},
      {"semop let go by setting", both, by_setting},
      {"semop removed", both, removed},
      {"semop interrupted", both, [] { return interrupted(0); }},
      {"semop interrupted, SA_RESTART", both, [] { return interrupted(SA_RESTART); }},
      {"semop killed", both, killed},
      {"semop order: first come", both,
       [] {
         return order({{{0, -1, 0}}, {{0, -1, 0}}}, {{{0, 1, 0}}, {{0, 1, 0}}});
       }},
      {"semop order: who can", both,
       [] {
         return order({{{0, -2, 0}}, {{0, -1, 0}}}, {{{0, 1, 0}}, {{0, 2, 0}}});
       }},
      {"semop order: both at once", both,
       [] {
         return order({{{0, -1, 0}}, {{0, -2, 0}}}, {{{0, 3, 0}}});
       }},
      {"semop order: not the second", both,
       [] {
         return order({{{0, -2, 0}}, {{0, -2, 0}}}, {{{0, 3, 0}}, {{0, 1, 0}}});
       }},
      {"semop order: array first", both,
       [] {
         return order({{{0, -1, 0}, {1, -1, 0}}, {{0, -1, 0}}}, {{{0, 1, 0}}, {{0, 1, 0}, {1, 1, 0}}});
       }},
      {"semop order: array second", both,
       [] {
         return order({{{0, -1, 0}}, {{0, -1, 0}, {1, -1, 0}}}, {{{0, 1, 0}, {1, 1, 0}}, {{0, 1, 0}}});
       }},
      {"semop order: one lets another go", both,
       [] {
         return order({{{1, -1, 0}}, {{0, -1, 0}, {1, 1, 0}}}, {{{0, 1, 0}}});
       }},
      {"semop order: zero goes first", both, zero_goes_first},
      {"semop no wait, later", both,
       [] {
         return ends_badly({1, -1, no_wait}, 0);
       }},
      {"semop too high, later", both,
       [] {
         return ends_badly({1, 1, 0}, 32767);
       }},
      {"semop no wait, no zero", both, not_asked},
      {"undo at exit", both, [=] { return undone(up(3)); }},
      {"undo of a decrement", both, [=] { return undone(up(-2), nullptr, 5); }},
      {"undo when killed", both, [=] { return undone(up(3), nullptr, 0, true); }},
      {"undo not below 0", both, [=] { return undone(up(3), [](int id) {
                                         op(id, {{0, -2, 0}});
                                       }); }},
      {"undo not above the most", both,
       [=] {
         return undone(
             up(-3),
             [](int id) {
               op(id, {{0, 32767, 0}});
             },
             3);
       }},
      {"undo forgotten by setval", both, [=] { return undone(up(3), [](int id) { set_value(id, 0, 9); }); }},
      {"undo forgotten by setall", both, [=] { return undone(up(3), [](int id) {
                                                 set_values(id, {8, 1});
                                               }); }},
      {"undo kept by setval of another", both, [=] { return undone(up(3), [](int id) { set_value(id, 1, 9); }); }},
      {"undo of a set that is gone", both, [=] { return undone(up(3), [](int id) { ::semctl(id, 0, IPC_RMID); }); }},
      {"undo of nothing", both, [] { return undone([](int id) {
                                       return op(id, {{9, 1, undo}});
                                     }); }},
      {"undo adds up", both,
       [] {
         return undone([](int id) {
           return Line() << op(id, {{0, 2, undo}, {1, 1, undo}, {0, 3, undo}}) << " "
                         << op(id, {{0, -1, undo}, {1, 7, 0}});
         });
       }},
      {"undo of half an array", both,
       [] {
         return undone([](int id) { return op(id, {{0, 2, undo}, {1, -1, static_cast<short>(undo | no_wait)}}); });
       }},
      {"undo across exec", both, undo_exec},
      {"undo across fork", both, undo_fork},
      {"undo range", both, undo_range},
      {"undo lets others go", both, undo_lets_go},
  };
}

}  // namespace table
