#include "dsm/launch/remote.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace dsm::launch {

bool Remote::worth_another_try(std::string_view) const { return false; }
std::chrono::milliseconds Remote::start_patience() const { return std::chrono::seconds(30); }
std::chrono::milliseconds Remote::afterlife() const { return {}; }

std::string ready_line(const std::string& hash) { return "dsmexec " + hash + " ready\n"; }
std::string send_line(const std::string& hash) { return "dsmexec " + hash + " send\n"; }

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

// Neither script holds a single quote, newline, exclamation mark or double backslash: with these, shells differ.
// head(1) takes from its standard input no more than it was told to.
std::string remote_line(const std::string& path, const std::string& hash, std::uint64_t size) {
  // The guard itself finds out whether it is the same file; if not, it goes on with the second script. Anything else
  // that may lie there (an older dsmexec, one for another processor, a folder) ends with one of the three codes. What
  // is sent to all of them by kill(2) is for the guard to answer: hence a trap. Ignored signals would be inherited.
  constexpr const char* run =
      "if [ -x \"$1\" ]; then trap : HUP INT TERM; \"$1\" --guard \"$2\" \"$3\" \"$4\"; s=$?; "
      "case $s in 125|126|127) ;; *) exit $s;; esac; fi; exec sh -c \"$4\" sh \"$2\" \"$3\"";
  constexpr const char* take_copy =
      "d=$(mktemp -d \"${TMPDIR:-/tmp}/dsmexec.XXXXXXXXXX\") || exit 1; "
      "trap \"rm -rf \\\"\\$d\\\"\" EXIT; trap \"exit 1\" HUP INT PIPE TERM; "
      "echo \"dsmexec $1 send\"; head -c \"$2\" >\"$d/dsmexec\" && chmod 700 \"$d/dsmexec\" || exit 1; "
      "[ -x \"$d/dsmexec\" ] || { echo \"dsmexec cannot run there: its copy lies in ${TMPDIR:-/tmp}, where nothing may "
      "be executed (noexec); set TMPDIR there to another folder\" >&2; exit 1; }; "
      "if [ \"$(\"$d/dsmexec\" --hash </dev/null)\" = \"$1\" ]; then exec 3<\"$d/dsmexec\"; rm -rf \"$d\"; exec "
      "/proc/self/fd/3 --guard \"$1\"; fi; "
      "echo \"dsmexec cannot run there: its copy did not arrive whole, or libraries that it needs are missing\" >&2; "
      "exit 1";
  return fmt::format("exec sh -c {} sh {} {} {} {}", quoted(run), quoted(path), hash, size, quoted(take_copy));
}

std::string shown_line(std::string_view line) {
  std::string out(line);
  std::erase_if(out, [](char c) { return static_cast<unsigned char>(c) < 0x20; });
  if (out.ends_with('.')) out.pop_back();
  return out.size() > 200 ? out.substr(0, 200) + "..." : out;
}

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) lines.push_back(line);
    begin = end + 1;
  }
  return lines;
}

}  // namespace dsm::launch
