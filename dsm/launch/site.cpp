#include "dsm/launch/site.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace dsm::launch {
namespace {

bool is_local(const Machine& machine, const Self& self) {
  return is_this_machine(machine.host, self.names) && (machine.user.empty() || machine.user == self.user);
}

}  // namespace

bool parse(std::string_view text, Launcher& out) {
  if (text == "auto") {
    out = Launcher::automatic;
  } else if (text == "local") {
    out = Launcher::local;
  } else if (text == "ssh") {
    out = Launcher::ssh;
  } else if (text == "slurm") {
    out = Launcher::slurm;
  } else {
    return false;
  }
  return true;
}

std::vector<Site> sites_of(const std::vector<Machine>& placed, Launcher launcher, const Self& self,
                           const std::string& file) {
  std::vector<Site> sites;
  for (std::size_t rank = 0; rank < placed.size(); ++rank) {
    const Machine& machine = placed[rank];
    const bool local = launcher != Launcher::ssh && launcher != Launcher::slurm && is_local(machine, self);
    if (launcher == Launcher::local && !local) {
      throw MachineFileError(
          fmt::format("{}:{}: '{}' is another machine, or another user's: --launcher local starts ranks by fork only; "
                      "leave it out, and ssh is used",
                      file, machine.line, machine.host));
    }
    if (launcher == Launcher::slurm && !(machine.user.empty() && machine.port == 0)) {
      throw MachineFileError(
          fmt::format("{}:{}: '{}' has a user or a port: Slurm knows a node by its name only; leave them out", file,
                      machine.line, machine.host));
    }
    const auto same = [&](const Site& site) {
      return local ? site.local
                   : !site.local && site.machine.host == machine.host && site.machine.user == machine.user &&
                         site.machine.port == machine.port;
    };
    auto site = std::find_if(sites.begin(), sites.end(), same);
    if (site == sites.end()) site = sites.insert(site, {machine, local, {}});
    site->ranks.push_back(static_cast<int>(rank));
  }
  return sites;
}

}  // namespace dsm::launch
