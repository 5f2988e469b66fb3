// dsm/net/seal.hpp - frames encrypted and authenticated, in order: what a Channel of a job with --encrypt sends.
//
// libsodium's secretstream (XChaCha20-Poly1305), one in each direction, under keys that belong to this connection alone
// (Handshake::session). On the wire: the stream's header once, then for each frame a record with the frame's header,
// and one with its body if it has any. A record that is changed, repeated, left out or moved is not opened.
//
// Allocates nothing after construction. Thread-safety: one who seals and one who opens at a time, as a Channel has it.
// async-signal-safe: yes, all but construction.
#pragma once
#include <sodium.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "dsm/net/frame.hpp"
#include "dsm/net/handshake.hpp"

namespace dsm::net {

class Seal {
 public:
  static constexpr std::size_t extra =
      crypto_secretstream_xchacha20poly1305_ABYTES;  // bytes of a record, beside its text
  static constexpr std::size_t stream_header_size = crypto_secretstream_xchacha20poly1305_HEADERBYTES;
  static constexpr std::size_t header_record_size = sizeof(FrameHeader) + extra;
  [[nodiscard]] static constexpr std::size_t body_record_size(std::size_t length) { return length + extra; }

  Seal(const SessionKeys& keys, std::size_t max_body);

  // ---- sending: one frame at a time ----
  // Encrypts the next frame; unsent() is then its bytes (before the first one's: the stream's header). REQUIRES: the
  // frame before has been sent; header.length <= max_body.
  void seal(const FrameHeader& header, const void* body) noexcept;
  [[nodiscard]] std::span<const std::uint8_t> unsent() const noexcept { return {out_.get() + sent_, sealed_ - sent_}; }
  void sent(std::size_t bytes) noexcept;

  // ---- receiving: in the order in which it came; false: this is not what the peer sealed ----
  [[nodiscard]] bool opened_stream() const noexcept { return opened_stream_; }
  [[nodiscard]] bool open_stream(const std::uint8_t* header) noexcept;  // stream_header_size bytes, before all else
  [[nodiscard]] bool open_header(const std::uint8_t* record, FrameHeader& out) noexcept;
  [[nodiscard]] bool open_body(const std::uint8_t* record, std::size_t length, void* out) noexcept;  // bytes of text

 private:
  using State = crypto_secretstream_xchacha20poly1305_state;
  void append(const void* text, std::size_t size) noexcept;
  bool open(const std::uint8_t* record, std::size_t size, void* out) noexcept;

  State push_{}, pull_{};
  std::array<std::uint8_t, 32> receiving_key_;
  bool opened_stream_ = false;
  std::unique_ptr<std::uint8_t[]> out_;  // uses memory only where it has been written
  std::size_t sealed_ = 0, sent_ = 0;    // bytes of out_
};

}  // namespace dsm::net
