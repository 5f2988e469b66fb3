// dsm/dshm/attaches.hpp - what this process has attached, page by page: where, and who allows what.
//
// A page of an attach has two protections: the program's (from shmat's flags, and mprotect since), and the host's (what the
// agent's Orders allow; where the kernel asks the agent by itself, it is not used). A page may be gone: munmap, or
// something mapped over it. The rest stays an attach, until nothing of it is left.
//
// Knows no system call but for memory of its own. No malloc: munmap may be called in a signal handler.
// Thread-safety: none but bounds(): whoever uses it holds process().table, with all signals blocked.
#pragma once
#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "dsm/core/types.hpp"

namespace dsm::dshm {

using Address = std::uintptr_t;

class Attach {
 public:
  std::int32_t id = 0;
  Address base = 0;
  std::size_t pages = 0;
  int protection = 0;       // as it was attached: PROT_ bits
  bool read_only = false;   // SHM_RDONLY: the program may never make it writable
  bool ready = false;       // the agent knows of it
  std::uint64_t since = 0;  // orders of lower numbers are not about this attach
  std::size_t left = 0;     // pages that are not gone

  [[nodiscard]] bool gone(std::size_t page) const { return wishes_[page] == is_gone; }
  [[nodiscard]] int wish(std::size_t page) const { return wishes_[page] == 0 ? protection : wishes_[page] - 1; }
  void set_wish(std::size_t page, int wanted) { wishes_[page] = static_cast<std::uint8_t>(wanted + 1); }

  [[nodiscard]] core::Access access(std::size_t page) const { return static_cast<core::Access>(orders_[page] & 3U); }
  // Counts orders about the page, modulo 64: whoever waits for one sees it change.
  [[nodiscard]] unsigned orders(std::size_t page) const { return orders_[page] >> 2U; }
  void obey(std::size_t page, core::Access access) {
    orders_[page] = static_cast<std::uint8_t>((orders(page) + 1U) << 2U | static_cast<unsigned>(access));
  }
  // What both allow. `asked`: the kernel asks the agent by itself, so that the host's part is none of ours.
  [[nodiscard]] int effective(std::size_t page, bool asked) const;

  [[nodiscard]] Address at(std::size_t page) const;
  [[nodiscard]] Address end() const { return at(pages); }

 private:
  friend class Attaches;
  static constexpr std::uint8_t is_gone = 0xff;
  Attach* next_ = nullptr;
  std::uint8_t* wishes_ = nullptr;  // by page: 0 as attached, else the protection + 1, or is_gone
  std::uint8_t* orders_ = nullptr;  // by page
  std::size_t size_ = 0;            // bytes of all this
};

// A part of an attach that is gone since a moment ago.
struct Loss {
  std::int32_t id = 0;
  Address base = 0;          // of the attach
  Address from = 0, to = 0;  // bytes
  bool all = false;          // nothing of the attach is left
};

class Attaches {
 public:
  [[nodiscard]] static std::size_t page_size() noexcept;

  // nullptr: no memory.
  [[nodiscard]] Attach* add(std::int32_t id, Address base, std::size_t pages, int protection, bool read_only) noexcept;
  void drop(Attach* attach) noexcept;
  // The attach that has the address in a page that is not gone.
  [[nodiscard]] Attach* find(Address address) const noexcept;
  // As shmdt looks for it: an attach that began there, and of several (all but one have lost their first pages) the one
  // whose first page that is left is the lowest.
  [[nodiscard]] Attach* begins(Address base) const noexcept;
  // Whether a page that is not gone is in [from, to).
  [[nodiscard]] bool touches(Address from, Address to) const noexcept;
  // Marks one run of pages in [from, to) as gone, and says which. False if there is none. Drops an attach that has no page
  // left. `but`: this one is spared.
  bool take(Address from, Address to, Loss& loss, const Attach* but = nullptr) noexcept;
  [[nodiscard]] std::size_t count() const noexcept { return count_; }

  template <class Visit>
  void each(Visit visit) const {
    for (Attach *attach = first_, *next; attach != nullptr; attach = next) {
      next = attach->next_;
      visit(*attach);
    }
  }

  // Whether anything attached could be in [from, to): an early no, without a lock. Thread-safe, async-signal-safe.
  [[nodiscard]] bool maybe(Address from, Address to) const noexcept {
    return from < high_.load(std::memory_order_acquire) && to > low_.load(std::memory_order_acquire);
  }

 private:
  void set_bounds() noexcept;

  Attach* first_ = nullptr;
  std::size_t count_ = 0;
  std::atomic<Address> low_{UINTPTR_MAX}, high_{0};
};

}  // namespace dsm::dshm
