// dsm/dshm/segment_map.hpp - attaching and detaching: the mappings of this process, and the agent told of them.
//
// Thread-safe. Not async-signal-safe, but for lose(), which allocates only if something attached is really hit.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>

#include "dsm/dshm/attaches.hpp"

namespace dsm::dshm {

// shmat(2), once its arguments are known to be well: 0 and the address, or an errno value. `at`: page-aligned, where it
// must be if `fixed`.
[[nodiscard]] int attach_segment(std::int32_t id, Address at, bool fixed, int flags, Address& where);

// shmdt(2): 0, EINVAL. False in `ours`: nothing of ours begins there.
[[nodiscard]] int detach_segment(Address base, bool& ours);

// Does `change`, which maps something else, or nothing, over [from, to); if it returns true, what was attached there is
// gone, and the agent is told. REQUIRES: not shape, not table.
bool lose(Address from, Address to, const std::function<bool()>& change);

}  // namespace dsm::dshm
