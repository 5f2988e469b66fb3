// dsm/launch/options.hpp - the command line of dsmexec as a value.
//
// Called once by main. Misuse is a UsageError whose text is one line. Not async-signal-safe.
#pragma once
#include <chrono>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "dsm/core/coherence.hpp"
#include "dsm/launch/debugger.hpp"
#include "dsm/launch/site.hpp"
#include "dsm/net/port_range.hpp"
#include "dsm/pager/kind.hpp"

namespace dsm::launch {

inline constexpr int max_job_ranks = 256;  // ranks of a program that knows nothing of the DSM; a DSM job has at most 64

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Options {
  bool help = false, help_all = false, version = false;  // then nothing else is set
  int ranks = 0;                                         // 0: one for each slot of the machine_file
  core::Protocol protocol = core::Protocol::msi;
  core::Placement placement = core::Placement::cyclic;
  pager::Kind pager = pager::Kind::sigsegv;
  std::uint64_t size = std::uint64_t{1} << 30;         // of the region, bytes; a multiple of the page size
  std::uint32_t page_size = 4096;                      // bytes; a power of two
  std::optional<std::chrono::milliseconds> timeout{};  // for the whole job
  std::string output = "tag";                          // "tag", "plain", or a folder
  bool timestamp = false;                              // in front of each line
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

// "64", "16K", "1G": bytes, from 1 to 1T, rounded up to whole pages. Throws UsageError.
[[nodiscard]] std::uint64_t parse_size(std::string_view text, std::uint64_t page_size);
// Likewise; a power of two from 4K to 1M.
[[nodiscard]] std::uint32_t parse_page_size(std::string_view text);

[[nodiscard]] std::string help_text(bool all);  // the options that matter, or all of them
[[nodiscard]] std::string version_text();

}  // namespace dsm::launch
