// dsm/net/handshaking.hpp - a handshake going on over a non-blocking socket; what connect() and the Acceptor share.
//
// Used inside dsm/net only. Reads never more than the handshake needs: the first frame stays in the socket.
// Thread-safety: none. Not async-signal-safe.
#pragma once
#include <string>

#include "dsm/net/handshake.hpp"
#include "ipc/fd.hpp"

namespace dsm::net {

class Handshaking {
 public:
  // `fd`: connected and non-blocking. `first_bytes`: what was already read from it.
  Handshaking(ipc::Fd fd, Handshake::Role role, const Credentials& credentials, const std::string& first_bytes = {});

  // Sends and reads what it can without waiting. done: both sides have proved the key and all bytes are on their way.
  Handshake::State advance();
  [[nodiscard]] short events() const noexcept;                            // for poll(2): what it waits for
  [[nodiscard]] const std::string& why() const noexcept { return why_; }  // one clause; refused only
  [[nodiscard]] std::optional<SessionKeys> session() const { return handshake_.session(); }
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] ipc::Fd take_fd() noexcept { return std::move(fd_); }

 private:
  bool send_output();
  bool read_input();

  ipc::Fd fd_;
  Handshake handshake_;
  std::string unsent_, why_;
};

}  // namespace dsm::net
