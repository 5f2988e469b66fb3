#include "dsm/launch/control.hpp"

#include <sodium.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <system_error>

#include "ipc/socket.hpp"

namespace dsm::launch {
namespace {

using nlohmann::json;

struct Malformed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// JSON is UTF-8, an argument any bytes: each byte travels as the character of that number.
std::string to_text(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) {
      out += c;
    } else {
      out += static_cast<char>(0xc0 | (byte >> 6));
      out += static_cast<char>(0x80 | (byte & 0x3f));
    }
  }
  return out;
}

std::string to_bytes(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto lead = static_cast<unsigned char>(text[i]);
    if (lead < 0x80) {
      out += text[i];
      continue;
    }
    if ((lead != 0xc2 && lead != 0xc3) || i + 1 == text.size())
      throw Malformed("a text with a character that is no byte");
    out += static_cast<char>(((lead & 3) << 6) | (static_cast<unsigned char>(text[++i]) & 0x3f));
  }
  return out;
}

json to_texts(const std::vector<std::string>& list) {
  json out = json::array();
  for (const std::string& bytes : list) out.push_back(to_text(bytes));
  return out;
}

const json& member(const json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end()) throw Malformed(std::string("\"") + name + "\" is missing");
  return *found;
}

template <class Int>
Int integer(const json& value) {
  if (!value.is_number_integer()) throw Malformed("a number is missing");
  if (value.is_number_unsigned() &&
      value.get<std::uint64_t>() > static_cast<std::uint64_t>(std::numeric_limits<Int>::max()))
    throw Malformed("a number is too large");
  if (!value.is_number_unsigned() &&
      (std::is_unsigned_v<Int> ||
       value.get<std::int64_t>() < static_cast<std::int64_t>(std::numeric_limits<Int>::min())))
    throw Malformed("a number is too small");
  return value.get<Int>();
}

std::string bytes(const json& value) {
  if (!value.is_string()) throw Malformed("a text is missing");
  return to_bytes(value.get_ref<const std::string&>());
}

bool boolean(const json& value) {
  if (!value.is_boolean()) throw Malformed("a truth value is missing");
  return value.get<bool>();
}

template <class Read>
auto list(const json& value, Read read) {
  if (!value.is_array()) throw Malformed("a list is missing");
  std::vector<decltype(read(value))> out;
  for (const json& item : value) out.push_back(read(item));
  return out;
}

std::string to_hex(const net::JobKey& key) {
  std::string out(key.size() * 2 + 1, '\0');
  sodium_bin2hex(out.data(), out.size(), key.data(), key.size());
  out.pop_back();
  return out;
}

net::JobKey to_key(const std::string& hex) {
  net::JobKey key{};
  std::size_t size = 0;
  if (sodium_hex2bin(key.data(), key.size(), hex.data(), hex.size(), nullptr, &size, nullptr) != 0 ||
      size != key.size() || hex.size() != 2 * key.size()) {
    throw Malformed("no key");
  }
  return key;
}

