// dsm/daemon/options.hpp - the command line of dsmd as a value.
//
// Misuse is an ipc::UsageError whose text is one line. Not async-signal-safe.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>

#include "dsm/launch/region.hpp"
#include "ipc/program.hpp"

namespace dsm::daemon {

struct Options : launch::Region {
  std::string listen = "127.0.0.1";
  std::uint16_t port = 8080;  // 0: whichever the kernel chooses
  std::string key;            // the key file; empty: the usual one
  int members = 0;            // --once --nproc: of the one session; 0: as many sessions as come
  std::chrono::seconds gather{600};
  std::uint64_t shm_size = 0;  // bytes that all System V segments together may have, whole pages
  bool verbose = false;
};

void describe(ipc::po::options_description& to);
[[nodiscard]] Options read_options(const ipc::po::variables_map& values);

}  // namespace dsm::daemon
