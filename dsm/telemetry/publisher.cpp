#include "dsm/telemetry/publisher.hpp"

#include <sys/mman.h>
#include <sys/shm.h>

#include <algorithm>
#include <cstring>
#include <system_error>

#include "ipc/error.hpp"

namespace dsm::telemetry {

Publisher::Publisher(std::uint32_t rank, std::uint32_t ranks, std::uint32_t page_size, std::uint64_t pages,
                     std::string_view protocol, std::uint32_t stride)
    : bytes_(Segment::bytes(pages, stride)) {
  void* block = nullptr;
  try {
    sysv_.emplace(ipc::SysvSegment::create(bytes_, segment_mode, IPC_PRIVATE, SHM_NORESERVE));
    sysv_->remove();
    block = sysv_->data();
  } catch (const std::system_error& error) {
    sysv_.reset();
    why_not_ = error.what();
    block = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (block == MAP_FAILED) ipc::throw_errno("mmap of the telemetry block");
    private_block_ = block;
  }
  // A forked child would keep the segment alive after the rank, and a core dump would materialise all its holes. Where the
  // kernel refuses, both are a nuisance and no more.
  (void)::madvise(block, bytes_, MADV_DONTFORK);
  (void)::madvise(block, bytes_, MADV_DONTDUMP);

  // The memory is zero-filled and all atomics are lock-free: zero is their initial state.
  segment_ = static_cast<Segment*>(block);
  segment_->rank = rank;
  segment_->ranks = ranks;
  segment_->page_size = page_size;
  segment_->pages = pages;
  segment_->stride = stride;
  std::memcpy(segment_->protocol, protocol.data(), std::min(protocol.size(), sizeof segment_->protocol - 1));
  segment_->magic = segment_magic;
}

Publisher::~Publisher() {
  if (private_block_ != nullptr) ::munmap(private_block_, bytes_);
}

}  // namespace dsm::telemetry
