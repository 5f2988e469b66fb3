// dsm/telemetry/sampler.hpp - the agent's side of telemetry: reads the segments that its host's ranks publish.
//
// The agent attaches each segment when it learns its id, and samples when somebody asks. A rank need not cooperate, not
// even run: what it last stored is read. A segment whose fields do not fit its size is refused; what is later read from
// it is clipped to what was checked when it was attached, so that a rank which scribbles over its segment shows nonsense
// about itself and harms nobody.
//
// Thread-safety: none. Not async-signal-safe.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "dsm/telemetry/snapshot.hpp"
#include "ipc/sysv_segment.hpp"

namespace dsm::telemetry {

class Sampler {
 public:
  // Attaches read-only. Empty, or one clause that says why not (the rank has gone, another user's segment, fields that do
  // not fit): no reason to end a job. A second segment of the same rank replaces the first.
  [[nodiscard]] std::string attach(int shmid, std::uint32_t rank);
  void detach(std::uint32_t rank);

  // What the attached segments say now: protocol, page size, pages, one RankSample for each (pid: who made the segment;
  // host: empty), and the pages that have their home there. After a rank's death: its last words.
  [[nodiscard]] Snapshot sample() const;

 private:
  struct Source {
    std::uint32_t rank = 0;
    std::int64_t pid = 0;
    std::uint32_t page_size = 0;
    std::uint64_t pages = 0;  // as checked, like the next; the segment's own field is not looked at again
    std::uint32_t stride = 1;
    std::string protocol;
    ipc::SysvSegment segment;
  };
  std::vector<Source> sources_;  // by rank
};

}  // namespace dsm::telemetry