json write(const Start& m) {
  return {{"type", "start"},
          {"ranks", m.ranks},
          {"hosts", to_texts(m.hosts)},
          {"program", to_text(m.program)},
          {"program_hash", to_text(m.program_hash)},
          {"program_size", m.program_size},
          {"arguments", to_texts(m.arguments)},
          {"working_directory", to_text(m.working_directory)},
          {"lenient", m.lenient},
          {"environment", to_texts(m.environment)},
          {"key", to_hex(m.key)},
          {"readers", m.readers},
          {"debugger", to_texts(m.debugger)},
          {"debugged", m.debugged},
          {"traceable", m.traceable},
          {"prompts", m.prompts}};
}
json write(const PassSignal& m) { return {{"type", "signal"}, {"signo", m.signo}}; }
json write(const Interrupt& m) { return {{"type", "interrupt"}, {"rank", m.rank}}; }
json write(const KillAll&) { return {{"type", "kill"}}; }
json write(const InputEnd&) { return {{"type", "input_end"}}; }
json write(const Watch& m) { return {{"type", "watch"}, {"rank", m.rank}, {"segment", m.segment}}; }
json write(const Ask& m) { return {{"type", "ask"}, {"id", m.id}}; }
json write(const TakeStacks&) { return {{"type", "take_stacks"}}; }
json write(const StacksTaken& m) { return {{"type", "stacks_taken"}, {"without_gdb", m.without_gdb}}; }
json write(const Beat&) { return {{"type", "beat"}}; }
json write(const Hello& m) {
  return {{"type", "hello"}, {"version", m.version}, {"cores", m.cores}, {"caller", to_text(m.caller)}};
}
json write(const NeedProgram&) { return {{"type", "need_program"}}; }
json write(const NoFolder&) { return {{"type", "no_folder"}}; }
json write(const Started& m) { return {{"type", "started"}, {"rank", m.rank}, {"pid", m.pid}}; }
json write(const NotStarted& m) {
  return {{"type", "not_started"}, {"rank", m.rank}, {"step", to_text(m.step)}, {"error", m.error}};
}
json write(const Exited& m) {
  return {{"type", "exited"},
          {"rank", m.rank},
          {"status", m.status},
          {"stopped", m.stopped},
          {"out_of_memory", m.out_of_memory}};
}
json write(const InputTaken& m) { return {{"type", "input_taken"}, {"bytes", m.bytes}}; }
json write(const InputClosed&) { return {{"type", "input_closed"}}; }
json write(const Done& m) { return {{"type", "done"}, {"left", m.left}}; }

AgentMessage read_start(const json& m) {
  Start out;
  out.ranks = list(member(m, "ranks"), integer<int>);
  out.hosts = list(member(m, "hosts"), bytes);
  out.program = bytes(member(m, "program"));
  out.program_hash = bytes(member(m, "program_hash"));
  out.program_size = integer<std::uint64_t>(member(m, "program_size"));
  out.arguments = list(member(m, "arguments"), bytes);
  out.working_directory = bytes(member(m, "working_directory"));
  out.lenient = boolean(member(m, "lenient"));
  out.environment = list(member(m, "environment"), bytes);
  out.key = to_key(bytes(member(m, "key")));
  out.readers = list(member(m, "readers"), integer<int>);
  out.debugger = list(member(m, "debugger"), bytes);
  out.debugged = list(member(m, "debugged"), integer<int>);
  out.traceable = boolean(member(m, "traceable"));
  out.prompts = boolean(member(m, "prompts"));
  if (out.ranks.empty() || out.hosts.size() != out.ranks.size() || out.arguments.empty())
    throw Malformed("nothing to start");
  return out;
}

AgentMessage read(const json& m) {
  const std::string type = bytes(member(m, "type"));
  const auto number = [&m](const char* name) { return integer<int>(member(m, name)); };
  if (type == "start") return read_start(m);
  if (type == "signal") return PassSignal{number("signo")};
  if (type == "interrupt") return Interrupt{number("rank")};
  if (type == "kill") return KillAll{};
  if (type == "input_end") return InputEnd{};
  if (type == "watch") return Watch{number("rank"), number("segment")};
  if (type == "ask") return Ask{integer<std::uint64_t>(member(m, "id"))};
  if (type == "take_stacks") return TakeStacks{};
  if (type == "stacks_taken") return StacksTaken{boolean(member(m, "without_gdb"))};
  if (type == "beat") return Beat{};
  if (type == "hello") {
    return Hello{integer<std::uint32_t>(member(m, "version")), number("cores"), bytes(member(m, "caller"))};
  }
  if (type == "need_program") return NeedProgram{};
  if (type == "no_folder") return NoFolder{};
  if (type == "started") return Started{number("rank"), integer<std::int64_t>(member(m, "pid"))};
  if (type == "not_started") return NotStarted{number("rank"), bytes(member(m, "step")), number("error")};
  if (type == "exited") {
    return Exited{number("rank"), number("status"), boolean(member(m, "stopped")), boolean(member(m, "out_of_memory"))};
  }
  if (type == "input_taken") return InputTaken{integer<std::uint64_t>(member(m, "bytes"))};
  if (type == "input_closed") return InputClosed{};
  if (type == "done") return Done{number("left")};
  throw Malformed("an unknown type of message");
}

}  // namespace

