#include "dsm/net/job_key.hpp"

#include <sodium.h>

#include <stdexcept>

namespace dsm::net {

static_assert(key_size >= crypto_generichash_KEYBYTES_MIN && key_size <= crypto_generichash_KEYBYTES_MAX);

void start_sodium() {
  static const bool ready = sodium_init() >= 0;
  if (!ready) throw std::runtime_error("libsodium cannot be initialized");
}

JobKey random_key() {
  start_sodium();
  JobKey key;
  randombytes_buf(key.data(), key.size());
  return key;
}

// Begins as nothing does that a handshake signs: that begins with the magic.
JobKey session_key(const JobKey& daemon_key, std::string_view session, const SessionNonce& nonce) {
  constexpr std::string_view text = "dsm session: ";
  start_sodium();
  crypto_generichash_state state;
  crypto_generichash_init(&state, daemon_key.data(), daemon_key.size(), key_size);
  crypto_generichash_update(&state, reinterpret_cast<const unsigned char*>(text.data()), text.size());
  crypto_generichash_update(&state, nonce.data(), nonce.size());
  crypto_generichash_update(&state, reinterpret_cast<const unsigned char*>(session.data()), session.size());
  JobKey key;
  crypto_generichash_final(&state, key.data(), key.size());
  return key;
}

}  // namespace dsm::net
