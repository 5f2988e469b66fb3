// dsm/dshm/agent_start.hpp - finds dshm_agent and starts it, from inside a program that shall not notice.
//
// Thread-safe. Not async-signal-safe. REQUIRES: all signals blocked.
#pragma once
#include <string>

namespace dsm::dshm {

// Where it was found; empty if nowhere. $DSHM_AGENT, then beside this library (../bin), beside the program, in PATH. In
// a set-user-id program: only beside the program, and in ../bin from there, if nobody but its user and root may write
// there.
[[nodiscard]] std::string find_agent();

// What to say, and to do, when it was found nowhere: one clause.
[[nodiscard]] std::string without_agent();

// Starts it and waits until it says that it is ready. Empty, or one clause: what it said instead, or why it did not
// start; "taken": there is another one. The program gets no SIGCHLD, no child and no zombie; the agent inherits no
// descriptor, no signal mask, no LD_PRELOAD (of a set-user-id program: no environment), and is the leader of a session
// of its own.
[[nodiscard]] std::string start_agent(const std::string& path, const std::string& server);

}  // namespace dsm::dshm
