// dsm/dshm_agent/lease.hpp - the page of memory in which the agent tells its processes how long they may use what is
// here.
//
// Thread-safety: the agent's one thread writes; processes read. Not async-signal-safe.
#pragma once
#include <cstdint>

#include "dsm/dshm_agent/local.hpp"
#include "ipc/fd.hpp"
#include "ipc/mapping.hpp"

namespace dsm::dshm_agent {

// CLOCK_BOOTTIME: it goes on while the machine sleeps, as dsmd's patience does.
[[nodiscard]] std::int64_t boot_ns();

class LeasePage {
 public:
  LeasePage();  // throws std::system_error
  // What a process gets: it cannot map it for writing.
  [[nodiscard]] int fd() const noexcept { return memory_.get(); }
  [[nodiscard]] std::int64_t until_ns() const;
  // An answer has come to what was sent at that time.
  void heard(std::int64_t sent_ns);
  void end();

 private:
  [[nodiscard]] Lease& lease() const { return *reinterpret_cast<Lease*>(page_.data()); }

  ipc::Fd memory_;
  ipc::Mapping page_;
};

}  // namespace dsm::dshm_agent
