// dsm/tests/strangers_job.hpp - a job of four ranks on this machine, with or without strangers at all its ports.
//
//   dsmexec listens: strangers come to the rendezvous; no rank is let through to it yet (strangers_proxy.hpp)
//   the ranks join, through the crowd, and listen: strangers come to each of them; no rank is told of the others yet
//   strangers have been met at every port: the ranks build their mesh, through the crowd, work, and end
#pragma once
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "dsm/tests/job_bench.hpp"
#include "dsm/tests/strangers.hpp"
#include "dsm/tests/strangers_proxy.hpp"

namespace dsm::launch::testing {

struct Besieged {
  Ended end;           // -v was given
  double start_s = 0;  // from the first rank that was let through until all ran, but for what we waited
  double work_s = 0;   // from then on until dsmexec had ended
  std::uint16_t rendezvous = 0;
  std::set<std::uint16_t> ranks;  // where they listened
};

// dsmexec machine_file LINE...; `strangers` may be null.
[[nodiscard]] Besieged run_besieged(const std::vector<std::string>& line, Strangers* strangers);
// What a rank of another job has said in its handshake.
[[nodiscard]] std::string handshake_of_another_job();
// So that this process has descriptors for all of them; jobs have as few as is usual.
void make_room_for_strangers(std::size_t needed = 4096);

}  // namespace dsm::launch::testing
