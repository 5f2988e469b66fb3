// dsm/bench/sysv_member.hpp - one process of dshm_bench's: it shares by plain System V calls, and does as it is told.
//
// Used by dshm_bench, which starts two of them under dshmrun, on two hosts as dsmd sees it. Told and answered over a
// socket: nothing of that moves a page.
#pragma once
#include <cstdint>

namespace bench {

struct SysvCommand {
  enum class Do : std::uint32_t {
    write,    // the stamp into every page of the block
    renew,    // detaches and attaches, so that no page is here any more
    fault,    // samples: a load from every page of the block, in which it must find the stamp
    counter,  // samples: hand-overs of a counter, `count` each way; the other one does the same at the same time
    attach,   // samples: shmat and shmdt of a segment that no other has
  };
  Do what{};
  std::uint32_t count = 0;  // of samples, and pages of the block
  std::uint64_t stamp = 0;
};

// Until end of file on the socket. Each command is answered by the number of samples (64 bits) and the samples: doubles, us.
// `number`: 0 or 1. Throws.
void run_sysv_member(int socket, int number, int key, std::uint32_t pages);

}  // namespace bench
