#include "dsm/net/handshake.hpp"

#include <algorithm>

#include "dsm/net/handshaking.hpp"
#include "dsm/tests/fuzz/harness.hpp"
#include "dsm/tests/fuzz/peer.hpp"
#include "dsm/tests/fuzz/stream.hpp"
#include "ipc/socket.hpp"

namespace dsm::fuzz {
namespace {

using net::Channel;
using net::Handshake;
using Role = Handshake::Role;
using State = Handshake::State;

void check_refused(State state, const std::string& why) {
  if (state == State::refused) check_line(why, "the refusal of a handshake is not one line");
}

State feed(Handshake& to, std::string_view text) {
  return to.feed({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
}

// As a value; `piece` bytes at a time.
void by_value(Script& script, Role role, std::size_t piece) {
  Handshake self(role, key);
  Peer peer(script, role == Role::server ? Role::client : Role::server);
  std::string out = self.take_output();
  for (std::string text; text = peer.answer(out), !text.empty(); out = self.take_output()) {
    for (std::size_t at = 0; at < text.size(); at += piece) feed(self, std::string_view(text).substr(at, piece));
  }
  const std::size_t said = peer.said().size();
  const bool done = self.state() == State::done;
  check((self.state() == State::running) == (self.wants() != 0), "a handshake wants what it cannot use");
  check(self.wants() == 0 || said + self.wants() <= handshake_size, "a handshake wants more than it has");
  check_refused(self.state(), self.why());
  if (said <= handshake_size) peer.check_verdict(done);
  const std::string more = behind(script);
  const State last = feed(self, more);
  check(!done || last == (more.empty() ? State::done : State::refused), "bytes behind the end are not refused");
  check(done || last == State::refused || (last == State::running && said + more.size() < handshake_size),
        "a handshake is never over");
  check_refused(last, self.why());
}

// Over a socket, as connect() and the door have it. What comes behind it comes with the last message.
void by_socket(Script& script, Role role, std::size_t piece) {
  Sockets sockets = socket_pair();
  ipc::set_nonblocking(sockets.one.get());
  ipc::Fd wire = std::move(sockets.other);
  net::Handshaking self(std::move(sockets.one), role, key);
  Peer peer(script, role == Role::server ? Role::client : Role::server);
  const std::string more = behind(script);
  State state = self.advance();
  bool has_more = true;
  for (bool goes_on = true; goes_on && state == State::running;) {
    const std::string heard = take(wire.get());
    std::string text = peer.answer(heard);
    goes_on = !heard.empty() || !text.empty();
    std::size_t at = 0;
    // So few that the kernel keeps them all, even one byte each, if nobody reads any more.
    const std::size_t step = std::max(piece, text.size() / 64);
    for (; text.size() - at > step; at += step) {
      put(wire.get(), std::string_view(text).substr(at, step));
      self.advance();
    }
    text.erase(0, at);
    if (has_more && (peer.has_said_all() || !goes_on)) {
      has_more = false;
      peer.say_besides(more);
      text += more;
    }
    put(wire.get(), text);
    state = self.advance();
  }
  peer.check_verdict(state == State::done);
  if (state == State::done) {
    check(peer.answer(take(wire.get())).empty() && peer.is_done(), "a peer is not convinced in its turn");
    return check_channel(Channel(self.take_fd(), max_body), std::move(wire), peer.behind());
  }
  wire.reset();
  state = self.advance();
  check(state == State::refused, "a handshake goes on without a peer");
  check_refused(state, self.why());
}

}  // namespace

void handshake(Input input) {
  choose_nonces();
  Script script(input);
  const std::size_t way = script.below(6);
  const std::size_t piece = 1 + script.byte();
  const Role role = way % 2 == 0 ? Role::server : Role::client;
  if (way < 2) {
    by_value(script, role, piece);
  } else if (way < 4) {
    by_socket(script, role, piece);
  } else if (way == 4) {
    by_door(script);
  } else {
    by_connect(script);
  }
}

}  // namespace dsm::fuzz
