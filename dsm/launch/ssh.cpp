#include "dsm/launch/ssh.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace dsm::launch {
namespace {

std::string target(const Machine& machine) {
  const std::string user = machine.user.empty() ? "" : machine.user + "@";
  return fmt::format("{}{}{}", machine.port != 0 ? fmt::format("-p {} ", machine.port) : "", user, machine.host);
}

bool says(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

// Ssh's "Permission denied (publickey,password)."; a program there may have been denied something, too.
bool login_was_denied(std::string_view said) {
  constexpr std::string_view sign = "Permission denied (";
  const auto at = said.find(sign);
  if (at == std::string_view::npos) return false;
  const auto end = said.find_first_not_of("abcdefghijklmnopqrstuvwxyz-,", at + sign.size());
  return end != std::string_view::npos && said[end] == ')';
}

// What to do about it; empty: ssh's own words must do.
std::string advice(const Machine& machine, std::string_view said) {
  if (says(said, "Host key verification failed") || says(said, "host key is known") ||
      says(said, "IDENTIFICATION HAS CHANGED")) {
    return fmt::format("its host key is not known, or has changed; log in once by hand: ssh {}", target(machine));
  }
  if (login_was_denied(said)) {
    return fmt::format("it wants a password, or refuses the key; for a login without a password: ssh-copy-id {}",
                       target(machine));
  }
  if (says(said, "Could not resolve hostname")) return "there is no machine of that name; see the machine_file";
  if (says(said, "Connection refused")) return "no ssh server listens there";
  if (says(said, "timed out") || says(said, "No route to host") || says(said, "unreachable")) {
    return "the machine cannot be reached";
  }
  return {};
}

}  // namespace

std::vector<std::string> Ssh::command(const Machine& machine, const std::string& line) const {
  std::vector<std::string> command = command_;
  for (const char* word :
       {"-T", "-x", "-a", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "EscapeChar=none"}) {
    command.emplace_back(word);
  }
  if (machine.port != 0) command.insert(command.end(), {"-p", std::to_string(machine.port)});
  if (!machine.user.empty()) command.insert(command.end(), {"-l", machine.user});
  command.push_back(machine.host);
  command.push_back(line);
  return command;
}

std::string Ssh::explain(const Machine& machine, std::string_view said, const std::string& how) const {
  const auto lines = lines_of(said);
  const std::string words = lines.empty() ? "" : shown_line(lines.back()), what = advice(machine, said);
  const std::string because =
      !words.empty() ? words
                     : fmt::format("ssh ended with {} and did not say why (see ~/.bashrc there, or --ssh)", how);
  return fmt::format("no agent on host {} (machine_file, line {}): {}{}", machine.host, machine.line, because,
                     what.empty() ? "" : ": " + what);
}

bool Ssh::worth_another_try(std::string_view said) const {
  constexpr std::array<std::string_view, 3> signs = {"kex_exchange_identification", "Connection closed by",
                                                     "Connection reset by"};
  return std::any_of(signs.begin(), signs.end(), [said](std::string_view sign) { return says(said, sign); });
}

std::string Ssh::connection_ended(int code, std::string_view) const {
  return code == 255 ? "its ssh connection ended" : "";
}

}  // namespace dsm::launch
