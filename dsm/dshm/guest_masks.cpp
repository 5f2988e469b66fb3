#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>

#include <thread>

#include "dsm/dshm/guest.hpp"

namespace dsm::dshm::guest {
namespace {

sigset_t all_signals() {
  sigset_t all;
  ::sigfillset(&all);
  return all;
}

// Touches one more page each time.
char* volatile untouched = nullptr;
void touch(int) {
  *untouched = 1;
  untouched = untouched + page;
}

// The handler comes in the middle of the wait, and with its mask.
template <class Wait>
void touches_in(Wait wait) {
  char* const next = untouched;
  MUST(::raise(SIGUSR1) == 0);
  FAILS(EINTR, wait());
  MUST(untouched == next + page && *next == 1);
}

void touch_in_waits() {
  struct sigaction action {};
  action.sa_handler = touch;
  MUST(::sigaction(SIGUSR1, &action, nullptr) == 0);
  sigset_t all_but_one = all_signals();
  MUST(::pthread_sigmask(SIG_BLOCK, &all_but_one, nullptr) == 0);
  ::sigdelset(&all_but_one, SIGUSR1);
  const int queue = ::epoll_create1(0);
  epoll_event event{};
  touches_in([&] { return ::sigsuspend(&all_but_one); });
  touches_in([&] { return ::pselect(0, nullptr, nullptr, nullptr, nullptr, &all_but_one); });
  touches_in([&] { return ::ppoll(nullptr, 0, nullptr, &all_but_one); });
  touches_in([&] { return ::epoll_pwait(queue, &event, 1, -1, &all_but_one); });
  touches_in([&] { return ::epoll_pwait2(queue, &event, 1, nullptr, &all_but_one); });
}

}  // namespace

// Threads that had all signals blocked before there was anything attached, by themselves or from their making on, and
// handlers that interrupt a wait for which all others are blocked.
void masks() {
  int blocked[2], attached[2];
  MUST(::pipe(blocked) == 0 && ::pipe(attached) == 0);
  char byte = 0;
  char* where = nullptr;
  const auto wait_and_touch = [&](int number) {
    MUST(::write(blocked[1], "", 1) == 1);
    char mine = 0;
    MUST(::read(attached[0], &mine, 1) == 1);
    where[number * page] = 1;
    sigset_t now;
    MUST(::pthread_sigmask(SIG_SETMASK, nullptr, &now) == 0 && ::sigismember(&now, SIGTERM) == 1);
  };
  std::thread by_itself([&] {
    const sigset_t all = all_signals();
    MUST(::pthread_sigmask(SIG_SETMASK, &all, nullptr) == 0);
    sigset_t now;
    MUST(::pthread_sigmask(SIG_SETMASK, nullptr, &now) == 0 && ::sigismember(&now, SIGSEGV) == 1);
    wait_and_touch(0);
  });
  pthread_attr_t attributes;
  const sigset_t all = all_signals();
  pthread_t made{};
  MUST(::pthread_attr_init(&attributes) == 0 && ::pthread_attr_setsigmask_np(&attributes, &all) == 0);
  const auto start = [](void* act) -> void* { return (*static_cast<decltype(wait_and_touch)*>(act))(1), nullptr; };
  MUST(::pthread_create(&made, &attributes, start, const_cast<void*>(static_cast<const void*>(&wait_and_touch))) == 0);
  MUST(::pthread_attr_destroy(&attributes) == 0);
  for (int i = 0; i < 2; ++i) MUST(::read(blocked[0], &byte, 1) == 1);
  const Segment one(8);
  where = one.attach();
  MUST(::write(attached[1], "12", 2) == 2);
  by_itself.join();
  MUST(::pthread_join(made, nullptr) == 0 && where[0] == 1 && where[page] == 1);
  untouched = where + 2 * page;
  touch_in_waits();
}

}  // namespace dsm::dshm::guest
