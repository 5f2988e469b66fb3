// dsm/dshm_agent/upstream.hpp - the agent's connection to dsmd: frames of wire.hpp, in order, both ways.
//
// Nothing here waits, but connect() and close(). Thread-safety: none. Not async-signal-safe.
#pragma once
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "dsm/net/channel.hpp"
#include "dsm/net/handshake.hpp"
#include "dsm/sysv/wire.hpp"

namespace dsm::dshm_agent {

class Upstream {
 public:
  // Connects, and says hello. `server`: "host:port", "[::1]:port". Throws std::runtime_error: one line that says what
  // is wrong, and what to do.
  Upstream(const std::string& server, const net::JobKey& key);

  [[nodiscard]] sysv::HostNumber host() const { return host_; }          // what dsmd calls this host
  [[nodiscard]] std::int64_t greeted_ns() const { return greeted_ns_; }  // boot_ns() when the answered hello was sent

  [[nodiscard]] int fd() const { return channel_.fd(); }
  void send(const sysv::Frame& frame);
  // Before all that has not begun to go: what it says does not depend on them.
  void send_first(const sysv::Frame& frame);
  // Sends what can be sent now. False: the connection has ended.
  [[nodiscard]] bool flush();
  [[nodiscard]] bool wants_output() const { return !unsent_.empty(); }

  enum class Heard : std::uint8_t { frame, nothing, ended };
  [[nodiscard]] Heard receive(sysv::Frame& out);

  // All that was said arrives; then the connection ends. Waits as long as something goes, and `patience_ns` more.
  void close(std::int64_t patience_ns);

 private:
  void hello(const std::string& server);

  net::Channel channel_;
  std::deque<std::vector<std::uint8_t>> unsent_;  // the first channel_.queued() of them are with the channel
  std::size_t given_ = 0;                         // how many of them the channel was given
  sysv::HostNumber host_ = 0;
  std::int64_t greeted_ns_ = 0;
};

// What tells this host from all others, also from others of this machine: the kernel, and the namespaces in which pids,
// and System V objects, and addresses mean what they mean here.
[[nodiscard]] std::string host_name_for_dsmd();

}  // namespace dsm::dshm_agent
