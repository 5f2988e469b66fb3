// dsm/launch/guard.hpp - the process that ssh or srun starts on another machine: it starts the agent there, and
// outlives it.
//
// On dsmexec's own machine what a killed agent leaves behind falls to dsmexec, which ends it. On another machine there
// must be somebody else: the guard. It is a subreaper, waits for the agent, and ends whatever is left below it. When the
// guard itself is killed, the agent gets SIGTERM (PR_SET_PDEATHSIG), and ends everything.
//
// One thread. Not async-signal-safe.
#pragma once
#include <string>

namespace dsm::launch {

// What `dsmexec --guard HASH` does, its standard input and output being the control connection. HASH: of its own file, as
// dsmexec expects it in the first line (remote.hpp). The exit code.
int guard_main(const std::string& hash);

}  // namespace dsm::launch
