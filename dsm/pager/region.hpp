// dsm/pager/region.hpp - what every pager stands on: one memory with two views, counted in pages.
//
// Used by the pagers and nobody else, but for say(). Thread-safe: yes. async-signal-safe: yes, all but
// construction and destruction.
#pragma once
#include <signal.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string_view>

#include "dsm/core/types.hpp"
#include "ipc/mapping.hpp"

namespace dsm::pager {

inline constexpr std::uintptr_t region_base = 0x5500'0000'0000;  // free in plain, ASan and TSan processes alike

// One line on stderr, by one system call. async-signal-safe: yes.
void say(std::initializer_list<std::string_view> words) noexcept;

struct Region {
  // Maps `size` bytes (a multiple of page_size) at region_base, zero and without any permission. If `own` is not 0, as
  // many bytes more lie behind them, and between the two a page that is nobody's. Throws std::system_error.
  Region(std::size_t size, std::size_t page_size, std::size_t own);

  const std::size_t size;  // of what the application is told of; the views have more if there are pages of our own
  const std::size_t page_size;
  const ipc::TwoViews views;
  const ipc::Mapping reserved;  // a bit for each page: 1 if it has memory

  [[nodiscard]] std::size_t pages() const noexcept { return views.application.size() / page_size; }  // in the views
  [[nodiscard]] core::Page page_of(const void* address) const noexcept {
    const auto offset = static_cast<const char*>(address) - views.application.data();
    return static_cast<core::Page>(static_cast<std::size_t>(offset) / page_size);
  }
  [[nodiscard]] bool has(const void* address) const noexcept {
    return views.application.contains(address) && page_of(address) != size / page_size;
  }
  [[nodiscard]] char* at(core::Page page) const noexcept { return views.application.data() + page * page_size; }
  // There is memory for it from then on: before a page is received or opened, it must have its frame.
  [[nodiscard]] char* frame(core::Page page) const noexcept {
    reserve(page);
    return views.alias.data() + page * page_size;
  }
  // Gives the page memory, once. If there is none, says so and ends the process: to be told that by a signal in the middle
  // of an instruction (SIGBUS), or by a system call (EFAULT), would be to be told nothing.
  void reserve(core::Page page) const noexcept {
    if ((std::atomic_ref<char>(reserved.data()[page / 8]).load(std::memory_order_relaxed) >> (page % 8) & 1) == 0) {
      reserve_now(page);
    }
  }

  // Whether the SIGSEGV comes from a hole where the region was: fork does not hand it down. If so, says it on stderr.
  [[nodiscard]] bool missed_in_child(const siginfo_t& info) const noexcept;

 private:
  void reserve_now(core::Page page) const noexcept;
  [[nodiscard]] int populate(core::Page page) const noexcept;  // 0, or -1 and errno
};

}  // namespace dsm::pager
