// dsm/launch/dry_run.hpp - what a job would be, as text. Not async-signal-safe.
#pragma once
#include <string>

#include "dsm/launch/runner.hpp"

namespace dsm::launch {

// Lines for people: a line for each machine with its ranks and the command that reaches it, the program, the region.
[[nodiscard]] std::string describe(const Runner::Plan& plan);

}  // namespace dsm::launch
