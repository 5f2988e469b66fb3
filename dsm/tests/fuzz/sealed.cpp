#include <sys/socket.h>

#include <algorithm>
#include <vector>

#include "dsm/net/channel.hpp"
#include "dsm/net/handshake.hpp"
#include "dsm/net/seal.hpp"
#include "dsm/tests/fuzz/harness.hpp"
#include "dsm/tests/fuzz/peer.hpp"
#include "dsm/tests/fuzz/stream.hpp"
#include "ipc/error.hpp"

namespace dsm::fuzz {
namespace {

using net::Channel;
using net::Io;
using net::Seal;

constexpr std::size_t body_limits[] = {0, 24, 4096, 8000};  // small and large beside the least buffer, 4096

std::size_t two_bytes(Script& script) {
  const std::size_t high = script.byte();
  return high * 256 + script.byte();
}

struct Plan {
  explicit Plan(Script& script)
      : limit(body_limits[script.below(4)]),
        their_limit(body_limits[script.below(4)]),
        narrow(script.below(2) == 1),
        piece(script.byte() * 8u),
        ways(script.byte()),
        guess(script.byte()),
        how(script.below(7)),
        at(two_bytes(script)),
        size(1u + script.byte()),
        stream(script.bytes(max_stream)) {}
  std::size_t limit, their_limit;  // the longest bodies: the sender's, the receiver's
  bool narrow;                     // the sender must stop in the middle of a frame
  std::size_t piece;               // bytes written at one time; 0: all, and then the end, before anything is read
  unsigned ways;                   // two bits for a frame: by which of its calls the channel is asked for it
  std::size_t guess;
  std::size_t how, at, size;  // what is changed on the way
  std::string stream;         // of frames, as the sender is given them
};

struct Keys {
  net::SessionKeys client, server;
};

// Of one connection. REQUIRES: choose_nonces().
Keys agreed_keys() {
  const net::Credentials credentials(key, true);
  net::Handshake client(net::Handshake::Role::client, credentials), server(net::Handshake::Role::server, credentials);
  const auto pass = [](net::Handshake& from, net::Handshake& to) {
    const std::string text = from.take_output();
    to.feed({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
  };
  pass(client, server);
  pass(server, client);
  pass(client, server);
  check(client.session() && server.session(), "two who have the key and encrypt do not agree on keys");
  return {*client.session(), *server.session()};
}

// The frames as they go over the wire, and where on it each ends.
struct Sent {
  std::string wire;
  std::vector<std::size_t> ends;
};

Sent send(const Plan& plan, const std::vector<Frame>& frames, const net::SessionKeys& keys) {
  Sockets sockets = socket_pair();
  if (plan.narrow) {
    const int small = 1;
    ipc::check(::setsockopt(sockets.one.get(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small), "setsockopt SO_SNDBUF");
  }
  Channel channel(std::move(sockets.one), plan.limit, frames.size() + 1, keys);
  Sent sent;
  std::size_t end = Seal::stream_header_size;
  for (const Frame& one : frames) {
    check(channel.queue(one.header, one.body.data()), "a queue is full before it is");
    end += Seal::header_record_size + (one.body.empty() ? 0 : Seal::body_record_size(one.body.size()));
    sent.ends.push_back(end);
  }
  Io io = Io::again;
  while ((io = channel.flush()) == Io::again) sent.wire += take(sockets.other.get());
  sent.wire += take(sockets.other.get());
  check(io == Io::done && channel.queued() == 0, "a channel does not get rid of its frames");
  check(sent.wire.size() == (frames.empty() ? 0 : end), "frames are not sealed to the length that they should have");
  return sent;
}

std::string changed(const Plan& plan, const std::string& wire) {
  std::string out = wire;
  const std::size_t at = wire.empty() ? 0 : plan.at % wire.size();
  if (plan.how == 1 && !wire.empty()) out[at] = static_cast<char>(out[at] ^ (1 << (plan.size % 8)));
  if (plan.how == 2) out.resize(at);
  if (plan.how == 3) out.insert(at, wire.substr(at, plan.size));
  if (plan.how == 4) out.erase(at, plan.size);
  if (plan.how == 5) out += plan.stream;
  return out;
}

Io receive(const Plan& plan, const std::string& wire, const net::SessionKeys& keys, std::vector<Frame>& got) {
  Sockets sockets = socket_pair();
  Channel channel(std::move(sockets.one), plan.their_limit, 64, keys);
  Io io = Io::again;
  const std::size_t step = plan.piece != 0 ? plan.piece : wire.size();
  for (std::size_t at = 0; at < wire.size() && io == Io::again; at += step) {
    put(sockets.other.get(), std::string_view(wire).substr(at, step));
    // As in the harness for frames that are not sealed.
    for (int turns = 0; plan.piece != 0 && turns < 2; ++turns) {
      while ((io = receive_by(plan.ways & 1u, channel, got, 0)) == Io::done) continue;
    }
  }
  sockets.other.reset();
  for (unsigned i = 0; io == Io::again || io == Io::done; ++i) {
    const unsigned way = (plan.ways >> (2 * (i % 4))) & 3u;
    io = receive_by(way, channel, got, std::min(plan.guess, plan.their_limit));
  }
  check(receive_by(2, channel, got, 0) == io && receive_by(0, channel, got, 0) == io, "a channel comes back to life");
  return io;
}

}  // namespace

// Exactly those frames come out that were whole before the first byte that was changed, whatever that is.
void sealed(Input input) {
  choose_nonces();
  Script script(input);
  const Plan plan(script);
  const std::vector<Frame> frames = cut(plan.stream, fits, plan.limit).all;
  const Keys keys = agreed_keys();
  const Sent sent = send(plan, frames, keys.client);
  const std::string wire = changed(plan, sent.wire);
  const bool reflected = plan.how == 6;

  const auto same = static_cast<std::size_t>(
      std::mismatch(wire.begin(), wire.end(), sent.wire.begin(), sent.wire.end()).first - wire.begin());
  std::vector<Frame> expected;
  bool too_long = false;
  for (std::size_t i = 0; i < frames.size() && !reflected && !too_long; ++i) {
    const std::size_t begin = i == 0 ? Seal::stream_header_size : sent.ends[i - 1];
    too_long = !fits(frames[i].header, plan.their_limit) && begin + Seal::header_record_size <= same;
    if (too_long || sent.ends[i] > same) break;
    expected.push_back(frames[i]);
  }
  std::vector<Frame> got;
  const Io io = receive(plan, wire, reflected ? keys.client : keys.server, got);
  check_equal(got, expected);
  const bool only_cut = !reflected && same == wire.size() && !too_long;
  check(io == Io::broken || (io == Io::closed && !too_long), "a channel goes on behind what was changed");
  check(!only_cut || io == Io::closed, "a channel takes for changed what is only cut off");
}

}  // namespace dsm::fuzz
