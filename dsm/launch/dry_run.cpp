#include "dsm/launch/dry_run.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "dsm/launch/status.hpp"

namespace dsm::launch {
namespace {

// To be pasted into a shell.
std::string pasted(const std::vector<std::string>& words) {
  constexpr const char* harmless = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-";
  std::string out;
  for (const std::string& word : words) {
    const bool plain = !word.empty() && word.find_first_not_of(harmless) == std::string::npos;
    out += (out.empty() ? "" : " ") + (plain ? word : launch::quoted(word));
  }
  return out;
}

std::string size_text(std::uint64_t bytes) {
  constexpr std::string_view units = "KMGT";
  std::size_t unit = 0;
  while (unit < units.size() && bytes >= 1024 && bytes % 1024 == 0) {
    bytes /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} bytes", bytes) : fmt::format("{}{}", bytes, units[unit - 1]);
}

std::string connections(const Options& options) {
  return fmt::format("connections: {}to dsmexec at {}{}{}\n", options.encrypt ? "encrypted, " : "",
                     options.interface.empty() ? "the address by which each machine is reached" : options.interface,
                     options.ports.first != 0 ? ", ports " + to_text(options.ports) : "",
                     options.open_rendezvous ? ", where any program may take part in the rendezvous" : "");
}

}  // namespace

std::string describe(const Runner::Plan& plan) {
  const Options& options = plan.options;
  std::string out;
  for (const Site& site : plan.sites) {
    out += fmt::format("{} on {}: by {}\n", rank_list(site.ranks), site.machine.host,
                       site.local ? "fork" : pasted(plan.remote->command(site.machine, "...")));
  }
  std::vector<std::string> words = {plan.program};
  words.insert(words.end(), options.arguments.begin(), options.arguments.end());
  out += fmt::format("program: {}\n", pasted(words));
  if (options.debugger != Debugger::none) {
    out += fmt::format("under {}: {}\n", name(options.debugger),
                       options.debugged == Options::everybody ? "all ranks" : rank_list({options.debugged}));
  }
  if (options.send) out += "to machines that have another program at that path, or none: sent (--send)\n";
  const bool elsewhere =
      std::any_of(plan.sites.begin(), plan.sites.end(), [](const Site& site) { return !site.local; });
  out += fmt::format("folder: {}\n", !options.wdir.empty() ? options.wdir
                                     : elsewhere ? "this one; where a machine has none of that name, the home folder"
                                                 : "this one");
  out += connections(options);
  out += fmt::format("if it shares memory: {} in pages of {}, protocol {}, homes {}, pager {}\n",
                     size_text(options.size), size_text(options.page_size), core::name(options.protocol),
                     core::name(options.placement), pager::name(options.pager));
  out += "nothing was started: leave out --dry-run\n";
  return out;
}

}  // namespace dsm::launch
