// dsm/launch/options.hpp - the command line of dsmexec as a value.
//
// Called once by main. Misuse is a UsageError whose text is one line. Not async-signal-safe.
#pragma once
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "dsm/launch/debugger.hpp"
#include "dsm/launch/region.hpp"
#include "dsm/launch/site.hpp"
#include "dsm/net/port_range.hpp"

namespace dsm::launch {

inline constexpr int max_job_ranks = 256;  // ranks of a program that knows nothing of the DSM; a DSM job has at most 64

struct Options : Region {
  bool help = false, help_all = false, version = false;  // then nothing else is set
  int ranks = 0;                                         // 0: one for each slot of the machine_file
  std::optional<std::chrono::milliseconds> timeout{};    // for the whole job
  std::string output = "tag";                            // "tag", "plain", or a folder
  bool timestamp = false;                                // in front of each line
  static constexpr int everybody = -1, nobody = -2;
  int input = 0;  // the rank that reads dsmexec's standard input; or everybody, or nobody
  Debugger debugger = Debugger::none;
  int debugged = everybody;  // which rank runs under it
  bool keep_going = false;
  std::string control{};  // a FIFO from which orders are read; empty: none
  bool dry_run = false;
  bool encrypt = false;                     // what ranks say to each other and to dsmexec
  net::PortRange ports{};                   // where dsmexec and the ranks listen
  std::string wdir{};                       // empty: where dsmexec was called
  Launcher launcher = Launcher::automatic;  // for machine_file "-": slurm, unless another is given
  std::vector<std::string> ssh{"ssh"};      // the command that reaches other machines, and its options
  std::vector<std::string> exported{};      // "NAME=value": for all ranks
  std::string interface {};                 // the address that other machines shall connect to; empty: as they see us
  bool send = false;                        // copy the program to machines that do not have it
  bool open_rendezvous = false;
  bool verbose = false;
  std::string machine_file{};
  std::string program{};
  std::vector<std::string> arguments{};  // of the program, without its name; byte for byte
};

// `arguments` without dsmexec's own name. Options end at machine_file. Throws UsageError.
[[nodiscard]] Options parse_options(const std::vector<std::string>& arguments);

[[nodiscard]] std::string help_text(bool all);  // the options that matter, or all of them
[[nodiscard]] std::string version_text();

}  // namespace dsm::launch
