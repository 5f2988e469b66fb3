#include "dsm/dshm_agent/userfault.hpp"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <string>
#include <string_view>

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

// EAGAIN comes only while events of the process's own asking are not read: trouble, unless it passes at once. EFAULT
// and EINVAL of UFFDIO_CONTINUE come again if another process shortens the memfd meanwhile.
constexpr int tries_max = 16;

}  // namespace

bool Userfault::is_one(int fd) {
  std::array<char, 64> name{};
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t size = ::readlink(link.c_str(), name.data(), name.size());
  return size > 0 && std::string_view(name.data(), static_cast<std::size_t>(size)) == "anon_inode:[userfaultfd]";
}

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

void Userfault::note(int error) {
  if (trouble_ == 0) trouble_ = error;
}

int Userfault::watch(std::uint64_t address, std::uint64_t length) {
  uffdio_register request{};
  request.range = {address, length};
  request.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR | UFFDIO_REGISTER_MODE_WP;
  if (::ioctl(fd_.get(), UFFDIO_REGISTER, &request) != 0) return errno;
  constexpr __u64 needed = __u64{1} << _UFFDIO_CONTINUE | __u64{1} << _UFFDIO_WRITEPROTECT | __u64{1} << _UFFDIO_WAKE;
  return (request.ioctls & needed) == needed ? 0 : EOPNOTSUPP;
}

// The flags are the description's, which the process has, too: it may have made it a blocking one since the last look.
// What is asked for with the call itself nobody can take away.
std::size_t Userfault::read(std::span<uffd_msg> out) {
  iovec part{out.data(), out.size_bytes()};
  ssize_t got = ::preadv2(fd_.get(), &part, 1, -1, RWF_NOWAIT);
  if (got < 0 && errno == EOPNOTSUPP) got = ::read(fd_.get(), out.data(), out.size_bytes());  // before Linux 6.10
  if (got <= 0) return 0;  // EAGAIN: somebody has been woken meanwhile
  std::size_t faults = 0;
  for (const uffd_msg& one : out.first(static_cast<std::size_t>(got) / sizeof(uffd_msg))) {
    if (one.event == UFFD_EVENT_PAGEFAULT) {
      out[faults++] = one;
    } else {
      if (one.event == UFFD_EVENT_FORK) ipc::Fd(static_cast<int>(one.arg.fork.ufd)).reset();
      note(EPROTO);
    }
  }
  return faults;
}

void Userfault::map(std::uint64_t address, core::Access access, int memory, std::uint64_t offset) {
  for (int tries = 0; tries < tries_max; ++tries) {
    uffdio_continue request{};
    request.range = page_at(address);
    request.mode = UFFDIO_CONTINUE_MODE_DONTWAKE | (access == core::Access::read ? continue_wp : 0);
    if (::ioctl(fd_.get(), UFFDIO_CONTINUE, &request) == 0 || is_gone(errno)) return;
    if (errno == EEXIST) {
      if (access == core::Access::write) change_protection(address, UFFDIO_WRITEPROTECT_MODE_DONTWAKE);
      return;
    }
    if (errno == EAGAIN) continue;
    if (errno != EFAULT && errno != EINVAL) return note(errno);
    // No frame: all zero, and never written.
    if (::fallocate(memory, 0, static_cast<off_t>(offset), sysv::page_bytes) != 0) return note(errno);
  }
  note(EFAULT);
}

void Userfault::change_protection(std::uint64_t address, std::uint64_t mode) {
  for (int tries = 0; tries < tries_max; ++tries) {
    uffdio_writeprotect request{};
    request.range = page_at(address);
    request.mode = mode;
    if (::ioctl(fd_.get(), UFFDIO_WRITEPROTECT, &request) == 0 || is_gone(errno)) return;
    if (errno != EAGAIN) return note(errno);
  }
  note(EAGAIN);
}

void Userfault::write_protect(std::uint64_t address) { change_protection(address, UFFDIO_WRITEPROTECT_MODE_WP); }

void Userfault::wake(std::uint64_t address) {
  uffdio_range range = page_at(address);
  if (::ioctl(fd_.get(), UFFDIO_WAKE, &range) != 0 && !is_gone(errno)) note(errno);
}

void Userfault::wake(std::uint64_t address, std::uint64_t size) {
  uffdio_range range{address, size};
  if (::ioctl(fd_.get(), UFFDIO_WAKE, &range) != 0 && !is_gone(errno) && errno != EINVAL) note(errno);
}

// Asks for something that does no harm: a page that is here may always be mapped for reading, and one that is not here
// has no frame that could be mapped.
bool Userfault::alive(std::uint64_t address) const {
  uffdio_continue request{};
  request.range = page_at(address);
  request.mode = UFFDIO_CONTINUE_MODE_DONTWAKE | continue_wp;
  return ::ioctl(fd_.get(), UFFDIO_CONTINUE, &request) == 0 || errno != ESRCH;
}

}  // namespace dsm::dshm_agent
