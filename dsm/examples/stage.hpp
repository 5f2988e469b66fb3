// dsm/examples/stage.hpp - how demo keeps its ranks together, and slow enough to be watched.
//
// An act is a loop of steps that all ranks do together:
//
//   stage.open(share, steps);
//   do { ... } while (stage.another_step());
//
// Rank 0 has the clock; the others do what it says. Used by acts.cpp; one thread of each rank.
#pragma once
#include <dsm/dsm.h>

#include <chrono>
#include <cstddef>

namespace example {

struct Pace {
  std::chrono::milliseconds step{0};   // a step is shown for so long
  std::chrono::milliseconds total{0};  // the acts share so much time; 0: each has a fixed number of steps
  // Whether a person can follow: then every rank says what it does, else rank 0 sums up.
  [[nodiscard]] bool watched() const { return step >= std::chrono::milliseconds(100); }
};

class Stage {
 public:
  Stage(char* base, Pace pace);  // collective; `base`: of the region

  // Begins an act: it takes `share` (0..1) of the total time, or without one so many steps.
  void open(double share, int steps);
  // Waits for the step's time, then for all ranks. True if the act goes on: the same answer in all ranks.
  bool another_step();
  // Waits for a part (0..1) of a step's time.
  void wait(double part) const;

  // The page that an address is in, as dsmtop counts them.
  [[nodiscard]] std::size_t page_of(const volatile void* address) const;
  [[nodiscard]] const Pace& pace() const { return pace_; }

  // Says, on stderr, what this rank found wrong; the demo has then failed in all ranks.
  void fault(const char* what);
  // Collective. Whether no rank has found anything wrong.
  bool good();

 private:
  struct Shared {     // a page of its own, written once per act
    int act_over[2];  // for even and odd steps, the number of the last act that rank 0 has ended
    int faults;       // under lock 0
  };
  char* base_;
  Pace pace_;
  Shared* shared_;
  int act_ = 0;
  unsigned steps_ = 0;
  int steps_left_ = 0;
  std::chrono::steady_clock::time_point act_ends_;
};

// dsm_alloc for so many T, page-aligned; ends the program if there is no room. Collective.
void* allot(std::size_t bytes);
template <class T>
T* allot_array(std::size_t count) {
  return static_cast<T*>(allot(count * sizeof(T)));
}

}  // namespace example
