// dsm/launch/guard.hpp - the process that ssh starts on another machine: it starts the agent there, and outlives it.
//
// On dsmexec's own machine what a killed agent leaves behind falls to dsmexec, which ends it. On another machine there
// must be somebody else: the guard. It is a subreaper, waits for the agent, and ends whatever is left below it. When the
// guard itself is killed, the agent gets SIGTERM (PR_SET_PDEATHSIG), and ends everything.
//
// `dsmexec --guard HASH [FOLDER]`. FOLDER: where dsmexec was sent, if it was: it is removed at once, since a file that
// runs needs no name. One thread. Not async-signal-safe.
#pragma once
#include <string>
#include <vector>

namespace dsm::launch {

// What `dsmexec --guard` does, its standard input and output being the control connection. The exit code.
int guard_main(const std::vector<std::string>& arguments);

}  // namespace dsm::launch
