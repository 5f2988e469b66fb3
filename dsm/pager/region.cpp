#include "dsm/pager/region.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
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
  char line[256];
  std::size_t length = 0;
  for (const std::string_view word : words) {
    length += word.copy(line + length, sizeof line - length);
  }
  line[std::min(length, sizeof line - 1)] = '\n';
  if (::write(STDERR_FILENO, line, std::min(length + 1, sizeof line)) < 0) return;  // nobody is left to be told
}

Region::Region(std::size_t bytes, std::size_t page_bytes, std::size_t own)
    : size(bytes), page_size(page_bytes), views(map_views(bytes, page_bytes, own)) {}

bool Region::missed_in_child(const siginfo_t& info) const noexcept {
  if (info.si_code != SEGV_MAPERR || !views.application.contains(info.si_addr)) return false;
  say(
      {"dsm: the shared region does not exist in a forked child; touch it in the parent only (to exec another "
       "program is fine)"});
  return true;
}

}  // namespace dsm::pager
