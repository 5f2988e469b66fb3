#include "dsm/net/seal.hpp"

namespace dsm::net {

Seal::Seal(const SessionKeys& keys, std::size_t max_body)
    : receiving_key_(keys.receive),
      out_(std::make_unique_for_overwrite<std::uint8_t[]>(stream_header_size + header_record_size +
                                                          body_record_size(max_body))) {
  static_assert(sizeof receiving_key_ == crypto_secretstream_xchacha20poly1305_KEYBYTES);
  crypto_secretstream_xchacha20poly1305_init_push(&push_, out_.get(), keys.send.data());
  sealed_ = stream_header_size;  // goes out with the first frame
}

void Seal::append(const void* text, std::size_t size) noexcept {
  crypto_secretstream_xchacha20poly1305_push(&push_, out_.get() + sealed_, nullptr,
                                             static_cast<const unsigned char*>(text), size, nullptr, 0, 0);
  sealed_ += size + extra;
}

void Seal::seal(const FrameHeader& header, const void* body) noexcept {
  append(&header, sizeof header);
  if (header.length != 0) append(body, header.length);
}

void Seal::sent(std::size_t bytes) noexcept {
  sent_ += bytes;
  if (sent_ == sealed_) sent_ = sealed_ = 0;
}

bool Seal::open_stream(const std::uint8_t* header) noexcept {
  opened_stream_ = crypto_secretstream_xchacha20poly1305_init_pull(&pull_, header, receiving_key_.data()) == 0;
  return opened_stream_;
}

// Nothing is written to `out` unless the whole record is the peer's.
bool Seal::open(const std::uint8_t* record, std::size_t size, void* out) noexcept {
  return crypto_secretstream_xchacha20poly1305_pull(&pull_, static_cast<unsigned char*>(out), nullptr, nullptr, record,
                                                    size + extra, nullptr, 0) == 0;
}

bool Seal::open_header(const std::uint8_t* record, FrameHeader& out) noexcept { return open(record, sizeof out, &out); }

bool Seal::open_body(const std::uint8_t* record, std::size_t length, void* out) noexcept {
  return open(record, length, out);
}

}  // namespace dsm::net