std::string to_json(const AgentMessage& message) {
  return std::visit([](const auto& m) { return write(m); }, message).dump();
}

std::optional<AgentMessage> parse_message(std::string_view text, std::string& why) {
  try {
    const json value = json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!value.is_object()) throw Malformed("the message is no JSON object");
    return read(value);
  } catch (const Malformed& malformed) {
    why = malformed.what();
    return std::nullopt;
  }
}

Link::Link(ipc::Fd in, ipc::Fd out, std::string received)
    : in_(std::move(in)), out_(std::move(out)), in_buffer_(std::move(received)) {
  ipc::set_nonblocking(in_.get());
  ipc::set_nonblocking(out_.get());
}

void Link::send(const AgentMessage& message) { put(net::FrameKind::control, Bytes{}, 0, 0, to_json(message)); }

void Link::send(Bytes what, std::uint64_t a, std::uint64_t b, std::string_view body) {
  put(net::FrameKind::bytes, what, a, b, body);
}

void Link::put(net::FrameKind kind, Bytes op, std::uint64_t a, std::uint64_t b, std::string_view body) {
  if (deaf_) return;
  net::FrameHeader header{};
  header.length = static_cast<std::uint32_t>(body.size());
  header.kind = static_cast<std::uint8_t>(kind);
  header.op = static_cast<std::uint8_t>(op);
  header.a = a;
  header.b = b;
  out_buffer_.append(reinterpret_cast<const char*>(&header), sizeof header);
  out_buffer_.append(body);
}

bool Link::flush() {
  while (!deaf_ && queued() > 0) {
    const ssize_t put = ::write(out_.get(), out_buffer_.data() + sent_, queued());
    if (put >= 0) {
      sent_ += static_cast<std::size_t>(put);
    } else if (errno == EAGAIN) {
      break;
    } else if (errno != EINTR) {
      deaf_ = true;
    }
  }
  if (queued() == 0 || deaf_) {
    out_buffer_.clear();
    sent_ = 0;
  } else if (sent_ > (1u << 20)) {
    out_buffer_.erase(0, sent_);
    sent_ = 0;
  }
  return !deaf_;
}

Link::State Link::receive(const Sink& sink, std::size_t budget) {
  std::array<char, 65536> buffer;
  if (!why_.empty() || (!in_buffer_.empty() && !cut(sink))) return State::broken;
  for (std::size_t got = 0; got < budget;) {
    const ssize_t n = ::read(in_.get(), buffer.data(), buffer.size());
    if (n > 0) {
      got += static_cast<std::size_t>(n);
      in_buffer_.append(buffer.data(), static_cast<std::size_t>(n));
      if (!cut(sink)) return State::broken;
    } else if (n == 0) {
      return State::ended;
    } else if (errno == EAGAIN) {
      return State::open;
    } else if (errno != EINTR) {
      why_ = std::generic_category().message(errno);
      return errno == ECONNRESET ? State::ended : State::broken;
    }
  }
  return State::open;
}

// Hands over the whole frames at the front of the buffer. False if what is there is no frame.
bool Link::cut(const Sink& sink) {
  std::size_t at = 0;
  while (in_buffer_.size() - at >= sizeof(net::FrameHeader)) {
    Frame frame;
    std::memcpy(&frame.header, in_buffer_.data() + at, sizeof frame.header);
    const auto kind = static_cast<net::FrameKind>(frame.header.kind);
    if (frame.header.length > max_frame || (kind != net::FrameKind::control && kind != net::FrameKind::bytes)) {
      why_ = "what came is no frame";
      return false;
    }
    const std::size_t whole = sizeof frame.header + frame.header.length;
    if (in_buffer_.size() - at < whole) break;
    frame.body = std::string_view(in_buffer_).substr(at + sizeof frame.header, frame.header.length);
    at += whole;
    sink(frame);
  }
  in_buffer_.erase(0, at);
  return true;
}

void Link::add_to(std::vector<pollfd>& set, bool want_input) const {
  if (want_input) set.push_back({in_.get(), POLLIN, 0});
  if (queued() > 0) set.push_back({out_.get(), POLLOUT, 0});
}

}  // namespace dsm::launch
