// dsm/telemetry/viewer_client.hpp - dsmtop's side of the window: which jobs are there, and what they look like now.
//
// Thread-safety: none. Not async-signal-safe.
#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dsm/telemetry/snapshot.hpp"
#include "dsm/telemetry/viewer_port.hpp"
#include "ipc/fd.hpp"

namespace dsm::telemetry {

// The jobs in the text of /proc/net/unix that listen under `uid`, newest first.
[[nodiscard]] std::vector<JobName> jobs_in(std::string_view proc_net_unix, std::uint32_t uid);
// This user's running jobs on this host, newest first.
[[nodiscard]] std::vector<JobName> list_jobs();
// The newest of `jobs` (which are newest first) that `wanted` names: <program>-<pid>, the pid alone, or the program; empty
// names every job.
[[nodiscard]] std::optional<JobName> find_job(const std::vector<JobName>& jobs, std::string_view wanted);

// A connection to one job's dsmexec. Never blocks, fetch() excepted.
class ViewerClient {
 public:
  // Empty when the job has gone, or when another user sits under its name.
  [[nodiscard]] static std::optional<ViewerClient> connect(const JobName& job);

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] bool asked() const noexcept { return asked_; }
  // Asks for a snapshot, unless one is asked for already. That the connection is broken is told by receive(), after what
  // the other end said last.
  void ask();

  enum class Got : std::uint8_t { nothing, snapshot, closed };  // closed: also for an answer that makes no sense
  // Reads what is there; of several snapshots the newest. The last one of a job (`ended`) comes unasked.
  [[nodiscard]] Got receive(Snapshot& out);

  // Asks and waits for the answer; empty when it has not come by the deadline.
  [[nodiscard]] std::optional<Snapshot> fetch(std::chrono::milliseconds deadline);

 private:
  explicit ViewerClient(ipc::Fd fd) : fd_(std::move(fd)) {}
  ipc::Fd fd_;
  bool asked_ = false;
  bool broken_ = false;
  std::string in_;
};

}  // namespace dsm::telemetry
