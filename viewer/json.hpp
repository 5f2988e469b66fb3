// viewer/json.hpp - `dsmtop --once --json`. A pure function.
#pragma once
#include <string>

#include "dsm/telemetry/snapshot.hpp"

namespace viewer {

// One line of JSON without its newline. A page's owner is null while it is moving (nobody owns it), for a shared page it
// is the home; pages never touched are left out. What is no UTF-8 in a name is replaced.
[[nodiscard]] std::string to_json(const dsm::telemetry::Snapshot& snapshot);

}  // namespace viewer
