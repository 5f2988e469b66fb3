#include "ipc/fifo.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <optional>
#include <stdexcept>
#include <system_error>

#include "ipc/error.hpp"
#include "ipc/signals.hpp"

#ifndef sigev_notify_thread_id  // older C libraries lack the name that timer_create(2) gives
#define sigev_notify_thread_id _sigev_un._tid
#endif

namespace ipc {
namespace {

using Clock = std::chrono::steady_clock;

// While it lives, the system call in which this thread waits fails with EINTR, from `delay_ms` on. The timer rings
// again and again: one signal alone might come just before the call begins, and nothing would interrupt it any more.
class Interrupter {
 public:
  explicit Interrupter(int delay_ms)
      : action_(
            SIGALRM, [](int, siginfo_t*, void*) {}, 0) {  // 0: no SA_RESTART
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD_ID;  // this thread is to be interrupted, not any
    event.sigev_signo = SIGALRM;
    event.sigev_notify_thread_id = ::gettid();
    check(::timer_create(CLOCK_MONOTONIC, &event, &timer_), "timer_create");
    const sigset_t alarm = signal_set({SIGALRM});
    ::pthread_sigmask(SIG_UNBLOCK, &alarm, &previous_mask_);
    constexpr long nanoseconds = 1'000'000;  // in a millisecond
    itimerspec when{};
    when.it_value = {delay_ms / 1000, delay_ms % 1000 * nanoseconds};
    when.it_interval = {0, 10 * nanoseconds};
    ::timer_settime(timer_, 0, &when, nullptr);
  }
  Interrupter(const Interrupter&) = delete;
  Interrupter& operator=(const Interrupter&) = delete;
  // The timer goes first, and then the disposition: a late SIGALRM would end the process.
  ~Interrupter() {
    ::timer_delete(timer_);
    ::pthread_sigmask(SIG_SETMASK, &previous_mask_, nullptr);
  }

 private:
  ScopedAction action_;
  timer_t timer_{};
  sigset_t previous_mask_{};
};

void require_own_fifo(const struct stat& status, const std::string& path) {
  if (!S_ISFIFO(status.st_mode)) {
    throw std::system_error(EEXIST, std::generic_category(), path + " is in the way, and no FIFO");
  }
  if (status.st_uid != ::geteuid()) {
    throw std::system_error(EPERM, std::generic_category(), path + " belongs to another user");
  }
}

// Looks before it opens, because to open a FIFO already lets the other side go on. And looks again at what it
// got, for it may have been exchanged in between.
Fd open_own_fifo(const std::string& path, int flags, int timeout_ms) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) == -1) throw_errno("open " + path);
  require_own_fifo(status, path);
  Fd fd;
  //@ solution 05.open
  const auto deadline = Clock::now() + std::chrono::milliseconds(std::max(timeout_ms, 1));
  std::optional<Interrupter> limit;
  if (timeout_ms >= 0) limit.emplace(std::max(timeout_ms, 1));
  while (!fd) {
    fd.reset(::open(path.c_str(), flags | O_NOFOLLOW | O_CLOEXEC));
    if (fd) break;
    if (errno != EINTR) throw_errno("open " + path);
    if (limit && Clock::now() >= deadline) {
      throw std::system_error(ETIMEDOUT, std::generic_category(), "open " + path + " (nobody has the other end open)");
    }
  }
  limit.reset();
  //@ starter
  // TODO 05.open: open(2) waits until somebody opens the other end. First let it wait without a limit. Which flags keep
  // it from following a symbolic link, and from being inherited by a program that we start?
  // Then the limit: Interrupter makes open(2) fail with EINTR after a time. How do you know that it was the time, and
  // no other signal?
  //| static_cast<void>(flags), static_cast<void>(timeout_ms);
  //@ end
  if (::fstat(fd.get(), &status) == -1) throw_errno("fstat " + path);
  require_own_fifo(status, path);
  return fd;
}

}  // namespace

void make_fifo(const std::string& path) {
  //@ solution 05.make
  if (::mkfifo(path.c_str(), 0600) == 0) return;
  if (errno != EEXIST) throw_errno("mkfifo " + path);
  struct stat status {};
  if (::lstat(path.c_str(), &status) == -1) throw_errno("mkfifo " + path);
  require_own_fifo(status, path);
  //@ starter
  // TODO 05.make: either side may come first, so both call this. What does mkfifo(3) say to the second one, and what
  // must be looked at before the second one may go on? Why lstat(2) and not stat(2)?
  //| static_cast<void>(path);
  //@ end
}

Fd open_fifo_for_reading(const std::string& path, int timeout_ms) { return open_own_fifo(path, O_RDONLY, timeout_ms); }

Fd open_fifo_for_writing(const std::string& path, int timeout_ms) { return open_own_fifo(path, O_WRONLY, timeout_ms); }

Fd open_fifo_to_serve(const std::string& path) { return open_own_fifo(path, O_RDWR | O_NONBLOCK, -1); }

void write_record(int fd, std::string_view record) {
  //@ solution 05.record
  if (record.size() > max_record) {
    throw std::length_error("a record of " + std::to_string(record.size()) + " bytes: at most " +
                            std::to_string(max_record) + " are written in one piece");
  }
  // Up to PIPE_BUF it is all or nothing (pipe(7)), so there is no rest to go on with.
  while (::write(fd, record.data(), record.size()) == -1) {
    if (errno != EINTR) throw_errno("write");
  }
  //@ starter
  // TODO 05.record: one write(2). Up to which size does pipe(7) promise that no other sender's bytes come in between?
  // What do you do with a record that is longer? What if a signal interrupts the wait for room?
  //| static_cast<void>(fd), static_cast<void>(record);
  //@ end
}

}  // namespace ipc
