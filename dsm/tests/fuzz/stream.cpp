#include "dsm/tests/fuzz/stream.hpp"

#include <sys/socket.h>

#include <array>
#include <bit>
#include <cstring>

#include "dsm/tests/fuzz/harness.hpp"
#include "ipc/error.hpp"
#include "ipc/socket.hpp"

namespace dsm::fuzz {
namespace {

using net::FrameHeader;

bool equal(const FrameHeader& a, const FrameHeader& b) { return std::memcmp(&a, &b, sizeof a) == 0; }

void check_coherence(const FrameHeader& header, std::size_t page_size) {
  const core::Message before{.kind = core::Message::Kind::recall, .page = 77, .seq = 99};
  core::Message message = before;
  if (!decode(header, page_size, message)) return check(message == before, "a refused coherence frame leaves a trace");
  check(message.kind <= core::Message::Kind::located && message.access <= core::Access::write &&
            message.atomic.kind <= core::Atomic::Kind::compare_swap &&
            message.atomic.state <= core::Atomic::State::missed &&
            std::size_t{message.atomic.word} * sizeof(std::uint64_t) < page_size,
        "a coherence message is out of range");
  check(equal(net::encode(message, page_size), header), "a coherence frame does not come back as it was");
}

void check_sync(const FrameHeader& header) {
  const core::SyncMessage before{.waiter = 7, .key = 77, .number = 99};
  core::SyncMessage message = before;
  if (!decode(header, message)) return check(message == before, "a refused sync frame leaves a trace");
  check(message.kind <= core::SyncMessage::Kind::cond_wake, "a sync message is of no kind");
  check(equal(net::encode(message), header), "a sync frame does not come back as it was");
}

bool is_text(const std::string& text, std::size_t most) { return !text.empty() && text.size() <= most; }

bool is_page_size(std::uint32_t size) { return std::has_single_bit(size) && size <= 1u << 30; }

void check_range(const net::Platform& platform) {
  check(is_text(platform.architecture, 255) && is_text(platform.byte_order, 255) && is_page_size(platform.page_size),
        "a platform is out of range");
  static const net::Platform here = net::Platform::here();
  check(difference(here, platform).empty() == (here == platform), "platforms differ without a word");
}

void check_range(const net::Join& join) {
  check(join.rank >= 0 && join.pid > 0 && join.mesh_port > 0, "a join's number is out of range");
  check_range(join.platform);
}

void check_range(const net::Enter& enter) {
  check(net::is_session_name(enter.session), "a session's name is none");
  check(enter.members > 0 && enter.pid > 0 && enter.cores > 0, "an enter's number is out of range");
  check_range(enter.platform);
}

void check_range(const net::Place& place) {
  check(place.rank >= 0 && place.rank < static_cast<int>(core::max_ranks) && place.patience_s > 0,
        "a place's number is out of range");
}

void check_range(const net::Welcome& welcome) {
  check(!welcome.peers.empty() && welcome.peers.size() <= core::max_ranks, "a welcome has too many peers, or none");
  for (const net::Peer& peer : welcome.peers)
    check(is_text(peer.address, 255) && peer.port > 0, "a peer has no address");
  check(is_text(welcome.protocol, 255) && is_text(welcome.home, 255) && is_text(welcome.pager, 255),
        "a welcome's text is out of range");
  check(is_page_size(welcome.page_size) && welcome.size > 0 && welcome.size <= std::uint64_t{1} << 47 &&
            welcome.size % welcome.page_size == 0,
        "a welcome's region is out of range");
  check(welcome.lanes > 0 && welcome.lanes <= 64 && welcome.spin_us <= 1'000'000, "a welcome's number is out of range");
}

void check_range(const net::Refusal& refusal) {
  check(is_text(refusal.why, net::max_control_body), "a refusal says nothing");
}

void check_range(const net::Report& report) {
  check(report.phase <= net::Report::Phase::bad_peer, "a report is of no phase");
}

net::Io receive_whole(net::Channel& channel, std::vector<Frame>& got, net::Ahead ahead) {
  FrameHeader header{};
  const std::uint8_t* body = nullptr;
  const net::Io io = channel.receive(header, body, ahead);
  if (io == net::Io::done) got.push_back({header, std::string(reinterpret_cast<const char*>(body), header.length)});
  return io;
}

net::Io receive_parts(net::Channel& channel, std::vector<Frame>& got) {
  FrameHeader header{};
  if (const net::Io io = channel.receive_header(header); io != net::Io::done) return io;
  std::string body(header.length, ' ');
  const net::Io io = channel.receive_body(body.data());
  if (io == net::Io::done) got.push_back({header, body});
  return io;
}

// To a place of just that length: a byte behind it would be found by AddressSanitizer.
net::Io receive_guessed(net::Channel& channel, std::vector<Frame>& got, std::size_t length) {
  FrameHeader header{};
  std::vector<char> place(length);
  if (const net::Io io = channel.receive_into(header, place.data(), length, {1}); io != net::Io::done) return io;
  std::string body(place.data(), place.size());
  if (header.length != length) {
    body.resize(header.length);
    if (const net::Io io = channel.receive_body(body.data()); io != net::Io::done) return io;
  }
  got.push_back({header, body});
  return net::Io::done;
}

}  // namespace

Sockets socket_pair() {
  int ends[2];
  ipc::check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), "socketpair");
  return {ipc::Fd(ends[0]), ipc::Fd(ends[1])};
}

