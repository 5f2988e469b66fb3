// viewer/print.hpp - dsmtop without a screen: --list, --once, --json, --batch.
#pragma once
#include <string>

#include "viewer/options.hpp"

namespace viewer {

// Prints to standard output; returns the exit status, 1 with one line on stderr when there is no such job, it does not
// answer, or nothing can be written. Never waits for a job to start.
[[nodiscard]] int print(const Options& options, bool utf8);

}  // namespace viewer
