// dsm_pin and dsm_unpin of <dsm/dsm.h>.
#include <dsm/dsm.h>

#include <cerrno>

#include "dsm/node/job.hpp"

namespace {

using dsm::node::Job;

struct Pages {
  dsm::core::Page first = 0;
  std::size_t count = 0;  // 0: not a range of shared memory
};

Pages pages_of(const Job& job, const void* p, std::size_t n) {
  const std::size_t page_size = job.pager->page_size();
  const auto offset = reinterpret_cast<std::uintptr_t>(p) - reinterpret_cast<std::uintptr_t>(job.pager->base());
  const std::size_t size = job.pager->size();
  if (n == 0 || offset >= size || n > size - offset) return {};
  return {static_cast<dsm::core::Page>(offset / page_size), (offset + n - 1) / page_size - offset / page_size + 1};
}

}  // namespace

extern "C" {

using dsm::node::result;

int dsm_pin(void* p, size_t n, int write) {
  Job* const job = dsm::node::job_for("dsm_pin");
  if (job == nullptr) return -1;
  const Pages pages = pages_of(*job, p, n);
  if (pages.count == 0) return result(EINVAL);
  if (pages.count > dsm::core::max_pins) return result(ENOMEM);
  return result(
      job->node->pin(pages.first, pages.count, write != 0 ? dsm::core::Access::write : dsm::core::Access::read));
}

int dsm_unpin(void* p, size_t n) {
  Job* const job = dsm::node::job_for("dsm_unpin");
  if (job == nullptr) return -1;
  const Pages pages = pages_of(*job, p, n);
  if (pages.count == 0 || pages.count > dsm::core::max_pins) return result(EINVAL);
  job->node->unpin(pages.first, pages.count);
  return 0;
}

}  // extern "C"