bool put(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const iovec part{const_cast<char*>(bytes.data()), bytes.size()};
    const ipc::Transfer sent = ipc::send_some(fd, {&part, 1});
    if (sent.error == EPIPE || sent.error == ECONNRESET) return false;
    check(sent.error == 0, "the harness cannot write to its own socket");
    bytes.remove_prefix(sent.bytes);
  }
  return true;
}

std::string take(int fd) {
  std::string out;
  std::array<char, 4096> buffer;
  for (;;) {
    const iovec room{buffer.data(), buffer.size()};
    const ipc::Transfer got = ipc::receive_some(fd, {&room, 1});
    if (got.error != 0 || got.end) return out;
    out.append(buffer.data(), got.bytes);
  }
}

std::string as_bytes(const FrameHeader& header) { return {reinterpret_cast<const char*>(&header), sizeof header}; }

bool fits(const FrameHeader& header, std::size_t max_body) { return header.length <= max_body; }

Frames cut(std::string_view stream, bool (*takes)(const FrameHeader&, std::size_t), std::size_t max_body) {
  Frames out;
  while (stream.size() >= sizeof(FrameHeader)) {
    FrameHeader header;
    std::memcpy(&header, stream.data(), sizeof header);
    out.refused = !takes(header, max_body);
    if (out.refused || stream.size() - sizeof header < header.length) break;
    out.all.push_back({header, std::string(stream.substr(sizeof header, header.length))});
    stream.remove_prefix(sizeof header + header.length);
  }
  return out;
}

void check_equal(const std::vector<Frame>& got, const std::vector<Frame>& expected) {
  check(got.size() == expected.size(), "not the frames that were sent: too few or too many");
  for (std::size_t i = 0; i < got.size(); ++i) {
    check(as_bytes(got[i].header) == as_bytes(expected[i].header), "not the frames that were sent: another header");
    check(got[i].body == expected[i].body, "not the frames that were sent: another body");
  }
}

net::Io receive_by(unsigned way, net::Channel& channel, std::vector<Frame>& got, std::size_t guess) {
  switch (way) {
    case 0:
      return receive_whole(channel, got, net::Ahead::yes);
    case 1:
      return receive_whole(channel, got, net::Ahead::no);
    case 2:
      return receive_parts(channel, got);
    default:
      return receive_guessed(channel, got, guess);
  }
}

void check_header(const FrameHeader& header, std::size_t page_size) {
  check_coherence(header, page_size);
  check_sync(header);
  const auto report = net::read_report(header);
  if (!report) return;
  check_range(*report);
  check(header.op == static_cast<unsigned>(report->phase) + 1 && header.a == static_cast<std::uint64_t>(report->value),
        "a report is not what its header says");
}

void check_control_message(const net::ControlMessage& message) {
  std::visit([](const auto& one) { check_range(one); }, message);
  const std::string written = net::to_json(message);
  std::string why;
  const auto again = net::from_json(written, &why);
  check(again.has_value(), "a control message cannot be read by who wrote it");
  check(again->index() == message.index() && net::to_json(*again) == written,
        "a control message does not come back as it was written");
}

}  // namespace dsm::fuzz
