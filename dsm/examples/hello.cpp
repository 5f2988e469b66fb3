// hello - the smallest program with shared memory: every rank writes, one rank reads.
//
// The region that dsm_init returns is the same memory at the same address in all ranks. Each rank writes one line into
// its own place in it; the barrier says when all have; then rank 0 prints what it finds, though it wrote only one of
// the lines itself. The pages came over when it touched them.
//
//   $ build/bin/dsmexec machine_file hello
//   [Proc 0 : localhost : stdout] rank 0 of 4 was here, pid 4711
//   [Proc 0 : localhost : stdout] rank 1 of 4 was here, pid 4712
//   [Proc 0 : localhost : stdout] rank 2 of 4 was here, pid 4713
//   [Proc 0 : localhost : stdout] rank 3 of 4 was here, pid 4714
#include <unistd.h>

#include "dsm/examples/example.hpp"

namespace {

constexpr std::size_t line_size = 80;

// What every line of a rank begins with; the pid after it is the rank's own secret.
std::string beginning(int rank) {
  return "rank " + std::to_string(rank) + " of " + std::to_string(DSM_NODE_NUM) + " was here, pid ";
}

}  // namespace

int main(int argc, char** argv) {
  example::command_line(argc, argv, "each rank writes a line into shared memory, rank 0 prints them all",
                        example::po::options_description("Options"));
  auto* lines = reinterpret_cast<char(*)[line_size]>(example::join(argc, argv));

  std::snprintf(lines[DSM_NODE_ID], line_size, "%s%d", beginning(DSM_NODE_ID).c_str(), static_cast<int>(getpid()));
  dsm_barrier();

  bool good = true;
  if (DSM_NODE_ID == 0) {
    for (int rank = 0; rank < DSM_NODE_NUM; ++rank) {
      std::printf("%s\n", lines[rank]);
      if (std::strncmp(lines[rank], beginning(rank).c_str(), beginning(rank).size()) != 0) {
        std::fprintf(stderr, "hello: this is not the line of rank %d\n", rank);
        good = false;
      }
    }
  }
  dsm_finalize();
  return good ? 0 : 1;
}
