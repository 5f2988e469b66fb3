// close and its relatives spare our own descriptors; open and fopen do not find /proc/sysvipc/shm and sem.
//
// A program that closes all descriptors, as daemons do, means those that it knows of. dup2 onto one of ours is refused, with
// EBUSY, which dup2(2) may say anyway. Those two files list the kernel's objects; without them, ipcs asks SHM_INFO and
// SHM_STAT. Not seen: raw system calls, and what the C library does inside.
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "dsm/dshm/descriptors.hpp"
#include "dsm/dshm/kernel.hpp"
#include "dsm/dshm/next.hpp"
#include "dsm/dshm/objects.hpp"
#include "dsm/dshm/routes.hpp"

namespace dsm::dshm {
namespace {

constinit Next<int(int)> next_close{"close"};
constinit Next<int(const char*, int, mode_t)> next_open{"open"}, next_open64{"open64"};
constinit Next<int(int, const char*, int, mode_t)> next_openat{"openat"}, next_openat64{"openat64"};
constinit Next<FILE*(const char*, const char*)> next_fopen{"fopen"}, next_fopen64{"fopen64"};

[[gnu::constructor]] void find_early() {
  (void)next_close.find();
  (void)next_open.find();
  (void)next_open64.find();
  (void)next_openat.find();
  (void)next_openat64.find();
  (void)next_fopen.find();
  (void)next_fopen64.find();
}

bool hidden(const char* path) {
  constexpr char folder[] = "/proc/sysvipc/";
  constexpr std::size_t length = sizeof folder - 1;
  if (path == nullptr || ::strncmp(path, folder, length) != 0) return false;
  const bool listed = ::strcmp(path + length, "shm") == 0 || ::strcmp(path + length, "sem") == 0;
  return listed && route_all() != Route::kernel;
}

int close_some(unsigned from, unsigned to, int flags) {
  return static_cast<int>(::syscall(SYS_close_range, from, to, flags));
}

// Around ours.
int close_between(unsigned from, unsigned to, int flags) {
  if (from > to) return fail(EINVAL);
  for (int own = next_own(from, to); own >= 0; own = next_own(from, to)) {
    const auto number = static_cast<unsigned>(own);
    if (number > from && close_some(from, number - 1, flags) != 0) return -1;
    if (number == to) return 0;
    from = number + 1;
  }
  return close_some(from, to, flags);
}

mode_t mode_of(int flags, va_list list) {
  constexpr int temporary = 020000000;  // the bit of O_TMPFILE that is its own
  return (flags & (O_CREAT | temporary)) != 0 ? va_arg(list, mode_t) : 0;
}

}  // namespace
}  // namespace dsm::dshm

using namespace dsm::dshm;

extern "C" {

int close(int fd) { return fd >= 0 && is_own(fd) ? fail(EBADF) : next_close(fd); }

int close_range(unsigned from, unsigned to, int flags) noexcept { return close_between(from, to, flags); }

void closefrom(int lowest) noexcept {
  const unsigned from = lowest < 0 ? 0 : static_cast<unsigned>(lowest);
  if (close_between(from, ~0U, 0) == 0) return;
  for (int fd = static_cast<int>(from); fd < (1 << 16); ++fd) {  // before Linux 5.9
    if (!is_own(fd)) kernel::close(fd);
  }
}

int dup2(int from, int to) noexcept {
  if (to >= 0 && is_own(to)) return fail(EBUSY);
#if defined(SYS_dup2)
  return static_cast<int>(::syscall(SYS_dup2, from, to));
#else
  if (from == to) return ::fcntl(from, F_GETFD) == -1 ? -1 : to;
  return static_cast<int>(::syscall(SYS_dup3, from, to, 0));
#endif
}

int dup3(int from, int to, int flags) noexcept {
  if (to >= 0 && is_own(to)) return fail(EBUSY);
  return static_cast<int>(::syscall(SYS_dup3, from, to, flags));
}

FILE* fopen(const char* path, const char* mode) {
  if (!hidden(path)) return next_fopen(path, mode);
  errno = ENOENT;
  return nullptr;
}

FILE* fopen64(const char* path, const char* mode) {
  if (!hidden(path)) return next_fopen64(path, mode);
  errno = ENOENT;
  return nullptr;
}

int open(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = mode_of(flags, list);
  va_end(list);
  return hidden(path) ? fail(ENOENT) : next_open(path, flags, mode);
}

int open64(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = mode_of(flags, list);
  va_end(list);
  return hidden(path) ? fail(ENOENT) : next_open64(path, flags, mode);
}

int openat(int folder, const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = mode_of(flags, list);
  va_end(list);
  return hidden(path) ? fail(ENOENT) : next_openat(folder, path, flags, mode);
}

int openat64(int folder, const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = mode_of(flags, list);
  va_end(list);
  return hidden(path) ? fail(ENOENT) : next_openat64(folder, path, flags, mode);
}

}  // extern "C"
