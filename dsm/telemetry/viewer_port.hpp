// dsm/telemetry/viewer_port.hpp - dsmexec's side of the window, and dsmd's: where dsmtop knocks.
//
// An abstract Unix socket named dsm/<uid>/<start ms>-<pid>/<program>: no file, and gone with the process. Made for a poll
// loop, and nothing here ever blocks:
//
//   port.add_to(polled);  poll(...);  port.serve();
//   if (port.pending()) { ask the agents; when they have answered: } port.answer(snapshot);
//   at the end of the job: port.finish(last_snapshot);
//
// Only processes of the same effective uid are let in, as the kernel vouches for them. A client that says anything but the
// request, or does not take what it asked for, is dropped; when too many are there, the one that was silent longest goes.
//
// Thread-safety: none. Not async-signal-safe.
#pragma once
#include <poll.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <string>
#include <string_view>
#include <vector>

#include "dsm/telemetry/snapshot.hpp"
#include "ipc/fd.hpp"

namespace dsm::telemetry {

// The body of the one request there is; the answer's body is encode(Snapshot). Both are ipc frames (4-byte length first).
inline constexpr std::string_view snapshot_request = "dsm-viewer/1 snapshot";
inline constexpr std::size_t max_answer_bytes = 64u << 20;
inline constexpr std::size_t max_viewers = 16;

// A job as its socket's name tells it.
struct JobName {
  std::uint32_t uid = 0;
  std::int64_t started_ms = 0;  // wall clock, since 1970
  std::int64_t pid = 0;         // of dsmexec
  std::string program;          // last component of its path, at most 64 bytes, graphic ASCII only; or a session's name

  [[nodiscard]] std::string socket() const;  // dsm/<uid>/<start ms>-<pid>/<program>
  [[nodiscard]] std::string job() const;     // <program>-<pid>: what --list shows and dsmtop takes
  friend bool operator==(const JobName&, const JobName&) = default;
};
// False for a name that is no job's.
[[nodiscard]] bool parse_socket_name(std::string_view name, JobName& out);

class ViewerPort {
 public:
  // A job of this process that starts now. Throws std::system_error.
  explicit ViewerPort(std::string_view program);
  ViewerPort(const ViewerPort&) = delete;
  ViewerPort& operator=(const ViewerPort&) = delete;
  ~ViewerPort();

  [[nodiscard]] const JobName& name() const noexcept { return name_; }
  [[nodiscard]] std::string job() const { return name_.job(); }  // for Snapshot::job

  // The listener and every client, each with the events it waits for.
  void add_to(std::vector<pollfd>& polled) const;
  // Takes in who knocks, reads requests, goes on with half-sent answers, drops who must go. Call it whenever poll returned,
  // and at least once a second while clients() > 0 (slow ones are dropped by time).
  void serve();
  // Somebody has asked and has not been answered.
  [[nodiscard]] bool pending() const noexcept;
  // To all who have asked. What does not fit into the socket now goes out by serve().
  void answer(const Snapshot& snapshot);
  // The last one, `ended` set, to all clients, asked or not; then waits for those that still read, at most `patience`, and
  // closes everything. The port is of no further use.
  void finish(Snapshot last, std::chrono::milliseconds patience = std::chrono::milliseconds(200));
  [[nodiscard]] std::size_t clients() const noexcept { return clients_.size(); }

 private:
  using Clock = std::chrono::steady_clock;
  struct Client {
    ipc::Fd fd;
    std::string in;        // at most one request
    std::string out;       // at most one answer, and the last
    std::size_t sent = 0;  // bytes of `out`
    bool asked = false;
    bool gone = false;        // to be dropped
    Clock::time_point heard;  // when it last said or took something
  };
  void take_in();
  void listen_to(Client& client);
  void send_on(Client& client);
  void queue(Client& client, const std::string& frame);

  JobName name_;
  ipc::Fd listener_;
  Clock::time_point deaf_until_{};  // out of descriptors: nobody is taken in for a while
  std::list<Client> clients_;
};

}  // namespace dsm::telemetry
