#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <vector>

#include "dsm/dshm/guest.hpp"

namespace dsm::dshm::guest {
namespace {

constexpr std::size_t pages = 16, half = pages / 2 * page;

void fill(char* where, std::size_t size, unsigned seed) {
  for (std::size_t i = 0; i < size; ++i) where[i] = static_cast<char>(i * 7 + i / page + seed);
}
bool filled(const char* where, std::size_t size, unsigned seed) {
  for (std::size_t i = 0; i < size; ++i) {
    if (where[i] != static_cast<char>(i * 7 + i / page + seed)) return false;
  }
  return true;
}

// In each round the memory is attached anew, so that no page of it is here.
struct Fresh {
  explicit Fresh(const Segment& segment) : where(segment.attach()) {}
  ~Fresh() { MUST(::shmdt(where) == 0); }
  char* const where;
};

void files(const Segment& one, int file) {
  {
    const Fresh memory(one);
    fill(memory.where, half, 1);
  }
  {
    const Fresh memory(one);
    MUST(::write(file, memory.where, half) == static_cast<ssize_t>(half));
    MUST(::pread(file, memory.where + half, half, 0) == static_cast<ssize_t>(half));
    MUST(filled(memory.where + half, half, 1));
  }
  {
    const Fresh memory(one);
    MUST(::pwrite(file, memory.where + half, half, 100) == static_cast<ssize_t>(half));
    MUST(::lseek(file, 100, SEEK_SET) == 100);
    MUST(::read(file, memory.where + 1, half) == static_cast<ssize_t>(half) && filled(memory.where + 1, half, 1));
  }
  char own[100];
  {
    const Fresh memory(one);
    const iovec parts[] = {{own, sizeof own}, {memory.where + page, page}, {memory.where + 5 * page, 3 * page}};
    MUST(::preadv(file, parts, 3, 0) == static_cast<ssize_t>(sizeof own + 4 * page));
    MUST(::lseek(file, 0, SEEK_SET) == 0 && ::readv(file, parts, 3) == static_cast<ssize_t>(sizeof own + 4 * page));
    MUST(filled(memory.where + page, page, 1));  // what stands from byte 100 on
  }
  const Fresh memory(one);
  const iovec parts[] = {{memory.where + 5 * page, 3 * page}, {own, sizeof own}};
  MUST(::pwritev(file, parts, 2, 0) == static_cast<ssize_t>(sizeof own + 3 * page));
  MUST(::lseek(file, 0, SEEK_SET) == 0 && ::writev(file, parts, 2) == static_cast<ssize_t>(sizeof own + 3 * page));
}

void sockets(const Segment& one, int type) {
  int ends[2];
  MUST(::socketpair(AF_UNIX, type, 0, ends) == 0);
  {
    const Fresh memory(one);
    fill(memory.where, page, 2);
  }
  for (int round = 0; round < 4; ++round) {
    const Fresh memory(one);
    iovec out{memory.where, page};
    msghdr message{};
    message.msg_iov = &out;
    message.msg_iovlen = 1;
    const ssize_t sent = round == 0   ? ::send(ends[0], memory.where, page, 0)
                         : round == 1 ? ::sendto(ends[0], memory.where, page, 0, nullptr, 0)
                         : round == 2 ? ::sendmsg(ends[0], &message, 0)
                                      : ::write(ends[0], memory.where, page);
    MUST(sent == static_cast<ssize_t>(page));
    char* const to = memory.where + 3 * page + 10;
    iovec in{to, 2 * page};
    message.msg_iov = &in;
    const ssize_t got = round == 0   ? ::recv(ends[1], to, 2 * page, 0)
                        : round == 1 ? ::recvfrom(ends[1], to, 2 * page, 0, nullptr, nullptr)
                        : round == 2 ? ::recvmsg(ends[1], &message, 0)
                                     : ::read(ends[1], to, 2 * page);
    MUST(got == static_cast<ssize_t>(page) && filled(to, page, 2) && message.msg_iov == &in);
    ::memset(to, 0, page);
  }
  ::close(ends[0]);
  ::close(ends[1]);
}

// What the program itself does not allow is EFAULT, as ever; and nothing is lost by it.
void refused(const Segment& one, int file) {
  char* const reading = one.attach(SHM_RDONLY);
  FAILS(EFAULT, ::pread(file, reading, page, 0));
  MUST(::pwrite(file, reading, page, 0) == static_cast<ssize_t>(page));
  MUST(::shmdt(reading) == 0);
  const Fresh memory(one);
  MUST(::mprotect(memory.where, page, PROT_NONE) == 0);
  FAILS(EFAULT, ::pwrite(file, memory.where, page, 0));
  FAILS(EFAULT, ::pread(file, memory.where, page, 0));
}

// The argument of a call may be attached memory, too.
void arguments(const Segment& one) {
  const Fresh memory(one);
  auto* const status = reinterpret_cast<shmid_ds*>(memory.where + 2 * page - 16);  // on two pages
  MUST(::shmctl(one.id, IPC_STAT, status) == 0 && status->shm_nattch == 1);
  const Fresh again(one);
  MUST(::shmctl(one.id, IPC_SET, reinterpret_cast<shmid_ds*>(again.where + 2 * page - 16)) == 0);
}

}  // namespace

void transfers() {
  const Segment one(pages);
  const int file = ::memfd_create("file", 0);
  MUST(file >= 0);
  files(one, file);
  for (const int type : {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET}) sockets(one, type);
  refused(one, file);
  arguments(one);
}

// One of two, who have a half of each page each; the other one is somewhere else. Waits for him first.
void contend(int id, int side, int rounds) {
  constexpr std::size_t size = page / 4, shared_pages = 4;
  auto* const where = static_cast<char*>(::shmat(id, nullptr, 0));
  MUST(where != reinterpret_cast<char*>(-1));
  volatile char* const here = where + shared_pages * page;  // one flag for each
  here[side] = 1;
  wait_for([here, side] { return here[1 - side] == 1; });
  int ends[2];
  MUST(::socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) == 0);  // what it gives in vain is lost
  for (int round = 0; round < rounds; ++round) {
    const auto seed = static_cast<unsigned>(round);
    for (std::size_t i = 0; i < shared_pages; ++i) {
      char* const mine = where + i * page + static_cast<std::size_t>(side) * 2 * size;
      fill(mine, size, seed);
      MUST(::send(ends[0], mine, size, 0) == static_cast<ssize_t>(size));
      MUST(::recv(ends[1], mine + size, size, 0) == static_cast<ssize_t>(size));
      MUST(filled(mine, size, seed) && filled(mine + size, size, seed));
    }
    if (round % 50 == 7) {
      in_child([&] {
        char* const mine = where + static_cast<std::size_t>(side) * 2 * size;
        MUST(filled(mine, size, seed));
        fill(mine, size, seed + 1);
      });
      MUST(filled(where + static_cast<std::size_t>(side) * 2 * size, size, seed + 1));
    }
  }
  MUST(::shmdt(where) == 0);
}

}  // namespace dsm::dshm::guest
