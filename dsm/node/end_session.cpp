#include "dsm/node/end_session.hpp"

#include <unistd.h>

#include <array>
#include <charconv>

#include "dsm/pager/region.hpp"

namespace dsm::node {

void end_session(int rank, std::string_view why) noexcept {
  std::array<char, 12> digits{};
  const char* const end = std::to_chars(digits.data(), digits.data() + digits.size(), rank).ptr;
  pager::say({"dsm: rank ", {digits.data(), static_cast<std::size_t>(end - digits.data())}, ": ", why});
  ::_exit(exit_session_over);
}

}  // namespace dsm::node
