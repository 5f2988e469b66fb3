#include "dsm/net/frame.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <vector>

#include "dsm/launch/control.hpp"
#include "dsm/net/channel.hpp"
#include "dsm/tests/fuzz/harness.hpp"
#include "dsm/tests/fuzz/stream.hpp"
#include "ipc/error.hpp"

namespace dsm::fuzz {
namespace {

using net::Channel;
using net::FrameHeader;
using net::Io;

constexpr std::size_t page_sizes[] = {64, 4096, 65'536};
constexpr std::size_t body_limits[] = {0, 24, 4096, 8000};  // small and large beside the least buffer, 4096

// How the stream comes and how it is read.
struct Plan {
  explicit Plan(Script& script)
      : page_size(page_sizes[script.below(3)]),
        max_body(body_limits[script.below(4)]),
        piece(script.byte() * 8u),
        ways(script.byte()),
        guess(script.byte()),
        stream(script.bytes(max_stream)) {}
  std::size_t page_size, max_body;
  std::size_t piece;  // bytes written at one time; 0: all, and then the end, before anything is read
  unsigned ways;      // two bits for a frame: by which of its calls the channel is asked for it
  std::size_t guess;  // the length for which receive_into() is prepared
  std::string stream;
};

bool is_for_link(const FrameHeader& header, std::size_t max_body) {
  const auto kind = static_cast<net::FrameKind>(header.kind);
  return fits(header, max_body) && (kind == net::FrameKind::control || kind == net::FrameKind::bytes);
}

// ---- receiving ----

void receive_by_channel(const Plan& plan) {
  Sockets sockets = socket_pair();
  Channel channel(std::move(sockets.one), plan.max_body);
  const Frames expected = cut(plan.stream, fits, plan.max_body);
  std::vector<Frame> got;
  Io io = Io::again;
  if (plan.piece != 0) {
    const unsigned way = plan.ways & 1u;
    for (std::size_t at = 0; at < plan.stream.size() && io == Io::again; at += plan.piece) {
      put(sockets.other.get(), std::string_view(plan.stream).substr(at, plan.piece));
      // `again` may come early while there is more, but not without end: each time something has been read.
      for (int turns = 0; turns < 2; ++turns) {
        while ((io = receive_by(way, channel, got, 0)) == Io::done) continue;
      }
    }
  } else {
    put(sockets.other.get(), plan.stream);
  }
  sockets.other.reset();
  for (unsigned i = 0; io == Io::again || io == Io::done; ++i) {
    const unsigned way = plan.piece != 0 ? plan.ways & 1u : (plan.ways >> (2 * (i % 4))) & 3u;
    io = receive_by(way, channel, got, std::min(plan.guess, plan.max_body));
  }
  check_equal(got, expected.all);
  check(io == (expected.refused ? Io::broken : Io::closed), "a channel ends in another way than its stream does");
  check(receive_by(2, channel, got, 0) == io && receive_by(0, channel, got, 0) == io, "a channel comes back to life");
  std::size_t bytes = 0;
  for (const Frame& one : got) bytes += sizeof one.header + one.body.size();
  check(channel.counters().frames_in >= got.size() && channel.counters().bytes_in >= bytes, "frames are not counted");
}

void receive_by_link(const Plan& plan) {
  Sockets sockets = socket_pair();
  const std::size_t early = std::min(plan.guess, plan.stream.size());
  ipc::Fd copy(ipc::check(::dup(sockets.one.get()), "dup"));
  launch::Link link(std::move(sockets.one), std::move(copy), plan.stream.substr(0, early));
  const Frames expected = cut(plan.stream, is_for_link, launch::max_frame);
  std::vector<Frame> got;
  const auto sink = [&](const launch::Link::Frame& one) {
    got.push_back({one.header, std::string(one.body)});
    if (one.header.kind == static_cast<std::uint8_t>(net::FrameKind::control)) check_agent_message(one.body);
  };
  using State = launch::Link::State;
  State state = State::open;
  const std::size_t step = plan.piece != 0 ? plan.piece : plan.stream.size();
  for (std::size_t at = early; at < plan.stream.size() && state == State::open; at += step) {
    put(sockets.other.get(), std::string_view(plan.stream).substr(at, step));
    state = link.receive(sink);
  }
  sockets.other.reset();
  while (state == State::open) state = link.receive(sink);
  check_equal(got, expected.all);
  check(state == (expected.refused ? State::broken : State::ended), "a link ends in another way than its stream does");
  if (state != State::broken) return;
  check_line(link.why(), "a link does not say in one line why it broke");
  check(link.receive(sink) == State::broken && got.size() == expected.all.size(), "a link comes back to life");
}

// ---- sending: what was received goes out again as the same bytes ----

std::string joined(const std::vector<Frame>& frames) {
  std::string out;
  for (const Frame& one : frames) out += as_bytes(one.header) + one.body;
  return out;
}

void send_by_channel(const Plan& plan) {
  std::vector<Frame> frames = cut(plan.stream, fits, plan.max_body).all;
  Sockets sockets = socket_pair();
  const bool narrow = (plan.ways & 2u) != 0;
  if (narrow) {  // so small that the channel must stop in the middle of a frame
    const int small = 1;
    ipc::check(::setsockopt(sockets.one.get(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small), "setsockopt SO_SNDBUF");
  }
  Channel channel(std::move(sockets.one), 0, 4);
  std::string received;
  const auto flush = [&] {
    Io io = Io::again;
    while ((io = channel.flush()) == Io::again) received += take(sockets.other.get());
    check(io == Io::done && channel.queued() == 0, "a channel does not get rid of its frames");
  };
  for (const Frame& one : frames) {
    if (channel.queue(one.header, one.body.data())) continue;
    check(channel.queued() == 4, "a queue is full before it is");
    flush();
    check(channel.queue(one.header, one.body.data()), "a queue that is empty takes nothing");
  }
  if (!frames.empty() && channel.queued() == 1) {  // nothing of it has been sent
    const std::string instead(frames.back().body.size(), 'z');
    channel.withdraw(frames.back().body.data(), instead.data());
    frames.back().body = instead;
    flush();
  }
  flush();
  received += take(sockets.other.get());
  check(received == joined(frames), "a channel does not send the bytes that it was given");
  check(channel.counters().frames_out == frames.size() && channel.counters().bytes_out == received.size(),
        "what was sent is not what was counted");
  if (frames.empty() || narrow) return;  // send() would wait until somebody reads
  check(channel.send(frames[0].header, frames[0].body.data()) == Io::done &&
            take(sockets.other.get()) == joined({frames[0]}),
        "a channel does not send a single frame");
  sockets.other.reset();
  check(channel.send(frames[0].header, frames[0].body.data()) == Io::closed && channel.flush() == Io::closed,
        "a channel sends to nobody");
}

void send_by_link(const Plan& plan) {
  Sockets sockets = socket_pair();
  ipc::Fd copy(ipc::check(::dup(sockets.one.get()), "dup"));
  launch::Link link(std::move(sockets.one), std::move(copy));
  for (const Frame& one : cut(plan.stream, is_for_link, plan.max_body).all) {
    FrameHeader header{};  // a link has no say over the rest
    header.length = one.header.length;
    header.kind = static_cast<std::uint8_t>(net::FrameKind::bytes);
    header.op = one.header.op;
    header.a = one.header.a;
    header.b = one.header.b;
    link.send(static_cast<launch::Bytes>(one.header.op), one.header.a, one.header.b, one.body);
    check(link.flush() && link.queued() == 0, "a link does not get rid of its frames");
    check(take(sockets.other.get()) == as_bytes(header) + one.body, "a link does not send what it was given");
  }
  link.send(launch::Beat{});
  std::vector<pollfd> set;
  link.add_to(set, true);
  check(set.size() == 2 && set[0].events == POLLIN && set[1].events == POLLOUT,
        "a link does not wait for what it needs");
  sockets.other.reset();
  check(!link.flush() && link.queued() == 0, "a link sends to nobody");
}

}  // namespace

void frame(Input input) {
  // As all programs do that have a Link.
  static const auto before = std::signal(SIGPIPE, SIG_IGN);
  check(before != SIG_ERR, "SIGPIPE cannot be ignored");
  Script script(input);
  const Plan plan(script);
  if (plan.stream.size() >= sizeof(FrameHeader)) {
    FrameHeader header;
    std::memcpy(&header, plan.stream.data(), sizeof header);
    check_header(header, plan.page_size);  // also if its body is missing
  }
  for (const Frame& one : cut(plan.stream, fits, max_stream).all) check_header(one.header, plan.page_size);
  receive_by_channel(plan);
  receive_by_link(plan);
  send_by_channel(plan);
  send_by_link(plan);
}

}  // namespace dsm::fuzz
