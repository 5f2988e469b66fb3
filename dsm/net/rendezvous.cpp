#include "dsm/net/rendezvous.hpp"

#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "ipc/error.hpp"

namespace dsm::net {
namespace {

using nlohmann::json;

constexpr std::uint32_t protocol_version = 6;  // of what is said here, and of the frames between ranks
constexpr std::size_t max_text = 255;          // bytes: a host's name, an address, a clause
constexpr std::int64_t max_lanes = 64;
constexpr std::int64_t max_spin_us = 1'000'000;
constexpr std::int64_t max_patience_s = 1'000'000;
constexpr std::int64_t max_region = std::int64_t{1} << 47;  // bytes: the user half of x86-64's addresses
constexpr std::int64_t max_page = 1 << 30;                  // bytes
constexpr std::int64_t max_int = std::numeric_limits<std::int32_t>::max();
constexpr std::uint8_t verdict_op = 0x80;  // no Report's

constexpr std::array<const char*, 5> phase_names = {"telemetry", "running", "finalized", "lost_peer", "bad_peer"};

// What is wrong with a message; does not leave this file.
struct Malformed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

const json& member(const json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end()) throw Malformed(std::string("\"") + name + "\" is missing");
  return *found;
}

std::int64_t integer(const json& object, const char* name, std::int64_t least, std::int64_t most) {
  const json& value = member(object, name);
  const bool fits = value.is_number_unsigned() ? value.get<std::uint64_t>() <= static_cast<std::uint64_t>(most)
                                               : value.is_number_integer() && value.get<std::int64_t>() <= most;
  if (!fits || value.get<std::int64_t>() < least)
    throw Malformed(std::string("\"") + name + "\" is no integer from " + std::to_string(least) + " to " +
                    std::to_string(most));
  return value.get<std::int64_t>();
}

template <class Int>
Int integer(const json& object, const char* name, std::int64_t least, std::int64_t most) {
  return static_cast<Int>(integer(object, name, least, most));
}

std::string text(const json& object, const char* name, std::size_t most = max_text) {
  const json& value = member(object, name);
  if (!value.is_string() || value.get_ref<const std::string&>().empty() ||
      value.get_ref<const std::string&>().size() > most)
    throw Malformed(std::string("\"") + name + "\" is no text of 1 to " + std::to_string(most) + " bytes");
  return value.get<std::string>();
}

const json& object_of(const json& value, const char* what) {
  if (!value.is_object()) throw Malformed(std::string(what) + " is no object");
  return value;
}

std::uint32_t page_size(const json& object) {
  const auto size = integer<std::uint32_t>(object, "page_size", 1, max_page);
  if (!std::has_single_bit(size)) throw Malformed("\"page_size\" is no power of two");
  return size;
}

Platform read_platform(const json& object) {
  const json& its = object_of(member(object, "platform"), "\"platform\"");
  return {text(its, "architecture"), text(its, "byte_order"), page_size(its),
          integer<std::uint32_t>(its, "version", 0, max_int)};
}

Join read_join(const json& object) {
  Join join;
  join.rank = integer<int>(object, "rank", 0, max_int);
  join.pid = integer(object, "pid", 1, max_int);
  join.mesh_port = integer<std::uint16_t>(object, "mesh_port", 1, 65535);
  join.platform = read_platform(object);
  return join;
}

Enter read_enter(const json& object) {
  Enter enter;
  enter.session = text(object, "session");
  if (!is_session_name(enter.session)) throw Malformed("\"session\" is no name of a session");
  enter.members = integer<int>(object, "members", 1, max_int);
  enter.pid = integer(object, "pid", 1, max_int);
  enter.cores = integer<int>(object, "cores", 1, max_int);
  enter.platform = read_platform(object);
  return enter;
}

constexpr std::string_view hex_digits = "0123456789abcdef";

std::string hex(const SessionNonce& bytes) {
  std::string out;
  for (const unsigned byte : bytes) (out += hex_digits[byte / 16]) += hex_digits[byte % 16];
  return out;
}

SessionNonce read_nonce(const json& object) {
  const std::string digits = text(object, "nonce");
  SessionNonce nonce{};
  if (digits.size() != 2 * nonce.size() || digits.find_first_not_of(hex_digits) != std::string::npos)
    throw Malformed("\"nonce\" is not " + std::to_string(2 * nonce.size()) + " hexadecimal digits");
  for (std::size_t i = 0; i < nonce.size(); ++i)
    nonce[i] = static_cast<std::uint8_t>(hex_digits.find(digits[2 * i]) * 16 + hex_digits.find(digits[2 * i + 1]));
  return nonce;
}

Place read_place(const json& object) {
  return {integer<int>(object, "rank", 0, core::max_ranks - 1), read_nonce(object),
          integer<int>(object, "patience_s", 1, max_patience_s)};
}

Welcome read_welcome(const json& object) {
  Welcome welcome;
  const json& peers = member(object, "peers");
  if (!peers.is_array() || peers.empty() || peers.size() > core::max_ranks)
    throw Malformed("\"peers\" is no list of 1 to " + std::to_string(core::max_ranks) + " entries");
  for (const json& peer : peers) {
    object_of(peer, "a peer");
    welcome.peers.push_back({text(peer, "address"), integer<std::uint16_t>(peer, "port", 1, 65535)});
  }
  welcome.protocol = text(object, "protocol");
  welcome.home = text(object, "home");
  welcome.pager = text(object, "pager");
  welcome.size = integer<std::uint64_t>(object, "size", 1, max_region);
  welcome.page_size = page_size(object);
  if (welcome.size % welcome.page_size != 0) throw Malformed("\"size\" is no multiple of \"page_size\"");
  welcome.lanes = integer<std::uint32_t>(object, "lanes", 1, max_lanes);
  welcome.spin_us = integer<std::uint32_t>(object, "spin_us", 0, max_spin_us);
  return welcome;
}

Report read_report_object(const json& object) {
  const std::string phase = text(object, "phase");
  for (std::size_t i = 0; i < phase_names.size(); ++i) {
    if (phase != phase_names[i]) continue;
    constexpr std::int64_t least = std::numeric_limits<std::int64_t>::min();
    constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
    return {static_cast<Report::Phase>(i), integer(object, "value", least, most)};
  }
  throw Malformed("\"phase\" is none of telemetry, running, finalized, lost_peer, bad_peer");
}

ControlMessage read_message(const json& value) {
  const json& object = object_of(value, "the message");
  const std::string type = text(object, "type");
  if (type == "join") return read_join(object);
  if (type == "welcome") return read_welcome(object);
  if (type == "refusal") return Refusal{text(object, "why", max_control_body)};
  if (type == "report") return read_report_object(object);
  if (type == "enter") return read_enter(object);
  if (type == "place") return read_place(object);
  throw Malformed("\"type\" is none of join, welcome, refusal, report, enter, place");
}

json write(const Platform& platform) {
  return {{"architecture", platform.architecture},
          {"byte_order", platform.byte_order},
          {"page_size", platform.page_size},
          {"version", platform.version}};
}

json write(const Join& join) {
  return {{"type", "join"},
          {"rank", join.rank},
          {"pid", join.pid},
          {"mesh_port", join.mesh_port},
          {"platform", write(join.platform)}};
}

json write(const Enter& enter) {
  return {{"type", "enter"},  {"session", enter.session}, {"members", enter.members},
          {"pid", enter.pid}, {"cores", enter.cores},     {"platform", write(enter.platform)}};
}

json write(const Place& place) {
  return {{"type", "place"}, {"rank", place.rank}, {"nonce", hex(place.nonce)}, {"patience_s", place.patience_s}};
}

json write(const Welcome& welcome) {
  json peers = json::array();
  for (const Peer& peer : welcome.peers) peers.push_back({{"address", peer.address}, {"port", peer.port}});
  return {
      {"type", "welcome"},         {"peers", peers},       {"protocol", welcome.protocol},   {"home", welcome.home},
      {"pager", welcome.pager},    {"size", welcome.size}, {"page_size", welcome.page_size}, {"lanes", welcome.lanes},
      {"spin_us", welcome.spin_us}};
}

json write(const Refusal& refusal) { return {{"type", "refusal"}, {"why", refusal.why}}; }

json write(const Report& report) {
  return {
      {"type", "report"}, {"phase", phase_names.at(static_cast<std::size_t>(report.phase))}, {"value", report.value}};
}

template <class Value>
std::string clause(const char* what, const Value& its, const char* whose, const Value& job) {
  const auto shown = [](const auto& value) {
    if constexpr (std::is_integral_v<Value>)
      return std::to_string(value);
    else
      return value;
  };
  return std::string("its ") + what + " is " + shown(its) + ", " + whose + " is " + shown(job);
}

}  // namespace

