// dsm/launch/guard.hpp - the process that ssh or srun starts on another machine: it starts the agent there, and
// outlives it.
//
// On dsmexec's own machine what a killed agent leaves behind falls to dsmexec, which ends it. On another machine there
// must be somebody else: the guard. It is a subreaper, waits for the agent, and ends whatever is left below it. An agent
// that still runs half a second after the connection has ended is killed: it may have been stopped, or hang. When the guard
// itself is killed, the agent gets SIGTERM (PR_SET_PDEATHSIG), and ends everything.
//
// One thread. Not async-signal-safe.
#pragma once
#include <optional>
#include <string>

namespace dsm::launch {

// What a shell is to do where this is not the dsmexec that is wanted (remote.hpp): its third argument is that file's
// size.
struct CopyScript {
  std::string size;  // bytes
  std::string script;
};

// What `dsmexec --guard HASH [SIZE SCRIPT]` does, its standard input and output being the control connection. HASH: of
// dsmexec's file, as it expects it in the first line (remote.hpp). The exit code; never one of 125 to 127, by
// which a shell says that no guard came to be. With a script, and if our own file is not that one, the script is run in
// our place.
int guard_main(const std::string& hash, const std::optional<CopyScript>& copy);

}  // namespace dsm::launch
