// dsm/pager/kind.hpp - which pager: what `dsmexec --pager` names, and dsm_init makes.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "dsm/pager/pager.hpp"

namespace dsm::pager {

enum class Kind : std::uint8_t { sigsegv, uffd };

[[nodiscard]] constexpr std::string_view name(Kind kind) noexcept { return kind == Kind::uffd ? "uffd" : "sigsegv"; }

// False, and `out` as it was, if there is no pager of that name.
[[nodiscard]] constexpr bool parse(std::string_view text, Kind& out) noexcept {
  for (const Kind kind : {Kind::sigsegv, Kind::uffd}) {
    if (text != name(kind)) continue;
    out = kind;
    return true;
  }
  return false;
}

// The arguments are those of the constructors (sigsegv.hpp, uffd.hpp). Throws std::system_error.
[[nodiscard]] std::unique_ptr<Pager> make(Kind kind, std::size_t size, std::size_t page_size, FaultSink& sink,
                                          std::size_t own = 0);

}  // namespace dsm::pager
