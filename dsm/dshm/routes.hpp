// dsm/dshm/routes.hpp - whose an object is: dsmd's, or the kernel's. By key (DSHM_KEYS), then by id.
//
// An id is what whoever gave it out last in this process (or before fork, in its parent) says; one that came otherwise, in a
// message or a file, is dsmd's. Thread-safe. Not async-signal-safe.
#pragma once
#include <cstdint>

#include "dsm/sysv/wire.hpp"

namespace dsm::dshm {

enum class Route : std::uint8_t { ours, kernel, refused };  // refused: DSHM_KEYS is malformed, and that has been said

[[nodiscard]] Route route_key(std::int32_t key);
[[nodiscard]] Route route_id(sysv::Object kind, std::int32_t id);
// What is asked of all objects: SHM_INFO, SHM_STAT ...
[[nodiscard]] Route route_all();
// shmget, semget have had an id from there.
void note_route(sysv::Object kind, std::int32_t id, Route from);

// For fork, as with a lock: a child has the whole of it.
void lock_routes() noexcept;
void unlock_routes() noexcept;

}  // namespace dsm::dshm
