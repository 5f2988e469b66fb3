#include "dsm/launch/ssh.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace dsm::launch {
namespace {

// The last line that is not blank, fit for a message.
std::string last_line(std::string_view text) {
  std::string line;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view one = text.substr(begin, end - begin);
    if (one.find_first_not_of(" \t\r") != std::string_view::npos) line = one;
    begin = end + 1;
  }
  std::erase_if(line, [](char c) { return static_cast<unsigned char>(c) < 0x20; });
  if (line.ends_with('.')) line.pop_back();
  return line.size() > 200 ? line.substr(0, 200) + "..." : line;
}

std::string target(const Machine& machine) {
  const std::string user = machine.user.empty() ? "" : machine.user + "@";
  return fmt::format("{}{}{}", machine.port != 0 ? fmt::format("-p {} ", machine.port) : "", user, machine.host);
}

bool says(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

// What to do about it; empty: ssh's own words must do.
std::string advice(const Machine& machine, std::string_view said) {
  if (says(said, "Host key verification failed") || says(said, "host key is known") ||
      says(said, "IDENTIFICATION HAS CHANGED")) {
    return fmt::format("its host key is not known, or has changed; log in once by hand: ssh {}", target(machine));
  }
  if (says(said, "Permission denied")) {
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

std::string ready_line(const std::string& hash) { return "dsmexec " + hash + " ready\n"; }
std::string send_line(const std::string& hash) { return "dsmexec " + hash + " send\n"; }

std::vector<std::string> ssh_command(const std::vector<std::string>& ssh, const Machine& machine,
                                     const std::string& remote) {
  std::vector<std::string> command = ssh;
  for (const char* word :
       {"-T", "-x", "-a", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "EscapeChar=none"}) {
    command.emplace_back(word);
  }
  if (machine.port != 0) command.insert(command.end(), {"-p", std::to_string(machine.port)});
  if (!machine.user.empty()) command.insert(command.end(), {"-l", machine.user});
  command.push_back(machine.host);
  command.push_back(remote);
  return command;
}

std::string quoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') {
      out += "'\"'\"'";
    } else {
      out += c;
    }
  }
  return out + "'";
}

// The script holds no single quote, newline, exclamation mark or double backslash: with these, shells differ. head(1)
// takes from its standard input no more than it was told to.
std::string remote_line(const std::string& path, const std::string& hash, std::uint64_t size) {
  constexpr const char* script =
      "if [ -x \"$1\" ] && [ \"$(\"$1\" --hash 2>/dev/null </dev/null)\" = \"$2\" ]; then exec \"$1\" --guard \"$2\"; "
      "fi; "
      "d=$(mktemp -d \"${TMPDIR:-/tmp}/dsmexec.XXXXXXXXXX\") || exit 1; "
      "trap \"rm -rf \\\"\\$d\\\"\" EXIT; trap \"exit 1\" HUP INT PIPE TERM; "
      "echo \"dsmexec $2 send\"; head -c \"$3\" >\"$d/dsmexec\" && chmod 700 \"$d/dsmexec\" || exit 1; "
      "if [ \"$(\"$d/dsmexec\" --hash </dev/null)\" = \"$2\" ]; then exec 3<\"$d/dsmexec\"; rm -rf \"$d\"; exec "
      "/proc/self/fd/3 --guard \"$2\"; fi; "
      "echo \"dsmexec cannot run there: its copy did not arrive whole, or libraries that it needs are missing\" >&2; "
      "exit 1";
  return fmt::format("exec sh -c {} sh {} {} {}", quoted(script), quoted(path), hash, size);
}

std::string explain(const Machine& machine, std::string_view said, const std::string& how) {
  const std::string words = last_line(said), what = advice(machine, said);
  const std::string because = words.empty() ? fmt::format("ssh ended with {}", how) : words;
  return fmt::format("no agent on host {} (machine_file, line {}): {}{}", machine.host, machine.line, because,
                     what.empty() ? "" : ": " + what);
}

bool worth_another_try(std::string_view said) {
  constexpr std::array<std::string_view, 3> signs = {"kex_exchange_identification", "Connection closed by",
                                                     "Connection reset by"};
  return std::any_of(signs.begin(), signs.end(), [said](std::string_view sign) { return says(said, sign); });
}

}  // namespace dsm::launch
