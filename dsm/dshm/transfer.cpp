// read, write and their relatives, where pages come by SIGSEGV: the kernel would say EFAULT of a page that is not here.
//
// So it never sees such a page: what is attached of a buffer is copied to, or from, memory of our own, by instructions,
// which may fault. To bring the pages first would not do: one may leave before the kernel comes to it, and what a
// datagram socket has delivered in vain is lost. The system call stays one, with all its meanings.
//
// Where the kernel asks the agent by itself nothing of this is needed. Not seen: raw system calls, what the C library
// does inside (fread and fwrite of large blocks), and all other calls that take a buffer.
//
// These are points of cancellation: nothing that would have to be destroyed lives across a call (it would be lost).
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <utility>

#include "dsm/dshm/faults.hpp"
#include "dsm/dshm/kernel.hpp"
#include "dsm/dshm/next.hpp"
#include "dsm/dshm/process.hpp"

namespace dsm::dshm {
namespace {

using core::Access;

constinit Next<ssize_t(int, void*, size_t)> next_read{"read"};
constinit Next<ssize_t(int, const void*, size_t)> next_write{"write"};
constinit Next<ssize_t(int, void*, size_t, off_t)> next_pread{"pread"};
constinit Next<ssize_t(int, const void*, size_t, off_t)> next_pwrite{"pwrite"};
constinit Next<ssize_t(int, const iovec*, int)> next_readv{"readv"}, next_writev{"writev"};
constinit Next<ssize_t(int, const iovec*, int, off_t)> next_preadv{"preadv"}, next_pwritev{"pwritev"};
constinit Next<ssize_t(int, void*, size_t, int)> next_recv{"recv"};
constinit Next<ssize_t(int, const void*, size_t, int)> next_send{"send"};
constinit Next<ssize_t(int, void*, size_t, int, sockaddr*, socklen_t*)> next_recvfrom{"recvfrom"};
constinit Next<ssize_t(int, const void*, size_t, int, const sockaddr*, socklen_t)> next_sendto{"sendto"};
constinit Next<ssize_t(int, msghdr*, int)> next_recvmsg{"recvmsg"};
constinit Next<ssize_t(int, const msghdr*, int)> next_sendmsg{"sendmsg"};

template <class... All>
void find_all(All&... all) {
  ((void)all.find(), ...);
}
[[gnu::constructor]] void find_early() {
  find_all(next_read, next_write, next_pread, next_pwrite, next_readv, next_writev, next_preadv, next_pwritev,
           next_recv, next_send, next_recvfrom, next_sendto, next_recvmsg, next_sendmsg);
}

// Of the part, anything is attached; and the program itself allows what is wanted of it all (else: EFAULT, as ever).
bool is_attached(const iovec& part, Access want) noexcept {
  const auto from = reinterpret_cast<Address>(part.iov_base);
  const Address to = from + part.iov_len;
  if (to <= from || !process().attaches.maybe(from, to)) return false;
  const std::size_t size = Attaches::page_size();
  bool some = false;
  const TableLock guard;
  for (Address page = from / size * size; page < to; page += size) {
    const Attach* const attach = process().attaches.find(page);
    if (attach == nullptr) continue;
    some = true;
    const int wish = attach->wish((page - attach->base) / size);
    if ((wish & (want == Access::write ? PROT_WRITE : PROT_READ)) == 0) return false;
  }
  return some;
}

bool needed() noexcept {
  return process().state.load(std::memory_order_relaxed) == State::live && !process().asked.load() &&
         process().attaches.maybe(0, UINTPTR_MAX);
}

// The parts as the kernel gets them; no destructor.
struct Copies {
  void* memory = nullptr;  // nullptr: there is no need
  std::size_t size = 0;
  iovec* parts = nullptr;
};

// -1 and errno if there is no memory.
int make(Copies& copies, const iovec* parts, std::size_t count, Access want) noexcept {
  constexpr std::size_t most = 1024;  // IOV_MAX: more are refused anyway
  if (!needed() || count == 0 || count > most) return 0;
  std::size_t size = count * sizeof(iovec);
  bool some = false;
  for (std::size_t i = 0; i < count; ++i) {
    if (!is_attached(parts[i], want)) continue;
    some = true;
    if (parts[i].iov_len > SIZE_MAX / 2 - size) return 0;
    size += parts[i].iov_len;
  }
  if (!some) return 0;
  void* const memory =
      kernel::map(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    errno = ENOMEM;
    return -1;
  }
  copies = {memory, size, static_cast<iovec*>(memory)};
  char* room = static_cast<char*>(memory) + count * sizeof(iovec);
  for (std::size_t i = 0; i < count; ++i) {
    copies.parts[i] = parts[i];
    if (!is_attached(parts[i], want)) continue;
    copies.parts[i].iov_base = room;
    if (want == Access::read) ::memcpy(room, parts[i].iov_base, parts[i].iov_len);
    room += parts[i].iov_len;
  }
  return 0;
}

// What came goes where the program wanted it.
ssize_t finish(const Copies& copies, const iovec* parts, std::size_t count, Access want, ssize_t result) noexcept {
  const int error = errno;
  std::size_t left = want == Access::write && result > 0 ? static_cast<std::size_t>(result) : 0;
  for (std::size_t i = 0; i < count && left > 0; ++i) {
    const std::size_t here = std::min(left, parts[i].iov_len);
    if (copies.parts[i].iov_base != parts[i].iov_base) ::memcpy(parts[i].iov_base, copies.parts[i].iov_base, here);
    left -= here;
  }
  kernel::unmap(copies.memory, copies.size);
  errno = error;
  return result;
}

// `call` gets the parts to use.
template <class Call>
ssize_t transfer(const iovec* parts, std::size_t count, Access want, Call call) {
  Copies copies;
  if (make(copies, parts, count, want) != 0) return -1;
  if (copies.memory == nullptr) return call(parts);
  return finish(copies, parts, count, want, call(copies.parts));
}

template <class Call>
ssize_t transfer(const void* buffer, std::size_t size, Access want, Call call) {
  const iovec part{const_cast<void*>(buffer), size};
  return transfer(&part, 1, want, [&call](const iovec* parts) { return call(parts->iov_base); });
}

std::size_t count_of(int count) { return count < 0 ? 0 : static_cast<std::size_t>(count); }

}  // namespace
}  // namespace dsm::dshm

