// dsm/tests/dshm_stress.hpp - what the parts of dshm_stress share: a segment that several processes find by a key.
//
// Plain System V: nothing here knows of libdshm, and all of it runs natively, too.
#pragma once
#include <sched.h>
#include <sys/ipc.h>
#include <sys/shm.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "ipc/error.hpp"

namespace dshm_stress {

constexpr std::size_t page = 4096;

struct Options {
  key_t key = 0;
  int members = 2;  // processes that meet
  int threads = 1;  // of each
  long count = 1000;
  int slot = 0;       // of a writer of records
  bool rude = false;  // close all descriptors after attaching, and take SIGSEGV
};

// What is in the first page of each segment.
struct Control {
  std::atomic<std::uint32_t> come, gone, phase, stop;
};

class Segment {
 public:
  Segment(key_t key, std::size_t pages) {
    id_ = ipc::check(::shmget(key, (pages + 1) * page, IPC_CREAT | 0666), "shmget");
    data_ = static_cast<std::byte*>(::shmat(id_, nullptr, 0));
    ipc::check(reinterpret_cast<std::intptr_t>(data_), "shmat");
  }
  Segment(const Segment&) = delete;
  [[nodiscard]] int id() const { return id_; }
  [[nodiscard]] Control& control() const { return *reinterpret_cast<Control*>(data_); }
  [[nodiscard]] std::byte* data() const { return data_ + page; }  // zero to begin with
  template <class T>
  [[nodiscard]] T& at(std::size_t number) const {  // at the beginning of that page
    return *reinterpret_cast<T*>(data() + number * page);
  }
  void remove() const { ipc::check(::shmctl(id_, IPC_RMID, nullptr), "IPC_RMID"); }
  // The last one of `members` removes it.
  void leave(int members) const {
    if (control().gone.fetch_add(1) + 1 == static_cast<std::uint32_t>(members)) remove();
  }

 private:
  int id_ = -1;
  std::byte* data_ = nullptr;
};

template <class Condition>
void wait_for(Condition condition) {
  while (!condition()) ::sched_yield();
}

// This process's number among the members; returns when all have come.
inline std::uint32_t meet(Control& control, int members) {
  const std::uint32_t number = control.come.fetch_add(1);
  wait_for([&] { return control.come.load() >= static_cast<std::uint32_t>(members); });
  return number;
}

inline void expect(bool condition, const std::string& what) {
  if (!condition) throw std::runtime_error("not so: " + what);
}

int count(const Options& options);    // one atomic counter, exact in the end
int mutex(const Options& options);    // a process-shared mutex: members of one host
int io(const Options& options);       // system calls on pages that are elsewhere; two members
int forks(const Options& options);    // one forks, the other writes to the same pages; two members
int orphan(const Options& options);   // a child that outlives its parent; two members
int records(const Options& options);  // writes records with checksums into its slot, until told to stop
int check(const Options& options);    // reads all records, until told to stop
int stop(const Options& options);     // tells them, and removes the segment
int hold(const Options& options);     // attaches `count` times, waits to be killed
int post(const Options& options);     // adds `count` to a semaphore
int undo(const Options& options);     // takes a semaphore with SEM_UNDO, waits to be killed

}  // namespace dshm_stress
