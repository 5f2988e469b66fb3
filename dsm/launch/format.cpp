// libfmt's code for dsmexec itself. Debian has libfmt as a shared library only; that would bring libstdc++ as another,
// and most of the time that a short program's job takes would be ld.so's: module.mk. Nothing but vformat() is called
// from outside of fmt's headers; were it more, the linker would say so.
#define FMT_HEADER_ONLY
#include <fmt/format.h>

namespace dsm::launch {

// Named, so that the compiler makes it, for the others to find.
[[gnu::used]] static std::string (*const made_here)(fmt::string_view, fmt::format_args) = &fmt::vformat;

}  // namespace dsm::launch
