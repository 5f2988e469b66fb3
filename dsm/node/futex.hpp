// dsm/node/futex.hpp - a lock and a gate that may be used inside a SIGSEGV handler.
//
// pthread_mutex_lock is not on the list of async-signal-safe functions (signal-safety(7)); these two are a word of memory
// and futex(2), after U. Drepper, "Futexes Are Tricky" (2011), mutex 2. A handler may take the lock because nobody who
// holds it can be interrupted by one: every holder has all signals blocked and never touches the application's view.
//
// async-signal-safe: yes, all of it. Thread-safety: that is what it is for.
#pragma once
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

namespace dsm::node {

inline void pause_cpu() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

static_assert(sizeof(std::atomic<std::uint32_t>) == 4);

inline void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t while_it_is) noexcept {
  const int saved = errno;
  ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAIT_PRIVATE, while_it_is, nullptr, nullptr, 0);
  errno = saved;
}

inline void futex_wake(std::atomic<std::uint32_t>& word, int count) noexcept {
  const int saved = errno;
  ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
  errno = saved;
}

class FutexLock {
 public:
  void lock() noexcept {
    std::uint32_t seen = 0;
    if (word_.compare_exchange_strong(seen, 1, std::memory_order_acquire)) return;
    for (int i = 0; i < spins; ++i) {  // the lock is held for one step and its mprotects: a few microseconds
      pause_cpu();
      seen = 0;
      if (word_.load(std::memory_order_relaxed) == 0 && word_.compare_exchange_weak(seen, 1, std::memory_order_acquire)) return;
    }
    while (word_.exchange(2, std::memory_order_acquire) != 0) futex_wait(word_, 2);
  }
  void unlock() noexcept {
    if (word_.exchange(0, std::memory_order_release) == 2) futex_wake(word_, 1);
  }

 private:
  static constexpr int spins = 100;
  std::atomic<std::uint32_t> word_{0};  // 0 free, 1 held, 2 held and somebody may be asleep
};

// One thread waits until another one opens it. Bit 0 of the word: open; the rest counts nudges, so that a nudge between a
// look at the world and the wait is not lost.
class Gate {
 public:
  void close() noexcept { word_.store(0, std::memory_order_relaxed); }
  void open() noexcept {
    word_.fetch_or(1, std::memory_order_release);
    futex_wake(word_, 1);
  }
  // For the thread that will itself pass: no system call.
  void open_for_self() noexcept { word_.fetch_or(1, std::memory_order_relaxed); }
  // Lets the one who waits look about, and wait again.
  void nudge() noexcept {
    word_.fetch_add(2, std::memory_order_release);
    futex_wake(word_, 1);
  }
  // Returns when it is open, or when `give_up` is set and somebody nudges: true if open.
  bool wait(const std::atomic<bool>& give_up) noexcept {
    for (;;) {
      const std::uint32_t seen = word_.load(std::memory_order_acquire);
      if ((seen & 1U) != 0) return true;
      if (give_up.load(std::memory_order_acquire)) return false;
      futex_wait(word_, seen);
    }
  }

 private:
  std::atomic<std::uint32_t> word_{0};
};

}  // namespace dsm::node
