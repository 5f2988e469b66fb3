// dsm/bench/rank.hpp - the ranks of a measuring job: rank 1 measures, the others do what it tells them.
#pragma once
#include <string>
#include <vector>

namespace bench {

struct Task {
  std::string figure;         // one of figures()
  std::string regime;         // goes into the result
  int cpu_home = 0;           // where rank 0 runs, and rank 2 if there is one
  int cpu_here = 0;           // where rank 1 runs
  unsigned blocks = 160;      // of samples; each is followed by a block of the limit's
  unsigned block_size = 256;  // samples
};

// Names of what can be measured, and how many ranks that takes (0: no such figure).
[[nodiscard]] const std::vector<std::string>& figures();
[[nodiscard]] int ranks_for(const std::string& figure);

// The whole life of a rank, dsm_init to dsm_finalize. Rank 1 prints the figure as one line of JSON. Throws
// std::runtime_error if a sample was not what it should be: the right bytes, in the right number of messages.
void run_rank(const Task& task, int argc, char** argv);

}  // namespace bench
