#include "dsm/net/handshaking.hpp"

#include <poll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <span>
#include <system_error>

#include "ipc/socket.hpp"

namespace dsm::net {
namespace {

std::span<const std::uint8_t> as_bytes(const std::string& text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

}  // namespace

Handshaking::Handshaking(ipc::Fd fd, Handshake::Role role, const Credentials& credentials,
                         const std::string& first_bytes)
    : fd_(std::move(fd)), handshake_(role, credentials) {
  handshake_.feed(as_bytes(first_bytes));
}

Handshake::State Handshaking::advance() {
  using State = Handshake::State;
  if (!why_.empty()) return State::refused;
  // Each turn sends all output or returns; the handshake has at most three messages, so the loop is short.
  for (;;) {
    const bool sent = send_output();
    if (handshake_.state() == State::refused) why_ = handshake_.why();
    if (!why_.empty()) return State::refused;
    if (!sent) return State::running;
    if (handshake_.state() == State::done) return State::done;
    if (!read_input()) return why_.empty() ? State::running : State::refused;
  }
}

short Handshaking::events() const noexcept { return unsent_.empty() ? POLLIN : POLLOUT; }

// True if nothing is left to be sent.
bool Handshaking::send_output() {
  unsent_ += handshake_.take_output();
  while (!unsent_.empty()) {
    const iovec part{unsent_.data(), unsent_.size()};
    const ipc::Transfer sent = ipc::send_some(fd_.get(), {&part, 1});
    if (sent.error == EAGAIN) return false;
    if (sent.error != 0) {
      why_ = std::generic_category().message(sent.error);
      return false;
    }
    unsent_.erase(0, sent.bytes);
  }
  return true;
}

// True if something was read.
bool Handshaking::read_input() {
  std::array<std::uint8_t, 128> buffer;
  const iovec part{buffer.data(), std::min(buffer.size(), handshake_.wants())};
  const ipc::Transfer got = ipc::receive_some(fd_.get(), {&part, 1});
  if (got.error == EAGAIN) return false;
  if (got.error != 0) {
    why_ = std::generic_category().message(got.error);
  } else if (got.end) {
    why_ = "the peer closed the connection during the handshake";
  } else {
    handshake_.feed({buffer.data(), got.bytes});
    return true;
  }
  return false;
}

}  // namespace dsm::net
