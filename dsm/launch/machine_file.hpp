// dsm/launch/machine_file.hpp - which machines a job runs on: one per line, line order = rank order.
//
// Called once by dsmexec before anything is started. Whatever is wrong with the file is a MachineFileError whose text
// is one line for the user, "FILE:LINE: what". Thread-safety: functions without state. Not async-signal-safe.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace dsm::launch {

struct Machine {
  std::string host;        // as written, without user, port and brackets; the name shown in front of output
  std::string user;        // empty: the present one
  std::uint16_t port = 0;  // of the machine's ssh server; 0: not given
  int slots = 1;           // ranks that this line stands for
  int line = 0;            // where it stands in the file, from 1; 0: in none
};

struct MachineFileError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline constexpr int max_slots = 256;

// `name` is the file's name as error messages show it. Comments (#), blank lines, CRLF, a byte order mark and a missing
// last newline are fine; a name may repeat. Throws MachineFileError for a bad line and for a text that names no
// machine.
[[nodiscard]] std::vector<Machine> parse_machine_file(std::string_view text, const std::string& name);

// Reads and parses. A file longer than 1 MiB is refused.
[[nodiscard]] std::vector<Machine> read_machine_file(const std::string& path);

// "localhost", 127.x, ::1, or one of `own`; letters' case does not matter.
[[nodiscard]] bool is_this_machine(std::string_view host, const std::vector<std::string>& own);

// Ranks for which all lines stand together.
[[nodiscard]] int slots_of(const std::vector<Machine>& machines);

// The machine of each rank: line order, `slots` ranks for each line, from the top again when ranks are left. `ranks` 0:
// one rank for each slot. REQUIRES: at least one machine.
[[nodiscard]] std::vector<Machine> place(const std::vector<Machine>& machines, int ranks);

}  // namespace dsm::launch
