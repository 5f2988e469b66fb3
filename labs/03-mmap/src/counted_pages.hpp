// counted_pages.hpp - memory whose pages open when they are touched, and are counted: a DSM in one process.
//
// All pages are closed (PROT_NONE) at first. Who touches one gets SIGSEGV; the handler opens the page, counts it and
// returns, and the instruction runs again. A DSM does nothing else, but that it fetches the page from another machine
// before it opens it (dsm/pager/sigsegv.cpp).
//
// Thread-safety: for one thread; one object at a time, because a signal has one handler. The handler is
// async-signal-safe. What is not ours, a wild pointer or a SIGSEGV that somebody sent, ends the program as it would
// without us. Sources: mprotect(2), sigaction(2), signal-safety(7).
#pragma once
#include <signal.h>

#include <cstddef>
#include <vector>

#include "ipc/mapping.hpp"
#include "ipc/signals.hpp"

class CountedPages {
 public:
  explicit CountedPages(std::size_t pages);  // throws std::system_error
  ~CountedPages() { standing = nullptr; }
  CountedPages(const CountedPages&) = delete;
  CountedPages& operator=(const CountedPages&) = delete;

  // The first byte of a page.
  [[nodiscard]] volatile char* page(std::size_t number) const { return memory_.data() + number * ipc::page_size(); }
  [[nodiscard]] int faults() const { return faults_; }

 private:
  static void on_sigsegv(int signo, siginfo_t* info, void* context);
  bool open(const siginfo_t& info);                // async-signal-safe; false if it was none of our closed pages
  static inline CountedPages* standing = nullptr;  // whose pages the handler opens

  ipc::Mapping memory_;
  std::vector<char> is_open_;  // by page; the handler reads and writes what is there, and never makes it grow
  volatile sig_atomic_t faults_ = 0;
  ipc::ScopedAction action_;  // the last: installed when all the rest is ready, gone before it
};
