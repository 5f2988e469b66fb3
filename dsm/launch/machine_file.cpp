#include "dsm/launch/machine_file.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>

#include "ipc/fd.hpp"
#include "ipc/spawn.hpp"

namespace dsm::launch {
namespace {

constexpr std::size_t max_file = 1 << 20;
constexpr std::size_t max_name = 253;  // RFC 1035, 2.3.4, without the trailing dot

// Text from the file, fit for a message: no control characters, not too long.
std::string shown(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, 60)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  return text.size() > 60 ? out + "..." : out;
}

std::optional<int> number(std::string_view text, int low, int high) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < low || value > high) return std::nullopt;
  return value;
}

// A leading dash would be read as an option by ssh.
bool is_word(std::string_view text, std::string_view also) {
  if (text.empty() || text.size() > max_name || text.front() == '-') return false;
  return std::all_of(text.begin(), text.end(), [also](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || also.find(c) != std::string_view::npos;
  });
}

// With or without a zone: "fe80::1%eth0".
bool is_v6(std::string_view text) {
  const std::size_t percent = std::min(text.find('%'), text.size());
  const std::string_view zone = text.substr(percent);
  if (!zone.empty() && (zone.size() > IF_NAMESIZE || !is_word(zone.substr(1), "._-"))) return false;
  const std::string number(text.substr(0, percent));
  in6_addr address{};
  // inet_pton would not see what is behind a zero byte.
  return number.find('\0') == std::string::npos && inet_pton(AF_INET6, number.c_str(), &address) == 1;
}

std::vector<std::string_view> words(std::string_view line) {
  std::vector<std::string_view> out;
  constexpr std::string_view blank = " \t\r\v\f";
  for (std::size_t at = line.find_first_not_of(blank); at != std::string_view::npos;) {
    const std::size_t end = std::min(line.find_first_of(blank, at), line.size());
    out.push_back(line.substr(at, end - at));
    at = line.find_first_not_of(blank, end);
  }
  return out;
}

// Parses "[user@]host[:port]" with the host perhaps in brackets; the text of what is wrong, or empty.
std::string parse_host(std::string_view word, Machine& out) {
  std::string_view rest = word;
  if (const auto at = rest.find('@'); at != std::string_view::npos) {
    if (!is_word(rest.substr(0, at), "._-$")) return fmt::format("bad user name in '{}'", shown(word));
    out.user = rest.substr(0, at);
    rest.remove_prefix(at + 1);
  }
  std::string_view port;
  bool has_port = false;
  if (!rest.empty() && rest.front() == '[') {
    const auto close = rest.find(']');
    if (close == std::string_view::npos) return fmt::format("no ']' in '{}'", shown(word));
    const std::string_view after = rest.substr(close + 1);
    if (!after.empty() && after.front() != ':') return fmt::format("a ':' must follow ']' in '{}'", shown(word));
    has_port = !after.empty();
    port = has_port ? after.substr(1) : after;
    rest = rest.substr(1, close - 1);
    if (!is_v6(rest)) return fmt::format("'{}' is not an IPv6 address", shown(rest));
  } else if (!is_v6(rest)) {
    if (const auto colon = rest.find(':'); colon != std::string_view::npos) {
      has_port = true;
      port = rest.substr(colon + 1);
      rest = rest.substr(0, colon);
    }
    if (!is_word(rest, "._-")) return fmt::format("'{}' is not a host name", shown(word));
  }
  out.host = rest;
  if (has_port) {
    const auto value = number(port, 1, 65535);
    if (!value) return fmt::format("'{}' is not a port (1 to 65535)", shown(port));
    out.port = static_cast<std::uint16_t>(*value);
  }
  return {};
}

// What is wrong with the line, or empty. `out.host` stays empty for a line without a machine.
std::string parse_line(std::string_view line, Machine& out) {
  const auto parts = words(line.substr(0, line.find('#')));
  if (parts.empty()) return {};
  if (auto wrong = parse_host(parts[0], out); !wrong.empty()) return wrong;
  bool has_slots = false;
  for (std::size_t i = 1; i < parts.size(); ++i) {
    constexpr std::string_view key = "slots=";
    if (parts[i].substr(0, key.size()) != key) {
      return fmt::format("'{}' is not understood (one machine per line; only 'slots=K' may follow)", shown(parts[i]));
    }
    const auto value = number(parts[i].substr(key.size()), 1, max_slots);
    if (!value) return fmt::format("'{}': slots is a number from 1 to {}", shown(parts[i]), max_slots);
    if (has_slots) return "slots is given twice";
    has_slots = true;
    out.slots = *value;
  }
  return {};
}

bool same_name(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
    return std::tolower(static_cast<unsigned char>(x)) == std::tolower(static_cast<unsigned char>(y));
  });
}

}  // namespace

std::vector<Machine> parse_machine_file(std::string_view text, const std::string& name) {
  constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";
  if (text.substr(0, byte_order_mark.size()) == byte_order_mark) text.remove_prefix(byte_order_mark.size());
  std::vector<Machine> machines;
  int line = 0;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    Machine machine;
    machine.line = ++line;
    const std::string wrong = parse_line(text.substr(0, end), machine);
    if (!wrong.empty()) throw MachineFileError(fmt::format("{}:{}: {}", name, line, wrong));
    if (!machine.host.empty()) machines.push_back(std::move(machine));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  if (machines.empty()) throw MachineFileError(fmt::format("{}: names no machine (one host name per line)", name));
  return machines;
}

std::vector<Machine> read_machine_file(const std::string& path) {
  const auto fail = [&path](const std::string& why) {
    throw MachineFileError(fmt::format("cannot read machine_file '{}': {}", shown(path), why));
  };
  const ipc::Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) fail(std::strerror(errno));
  std::string text;
  std::array<char, 16384> piece{};  // such files are short: no buffer for the longest
  for (ssize_t got = 1; got > 0; text.append(piece.data(), static_cast<std::size_t>(got))) {
    got = ipc::read_full(file.get(), piece.data(), piece.size());
    if (got < 0) fail(std::strerror(errno));
    if (text.size() + static_cast<std::size_t>(got) > max_file) fail("it is longer than 1 MiB");
  }
  return parse_machine_file(text, path);
}

bool is_this_machine(std::string_view host, const std::vector<std::string>& own) {
  in_addr v4{};
  if (inet_pton(AF_INET, std::string(host).c_str(), &v4) == 1 && (ntohl(v4.s_addr) >> 24) == 127) return true;
  in6_addr v6{};
  if (inet_pton(AF_INET6, std::string(host).c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6)) return true;
  if (same_name(host, "localhost")) return true;
  return std::any_of(own.begin(), own.end(), [host](const std::string& name) { return same_name(host, name); });
}

int slots_of(const std::vector<Machine>& machines) {
  return std::accumulate(machines.begin(), machines.end(), 0, [](int sum, const Machine& m) { return sum + m.slots; });
}

std::vector<Machine> place(const std::vector<Machine>& machines, int ranks) {
  std::vector<Machine> placed;
  auto left = static_cast<std::size_t>(ranks == 0 ? slots_of(machines) : ranks);
  placed.reserve(left);
  while (left > 0) {
    for (const Machine& machine : machines) {
      const std::size_t here = std::min(left, static_cast<std::size_t>(machine.slots));
      placed.insert(placed.end(), here, machine);
      left -= here;
    }
  }
  return placed;
}

}  // namespace dsm::launch
