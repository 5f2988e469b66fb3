// dsm/dshm/faults.hpp - pages of attached segments where the kernel does not ask the agent: SIGSEGV, and orders.
//
// What a page may be used for is set by mprotect: by what the program wants and what the agent's orders allow, whichever
// is less. Who wants more asks the agent by the service connection, and sleeps until an order about the page is obeyed.
// Thread-safe. async-signal-safe: all but prepare_faults().
#pragma once
#include <cstddef>

#include "dsm/core/types.hpp"
#include "dsm/dshm/attaches.hpp"
#include "dsm/dshm_agent/local.hpp"

namespace dsm::dshm {

// Puts the handler in front of the program's SIGSEGV, once. 0 or an errno value.
[[nodiscard]] int prepare_faults() noexcept;

// For the service thread: does it, wakes who waits for it, and acknowledges.
void obey(const dshm_agent::Order& order) noexcept;

// Sets the protections of pages [from, to) as they should be. REQUIRES: table. 0 or an errno value.
int apply(Attach& attach, std::size_t from, std::size_t to) noexcept;

// Makes what is attached of [at, at + length) present, page by page; pages may leave again before the last has come. False
// if the program itself does not allow a part of it.
bool bring(const void* at, std::size_t length, core::Access want) noexcept;

}  // namespace dsm::dshm
