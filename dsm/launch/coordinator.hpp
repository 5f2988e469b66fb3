// dsm/launch/coordinator.hpp - the rendezvous of a job, at dsmexec's end: lets ranks in, tells them of each other,
// hears from them.
//
// A rank connects with the job's key and says Join; when all have, each gets Welcome. From then on it reports its
// phase, and the end of its connection is news too: all goes to the Job. Strangers on the port are net::Acceptor's
// concern; with `open` set those who speak the classroom's handshake go to the Classroom. For a poll loop.
// Thread-safety: none.
#pragma once
#include <poll.h>

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "dsm/launch/classroom.hpp"
#include "dsm/launch/job.hpp"
#include "dsm/net/acceptor.hpp"
#include "dsm/net/rendezvous.hpp"

namespace dsm::launch {

class Coordinator {
 public:
  struct Config {
    std::vector<std::string> hosts;  // by rank
    net::Credentials credentials{net::JobKey{}};
    std::string protocol = "msi";
    std::string home = "cyclic";
    std::string pager = "sigsegv";
    std::uint64_t size = 0;                                   // of the region, bytes
    std::uint32_t page_size = 4096;                           // bytes
    net::PortRange ports{};                                   // where to listen
    milliseconds join{10'000};                                // from the handshake of a rank to its Join
    std::function<std::uint32_t()> spin_us;                   // asked when all have joined
    bool open = false;                                        // --open-rendezvous
    std::function<void(const std::string&)> log;              // -v
    std::function<void(int rank, int segment)> on_telemetry;  // a rank has named its segment
  };
  Coordinator(Config config, Job& job);

  // Listens on this address, too, if it does not yet; the port. Throws std::system_error if it cannot (EADDRNOTAVAIL: the
  // address is none of this machine's).
  std::uint16_t listen(const std::string& address);
  void add_to(std::vector<pollfd>& set) const;
  void serve(Time now);
  [[nodiscard]] Time next_deadline() const;

 private:
  struct Guest {
    net::Channel channel;
    std::string address;
    Time join_by;
    int rank = -1;      // until it has joined
    bool held = false;  // kept open, unanswered, until the job ends
    std::uint16_t mesh_port = 0;
  };
  [[nodiscard]] net::Acceptor::Options acceptor_options(const std::string& address);
  bool hear(Guest& guest, Time now);  // false: the connection is to be closed
  bool join(Guest& guest, const net::Join& join, Time now);
  bool refuse(Guest& guest, const std::string& why);
  void welcome(Time now);
  void log(const std::string& line) const;

  Config config_;
  Job& job_;
  std::optional<Classroom> classroom_;
  std::map<std::string, net::Acceptor> acceptors_;  // by address
  std::list<Guest> guests_;
  std::optional<net::Platform> platform_;  // of the first rank
  std::vector<bool> joined_;
  std::size_t joined_count_ = 0;
};

// Call lanes from each rank to each other: several threads of a rank fault at one time, but descriptors are not for
// nothing.
[[nodiscard]] std::uint32_t lanes_for(std::size_t ranks);

}  // namespace dsm::launch
