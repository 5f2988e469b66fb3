#include "dsm/examples/stage.hpp"

#include <cstdio>
#include <cstdlib>
#include <thread>

namespace example {

void* allot(std::size_t bytes) {
  void* p = dsm_alloc(bytes);
  if (p != nullptr) return p;
  std::perror("demo: dsm_alloc (dsmexec --size gives the region more room)");
  std::exit(1);
}

Stage::Stage(char* base, Pace pace) : base_(base), pace_(pace), shared_(allot_array<Shared>(1)) {}

void Stage::open(double share, int steps) {
  ++act_;
  steps_left_ = steps;
  act_ends_ = std::chrono::steady_clock::now() +
              std::chrono::duration_cast<std::chrono::steady_clock::duration>(share * pace_.total);
}

void Stage::wait(double part) const { std::this_thread::sleep_for(part * pace_.step); }

bool Stage::another_step() {
  wait(1);
  --steps_left_;
  // Rank 0 writes before the barrier, all read after it. It may be one step ahead of who still reads, never two: so two
  // places, in turn.
  int& act_over = shared_->act_over[++steps_ % 2];
  if (DSM_NODE_ID == 0) {
    const bool over = pace_.total.count() > 0 ? std::chrono::steady_clock::now() >= act_ends_ : steps_left_ <= 0;
    if (over) act_over = act_;
  }
  dsm_barrier();
  return act_over != act_;
}

std::size_t Stage::page_of(const volatile void* address) const {
  return static_cast<std::size_t>(static_cast<const volatile char*>(address) - base_) / dsm_page_size();
}

void Stage::fault(const char* what) {
  std::fprintf(stderr, "demo: rank %d: %s\n", DSM_NODE_ID, what);
  dsm_lock(0);
  ++shared_->faults;
  dsm_unlock(0);
}

bool Stage::good() {
  dsm_barrier();
  return shared_->faults == 0;
}

}  // namespace example
