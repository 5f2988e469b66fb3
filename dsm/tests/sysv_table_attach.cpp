// Rows of shmat and shmdt, and of what else may happen to an attach.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "dsm/tests/sysv_table.hpp"

namespace table {
namespace {

constexpr std::size_t page = 4096;

void* numbered(std::uintptr_t address) { return reinterpret_cast<void*>(address); }
// Free addresses: `count` pages, with free ones on both sides.
char* room(std::size_t count) {
  // Far below where the kernel puts what is mapped anywhere: nobody else's mapping shall come into it meanwhile.
  char* const far = static_cast<char*>(numbered(std::uintptr_t{1} << 44U));
  char* const base = static_cast<char*>(::mmap(far, (count + 2) * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ::munmap(base, (count + 2) * page);
  return base + page;
}
std::string attach_at(int id, const void* address, int flags) {
  const void* const got = ::shmat(id, address, flags);
  return got == address ? "there" : said(got);
}
unsigned long attaches(int id) {
  shmid_ds data{};
  return ::shmctl(id, IPC_STAT, &data) == 0 ? data.shm_nattch : 99;
}
std::string write_to(char* address) {
  return in_child([=] {
    *static_cast<volatile char*>(address) = 1;
    return std::string("written");
  });
}
std::string read_from(const char* address) {
  return in_child([=] { return text("reads %d", *static_cast<const volatile char*>(address)); });
}

std::string fields() {
  const int id = new_segment(page + 1);
  char* const at = attach(id);
  Line line = Line() << segment(id);
  const int result = ::shmdt(at);
  return line << "; " << said(result) << " " << segment(id) << "; after it: " << read_from(at);
}

std::string zeroes() {
  const int id = new_segment(page + 1);
  char* const at = attach(id);
  std::size_t others = 0;
  for (std::size_t i = 0; i < 2 * page; ++i) others += at[i] != 0;
  at[2 * page - 1] = 7;  // beyond its size, within its last page
  char* const again = attach(id);
  return text("%zu not zero; the page's end: %d", others, again[2 * page - 1]);
}

std::string twice() {
  const int id = new_segment();
  char *const one = attach(id), *const two = attach(id);
  one[5] = 42;
  Line line =
      Line() << text("%s reads %d nattch=%lu", one == two ? "same address" : "two addresses", two[5], attaches(id));
  return line << "; " << said(::shmdt(one)) << text(" reads %d nattch=%lu ", two[5], attaches(id)) << said(::shmdt(two))
              << text(" nattch=%lu", attaches(id));
}

std::string addresses() {
  const int id = new_segment(2 * page);
  char* const free = room(4);
  Line line = Line() << "free " << attach_at(id, free, 0);
  line << " occupied " << attach_at(id, free, 0) << " by its end " << attach_at(id, free + page, 0) << " before it "
       << attach_at(id, free - page, 0);
  line << " odd " << attach_at(id, free + 2 * page + 1, 0);
  const void* const rounded = ::shmat(id, free + 2 * page + 1, SHM_RND);
  line << std::string(" odd SHM_RND ") << (rounded == free + 2 * page ? "rounded down" : said(rounded).c_str());
  line << " beyond " << attach_at(id, numbered(0xffff800000000000U), 0) << " round the end "
       << attach_at(id, numbered(~std::uintptr_t{0} - page + 1), 0);
  return line << text(" nattch=%lu", attaches(id));
}

std::string remap() {
  const int id = new_segment(page), other = new_segment(3 * page);
  char* const old = attach(other);
  old[0] = 1, old[page] = 2, old[2 * page] = 3;
  attach(id)[0] = 9;
  Line line = Line() << "null " << said(::shmat(id, nullptr, SHM_REMAP)) << " rounded to null "
                     << said(::shmat(id, numbered(1), SHM_REMAP | SHM_RND)) << " odd "
                     << said(::shmat(id, old + 1, SHM_REMAP));
  line << "; the middle " << attach_at(id, old + page, SHM_REMAP)
       << text(" %d %d %d", old[0], old[page], old[2 * page]);
  char* const whole = attach(other);
  line << "; the whole " << attach_at(other, whole, SHM_REMAP) << text(" %d", whole[0]);
  line << "; bad id " << attach_at(-1, whole, SHM_REMAP) << text(" still %d", whole[0]);
  const int third = new_segment(3 * page);
  const unsigned long before = attaches(other);
  line << "; by another " << attach_at(third, whole, SHM_REMAP)
       << text(" %d nattch%+ld", whole[0], static_cast<long>(attaches(other) - before));
  shmid_ds data{};
  ::shmctl(other, IPC_STAT, &data);
  return line << " lpid=" << who(data.shm_lpid) << " dtime=" << when(data.shm_dtime);
}

std::string read_only() {
  const int id = new_segment(page);
  char *const rw = attach(id), *const ro = attach(id, SHM_RDONLY);
  rw[3] = 77;
  Line line = Line() << text("sees %d; writing: ", ro[3]) << write_to(ro) << "; mprotect "
                     << said(::mprotect(ro, page, PROT_READ | PROT_WRITE)) << " none "
                     << said(::mprotect(ro, page, PROT_NONE)) << " " << read_from(ro) << " back "
                     << said(::mprotect(ro, page, PROT_READ));
  rw[3] = 78;
  return line << text(" sees %d", ro[3]);
}

std::string protect() {
  const int id = new_segment(2 * page);
  char* const at = attach(id);
  at[0] = 5;
  Line line = Line() << said(::mprotect(at, page, PROT_READ)) << " " << write_to(at) << " " << write_to(at + page)
                     << " " << read_from(at);
  line << "; " << said(::mprotect(at, page, PROT_READ | PROT_WRITE)) << " " << write_to(at) << text(" now %d", at[0]);
  return line;
}

std::string executable() {
  const int id = new_segment(page, 0700), not_x = new_segment(page, 0600);
  return Line() << said(::shmat(id, nullptr, SHM_EXEC)) << " " << said(::shmat(id, nullptr, SHM_EXEC | SHM_RDONLY))
                << " without x " << said(::shmat(not_x, nullptr, SHM_EXEC)) << text(" nattch=%lu", attaches(not_x));
}

std::string no_memory() {
  const int id = new_segment(std::size_t{64} << 20);
  long pages = 0;
  if (FILE* const file = std::fopen("/proc/self/statm", "r"); file != nullptr) {
    if (std::fscanf(file, "%ld", &pages) != 1) pages = 0;
    std::fclose(file);
  }
  rlimit old{};
  ::getrlimit(RLIMIT_AS, &old);
  const rlimit tight{static_cast<rlim_t>(pages) * page + (rlim_t{16} << 20U), old.rlim_max};
  ::setrlimit(RLIMIT_AS, &tight);
  Line line = Line() << said(::shmat(id, nullptr, 0));
  ::setrlimit(RLIMIT_AS, &old);
  return line << text(" nattch=%lu then ", attaches(id)) << said(::shmat(id, nullptr, 0))
              << text(" nattch=%lu", attaches(id));
}

std::string detach_errors() {
  const int id = new_segment(3 * page);
  char* const at = attach(id);
  static char own[page];
  Line line = Line() << "null " << said(::shmdt(nullptr)) << " odd " << said(::shmdt(at + 1)) << " middle "
                     << said(::shmdt(at + page)) << " end " << said(::shmdt(at + 3 * page)) << " own memory "
                     << said(::shmdt(own)) << " kernel's " << said(::shmdt(numbered(0xffff800000000000U)))
                     << text(" nattch=%lu", attaches(id));
  return line << "; start " << said(::shmdt(at)) << " again " << said(::shmdt(at));
}

// Not how often it is attached meanwhile: Linux counts mappings, and a hole in the middle, or another protection, makes two
// of one.
std::string unmap(std::size_t from, std::size_t count) {
  const int id = new_segment(3 * page);
  char* const at = attach(id);
  Line line = Line() << said(::munmap(at + from * page, count * page));
  for (std::size_t i = 0; i < 3; ++i) line << " " << write_to(at + i * page);
  line << "; shmdt " << said(::shmdt(at)) << text(" nattch=%lu", attaches(id));
  for (std::size_t i = 0; i < 3; ++i) line << " " << write_to(at + i * page);
  return line << "; " << segment(id);
}

std::string map_over() {
  const int id = new_segment(2 * page);
  char* const at = attach(id);
  at[0] = 1;
  const void* const got = ::mmap(at, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  return Line() << said(got) << text(" reads %d ", at[0]) << segment(id) << "; shmdt " << said(::shmdt(at))
                << text(" still reads %d", at[0]);
}

std::string system_calls() {
  const int id = new_segment(8 * page);
  char* const at = attach(id);
  int fds[2], pair[2];
  if (::pipe(fds) != 0 || ::socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) return said(-1L);
  Line line = Line() << text("write %zd", ::write(fds[1], at, 10));  // pages that nobody has touched
  line << text(" read %zd", ::read(fds[0], at + page, 10));
  line << text(" across a border %zd", ::write(fds[1], at + 3 * page - 5, 10))
       << text(" %zd", ::read(fds[0], at + 4 * page - 5, 10));
  std::strcpy(at + 5 * page, "hello");
  line << text(" send %zd", ::send(pair[0], at + 5 * page, 6, 0))
       << text(" recv %zd", ::recv(pair[1], at + 6 * page, 100, 0)) << " " << std::string(at + 6 * page);
  iovec parts[2] = {{at + 5 * page, 3}, {at + 7 * page, 4}};
  line << text(" writev %zd", ::writev(fds[1], parts, 2)) << text(" readv %zd", ::readv(fds[0], parts, 2));
  struct stat* const place = reinterpret_cast<struct stat*>(at + 7 * page + 64);
  line << " stat " << said(::stat("/", place)) << (S_ISDIR(place->st_mode) ? " a directory" : " what?");
  char* const ro = attach(id, SHM_RDONLY);
  ::write(fds[1], "x", 1);
  return line << " into a read-only one " << said(::read(fds[0], ro, 1));
}

}  // namespace

std::vector<Row> attach_rows() {
  const Who both = Who::both;
  return {
      {"shmat fields", both, fields},
      {"shmat zeroes", both, zeroes},
      {"shmat twice", both, twice},
      {"shmat addresses", both, addresses},
      {"shmat remap", both, remap},
      {"shmat read-only", both, read_only},
      {"shmat exec", both, executable},
      {"shmat no memory", both, no_memory},
      {"shm mprotect", both, protect},
      {"shmdt errors", both, detach_errors},
      {"shm munmap all", both, [] { return unmap(0, 3); }},
      {"shm munmap first", both, [] { return unmap(0, 1); }},
      {"shm munmap middle", both, [] { return unmap(1, 1); }},
      {"shm munmap last", both, [] { return unmap(2, 1); }},
      {"shm mmap over it", both, map_over},
      {"shm system calls", both, system_calls},
  };
}

}  // namespace table