Platform Platform::here() {
  utsname name{};
  ipc::check(::uname(&name), "uname");
  return {name.machine, std::endian::native == std::endian::little ? "little" : "big",
          static_cast<std::uint32_t>(ipc::check(::sysconf(_SC_PAGESIZE), "sysconf _SC_PAGESIZE")), protocol_version};
}

std::string difference(const Platform& job, const Platform& its, const char* whose) {
  if (its.version != job.version) return clause("version of libdsm's protocol", its.version, whose, job.version);
  if (its.architecture != job.architecture) return clause("architecture", its.architecture, whose, job.architecture);
  if (its.byte_order != job.byte_order) return clause("byte order", its.byte_order, whose, job.byte_order);
  if (its.page_size != job.page_size) return clause("page size", its.page_size, whose, job.page_size);
  return {};
}

bool is_session_name(std::string_view name) {
  const auto fits = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  };
  return !name.empty() && name.size() <= max_session_name && std::all_of(name.begin(), name.end(), fits);
}

std::string to_json(const ControlMessage& message) {
  const json value = std::visit([](const auto& one) { return write(one); }, message);
  // A host's error text need not be UTF-8; that is no reason not to tell it.
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::optional<ControlMessage> from_json(std::string_view input, std::string* why) {
  try {
    if (input.size() > max_control_body) throw Malformed("the message is too long");
    const json value = json::parse(input, nullptr, /*allow_exceptions=*/false);
    if (value.is_discarded()) throw Malformed("the message is no JSON");
    return read_message(value);
  } catch (const Malformed& malformed) {
    if (why != nullptr) *why = malformed.what();
    return std::nullopt;
  }
}

Io send(Channel& channel, const ControlMessage& message) {
  const std::string body = to_json(message);
  FrameHeader header{};
  header.kind = static_cast<std::uint8_t>(FrameKind::control);
  header.length = static_cast<std::uint32_t>(body.size());
  return channel.send(header, body.data());
}

std::optional<ControlMessage> read_control(const FrameHeader& header, const std::uint8_t* body, std::string* why) {
  if (header.kind != static_cast<std::uint8_t>(FrameKind::control)) {
    if (why != nullptr) *why = "a frame of kind " + std::to_string(header.kind) + " where a control frame belongs";
    return std::nullopt;
  }
  return from_json({reinterpret_cast<const char*>(body), header.length}, why);
}

Io report(Channel& coordinator, Report report) noexcept {
  FrameHeader header{};
  header.kind = static_cast<std::uint8_t>(FrameKind::control);
  header.op = static_cast<std::uint8_t>(static_cast<unsigned>(report.phase) + 1);
  header.a = static_cast<std::uint64_t>(report.value);
  return coordinator.send(header, nullptr);
}

std::optional<Report> read_report(const FrameHeader& header) noexcept {
  if (header.kind != static_cast<std::uint8_t>(FrameKind::control) || header.length != 0 || header.op == 0 ||
      header.op > phase_names.size() || header.access != 0 || header.flags != 0 || header.page != 0 ||
      header.seq != 0 || header.b != 0) {
    return std::nullopt;
  }
  return Report{static_cast<Report::Phase>(header.op - 1),
                static_cast<std::int64_t>(static_cast<std::uint64_t>(header.a))};
}

Io send_verdict(Channel& member, std::string_view why) {
  const std::string_view line = why.substr(0, max_verdict);
  FrameHeader header{};
  header.kind = static_cast<std::uint8_t>(FrameKind::control);
  header.op = verdict_op;
  header.length = static_cast<std::uint32_t>(line.size());
  return member.send(header, line.data());
}

std::string_view read_verdict(const FrameHeader& header, const std::uint8_t* body) noexcept {
  if (header.kind != static_cast<std::uint8_t>(FrameKind::control) || header.op != verdict_op ||
      header.length > max_verdict) {
    return {};
  }
  return {reinterpret_cast<const char*>(body), header.length};
}

}  // namespace dsm::net
