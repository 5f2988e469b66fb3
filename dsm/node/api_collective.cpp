// The C API of <dsm/dsm.h>: broadcast and reduce, through the library's own pages (own_area.hpp) and the barrier.
//
// Data passes in turns, each at most a buffer long: some write, all meet in one barrier, some read. One barrier a turn is
// enough because the turns use two buffers alternately: who writes turn t+2 has left the barrier of turn t+1, at which
// every reader of turn t had arrived, done with reading.
#include <dsm/dsm.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "dsm/node/job.hpp"

namespace {

using dsm::node::Job;
using dsm::node::job_for;
using dsm::node::OwnArea;
using dsm::node::result;

char* next_buffer(Job& job, const OwnArea& own) { return own.buffer(job.turns++ % 2); }

int broadcast(Job& job, int root, char* buf, std::size_t n) {
  const OwnArea own = job.own();
  const bool mine = job.node->rank() == root;
  for (std::size_t done = 0; done < n;) {
    const std::size_t size = std::min(n - done, own.buffer_size());
    char* const buffer = next_buffer(job, own);
    if (mine) std::memcpy(buffer, buf + done, size);
    if (const int error = job.node->barrier(); error != 0) return error;
    if (!mine) std::memcpy(buf + done, buffer, size);
    done += size;
  }
  return 0;
}

double combine(double a, double b, dsm_op op) {
  switch (op) {
    case DSM_SUM:
      return a + b;
    case DSM_PROD:
      return a * b;
    case DSM_MIN:
      return std::min(a, b);
    case DSM_MAX:
      return std::max(a, b);
  }
  return a;
}

std::int64_t combine(std::int64_t a, std::int64_t b, dsm_op op) {
  const auto ua = static_cast<std::uint64_t>(a), ub = static_cast<std::uint64_t>(b);  // which may wrap round
  switch (op) {
    case DSM_SUM:
      return static_cast<std::int64_t>(ua + ub);
    case DSM_PROD:
      return static_cast<std::int64_t>(ua * ub);
    case DSM_MIN:
      return std::min(a, b);
    case DSM_MAX:
      return std::max(a, b);
  }
  return a;
}

// Each rank has a page of the buffer. The root reads them in the order of the ranks, so that the result of an operation
// that rounds is the same in every run.
template <class T>
int reduce(Job& job, int root, const T* in, T* out, std::size_t n, dsm_op op) {
  const OwnArea own = job.own();
  const auto rank = static_cast<std::size_t>(job.node->rank()), ranks = static_cast<std::size_t>(job.node->ranks());
  const std::size_t page = job.pager->page_size();
  for (std::size_t done = 0; done < n;) {
    const std::size_t count = std::min(n - done, page / sizeof(T));
    char* const buffer = next_buffer(job, own);
    std::memcpy(buffer + rank * page, in + done, count * sizeof(T));
    if (const int error = job.node->barrier(); error != 0) return error;
    for (std::size_t r = 0; rank == static_cast<std::size_t>(root) && r < ranks; ++r) {
      const T* const part = reinterpret_cast<const T*>(buffer + r * page);
      for (std::size_t i = 0; i < count; ++i) out[done + i] = r == 0 ? part[i] : combine(out[done + i], part[i], op);
    }
    done += count;
  }
  return 0;
}

bool is_rank(const Job& job, int root) { return root >= 0 && root < job.node->ranks(); }

template <class T>
int checked_reduce(const char* function, int root, const T* in, T* out, std::size_t n, dsm_op op) {
  Job* const job = job_for(function);
  if (job == nullptr) return -1;
  const bool known = op == DSM_SUM || op == DSM_PROD || op == DSM_MIN || op == DSM_MAX;
  if (!is_rank(*job, root) || !known || (n != 0 && (in == nullptr || (out == nullptr && job->node->rank() == root)))) {
    return result(EINVAL);
  }
  job->node->note_collective(n * 8 + op);
  job->node->note_collective(static_cast<std::uint64_t>(root));
  return result(reduce(*job, root, in, out, n, op));
}

}  // namespace

extern "C" {

int dsm_broadcast(int root, void* buf, size_t n) {
  Job* const job = job_for("dsm_broadcast");
  if (job == nullptr) return -1;
  if (!is_rank(*job, root) || (buf == nullptr && n != 0)) return result(EINVAL);
  job->node->note_collective(n);
  job->node->note_collective(static_cast<std::uint64_t>(root));
  return result(broadcast(*job, root, static_cast<char*>(buf), n));
}

int dsm_reduce_f64(int root, const double* in, double* out, size_t n, enum dsm_op op) {
  return checked_reduce("dsm_reduce_f64", root, in, out, n, op);
}
int dsm_reduce_i64(int root, const int64_t* in, int64_t* out, size_t n, enum dsm_op op) {
  return checked_reduce("dsm_reduce_i64", root, in, out, n, op);
}

}  // extern "C"
