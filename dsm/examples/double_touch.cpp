// double_touch - two ranks change one integer, and a lock keeps them apart.
//
// Ranks 0 and 1 add 4 and 8 to the same shared integer. Whoever gets the lock first finds 0; the other one finds what
// the first has left, because the page moved to it with the lock held: 4 then 12, or 8 then 12, never 4 and 8.
//
//   $ build/bin/dsmexec machine_file double_touch
//   [Proc 0 : localhost : stdout] rank 0 found 0 and left 4
//   [Proc 1 : localhost : stdout] rank 1 found 4 and left 12
//   [Proc 2 : localhost : stdout] rank 2 takes no part
//   [Proc 3 : localhost : stdout] rank 3 takes no part
#include "dsm/examples/example.hpp"

namespace {

constexpr int additions[] = {4, 8};  // by rank
constexpr int players = 2;

// Adds this rank's number to `shared`. False, and one line, if what it found cannot be.
bool take_part(int* shared) {
  const int mine = additions[DSM_NODE_ID];
  const int others = DSM_NODE_NUM > 1 ? additions[1 - DSM_NODE_ID] : 0;
  if (dsm_lock(0) != 0) {
    std::perror("dsm_lock");
    return false;
  }
  const int found = *shared;
  *shared = found + mine;
  const int left = *shared;
  if (dsm_unlock(0) != 0) {
    std::perror("dsm_unlock");
    return false;
  }
  std::printf("rank %d found %d and left %d\n", DSM_NODE_ID, found, left);
  if ((found == 0 || found == others) && left == found + mine) return true;
  std::fprintf(stderr, "double_touch: rank %d should have found 0 or %d, and left %d more\n", DSM_NODE_ID, others,
               mine);
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  example::command_line(argc, argv, "ranks 0 and 1 add 4 and 8 to one integer under a lock",
                        example::po::options_description("Options"));
  int* shared = reinterpret_cast<int*>(example::join(argc, argv));

  bool good = true;
  if (DSM_NODE_ID < players) {
    good = take_part(shared);
  } else {
    std::printf("rank %d takes no part\n", DSM_NODE_ID);
  }
  dsm_barrier();

  const int expected = DSM_NODE_NUM > 1 ? additions[0] + additions[1] : additions[0];
  if (*shared != expected) {
    std::fprintf(stderr, "double_touch: rank %d sees %d in the end, not %d\n", DSM_NODE_ID, *shared, expected);
    good = false;
  }
  dsm_finalize();
  return good ? 0 : 1;
}
