// mmap, munmap, mremap, mprotect, pkey_mprotect, in front of the C library's: what they do to attached memory, the
// agent must know.
//
// All else goes to the kernel at once. Not seen: raw system calls. madvise and mlock need no care.
#include <errno.h>
#include <stdarg.h>
#include <sys/mman.h>

#include "dsm/dshm/faults.hpp"
#include "dsm/dshm/objects.hpp"
#include "dsm/dshm/process.hpp"
#include "dsm/dshm/segment_map.hpp"

namespace dsm::dshm {
namespace {

bool hits(const void* at, std::size_t length) noexcept {
  const auto from = reinterpret_cast<Address>(at);
  if (from + length < from || !process().attaches.maybe(from, from + length)) return false;
  const TableLock guard;
  return process().attaches.touches(from, from + length);
}

// Of [from, to) what is attached, and what is not, in turn. REQUIRES: table.
int protect_all(Address from, Address to, int protection) noexcept {
  const std::size_t size = Attaches::page_size();
  Attaches& attaches = process().attaches;
  while (from < to) {
    Attach* const attach = attaches.find(from);
    Address end = from + size;
    if (attach == nullptr) {
      while (end < to && attaches.find(end) == nullptr) end += size;
      if (kernel::protect(reinterpret_cast<void*>(from), end - from, protection) != 0) return errno;
    } else {
      const std::size_t page = (from - attach->base) / size;
      attach->set_wish(page, protection & (PROT_READ | PROT_WRITE | PROT_EXEC));
      while (end < to && end < attach->end() && attaches.find(end) == attach) {
        attach->set_wish((end - attach->base) / size, protection & (PROT_READ | PROT_WRITE | PROT_EXEC));
        end += size;
      }
      if (const int error = apply(*attach, page, (end - attach->base) / size); error != 0) return error;
    }
    from = end;
  }
  return 0;
}

// As the kernel does where a file was opened for reading only: SHM_RDONLY is for good.
bool forbidden(Address from, Address to) noexcept {
  for (Address at = from; at < to; at += Attaches::page_size()) {
    const Attach* const attach = process().attaches.find(at);
    if (attach != nullptr && attach->read_only) return true;
  }
  return false;
}

int change_protection(Address from, std::size_t length, int protection) noexcept {
  const std::size_t size = Attaches::page_size();
  if (from % size != 0) return EINVAL;
  const Address to = from + (length + size - 1) / size * size;
  const TableLock guard;
  if ((protection & PROT_WRITE) != 0 && forbidden(from, to)) return EACCES;
  return protect_all(from, to, protection);
}

struct Mapping {
  void* at;
  std::size_t length;
  int protection, flags, fd;
  off_t offset;
  void* result;
  int error;
};

}  // namespace
}  // namespace dsm::dshm

using namespace dsm::dshm;

extern "C" {

void* mmap(void* at, size_t length, int protection, int flags, int fd, off_t offset) noexcept {
  if ((flags & MAP_FIXED) == 0 || !hits(at, length)) return kernel::map(at, length, protection, flags, fd, offset);
  Mapping wanted{at, length, protection, flags, fd, offset, MAP_FAILED, 0};
  const auto from = reinterpret_cast<Address>(at);
  lose(from, from + length, [&wanted] {
    wanted.result = kernel::map(wanted.at, wanted.length, wanted.protection, wanted.flags, wanted.fd, wanted.offset);
    wanted.error = errno;
    return wanted.result != MAP_FAILED;
  });
  if (wanted.result == MAP_FAILED) errno = wanted.error;
  return wanted.result;
}

void* mmap64(void* at, size_t length, int protection, int flags, int fd, off64_t offset) noexcept {
  return mmap(at, length, protection, flags, fd, offset);
}

int munmap(void* at, size_t length) noexcept {
  if (!hits(at, length)) return kernel::unmap(at, length);
  Mapping wanted{at, length, 0, 0, -1, 0, nullptr, 0};
  const auto from = reinterpret_cast<Address>(at);
  const bool done = lose(from, from + length, [&wanted] {
    const bool well = kernel::unmap(wanted.at, wanted.length) == 0;
    wanted.error = errno;
    return well;
  });
  return done ? 0 : fail(wanted.error);
}

int mprotect(void* at, size_t length, int protection) noexcept {
  if (!hits(at, length)) return kernel::protect(at, length, protection);
  const int error = change_protection(reinterpret_cast<Address>(at), length, protection);
  return error == 0 ? 0 : fail(error);
}

// Attached memory has no keys: EINVAL.
int pkey_mprotect(void* at, size_t length, int protection, int key) noexcept {
  if (key == -1) return mprotect(at, length, protection);
  if (hits(at, length)) return fail(EINVAL);
  return static_cast<int>(::syscall(SYS_pkey_mprotect, at, length, protection, key));
}

// Attached memory stays where it is, and as large: EINVAL, where the kernel would move it. What is moved over it is as
// mapped over it.
void* mremap(void* at, size_t before, size_t after, int flags, ...) noexcept {
  void* to = nullptr;
  if ((flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) != 0) {
    va_list list;
    va_start(list, flags);
    to = va_arg(list, void*);
    va_end(list);
  }
  const auto remap = [=] { return reinterpret_cast<void*>(::syscall(SYS_mremap, at, before, after, flags, to)); };
  if (hits(at, before == 0 ? 1 : before)) {
    errno = EINVAL;
    return MAP_FAILED;
  }
  if ((flags & MREMAP_FIXED) == 0 || !hits(to, after)) return remap();
  struct {
    decltype(remap)* call;
    void* result;
    int error;
  } move{&remap, MAP_FAILED, 0};
  const auto from = reinterpret_cast<Address>(to);
  lose(from, from + after, [&move] {
    move.result = (*move.call)();
    move.error = errno;
    return move.result != MAP_FAILED;
  });
  if (move.result == MAP_FAILED) errno = move.error;
  return move.result;
}

}  // extern "C"
