// The C API of <dsm/dsm.h>: atomic operations that go to the page, instead of the page coming to them.
#include <dsm/dsm.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "dsm/node/job.hpp"

namespace {

using dsm::core::Atomic;
using dsm::node::Job;
using dsm::node::job_for;

// What the word at `p` held before. False if `p` is no such word.
bool perform(Job& job, const std::uint64_t* p, Atomic atomic, std::uint64_t& before) {
  const auto offset = reinterpret_cast<std::uintptr_t>(p) - reinterpret_cast<std::uintptr_t>(job.pager->base());
  if (offset >= job.pager->size() || offset % sizeof *p != 0) return false;
  const std::size_t page_size = job.pager->page_size();
  atomic.word = static_cast<std::uint32_t>(offset % page_size / sizeof *p);
  before = job.node->perform(static_cast<dsm::core::Page>(offset / page_size), atomic);
  return true;
}

}  // namespace

extern "C" {

uint64_t dsm_fetch_add_u64(uint64_t* p, uint64_t v) {
  Job* const job = job_for("dsm_fetch_add_u64");
  std::uint64_t before = 0;
  if (job != nullptr && perform(*job, p, {.kind = Atomic::Kind::add, .value = v}, before)) return before;
  std::fprintf(stderr, "dsm: rank %d: dsm_fetch_add_u64: %p is no word of the region that begins at a multiple of 8\n",
               DSM_NODE_ID, static_cast<void*>(p));
  std::abort();
}

int dsm_compare_swap_u64(uint64_t* p, uint64_t* expected, uint64_t desired) {
  Job* const job = job_for("dsm_compare_swap_u64");
  if (job == nullptr) return -1;
  std::uint64_t before = 0;
  const auto error = [](int number) {
    errno = number;
    return -1;
  };
  if (expected == nullptr) return error(EINVAL);
  // `expected` may itself be in the region: read here, by a thread that may fault.
  const std::uint64_t wanted = *expected;
  const Atomic swap{.kind = Atomic::Kind::compare_swap, .value = desired, .expected = wanted};
  if (!perform(*job, p, swap, before)) return error(EINVAL);
  if (before == wanted) return 0;
  *expected = before;
  return error(EAGAIN);
}

}  // extern "C"
