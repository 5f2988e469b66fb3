#include "dsm/launch/site.hpp"

#include <fmt/format.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>

namespace dsm::launch {
namespace {

bool is_local(const Machine& machine, const Self& self) {
  return is_this_machine(machine.host, self.names) && (machine.user.empty() || machine.user == self.user);
}

// Whether the resolver knows an address of this host that is one of `own`, or of the loopback.
bool resolves_to(const std::string& host, const std::vector<std::string>& own) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  if (::getaddrinfo(host.c_str(), nullptr, &hints, &list) != 0) return false;
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(list, &::freeaddrinfo);
  for (const addrinfo* i = list; i != nullptr; i = i->ai_next) {
    std::array<char, NI_MAXHOST> text{};
    if (::getnameinfo(i->ai_addr, i->ai_addrlen, text.data(), text.size(), nullptr, 0, NI_NUMERICHOST) == 0 &&
        is_this_machine(text.data(), own)) {
      return true;
    }
  }
  return false;
}

std::vector<std::string> interface_addresses_and_host_name() {
  std::vector<std::string> names;
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) == 0 && host[0] != '\0') {
    names.emplace_back(host.data());
    names.push_back(names.front().substr(0, names.front().find('.')));
  }
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return names;
  const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> owner(list, &::freeifaddrs);
  for (const ifaddrs* i = list; i != nullptr; i = i->ifa_next) {
    if (i->ifa_addr == nullptr) continue;
    const int family = i->ifa_addr->sa_family;
    if (family != AF_INET && family != AF_INET6) continue;
    std::array<char, NI_MAXHOST> text{};
    const auto length = static_cast<socklen_t>(family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
    if (::getnameinfo(i->ifa_addr, length, text.data(), text.size(), nullptr, 0, NI_NUMERICHOST) == 0) {
      names.emplace_back(text.data());
    }
  }
  return names;
}

}  // namespace

std::vector<std::string> own_names(const std::vector<Machine>& machines) {
  std::vector<std::string> names = interface_addresses_and_host_name();
  for (const Machine& machine : machines) {
    const auto dot = machine.host.find('.');
    if (dot == std::string::npos || is_this_machine(machine.host, names)) continue;
    if (is_this_machine(machine.host.substr(0, dot), names) && resolves_to(machine.host, names)) {
      names.push_back(machine.host);
    }
  }
  return names;
}

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
