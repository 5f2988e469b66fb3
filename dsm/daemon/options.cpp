#include "dsm/daemon/options.hpp"

#include <unistd.h>

#include <charconv>

#include "dsm/core/types.hpp"
#include "dsm/sysv/wire.hpp"

namespace dsm::daemon {
namespace {

namespace po = ipc::po;

int number(const po::variables_map& values, const char* name, int least, int most, int otherwise) {
  const std::string* const text = launch::text_of(values, name);
  if (text == nullptr) return otherwise;
  int value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error == std::errc() && end == text->data() + text->size() && value >= least && value <= most) return value;
  throw ipc::UsageError("--" + std::string(name) + " " + *text + ": a number from " + std::to_string(least) + " to " +
                        std::to_string(most) + " is needed");
}

// As tmpfs: what is left is for the sessions, and for whatever else this machine does.
std::uint64_t half_of_memory() {
  const auto pages = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES));
  return pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) / 2 / sysv::page_bytes * sysv::page_bytes;
}

Options read_sizes(const po::variables_map& values) {
  try {
    Options out;
    static_cast<launch::Region&>(out) = launch::read_region(values);
    const std::string* const size = launch::text_of(values, "shm-size");
    out.shm_size = size == nullptr ? half_of_memory() : launch::parse_size(*size, sysv::page_bytes, "--shm-size");
    return out;
  } catch (const launch::UsageError& misuse) {
    throw ipc::UsageError(misuse.what());
  }
}

}  // namespace

void describe(po::options_description& to) {
  auto add = to.add_options();
  add("listen", po::value<std::string>()->value_name("ADDRESS"),
      "the one address of this machine to listen at; who is here names it, too (default: 127.0.0.1, for programs here "
      "only)");
  add("port", po::value<std::string>()->value_name("PORT"), "(default: 8080; 0: one that is free)");
  add("key", po::value<std::string>()->value_name("FILE"),
      "the key file, made if it is not there (default: what DSM_KEY_FILE says, or ~/.config/dsm/key)");
  add("once", "serve one session, and end with it; needs --nproc; no System V IPC");
  add("nproc", po::value<std::string>()->value_name("N"), "how many members that session has");
  add("gather", po::value<std::string>()->value_name("SECONDS"),
      "how long a session waits for its last member (default: 600)");
  launch::add_usual_region_options(to);
  launch::add_other_region_options(to);
  add("shm-size", po::value<std::string>()->value_name("BYTES"),
      "of all System V segments together: K, M, G or T may follow (default: half of this machine's memory)");
  add("verbose,v", "say who comes and goes, and who knocks without a key");
  add("version", "the version");
}

Options read_options(const po::variables_map& values) {
  Options out = read_sizes(values);
  if (const auto* address = launch::text_of(values, "listen")) out.listen = *address;
  if (out.listen.empty()) throw ipc::UsageError("--listen needs an address of this machine");
  out.port = static_cast<std::uint16_t>(number(values, "port", 0, 65535, out.port));
  if (const auto* key = launch::text_of(values, "key")) out.key = *key;
  out.members = number(values, "nproc", 1, core::max_ranks, 0);
  if ((values.count("once") != 0) != (out.members != 0)) throw ipc::UsageError("--once and --nproc N go together");
  out.gather = std::chrono::seconds(number(values, "gather", 1, 1'000'000, static_cast<int>(out.gather.count())));
  out.verbose = values.count("verbose") != 0;
  return out;
}

}  // namespace dsm::daemon
