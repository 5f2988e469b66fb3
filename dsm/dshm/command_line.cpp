#include "dsm/dshm/command_line.hpp"

#include <charconv>
#include <cstdint>

namespace dsm::dshm {

std::string wrong_with_server(std::string_view text) {
  const std::string needed = ": host:port is needed, as localhost:8080";
  const std::string shown = "'" + std::string(text) + "'";
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return shown + needed;
  const std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  std::uint16_t number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (host.empty() || port.empty() || error != std::errc{} || end != port.data() + port.size() || number == 0)
    return shown + needed;
  return {};
}

std::optional<CommandLine> read_command_line(std::span<const char* const> arguments, std::string& why) {
  CommandLine line;
  std::size_t at = 1;
  for (; at < arguments.size(); ++at) {
    const std::string_view word = arguments[at];
    if (word == "--") {
      ++at;
      break;
    }
    if (word.size() < 2 || word[0] != '-') break;
    if (word == "-h" || word == "--help") {
      line.help = true;
      return line;
    }
    const bool joined = word.starts_with("-s") && word.size() > 2;
    const bool equals = word.starts_with("--server=");
    if (!joined && !equals && word != "-s" && word != "--server") {
      why = "there is no option " + std::string(word);
      return {};
    }
    if (!joined && !equals && ++at == arguments.size()) {
      why = std::string(word) + ": host:port is missing";
      return {};
    }
    line.server = joined ? word.substr(2) : equals ? word.substr(word.find('=') + 1) : std::string_view(arguments[at]);
    if (why = wrong_with_server(line.server); !why.empty()) return {};
  }
  if (at >= arguments.size()) {
    why = "a program is missing";
    return {};
  }
  line.program = at;
  return line;
}

std::optional<std::string> preload(const std::string& library, const char* before, std::string& why) {
  if (library.find_first_of(": \t\n") != std::string::npos) {
    why = "'" + library + "' cannot be preloaded: there is a space or a colon in its path; install it elsewhere";
    return {};
  }
  if (before == nullptr || *before == '\0') return library;
  return library + ":" + before;
}

}  // namespace dsm::dshm
