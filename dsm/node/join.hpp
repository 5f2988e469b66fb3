// dsm/node/join.hpp - which job this process belongs to, and how it gets in: dsmexec's, a session of dsmd's, or its own.
//
// Called by dsm_join and dsm_init, one after the other. Not async-signal-safe.
#pragma once
#include <stdexcept>

#include "dsm/net/mesh.hpp"

namespace dsm::node {

// A session with N members at host:port.
inline constexpr const char* session_variable = "DSM_SESSION";

// What the user wrote names no session; what() is one line that says what is needed.
struct BadSession : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// For dsm_join. Throws BadSession.
void choose_session(const char* where, int members);

// Whether join() will go to dsmd: a session was chosen, or is in the environment, and dsmexec has not started this process.
[[nodiscard]] bool wants_session();

// Throws as net::join and net::join_session do, and BadSession.
[[nodiscard]] net::Mesh join();

}  // namespace dsm::node
