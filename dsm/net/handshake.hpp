// dsm/net/handshake.hpp - proving to each other, without saying it, that both ends know the job's key.
//
// A mutual challenge-response (ISO/IEC 9798-4, three passes) with keyed BLAKE2b from libsodium, as a value: bytes in,
// bytes out, no socket. Roles are part of what is signed, so a message reflected to its sender is worthless, and both
// nonces are, so a recorded one is too.
//
//   client -> server   magic, nonce_c
//   server -> client   magic, nonce_s, mac("server", nonce_c, nonce_s)
//   client -> server   mac("client", nonce_c, nonce_s)
//
// Whether frames are to be encrypted is part of what is signed, too: nobody in between can talk the two out of it. The
// keys for that are macs of both nonces, so each connection has its own. (No forward secrecy: who gets to know the
// job's key can read what was recorded. The key lives as long as the job.)
//
// Reads a bounded number of bytes before it trusts anybody. Not async-signal-safe.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "dsm/net/job_key.hpp"

namespace dsm::net {

// What a peer must have, and want, too.
struct Credentials {
  Credentials(const JobKey& job_key, bool encrypted = false) : key(job_key), encrypt(encrypted) {}
  JobKey key;
  bool encrypt;  // what follows the handshake is sealed (seal.hpp)
};

// For the two directions of one connection, as its one end sees them.
struct SessionKeys {
  std::array<std::uint8_t, 32> send, receive;
};

// Eight bytes that open every keyed connection; read as a native int they are no rank, so that the classroom handshake
// (a rank comes first) can share the port. The last byte is the protocol version: a peer of another one is refused by name.
inline constexpr std::array<std::uint8_t, 8> handshake_magic = {0xff, 'd', 's', 'm', 0xff, 'j', 'k', 1};

class Handshake {
 public:
  enum class Role : std::uint8_t { client, server };
  enum class State : std::uint8_t { running, done, refused };

  Handshake(Role role, const Credentials& credentials);
  // Bytes to send now; empties the buffer. A client has some from the start, and even a refusal may leave some: they tell
  // a peer of another version which version this is.
  [[nodiscard]] std::string take_output();
  // How many bytes it can use next; never read more than this from the connection. 0 when no longer running.
  [[nodiscard]] std::size_t wants() const noexcept;
  // Takes any number of bytes, down to one at a time; bytes after the end are refused, not ignored.
  State feed(std::span<const std::uint8_t> bytes);
  [[nodiscard]] State state() const noexcept { return state_; }
  [[nodiscard]] const std::string& why() const noexcept { return why_; }  // one clause; refused only
  // When it is done: empty if frames are not encrypted.
  [[nodiscard]] std::optional<SessionKeys> session() const;

 private:
  void judge();
  void judge_magic();
  [[nodiscard]] std::array<std::uint8_t, 32> signature(Role signer, bool encrypt) const;
  [[nodiscard]] const char* why_not(bool has_key) const;
  void refuse(std::string why);

  Role role_;
  Credentials credentials_;
  State state_ = State::running;
  std::string out_, in_, why_;
  std::array<std::uint8_t, 32> mine_{}, theirs_{};
};

}  // namespace dsm::net
