// dlopen without RTLD_DEEPBIND: a library that was opened with it (PHP opens its extensions so) would call the C library
// past everything that is preloaded, and so the kernel's shmget.
//
// Not seen: dlmopen, whose libraries have a C library of their own.
#include <dlfcn.h>

#include <atomic>

namespace {

// Not by next.hpp: noexcept, so that the call below is a jump.
using Dlopen = void* (*)(const char*, int) noexcept;
constinit std::atomic<Dlopen> found{nullptr};

[[gnu::constructor]] void find_early() { found = reinterpret_cast<Dlopen>(::dlsym(RTLD_NEXT, "dlopen")); }

}  // namespace

// The C library looks at where it is called from (for RUNPATH and $ORIGIN): as this call is a jump, that is our caller.
extern "C" [[gnu::visibility("default")]] void* dlopen(const char* file, int flags) noexcept {
  if (found.load(std::memory_order_relaxed) == nullptr) find_early();
  return found.load(std::memory_order_relaxed)(file, flags & ~RTLD_DEEPBIND);
}
