#include "dsm/pager/region.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <system_error>

namespace dsm::pager {

namespace {

ipc::TwoViews map_views(std::size_t size, std::size_t page_size, std::size_t own) {
  if (page_size == 0 || page_size % ipc::page_size() != 0 || size == 0 || size % page_size != 0 ||
      own % page_size != 0) {
    throw std::system_error(
        EINVAL, std::generic_category(),
        "a region of " + std::to_string(size) + " bytes in pages of " + std::to_string(page_size) + " bytes");
  }
  return ipc::map_two_views(own == 0 ? size : size + page_size + own, reinterpret_cast<void*>(region_base));
}

}  // namespace

void say(std::initializer_list<std::string_view> words) noexcept {
  char line[512];
  std::size_t length = 0;
  for (const std::string_view word : words) {
    length += word.copy(line + length, sizeof line - length);
  }
  line[std::min(length, sizeof line - 1)] = '\n';
  if (::write(STDERR_FILENO, line, std::min(length + 1, sizeof line)) < 0) return;  // nobody is left to be told
}

Region::Region(std::size_t bytes, std::size_t page_bytes, std::size_t own)
    : size(bytes),
      page_size(page_bytes),
      views(map_views(bytes, page_bytes, own)),
      reserved(nullptr, views.application.size() / page_bytes / 8 + 1, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, "the table of the pages that have memory") {}

// Two threads may come here for one page: the second asks for what is there.
void Region::reserve_now(core::Page page) const noexcept {
  const int before = errno;
  int result = 0;
  do {
    result = populate(page);
  } while (result == -1 && errno == EINTR);
  if (result == -1) {
    say({"dsm: no memory for one more page of the shared region (", strerrorname_np(errno),
         "); use a machine with more, or more hosts"});
    std::abort();
  }
  errno = before;
  std::atomic_ref<char>(reserved.data()[page / 8])
      .fetch_or(static_cast<char>(1 << (page % 8)), std::memory_order_relaxed);
}

// Through the alias: its entry in the page table comes with the frame, and saves the fault that the page's first use would
// be. So this costs next to nothing, where fallocate(2), which makes the frame alone, costs 2 us of a read miss.
int Region::populate(core::Page page) const noexcept {
  constexpr int populate_write = 23;  // MADV_POPULATE_WRITE, since Linux 5.14
  const std::size_t offset = page * page_size;
  if (::madvise(views.alias.data() + offset, page_size, populate_write) == 0) return 0;
  if (errno != EINVAL) return -1;
  return ::fallocate(views.memory.get(), 0, static_cast<off_t>(offset), static_cast<off_t>(page_size));
}

bool Region::missed_in_child(const siginfo_t& info) const noexcept {
  if (info.si_code != SEGV_MAPERR || !views.application.contains(info.si_addr)) return false;
  say(
      {"dsm: the shared region does not exist in a forked child; touch it in the parent only (to exec another "
       "program is fine)"});
  return true;
}

}  // namespace dsm::pager