using namespace dsm::dshm;
using dsm::core::Access;

extern "C" {

ssize_t read(int fd, void* buffer, size_t size) {
  return transfer(buffer, size, Access::write, [=](void* to) { return next_read(fd, to, size); });
}

ssize_t write(int fd, const void* buffer, size_t size) {
  return transfer(buffer, size, Access::read, [=](const void* from) { return next_write(fd, from, size); });
}

ssize_t pread(int fd, void* buffer, size_t size, off_t offset) {
  return transfer(buffer, size, Access::write, [=](void* to) { return next_pread(fd, to, size, offset); });
}
ssize_t pread64(int fd, void* buffer, size_t size, off64_t offset) { return pread(fd, buffer, size, offset); }

ssize_t pwrite(int fd, const void* buffer, size_t size, off_t offset) {
  return transfer(buffer, size, Access::read, [=](const void* from) { return next_pwrite(fd, from, size, offset); });
}
ssize_t pwrite64(int fd, const void* buffer, size_t size, off64_t offset) { return pwrite(fd, buffer, size, offset); }

ssize_t readv(int fd, const struct iovec* parts, int count) {
  return transfer(parts, count_of(count), Access::write, [=](const iovec* to) { return next_readv(fd, to, count); });
}

ssize_t writev(int fd, const struct iovec* parts, int count) {
  return transfer(parts, count_of(count), Access::read,
                  [=](const iovec* from) { return next_writev(fd, from, count); });
}

ssize_t preadv(int fd, const struct iovec* parts, int count, off_t offset) {
  return transfer(parts, count_of(count), Access::write,
                  [=](const iovec* to) { return next_preadv(fd, to, count, offset); });
}
ssize_t preadv64(int fd, const struct iovec* parts, int count, off64_t offset) {
  return preadv(fd, parts, count, offset);
}

ssize_t pwritev(int fd, const struct iovec* parts, int count, off_t offset) {
  return transfer(parts, count_of(count), Access::read,
                  [=](const iovec* from) { return next_pwritev(fd, from, count, offset); });
}
ssize_t pwritev64(int fd, const struct iovec* parts, int count, off64_t offset) {
  return pwritev(fd, parts, count, offset);
}

ssize_t recv(int fd, void* buffer, size_t size, int flags) {
  return transfer(buffer, size, Access::write, [=](void* to) { return next_recv(fd, to, size, flags); });
}

ssize_t send(int fd, const void* buffer, size_t size, int flags) {
  if ((flags & MSG_ZEROCOPY) != 0) {
    (void)bring(buffer, size, Access::read);
    return next_send(fd, buffer, size, flags);
  }
  return transfer(buffer, size, Access::read, [=](const void* from) { return next_send(fd, from, size, flags); });
}

ssize_t recvfrom(int fd, void* buffer, size_t size, int flags, struct sockaddr* from, socklen_t* length) {
  return transfer(buffer, size, Access::write,
                  [=](void* to) { return next_recvfrom(fd, to, size, flags, from, length); });
}

ssize_t sendto(int fd, const void* buffer, size_t size, int flags, const struct sockaddr* to, socklen_t length) {
  return transfer(buffer, size, Access::read,
                  [=](const void* from) { return next_sendto(fd, from, size, flags, to, length); });
}

ssize_t recvmsg(int fd, struct msghdr* message, int flags) {
  if (!needed()) return next_recvmsg(fd, message, flags);
  iovec* const parts = message->msg_iov;
  const ssize_t result = transfer(parts, message->msg_iovlen, Access::write, [=](const iovec* to) {
    message->msg_iov = const_cast<iovec*>(to);
    return next_recvmsg(fd, message, flags);
  });
  message->msg_iov = parts;
  return result;
}

ssize_t sendmsg(int fd, const struct msghdr* message, int flags) {
  if (!needed() || (flags & MSG_ZEROCOPY) != 0) return next_sendmsg(fd, message, flags);
  return transfer(message->msg_iov, message->msg_iovlen, Access::read, [=](const iovec* from) {
    msghdr other = *message;
    other.msg_iov = const_cast<iovec*>(from);
    return next_sendmsg(fd, &other, flags);
  });
}

// What programs call that are compiled with _FORTIFY_SOURCE.
[[noreturn]] void __chk_fail();

ssize_t __read_chk(int fd, void* buffer, size_t size, size_t room) {
  if (size > room) __chk_fail();
  return read(fd, buffer, size);
}
ssize_t __pread_chk(int fd, void* buffer, size_t size, off_t offset, size_t room) {
  if (size > room) __chk_fail();
  return pread(fd, buffer, size, offset);
}
ssize_t __pread64_chk(int fd, void* buffer, size_t size, off64_t offset, size_t room) {
  if (size > room) __chk_fail();
  return pread(fd, buffer, size, offset);
}
ssize_t __recv_chk(int fd, void* buffer, size_t size, size_t room, int flags) {
  if (size > room) __chk_fail();
  return recv(fd, buffer, size, flags);
}
ssize_t __recvfrom_chk(int fd, void* buffer, size_t size, size_t room, int flags, struct sockaddr* from,
                       socklen_t* length) {
  if (size > room) __chk_fail();
  return recvfrom(fd, buffer, size, flags, from, length);
}

}  // extern "C"
