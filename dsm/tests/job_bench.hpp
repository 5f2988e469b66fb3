// dsm/tests/job_bench.hpp - short words for tests that run whole jobs.
#pragma once
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "dsm/tests/launch_bench.hpp"

namespace dsm::launch::testing {

// The environment's DSM_TEST_RUNS.
inline int runs(int otherwise) {
  const char* asked = std::getenv("DSM_TEST_RUNS");
  return asked == nullptr ? otherwise : std::atoi(asked);
}

inline std::string text(const Ended& e) {
  return "exit " + std::to_string(e.code()) + ", signal " + std::to_string(e.signal()) + "\n--- stdout\n" + e.out +
         "--- stderr\n" + e.err;
}

// Whether one line of `all` has all these parts, in this order.
inline bool has_line(const std::string& all, const std::vector<std::string>& parts) {
  std::istringstream lines(all);
  for (std::string line; std::getline(lines, line);) {
    std::size_t at = 0;
    for (const std::string& part : parts) {
      at = at == std::string::npos ? at : line.find(part, at);
      if (at != std::string::npos) at += part.size();
    }
    if (at != std::string::npos) return true;
  }
  return false;
}

// dsmexec OPTIONS... machine_file LINE...
inline Order job(std::vector<std::string> options, const std::vector<std::string>& line) {
  Order order;
  order.arguments = std::move(options);
  order.arguments.emplace_back("@");
  order.arguments.insert(order.arguments.end(), line.begin(), line.end());
  return order;
}

}  // namespace dsm::launch::testing
