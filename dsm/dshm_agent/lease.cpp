#include "dsm/dshm_agent/lease.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>

#include <new>

#include "ipc/error.hpp"

namespace dsm::dshm_agent {
namespace {

constexpr int seal_future_write = 0x0010;  // F_SEAL_FUTURE_WRITE, Linux 5.1

ipc::Fd make_page() {
  ipc::Fd fd(ipc::check(::memfd_create("dshm-lease", MFD_CLOEXEC | MFD_ALLOW_SEALING), "memfd_create"));
  ipc::check(::ftruncate(fd.get(), static_cast<off_t>(ipc::page_size())), "ftruncate of the lease");
  return fd;
}

}  // namespace

std::int64_t boot_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

LeasePage::LeasePage()
    : memory_(make_page()),
      page_(nullptr, ipc::page_size(), PROT_READ | PROT_WRITE, MAP_SHARED, memory_.get(), 0, "mmap of the lease") {
  new (page_.data()) Lease;
  ipc::check(::fcntl(memory_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | seal_future_write),
             "fcntl F_ADD_SEALS");
}

std::int64_t LeasePage::until_ns() const { return lease().until_ns.load(std::memory_order_relaxed); }

void LeasePage::heard(std::int64_t sent_ns) {
  const std::int64_t until = sent_ns + silence_ns - margin_ns;
  if (until > until_ns()) lease().until_ns.store(until, std::memory_order_release);
}

void LeasePage::end() { lease().until_ns.store(0, std::memory_order_release); }

}  // namespace dsm::dshm_agent
