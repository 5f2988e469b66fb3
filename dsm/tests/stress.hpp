// dsm/tests/stress.hpp - what the programs of dsm_stress have in common. Each is run by all ranks, and says by false, and a
// line on stderr, that something did not come out as it must.
#pragma once
#include <dsm/dsm.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace stress {

struct Options {
  std::string what;
  std::uint64_t rounds = 200;
  unsigned threads = 4;
  double seconds = 1;
  unsigned seed = 1;
  std::string how;       // which misuse (heap_misuse); which --home (homes)
  std::size_t pages = 200'000;  // of the checkerboard
  char* region = nullptr;  // its base
  bool migrate = false;  // the job's protocol, as the caller says it (messages)
};

using Word = std::uint64_t;

template <class T>
T* shared(std::size_t count) {
  void* p = dsm_alloc(count * sizeof(T));
  if (p == nullptr) {
    std::perror("dsm_alloc");
    std::exit(1);
  }
  return static_cast<T*>(p);
}

inline bool same(const char* what, Word expected, Word found) {
  if (expected == found) return true;
  std::fprintf(stderr, "%s: expected %llu, found %llu\n", what, static_cast<unsigned long long>(expected),
               static_cast<unsigned long long>(found));
  return false;
}

bool sync(const Options& o);  // stress_sync.cpp
bool barriers(const Options& o);
bool syscalls(const Options& o);  // stress_syscalls.cpp
bool messages(const Options& o);    // stress_messages.cpp
bool atomic(const Options& o);      // stress_atomic.cpp
bool collective(const Options& o);  // stress_collective.cpp
bool heap(const Options& o);        // stress_heap.cpp
bool heap_map(const Options& o);
bool heap_named(const Options& o);
bool heap_full(const Options& o);
bool heap_misuse(const Options& o);
bool checkerboard(const Options& o);  // stress_pager.cpp
bool pin(const Options& o);
bool no_memory(const Options& o);
bool homes(const Options& o);  // stress_homes.cpp
bool tables(const Options& o);
bool alarms(const Options& o);

}  // namespace stress
