#include "dsm/launch/region.hpp"

#include <fmt/format.h>

#include <bit>
#include <charconv>
#include <string>

namespace dsm::launch {
namespace {

namespace po = boost::program_options;

constexpr std::uint64_t smallest_page = 4096, largest_page = std::uint64_t{1} << 20;

// "64", "16K", "1G": bytes, from 1 to `most`; 0 if it is nothing of the kind.
std::uint64_t bytes_in(std::string_view text, std::uint64_t most) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return 0;
  const std::string_view suffix = text.substr(static_cast<std::size_t>(end - text.data()));
  unsigned shift = 0;
  if (!suffix.empty()) {
    const auto at = std::string_view("KMGTkmgt").find(suffix);
    if (suffix.size() != 1 || at == std::string_view::npos) return 0;
    shift = static_cast<unsigned>(at % 4 + 1) * 10;
  }
  return value > (most >> shift) ? 0 : value << shift;
}

}  // namespace

void add_usual_region_options(po::options_description& to) {
  auto add = to.add_options();
  add("protocol,p", po::value<std::string>()->value_name("msi|migrate"), "how pages move (default: msi)");
  add("size", po::value<std::string>()->value_name("BYTES"),
      "size of the shared region: K, M, G or T may follow (default: 1G)");
}

void add_other_region_options(po::options_description& to) {
  auto add = to.add_options();
  add("page-size", po::value<std::string>()->value_name("BYTES"),
      "what moves as a whole: a power of two, 4K to 1M (default: 4K)");
  add("home", po::value<std::string>()->value_name("WHERE"),
      "where pages live: cyclic, in turn on all ranks (the default); block, each allocation in equal parts, the first "
      "on rank 0; or first-touch, on the rank that touches a page first");
  add("pager", po::value<std::string>()->value_name("sigsegv|uffd"),
      "how a rank notices that a page is not here: by SIGSEGV, which works everywhere (the default); or by "
      "userfaultfd, with which system calls may use pages that are elsewhere, and which needs Linux 6.4 and privilege "
      "(root, access to /dev/userfaultfd, or vm.unprivileged_userfaultfd=1)");
}

std::uint64_t parse_size(std::string_view text, std::uint64_t page_size, const char* option) {
  const std::uint64_t bytes = bytes_in(text, std::uint64_t{1} << 40);
  if (bytes == 0) {
    throw UsageError(fmt::format("{} {}: a number of bytes from 1 to 1T is needed, as in 64M", option, text));
  }
  return (bytes + page_size - 1) / page_size * page_size;
}

std::uint32_t parse_page_size(std::string_view text) {
  const std::uint64_t bytes = bytes_in(text, largest_page);
  if (bytes < smallest_page || !std::has_single_bit(bytes)) {
    throw UsageError(fmt::format("--page-size {}: a power of two from 4K to 1M is needed", text));
  }
  return static_cast<std::uint32_t>(bytes);
}

const std::string* text_of(const po::variables_map& values, const char* name) {
  return values.count(name) != 0 ? &values[name].as<std::string>() : nullptr;
}

Region read_region(const po::variables_map& values) {
  Region out;
  choose(values, "protocol", "msi or migrate", out.protocol,
         [](const std::string& name, core::Protocol& to) { return core::parse(name, to); });
  choose(values, "pager", "sigsegv or uffd", out.pager,
         [](const std::string& name, pager::Kind& to) { return pager::parse(name, to); });
  choose(values, "home", "cyclic, block or first-touch", out.placement,
         [](const std::string& name, core::Placement& to) { return core::parse(name, to); });
  if (const auto* page_size = text_of(values, "page-size")) out.page_size = parse_page_size(*page_size);
  if (const auto* size = text_of(values, "size")) out.size = parse_size(*size, out.page_size);
  return out;
}

}  // namespace dsm::launch
