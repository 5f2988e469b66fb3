// dsm/node/job.hpp - what the C API works on: the one job of this process.
//
// Between dsm_init and dsm_finalize, which the caller keeps apart from all other calls, it does not change.
#pragma once
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "dsm/node/heap.hpp"
#include "dsm/node/node.hpp"
#include "dsm/node/own_area.hpp"
#include "dsm/pager/pager.hpp"
#include "dsm/telemetry/publisher.hpp"

namespace dsm::node {

struct Job {
  std::unique_ptr<telemetry::Publisher> publisher;
  std::unique_ptr<Node> node;
  std::unique_ptr<pager::Pager> pager;
  std::unique_ptr<Heap> heap;  // for whoever holds the DSM lock `heap_lock` (keys.hpp)
  std::uint64_t turns = 0;     // of broadcast and reduce, which are collective

  [[nodiscard]] OwnArea own() const noexcept {
    return {pager->own(), pager->page_size(), static_cast<std::size_t>(node->ranks())};
  }
};

extern Job* current_job;  // nullptr: before dsm_init, after dsm_finalize, in a forked child

// For the function of dsm.h that is named: the job, or nullptr and ENOTCONN. After dsm_finalize it says so and aborts: a
// program that goes on then has lost its memory, and would not look at an error.
[[nodiscard]] Job* job_for(const char* function) noexcept;

// 0, or -1 and errno.
inline int result(int error) noexcept {
  if (error == 0) return 0;
  errno = error;
  return -1;
}

}  // namespace dsm::node
