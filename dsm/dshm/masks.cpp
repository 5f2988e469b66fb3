// SIGSEGV stays out of signal masks from the loading of the library on, and out of those for the length of a wait, too.
//
// Without userfaultfd, touching attached memory raises SIGSEGV, and a thread that has it blocked is ended by it. A
// thread may have blocked all signals long before the first attach, and nobody could open its mask then: so none gets
// to block it (dsm/pager/mask.hpp). A handler that interrupts a wait runs with the mask of the wait: hence the
// functions here.
//
// Not seen: raw system calls, and the obsolete sigset, sighold, sigblock and sigsetmask.
// async-signal-safe: as POSIX asks of each of them (dlsym is not, hence the constructor). Points of cancellation, as
// ever.
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>

#include "dsm/dshm/next.hpp"
#include "dsm/pager/mask.hpp"

namespace dsm::dshm {
namespace {

constinit Next<int(const sigset_t*)> next_sigsuspend{"sigsuspend"};
constinit Next<int(int, fd_set*, fd_set*, fd_set*, const timespec*, const sigset_t*)> next_pselect{"pselect"};
constinit Next<int(pollfd*, nfds_t, const timespec*, const sigset_t*)> next_ppoll{"ppoll"};
constinit Next<int(pollfd*, nfds_t, const timespec*, const sigset_t*, std::size_t)> next_ppoll_chk{"__ppoll_chk"};
constinit Next<int(int, epoll_event*, int, int, const sigset_t*)> next_epoll_pwait{"epoll_pwait"};
constinit Next<int(int, epoll_event*, int, const timespec*, const sigset_t*)> next_epoll_pwait2{"epoll_pwait2"};
constinit Next<int(pthread_attr_t*, const sigset_t*)> next_attribute{"pthread_attr_setsigmask_np"};

[[gnu::constructor(101)]] void open_early() {
  (void)next_sigsuspend.find();
  (void)next_pselect.find();
  (void)next_ppoll.find();
  (void)next_ppoll_chk.find();
  (void)next_epoll_pwait.find();
  (void)next_epoll_pwait2.find();
  (void)next_attribute.find();
  pager::keep_open();
}

// A mask of the program's, without SIGSEGV.
class Open {
 public:
  explicit Open(const sigset_t* mask) noexcept : mask_(mask) {
    if (mask == nullptr || sigismember(mask, SIGSEGV) != 1) return;
    own_ = *mask;
    sigdelset(&own_, SIGSEGV);
    mask_ = &own_;
  }
  Open(const Open&) = delete;
  [[nodiscard]] const sigset_t* get() const noexcept { return mask_; }

 private:
  const sigset_t* mask_;
  sigset_t own_;
};

}  // namespace
}  // namespace dsm::dshm

using namespace dsm::dshm;

extern "C" {

int sigsuspend(const sigset_t* mask) { return next_sigsuspend(Open(mask).get()); }

int pselect(int count, fd_set* in, fd_set* out, fd_set* other, const timespec* limit, const sigset_t* mask) {
  return next_pselect(count, in, out, other, limit, Open(mask).get());
}

int ppoll(pollfd* wanted, nfds_t count, const timespec* limit, const sigset_t* mask) {
  return next_ppoll(wanted, count, limit, Open(mask).get());
}

int __ppoll_chk(pollfd* wanted, nfds_t count, const timespec* limit, const sigset_t* mask, std::size_t room) {
  return next_ppoll_chk(wanted, count, limit, Open(mask).get(), room);
}

int epoll_pwait(int fd, epoll_event* events, int most, int limit, const sigset_t* mask) {
  return next_epoll_pwait(fd, events, most, limit, Open(mask).get());
}

// Since Linux 5.11; REQUIRES, as next.hpp says, that the C library has it: else the program would not have been loaded.
int epoll_pwait2(int fd, epoll_event* events, int most, const timespec* limit, const sigset_t* mask) {
  return next_epoll_pwait2(fd, events, most, limit, Open(mask).get());
}

int pthread_attr_setsigmask_np(pthread_attr_t* attributes, const sigset_t* mask) {
  return next_attribute(attributes, Open(mask).get());
}

}  // extern "C"
