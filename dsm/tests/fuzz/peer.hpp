// dsm/tests/fuzz/peer.hpp - the other side of a handshake: one who has the key, but not always good manners. It
// completes the authentication honestly unless its script says to change something, and then says what the script says:
// so what libFuzzer changes gets behind the authentication. Used by the handshake's harness only.
#pragma once
#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "dsm/net/channel.hpp"
#include "dsm/net/handshake.hpp"
#include "dsm/tests/fuzz/harness.hpp"
#include "ipc/fd.hpp"

namespace dsm::fuzz {

inline constexpr net::JobKey key = {1, 2, 3};
inline constexpr std::size_t handshake_size = 72;  // bytes that each role reads
inline constexpr std::size_t max_body = 4096;
inline constexpr int wait_ms = 30'000;  // far beyond what anything takes

// From now on nonces are not random: the same input is always the same conversation.
void choose_nonces();

// One change of one of its messages.
class Edit {
 public:
  explicit Edit(Script& script);
  void apply(std::string& text) const;
  [[nodiscard]] std::size_t message() const { return message_; }  // which

 private:
  std::size_t message_, how_, at_;
  char value_;
};

class Peer {
 public:
  // It chooses its nonce: a new one, zeros, or the one that was chosen last.
  Peer(Script& script, net::Handshake::Role role);
  // What it says next, having heard this.
  std::string answer(const std::string& heard);
  void say_besides(const std::string& text) { said_ += text; }
  [[nodiscard]] bool is_done() const { return honest_->state() == net::Handshake::State::done; }
  [[nodiscard]] bool has_said_all() const { return meant_.size() == handshake_size; }
  // So far.
  [[nodiscard]] bool was_honest() const { return has_key_ && said_.substr(0, meant_.size()) == meant_; }
  // A key that is not there, or one wrong bit in what proves it: then nobody may be let in.
  void check_verdict(bool let_in) const;
  [[nodiscard]] const std::string& said() const { return said_; }
  // What has been said to those who are let in.
  [[nodiscard]] std::string behind() const { return said_.substr(std::min(handshake_size, said_.size())); }

 private:
  bool has_key_ = false;  // and does not encrypt, as nobody else does here
  std::optional<net::Handshake> honest_;
  std::vector<Edit> edits_;
  std::size_t messages_ = 0;
  std::string meant_, said_;
};

// What it says once it is in: messages with a changed byte here and there, and then any bytes. The rest of the script.
std::string behind(Script& script);
// `wire`: the peer's end, which has said it all and goes now. Not a byte of `expected` may have been lost to the
// handshake.
void check_channel(net::Channel channel, ipc::Fd wire, const std::string& expected);

// handshake_tcp.cpp: over TCP, through the Acceptor, and by connect().
void by_door(Script& script);
void by_connect(Script& script);

}  // namespace dsm::fuzz
