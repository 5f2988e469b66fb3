// labs/06-sockets/src/beside.hpp - the programs that watchdog and dispatcher start: where they are, and what they get.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>

#include "ipc/program.hpp"
#include "ipc/spawn.hpp"

// Of a dispatcher that has a watchdog: the listening socket. (Its descriptor 3 is Supervised::control_fd.)
inline constexpr int listening_fd = 4;

// A program in the folder of our own, wherever we were called from.
inline std::string program_beside(const std::string& name) {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path() / name;
}

// Adds --worker.
inline void add_worker(ipc::po::options_description& options, std::string& program) {
  program = program_beside("worker");
  options.add_options()("worker",
                        ipc::po::value(&program)->default_value(program, "beside this one")->value_name("FILE"),
                        "the program that does the work");
}

inline ipc::SpawnOptions worker_options(const std::string& program, std::int64_t beat_ms) {
  ipc::SpawnOptions options;
  options.arguments = {"worker", "--beat-ms", std::to_string(beat_ms)};
  options.program = program;
  return options;
}
