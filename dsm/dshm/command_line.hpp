// dsm/dshm/command_line.hpp - what dshmrun is told: dshmrun [-s host:port] program [args...]
//
// Options end where the program begins, as with env(1). Thread-safety: a function of its arguments.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace dsm::dshm {

struct CommandLine {
  bool help = false;
  std::string server{};     // empty: as the environment has it
  std::size_t program = 0;  // index of its name in the arguments; 0 with `help`
};

// Nothing if it is misused; `why` is then one clause.
[[nodiscard]] std::optional<CommandLine> read_command_line(std::span<const char* const> arguments, std::string& why);

// "host:port", port 1 to 65535. Empty, or what is wrong with it.
[[nodiscard]] std::string wrong_with_server(std::string_view text);

// LD_PRELOAD's new value: the library first, then what was there. `why` (and no value) if the dynamic linker could not
// tell the path from a list.
[[nodiscard]] std::optional<std::string> preload(const std::string& library, const char* before, std::string& why);

}  // namespace dsm::dshm
