// dsm/launch/region.hpp - what ranks share, as the command lines of dsmexec and dsmd say it.
//
// Misuse is a UsageError whose text is one line. Thread-safety: functions without state. Not async-signal-safe.
#pragma once
#include <boost/program_options.hpp>
#include <cstdint>
#include <stdexcept>
#include <string_view>

#include "dsm/core/coherence.hpp"
#include "dsm/pager/kind.hpp"

namespace dsm::launch {

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Region {
  core::Protocol protocol = core::Protocol::msi;
  core::Placement placement = core::Placement::cyclic;
  pager::Kind pager = pager::Kind::sigsegv;
  std::uint64_t size = std::uint64_t{1} << 30;  // of the region, bytes; a multiple of the page size
  std::uint32_t page_size = 4096;               // bytes; a power of two
};

// --protocol and --size; --page-size, --home and --pager.
void add_usual_region_options(boost::program_options::options_description& to);
void add_other_region_options(boost::program_options::options_description& to);
// What was given of them; throws UsageError.
[[nodiscard]] Region read_region(const boost::program_options::variables_map& values);

// "64", "16K", "1G": bytes, from 1 to 1T, rounded up to whole pages. Throws UsageError, which names the option.
[[nodiscard]] std::uint64_t parse_size(std::string_view text, std::uint64_t page_size, const char* option = "--size");
// Likewise; a power of two from 4K to 1M.
[[nodiscard]] std::uint32_t parse_page_size(std::string_view text);

// The value of a text option; null if it was not given.
[[nodiscard]] const std::string* text_of(const boost::program_options::variables_map& values, const char* name);

// One of a few names; `parse` knows them, `which` tells them.
template <class Kind, class Parse>
void choose(const boost::program_options::variables_map& values, const char* name, const char* which, Kind& out,
            const Parse& parse) {
  const std::string* const given = text_of(values, name);
  if (given == nullptr || parse(*given, out)) return;
  throw UsageError("--" + std::string(name) + " " + *given + ": " + which + " is needed");
}

}  // namespace dsm::launch
