#include "dsm/dshm/userfault.hpp"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#include <cstdint>

#include "dsm/dshm/kernel.hpp"

namespace dsm::dshm {
namespace {

// What headers older than Linux 6.4 do not have; as in dsm/pager/uffd.cpp.
constexpr __u64 feature_wp_shmem = __u64{1} << 12U;         // UFFD_FEATURE_WP_HUGETLBFS_SHMEM, Linux 5.19
constexpr __u64 feature_wp_unpopulated = __u64{1} << 13U;   // Linux 6.4
constexpr unsigned long new_from_device = _IO(0xAA, 0x00);  // USERFAULTFD_IOC_NEW

int open_one() noexcept {
  constexpr int flags = O_CLOEXEC | O_NONBLOCK;
  const int fd = static_cast<int>(::syscall(SYS_userfaultfd, flags));
  if (fd >= 0 || errno != EPERM) return fd;
  // To read is enough for it, and for the right to it.
  const int device = static_cast<int>(::syscall(SYS_openat, AT_FDCWD, "/dev/userfaultfd", O_RDONLY | O_CLOEXEC, 0));
  if (device < 0) {
    errno = EPERM;
    return -1;
  }
  const int made = ::ioctl(device, new_from_device, flags);
  const int error = errno;
  kernel::close(device);
  errno = error;
  return made;
}

}  // namespace

int open_userfault() noexcept {
  const int fd = open_one();
  if (fd < 0) return -1;
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_PAGEFAULT_FLAG_WP |
                 UFFD_FEATURE_THREAD_ID | feature_wp_shmem | feature_wp_unpopulated;
  const __u64 needed = api.features;
  if (::ioctl(fd, UFFDIO_API, &api) == 0 && (api.features & needed) == needed) return fd;
  kernel::close(fd);
  errno = EOPNOTSUPP;
  return -1;
}

void wake_userfault(int fd, const void* from, unsigned long length) noexcept {
  uffdio_range range{reinterpret_cast<std::uintptr_t>(from), length};
  (void)::ioctl(fd, UFFDIO_WAKE, &range);  // refused only for what is no range of addresses
}

}  // namespace dsm::dshm
