#include "dsm/net/session_address.hpp"

#include <charconv>

#include "dsm/core/types.hpp"
#include "dsm/net/address.hpp"
#include "dsm/net/rendezvous.hpp"

namespace dsm::net {
namespace {

constexpr int most_members = core::max_ranks;

// A decimal number from 1 to `most`; 0 if it is none.
int number(std::string_view text, int most) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value >= 1 && value <= most ? value : 0;
}

// "host:port" or "[v6]:port". An address with colons needs the brackets: else its last group could be a port.
std::string read_daemon(std::string_view text, SessionAddress& out) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return "the port is missing";
  std::string_view host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find_first_of("[]:") != std::string_view::npos) {
    return "an IPv6 address is written in brackets";
  }
  if (host.empty()) return "the host is missing";
  out.host = host;
  out.port = static_cast<std::uint16_t>(number(text.substr(colon + 1), 65535));
  return out.port == 0 ? "the port is a number from 1 to 65535" : "";
}

std::string read_where(std::string_view text, SessionAddress& out) {
  const std::size_t slash = text.find('/');
  if (slash == std::string_view::npos) return "there is no / and no name of a session";
  std::string wrong = read_daemon(text.substr(0, slash), out);
  if (!wrong.empty()) return wrong;
  out.session = text.substr(slash + 1);
  if (is_session_name(out.session)) return "";
  return "the session's name is 1 to " + std::to_string(max_session_name) + " letters, digits, '.', '_' and '-'";
}

std::string members_needed() { return "the number of members is 1 to " + std::to_string(most_members); }

}  // namespace

std::string SessionAddress::daemon() const { return Address{host, port}.text(); }

std::optional<SessionAddress> parse_session(std::string_view text, std::string& why) {
  SessionAddress out;
  const std::size_t slash = text.find('/'), colon = text.rfind(':');
  const bool counted = slash != std::string_view::npos && colon != std::string_view::npos && colon > slash;
  why = read_where(counted ? text.substr(0, colon) : text, out);
  if (why.empty() && !counted) why = "behind the name, a colon and the number of members are missing";
  if (why.empty()) out.members = number(text.substr(colon + 1), most_members);
  if (why.empty() && out.members == 0) why = members_needed();
  if (why.empty()) return out;
  why += "; host:port/name:N is needed, as in localhost:8080/pi:3";
  return std::nullopt;
}

std::optional<SessionAddress> parse_session(std::string_view where, int members, std::string& why) {
  SessionAddress out;
  why = read_where(where, out);
  if (why.empty() && (members < 1 || members > most_members)) why = members_needed();
  out.members = members;
  if (why.empty()) return out;
  why += "; host:port/name and N are needed, as in \"localhost:8080/pi\", 3";
  return std::nullopt;
}

}  // namespace dsm::net
