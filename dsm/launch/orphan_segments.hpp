// dsm/launch/orphan_segments.hpp - telemetry segments that outlived the ranks that had made them.
//
// A rank marks its segment for removal as soon as it has attached it, and then the kernel removes it with the rank. A
// rank that is killed between shmget(2) and that mark leaves a segment that would stay until the machine is started
// again. So whoever has ended a job's processes (the agent; the guard or dsmexec, if the agent was killed) looks for
// such segments afterwards. Thread-safety: yes. Not async-signal-safe.
#pragma once

namespace dsm::launch {

// Removes this user's telemetry segments (telemetry::segment_mode) that nobody has attached and whose maker is gone, of
// whichever job. How many there were.
int remove_orphan_segments();

}  // namespace dsm::launch
