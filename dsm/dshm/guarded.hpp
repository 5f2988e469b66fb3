// dsm/dshm/guarded.hpp - memory of the program's that a call was given: copied as the kernel would, EFAULT instead of
// death.
//
// Thread-safe. async-signal-safe: yes.
#pragma once
#include <cstddef>

namespace dsm::dshm {

// False: a part of it cannot be read (written). What is attached is brought first.
[[nodiscard]] bool copy_in(void* to, const void* from, std::size_t size) noexcept;
[[nodiscard]] bool copy_out(void* to, const void* from, std::size_t size) noexcept;

}  // namespace dsm::dshm
