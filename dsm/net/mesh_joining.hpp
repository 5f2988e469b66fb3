// dsm/net/mesh_joining.hpp - what joining a job (mesh.cpp) and joining a session (mesh_session.cpp) have in common.
//
// Used inside dsm/net only. Not async-signal-safe.
#pragma once
#include <chrono>
#include <functional>
#include <string>

#include "dsm/net/mesh.hpp"

namespace dsm::net {

// Frames on a lane: more than a home queues requests (core::Config::requests) and a rank has waiters (core::max_waiters)
// together.
inline constexpr std::size_t lane_queue = 2048;

// Who joins, and how long that may take.
struct Joining {
  Credentials credentials;
  int rank;  // -1: not known yet
  std::chrono::milliseconds patience;
  Deadline deadline;
  std::string session{};  // empty: a job of dsmexec's
};

[[nodiscard]] std::string me(const Joining& job);  // for the beginning of a message: "session 'pi': rank 1: "
[[noreturn]] void throw_late(const Joining& job, const std::string& what, const char* phase);

// For the mesh, at the address by which this host reaches the coordinator.
[[nodiscard]] Acceptor::Options door(const Joining& job, Channel& coordinator,
                                     std::function<void(const std::string&)> log);
// From Join to Welcome. The door is open before: whoever learns of its port can connect to it.
void meet(const Joining& job, Acceptor& acceptor, Mesh& mesh);
// Connects this rank with all others.
void build(const Joining& job, Acceptor& acceptor, Mesh& mesh);

// In a session. Throws SessionOver if dsmd has ended it, or has gone itself; waits for nothing.
void hear_verdict(const Joining& job, Channel& daemon);
// A member is lost, as far as this one can see. Returns if dsmd does not say anything about it in time.
void await_verdict(const Joining& job, Channel& daemon);

}  // namespace dsm::net
