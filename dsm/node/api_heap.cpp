// The C API of <dsm/dsm.h>: what sets memory of the region aside. Each function has the heap's lock while it works, which
// is a DSM lock, so that one thread of one rank does; it touches the region like any thread of the program.
#include <dsm/dsm.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "dsm/node/job.hpp"
#include "dsm/node/keys.hpp"

namespace {

using dsm::core::Key;
using dsm::node::Heap;
using dsm::node::heap_lock;
using dsm::node::Job;
using dsm::node::job_for;

// While it holds the heap's lock, or whatever lock it holds: so not by stdio.
[[noreturn]] void end_for_free(const void* block, const char* why) noexcept {
  std::array<char, 160> line{};
  const int length =
      std::snprintf(line.data(), line.size(), "dsm: rank %d: dsm_free(%p): %s\n", DSM_NODE_ID, block, why);
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), static_cast<std::size_t>(length));
  std::abort();
}

// What `use` has got from the heap, with the heap's lock held; nullptr and errno if nothing.
template <class Use>
auto from_heap(const Job& job, const Use& use) noexcept -> decltype(use(*job.heap)) {
  int error = job.node->acquire_own(heap_lock);
  decltype(use(*job.heap)) got = nullptr;
  if (error == 0) {
    got = use(*job.heap);
    job.node->release(heap_lock);
    if (got == nullptr) error = ENOMEM;
  }
  if (error != 0) errno = error;
  return got;
}

// Has `make` fill the block, unless that has been done. The first to come does it, under the entry's own lock, so that it
// may use the heap; the others wait there. `ready` is set under both locks: who sees it under either sees the object, too.
// 0 or an errno.
int make_ready(const Job& job, Heap::Named& entry, int (*make)(void*, void*), void* context) noexcept {
  const auto offset = reinterpret_cast<std::uintptr_t>(&entry) - reinterpret_cast<std::uintptr_t>(job.pager->base());
  const Key lock = dsm::node::key_of_offset(offset);
  int error = job.node->acquire(lock);
  if (error != 0) return error;
  if (!entry.ready) {
    error = make == nullptr ? 0 : make(entry.block, context);
    if (error == 0) error = job.node->acquire_own(heap_lock);
    if (error == 0) {
      entry.ready = true;
      job.node->release(heap_lock);
    } else {
      std::memset(entry.block, 0, entry.bytes);  // for the next to come
    }
  }
  job.node->release(lock);
  return error;
}

}  // namespace

extern "C" {

void* dsm_alloc(size_t bytes) {
  const Job* const job = job_for("dsm_alloc");
  if (job == nullptr) return nullptr;
  if (bytes == 0) {
    errno = EINVAL;
    return nullptr;
  }
  job->node->note_collective(bytes);
  bool in_heap = false;
  void* const block = from_heap(*job, [&](Heap& heap) {
    void* const got = heap.collective(bytes);
    in_heap = heap.has(got);
    return got;
  });
  if (block == nullptr || in_heap) return block;  // the heap's memory may have been used before
  const std::size_t page_size = job->pager->page_size();
  const auto first = static_cast<std::size_t>(static_cast<char*>(block) - job->pager->base()) / page_size;
  const int error = job->node->deal(static_cast<dsm::core::Page>(first),
                                    static_cast<dsm::core::Page>((bytes + page_size - 1) / page_size));
  if (error == 0) return block;
  errno = error;
  return nullptr;
}

void* dsm_malloc(size_t bytes) {
  const Job* const job = job_for("dsm_malloc");
  if (job == nullptr) return nullptr;
  return from_heap(*job, [bytes](Heap& heap) { return heap.allocate(bytes); });
}

void dsm_free(void* p) {
  if (p == nullptr) return;
  const Job* const job = job_for("dsm_free");
  if (job == nullptr) return;
  const int saved_errno = errno;  // free(3) keeps it
  if (job->node->acquire_own(heap_lock) != 0) end_for_free(p, "no room for the heap's lock among so many others");
  const Heap::Freed freed = job->heap->give_back(p);
  if (freed == Heap::Freed::before) end_for_free(p, "it has been freed before");
  if (freed == Heap::Freed::never) {
    end_for_free(p, "not a block from dsm_malloc, or the 16 bytes in front of it were overwritten");
  }
  job->node->release(heap_lock);
  errno = saved_errno;
}

void* dsm_named(const char* name, size_t bytes, int (*make)(void* block, void* context), void* context) {
  const Job* const job = job_for("dsm_named");
  if (job == nullptr) return nullptr;
  const std::size_t length = name == nullptr ? 0 : std::strlen(name);
  if (length == 0 || length > 255 || bytes == 0) {
    errno = EINVAL;
    return nullptr;
  }
  bool ready = false;
  Heap::Named* const entry = from_heap(*job, [&](Heap& heap) {
    Heap::Named* const found = heap.named(name, bytes);
    ready = found != nullptr && found->ready;
    return found;
  });
  if (entry == nullptr) return nullptr;
  const int error = entry->bytes != bytes ? EEXIST : ready ? 0 : make_ready(*job, *entry, make, context);
  if (error == 0) return entry->block;
  errno = error;
  return nullptr;
}

}  // extern "C"
