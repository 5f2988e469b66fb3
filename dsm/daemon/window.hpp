// dsm/daemon/window.hpp - what dsmtop sees of a session: as dsmexec shows a job (telemetry/viewer_port.hpp).
//
// Members on this machine publish their counters in System V segments, as all ranks do, and dsmd reads them when somebody
// asks. There is no agent on other machines: members there are shown without figures. For a poll loop; nothing here waits
// for long. Thread-safety: none. Not async-signal-safe.
#pragma once
#include <poll.h>

#include <chrono>
#include <string>
#include <vector>

#include "dsm/telemetry/sampler.hpp"
#include "dsm/telemetry/viewer_port.hpp"

namespace dsm::daemon {

struct Shown {  // a member
  std::string address;
  std::int64_t pid = 0;
};

class Window {
 public:
  // Opens it, under the session's name. Throws std::system_error.
  Window(const std::string& session, const std::vector<Shown>& members);
  Window(const Window&) = delete;
  // The last look, for those who watch.
  ~Window();

  // A member on this machine has named its segment. Empty, or why that cannot be shown.
  [[nodiscard]] std::string watch(int rank, int segment);
  void add_to(std::vector<pollfd>& set) const { port_.add_to(set); }
  void serve();
  // Somebody watches: serve() is wanted once a second.
  [[nodiscard]] bool watched() const { return port_.clients() > 0; }

 private:
  [[nodiscard]] telemetry::Snapshot look() const;

  telemetry::ViewerPort port_;
  telemetry::Sampler sampler_;
  telemetry::Snapshot frame_;  // without what the sampler sees
  std::chrono::steady_clock::time_point began_;
};

}  // namespace dsm::daemon
