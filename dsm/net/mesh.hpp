// dsm/net/mesh.hpp - the connections between ranks: for each pair one service lane, and call lanes in both directions.
//
// A call lane i -> j carries one call of one thread of rank i at a time, and its answer. The service lane carries what is
// nobody's answer; the higher rank opens it. The first frame on each connection is a lane_hello: a = the caller's rank,
// b = 0 for the service lane, 1.. for a call lane. Built once, in dsm_init; strangers who connect meanwhile are dropped.
// Not async-signal-safe to build.
#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "dsm/net/acceptor.hpp"
#include "dsm/net/rendezvous.hpp"
#include "dsm/net/session_address.hpp"

namespace dsm::net {

// Says how many seconds a rank waits for the others in dsm_init, if dsmexec wants it to be another time than usual.
inline constexpr const char* patience_variable = "DSMEXEC_PATIENCE";

struct Link {  // everything that connects this rank to one other
  std::unique_ptr<Channel> service;
  std::vector<std::unique_ptr<Channel>> calls;    // we call, they answer
  std::vector<std::unique_ptr<Channel>> answers;  // they call, we answer
};

struct Mesh {
  int rank = 0;
  std::string session;  // its name, if this is one of dsmd's; empty: a job of dsmexec's
  Welcome welcome;
  std::unique_ptr<Channel> coordinator;
  std::vector<Link> links;  // by rank; the own one is empty
};

// Joins the job: rendezvous, then the mesh. The listening socket for the mesh is bound to the address by which this host
// reaches the coordinator, and closed before this returns. Throws std::system_error (ETIMEDOUT: the message names phase
// and rank) or std::runtime_error (refused: why). If it is for want of another rank, the coordinator has been told which
// (Report lost_peer). `ports`: where to listen. `log`: a line for each stranger dropped meanwhile; called on this
// thread, and then on another one, until this returns.
//
// Frames that follow on these connections are still in their sockets, where poll(2) sees them.
[[nodiscard]] Mesh join(const Credentials& credentials, int rank, const std::string& coordinator_host,
                        std::uint16_t coordinator_port, std::chrono::milliseconds patience, PortRange ports = {},
                        std::function<void(const std::string&)> log = {});

// The session had started, and then a member was lost, or dsmd: what() is the line that says which.
struct SessionOver : std::runtime_error {
  SessionOver(int its_rank, const std::string& why) : std::runtime_error(why), rank(its_rank) {}
  int rank;  // this process's
};

// Becomes a member of a session of dsmd's: the same, but for a Place that is asked for first. `patience`: for dsmd's
// answers, and for the mesh; how long the session waits for its other members, dsmd says. Throws as join(), and
// SessionOver once there has been a Welcome.
[[nodiscard]] Mesh join_session(const JobKey& daemon_key, const SessionAddress& where,
                                std::chrono::milliseconds patience);

}  // namespace dsm::net
