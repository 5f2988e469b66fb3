#include "dsm/tests/fuzz/peer.hpp"

#include <poll.h>
#include <sodium.h>

#include <cstring>

#include "dsm/tests/fuzz/stream.hpp"

namespace dsm::fuzz {
namespace {

using net::Channel;
using net::FrameHeader;
using net::Io;

constexpr net::JobKey other_key = {3, 2, 1};

enum class Nonce : std::uint8_t { fresh, zeros, repeated };
struct Nonces {
  std::uint8_t count = 0;
  Nonce next = Nonce::fresh;
} nonces;

void fill_nonce(void* to, std::size_t size) {
  if (nonces.next == Nonce::fresh) ++nonces.count;
  std::memset(to, nonces.next == Nonce::zeros ? 0 : nonces.count, size);
}

std::string framed(const net::ControlMessage& message) {
  const std::string body = net::to_json(message);
  FrameHeader header{};
  header.kind = static_cast<std::uint8_t>(net::FrameKind::control);
  header.length = static_cast<std::uint32_t>(body.size());
  return as_bytes(header) + body;
}

net::ControlMessage honest_message(Script& script) {
  static const net::Platform here = net::Platform::here();
  switch (script.below(4)) {
    case 0:
      return net::Join{script.byte() - 1, script.byte(), script.byte(), here};
    case 1: {
      net::Welcome welcome;
      welcome.peers.resize(script.below(3), {"127.0.0.1", 4000});
      welcome.size = std::uint64_t{script.byte()} << 12;
      welcome.page_size = 4096;
      welcome.lanes = script.byte();
      welcome.spin_us = script.byte();
      return welcome;
    }
    case 2:
      return net::Refusal{script.bytes(script.byte())};
    default:
      return net::Report{static_cast<net::Report::Phase>(script.below(5)), script.byte()};
  }
}

void check_frame(const FrameHeader& header, const std::uint8_t* body) {
  check_header(header, max_body);
  std::string why;
  const auto message = net::read_control(header, body, &why);
  if (message) return check_control_message(*message);
  check_line(why, "the refusal of a control frame is not one line");
}

Io next_frame(Channel& channel, FrameHeader& header, const std::uint8_t*& body) {
  for (;;) {
    const Io io = channel.receive(header, body);
    pollfd ready{channel.fd(), POLLIN, 0};
    if (io != Io::again || ::poll(&ready, 1, wait_ms) != 1) return io;
  }
}

}  // namespace

void choose_nonces() {
  static randombytes_implementation chosen = {
      .implementation_name = [] { return "fuzz"; },
      .random = [] { return std::uint32_t{7}; },
      .stir = nullptr,
      .uniform = nullptr,
      .buf = fill_nonce,
      .close = nullptr,
  };
  randombytes_set_implementation(&chosen);
  nonces = {};
}

Edit::Edit(Script& script)
    : message_(script.below(2)), how_(script.below(6)), at_(script.byte()), value_(static_cast<char>(script.byte())) {}

void Edit::apply(std::string& text) const {
  const std::size_t place = text.empty() ? 0 : at_ % text.size();
  if (how_ == 0 && !text.empty()) text[place] = static_cast<char>(text[place] ^ value_);
  if (how_ == 1) text.insert(place, 1, value_);
  if (how_ == 2) text.erase(place, 1 + static_cast<unsigned char>(value_) % 8);
  if (how_ == 3) text.insert(place, text);
  if (how_ == 4) text.resize(place);
  if (how_ == 5) std::fill(text.begin() + static_cast<std::ptrdiff_t>(place), text.end(), value_);
}

Peer::Peer(Script& script, net::Handshake::Role role) {
  const std::size_t whose = script.below(8);
  has_key_ = whose < 6;
  nonces.next = static_cast<Nonce>(script.below(3));
  honest_.emplace(role, net::Credentials(whose == 7 ? other_key : key, whose == 6));
  nonces.next = Nonce::fresh;
  for (std::size_t left = script.below(4); left > 0; --left) edits_.emplace_back(script);
}

std::string Peer::answer(const std::string& heard) {
  if (!heard.empty()) honest_->feed({reinterpret_cast<const std::uint8_t*>(heard.data()), heard.size()});
  std::string text = honest_->take_output();
  if (text.empty()) return text;
  meant_ += text;
  for (const Edit& edit : edits_) {
    if (edit.message() == messages_) edit.apply(text);
  }
  ++messages_;
  said_ += text;
  return text;
}

void Peer::check_verdict(bool let_in) const {
  const bool proven = has_said_all() && was_honest();
  check(!let_in || proven, "somebody is let in who has not proved the key");
  check(let_in || !proven, "somebody is kept out who has proved the key");
}

std::string behind(Script& script) {
  std::string out;
  for (std::size_t left = script.below(4); left > 0; --left) {
    std::string text = framed(honest_message(script));
    for (std::size_t edits = script.below(3); edits > 0; --edits) Edit(script).apply(text);
    out += text;
  }
  return (out + script.rest()).substr(0, max_stream);
}

void check_channel(Channel channel, ipc::Fd wire, const std::string& expected) {
  const Frames frames = cut(expected, fits, max_body);
  FrameHeader header{};
  const std::uint8_t* body = nullptr;
  for (const Frame& one : frames.all) {
    check(next_frame(channel, header, body) == Io::done && as_bytes(header) == as_bytes(one.header) &&
              std::string_view(reinterpret_cast<const char*>(body), header.length) == one.body,
          "the first frames are not what was sent behind the handshake");
    check_frame(header, body);
  }
  if (frames.refused) check(next_frame(channel, header, body) == Io::broken, "a body that is too long is taken");
  // The other way: both forms in which a rank speaks.
  Channel peer(std::move(wire), max_body);
  const net::Report report{net::Report::Phase::lost_peer, static_cast<std::int64_t>(expected.size())};
  check(net::report(channel, report) == Io::done && net::send(channel, report) == Io::done, "a report is not sent");
  check(peer.receive_header(header) == Io::done, "a report does not arrive");
  const auto short_form = net::read_report(header);
  check(short_form && short_form->phase == report.phase && short_form->value == report.value, "a report is changed");
  check(peer.receive_header(header) == Io::done, "a report does not arrive");
  std::string text(header.length, ' ');
  check(peer.receive_body(text.data()) == Io::done && text == net::to_json(report), "a report is changed");
}

}  // namespace dsm::fuzz
