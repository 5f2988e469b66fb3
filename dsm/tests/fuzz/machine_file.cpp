#include "dsm/launch/machine_file.hpp"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <optional>

#include "dsm/tests/fuzz/harness.hpp"
#include "ipc/error.hpp"
#include "ipc/fd.hpp"
#include "ipc/spawn.hpp"

namespace dsm::fuzz {
namespace {

using launch::Machine;

constexpr std::size_t max_placed = 100'000;
constexpr std::size_t max_name = 253;

// Names are shown in front of output and handed to ssh.
bool is_name(const std::string& name, std::string_view also) {
  return name.size() <= max_name && (name.empty() || name.front() != '-') &&
         std::all_of(name.begin(), name.end(), [also](char c) {
           return std::isalnum(static_cast<unsigned char>(c)) != 0 || also.find(c) != std::string_view::npos;
         });
}

bool same(const Machine& a, const Machine& b) {
  return a.host == b.host && a.user == b.user && a.port == b.port && a.slots == b.slots;
}

std::string written(const std::vector<Machine>& machines) {
  std::string text;
  for (const Machine& machine : machines) {
    const bool brackets = machine.host.find(':') != std::string::npos;
    if (!machine.user.empty()) text += machine.user + "@";
    text += brackets ? "[" + machine.host + "]" : machine.host;
    if (machine.port != 0) text += fmt::format(":{}", machine.port);
    text += fmt::format(" slots={}\n", machine.slots);
  }
  return text;
}

void check_machines(const std::vector<Machine>& machines, int lines) {
  check(!machines.empty(), "a machine file that names no machine is taken");
  int last = 0;
  std::size_t slots = 0;
  for (const Machine& machine : machines) {
    check(!machine.host.empty() && is_name(machine.host, "._-:%"), "a host's name is no name");
    check(is_name(machine.user, "._-$"), "a user's name is no name");
    check(machine.slots >= 1 && machine.slots <= launch::max_slots, "slots are out of range");
    check(machine.line > last && machine.line <= lines, "a machine stands on no line, or out of order");
    last = machine.line;
    slots += static_cast<std::size_t>(machine.slots);
  }
  const auto again = launch::parse_machine_file(written(machines), "again");
  check(std::equal(machines.begin(), machines.end(), again.begin(), again.end(), same),
        "machines do not come back as they were written");
  check(static_cast<std::size_t>(launch::slots_of(machines)) == slots, "slots are not counted");
  if (slots > max_placed) return;
  const auto round = launch::place(machines, 0);
  check(round.size() == slots && same(round.front(), machines.front()) && same(round.back(), machines.back()),
        "not one rank for each slot");
  const auto more = launch::place(machines, static_cast<int>(slots) + 1);
  check(more.size() == slots + 1 && same(more.back(), machines.front()), "ranks do not start again from the top");
}

void check_names(const std::vector<Machine>& machines) {
  static const std::vector<std::string> own = {"castle.example.org", "castle", "10.1.2.3"};
  for (const Machine& machine : machines) {
    std::string other = machine.host;
    for (char& c : other) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    check(launch::is_this_machine(machine.host, own) == launch::is_this_machine(other, own),
          "the case of letters tells one machine from another");
  }
}

// "hosts:LINE: why", or of the whole file "hosts: why".
void check_refusal(std::string_view why, int lines) {
  constexpr std::string_view name = "hosts:";
  check_line(why, "the refusal of a machine file is not one line");
  check(std::all_of(why.begin(), why.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; }),
        "the refusal of a machine file shows bytes as they came");
  check(why.substr(0, name.size()) == name && why.size() < 400, "a refusal does not name the file");
  why.remove_prefix(name.size());
  if (why.front() == ' ') return;
  int line = 0;
  const auto [end, error] = std::from_chars(why.data(), why.data() + why.size(), line);
  check(error == std::errc() && *end == ':' && line >= 1 && line <= lines, "a refusal names no line of the file");
}

using Result = std::optional<std::vector<Machine>>;

template <class Parse>
Result parse(std::string& why, Parse how) {
  try {
    return how();
  } catch (const launch::MachineFileError& error) {
    why = error.what();
    return std::nullopt;
  }
}

// The same text out of a file.
void check_file(std::string_view text, const Result& expected) {
  const ipc::Fd file(ipc::check(::memfd_create("hosts", MFD_CLOEXEC), "memfd_create"));
  ipc::check(ipc::write_full(file.get(), text.data(), text.size()), "write");
  std::string why;
  const Result read =
      parse(why, [&] { return launch::read_machine_file(fmt::format("/proc/self/fd/{}", file.get())); });
  check(read.has_value() == expected.has_value() &&
            (!read || std::equal(read->begin(), read->end(), expected->begin(), expected->end(), same)),
        "a file is not read as its text is");
}

}  // namespace

void machine_file(Input input) {
  const std::string_view text(reinterpret_cast<const char*>(input.data()), input.size());
  const int lines = static_cast<int>(std::count(text.begin(), text.end(), '\n')) + 1;
  std::string why;
  const Result machines = parse(why, [&] { return launch::parse_machine_file(text, "hosts"); });
  if (machines) {
    check_machines(*machines, lines);
    check_names(*machines);
  } else {
    check_refusal(why, lines);
  }
  // Reading needs a buffer of 1 MiB: not for all, that would be most of the time.
  if (input.size() % 16 == 0) check_file(text, machines);
}

}  // namespace dsm::fuzz
