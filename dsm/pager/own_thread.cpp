#include "dsm/pager/own_thread.hpp"

#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace dsm::pager {

void block_all_signals() noexcept {
  const std::uint64_t all = ~std::uint64_t{0};
  ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, nullptr, sizeof all);
}

void ask_for_short_waits() noexcept {
  if (::sched_getscheduler(0) != SCHED_OTHER) return;
  struct {
    std::uint32_t size, policy;
    std::uint64_t flags;
    std::int32_t nice;
    std::uint32_t priority;
    std::uint64_t runtime, deadline, period;
  } attributes{};
  attributes.size = sizeof attributes;
  attributes.nice = ::getpriority(PRIO_PROCESS, 0);
  attributes.runtime = 100'000;  // ns, the shortest there is
  ::syscall(SYS_sched_setattr, 0, &attributes, 0U);
}

}  // namespace dsm::pager
