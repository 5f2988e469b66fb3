#include "dsm/dshm_agent/userfault.hpp"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "dsm/sysv/wire.hpp"
#include "ipc/error.hpp"

namespace dsm::dshm_agent {
namespace {

// What headers older than Linux 6.4 do not have: see dsm/pager/uffd.cpp.
constexpr __u64 feature_wp_shmem = __u64{1} << 12U;
constexpr __u64 feature_wp_unpopulated = __u64{1} << 13U;
constexpr __u64 continue_wp = __u64{1} << 1U;

uffdio_range page_at(std::uint64_t address) { return {address, sysv::page_bytes}; }

// Not there any more: unmapped, remapped, or the whole process.
bool is_gone(int error) { return error == ESRCH || error == ENOENT; }

[[noreturn]] void end_for(const char* call) {
  std::fprintf(stderr, "dshm_agent: %s: %s; the agent ends, for it can keep its processes from nothing any more\n",
               call, std::strerror(errno));
  std::abort();
}

}  // namespace

// The process may have said UFFDIO_API already; then it is EINVAL here, and watch() finds out what it has asked for.
Userfault::Userfault(ipc::Fd fd) : fd_(std::move(fd)) {
  const int flags = ipc::check(::fcntl(fd_.get(), F_GETFL), "fcntl F_GETFL of a userfaultfd");
  ipc::check(::fcntl(fd_.get(), F_SETFL, flags | O_NONBLOCK), "fcntl F_SETFL of a userfaultfd");
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_PAGEFAULT_FLAG_WP |
                 UFFD_FEATURE_THREAD_ID | feature_wp_shmem | feature_wp_unpopulated;
  if (::ioctl(fd_.get(), UFFDIO_API, &api) != 0 && errno != EINVAL) ipc::throw_errno("UFFDIO_API");
}

int Userfault::watch(std::uint64_t address, std::uint64_t length) {
  uffdio_register request{};
  request.range = {address, length};
  request.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR | UFFDIO_REGISTER_MODE_WP;
  if (::ioctl(fd_.get(), UFFDIO_REGISTER, &request) != 0) return errno;
  constexpr __u64 needed = __u64{1} << _UFFDIO_CONTINUE | __u64{1} << _UFFDIO_WRITEPROTECT | __u64{1} << _UFFDIO_WAKE;
  return (request.ioctls & needed) == needed ? 0 : EOPNOTSUPP;
}

std::size_t Userfault::read(std::span<uffd_msg> out) {
  const ssize_t got = ::read(fd_.get(), out.data(), out.size_bytes());
  return got <= 0 ? 0 : static_cast<std::size_t>(got) / sizeof(uffd_msg);  // EAGAIN: somebody has been woken meanwhile
}

void Userfault::map(std::uint64_t address, core::Access access, int memory, std::uint64_t offset) {
  for (bool reserved = false;;) {
    uffdio_continue request{};
    request.range = page_at(address);
    request.mode = UFFDIO_CONTINUE_MODE_DONTWAKE | (access == core::Access::read ? continue_wp : 0);
    if (::ioctl(fd_.get(), UFFDIO_CONTINUE, &request) == 0 || is_gone(errno)) return;
    if (errno == EEXIST) {
      if (access == core::Access::write && lift(address) != 0) end_for("UFFDIO_WRITEPROTECT");
      return;
    }
    if (errno == EFAULT && !reserved) {  // no frame: all zero, and never written
      if (::fallocate(memory, 0, static_cast<off_t>(offset), sysv::page_bytes) != 0) end_for("fallocate");
      reserved = true;
    } else if (errno != EAGAIN) {
      end_for("UFFDIO_CONTINUE");
    }
  }
}

int Userfault::lift(std::uint64_t address) {
  uffdio_writeprotect request{};
  request.range = page_at(address);
  request.mode = UFFDIO_WRITEPROTECT_MODE_DONTWAKE;
  while (::ioctl(fd_.get(), UFFDIO_WRITEPROTECT, &request) != 0) {
    if (errno != EAGAIN) return is_gone(errno) ? 0 : errno;
  }
  return 0;
}

void Userfault::write_protect(std::uint64_t address) {
  uffdio_writeprotect request{};
  request.range = page_at(address);
  request.mode = UFFDIO_WRITEPROTECT_MODE_WP;
  while (::ioctl(fd_.get(), UFFDIO_WRITEPROTECT, &request) != 0) {
    if (is_gone(errno)) return;
    if (errno != EAGAIN) end_for("UFFDIO_WRITEPROTECT");
  }
}

void Userfault::wake(std::uint64_t address) {
  uffdio_range range = page_at(address);
  if (::ioctl(fd_.get(), UFFDIO_WAKE, &range) != 0 && !is_gone(errno)) end_for("UFFDIO_WAKE");
}

void Userfault::wake(std::uint64_t address, std::uint64_t size) {
  uffdio_range range{address, size};
  if (::ioctl(fd_.get(), UFFDIO_WAKE, &range) != 0 && !is_gone(errno) && errno != EINVAL) end_for("UFFDIO_WAKE");
}

// Asks for something that does no harm: a page that is here may always be mapped for reading, and one that is not here has
// no frame that could be mapped.
bool Userfault::alive(std::uint64_t address) const {
  uffdio_continue request{};
  request.range = page_at(address);
  request.mode = UFFDIO_CONTINUE_MODE_DONTWAKE | continue_wp;
  return ::ioctl(fd_.get(), UFFDIO_CONTINUE, &request) == 0 || errno != ESRCH;
}

}  // namespace dsm::dshm_agent
