#include "dsm/net/handshake.hpp"

#include <sodium.h>

#include <algorithm>
#include <string_view>

namespace dsm::net {
namespace {

constexpr std::size_t magic_size = handshake_magic.size();
constexpr std::size_t nonce_size = 32;
constexpr std::size_t mac_size = 32;
using Bytes = std::array<std::uint8_t, 32>;
static_assert(mac_size >= crypto_generichash_BYTES_MIN && mac_size <= crypto_generichash_BYTES_MAX);

// What each role signs starts with its own text, so neither can be taken for the other, nor for anything else that this
// key signs: a wish for encryption, and the keys for it. The texts are of equal length: no two inputs run together to
// the same bytes.
struct Texts {
  std::string_view server, client;
};
constexpr Texts plain = {"dsm handshake: server", "dsm handshake: client"};
constexpr Texts encrypted = {"dsm encrypted: server", "dsm encrypted: client"};
constexpr Texts keys = {"dsm sealed by: server", "dsm sealed by: client"};
static_assert(plain.server.size() == plain.client.size() && plain.server.size() == encrypted.server.size() &&
              encrypted.server.size() == encrypted.client.size() && encrypted.server.size() == keys.server.size() &&
              keys.server.size() == keys.client.size());

Bytes mac(const JobKey& key, const Texts& texts, Handshake::Role signer, const Bytes& client_nonce,
          const Bytes& server_nonce) {
  const std::string_view text = signer == Handshake::Role::server ? texts.server : texts.client;
  crypto_generichash_state state;
  crypto_generichash_init(&state, key.data(), key.size(), mac_size);
  crypto_generichash_update(&state, handshake_magic.data(), magic_size);
  crypto_generichash_update(&state, reinterpret_cast<const unsigned char*>(text.data()), text.size());
  crypto_generichash_update(&state, client_nonce.data(), client_nonce.size());
  crypto_generichash_update(&state, server_nonce.data(), server_nonce.size());
  Bytes out;
  crypto_generichash_final(&state, out.data(), out.size());
  return out;
}

template <std::size_t n>
void append(std::string& to, const std::array<std::uint8_t, n>& bytes) {
  to.append(reinterpret_cast<const char*>(bytes.data()), n);
}

Bytes bytes_at(const std::string& in, std::size_t offset) {
  Bytes out;
  std::copy_n(reinterpret_cast<const std::uint8_t*>(in.data()) + offset, out.size(), out.begin());
  return out;
}

}  // namespace

Handshake::Handshake(Role role, const Credentials& credentials) : role_(role), credentials_(credentials) {
  start_sodium();
  randombytes_buf(mine_.data(), mine_.size());
  if (role_ == Role::client) {
    append(out_, handshake_magic);
    append(out_, mine_);
  }
}

std::string Handshake::take_output() {
  std::string out;
  out.swap(out_);
  return out;
}

std::size_t Handshake::wants() const noexcept {
  if (state_ != State::running) return 0;
  // Each mark is where something can be judged: the magic; then what the role waits for; the server's third message.
  const std::size_t marks[] = {magic_size, magic_size + nonce_size + (role_ == Role::client ? mac_size : 0),
                               magic_size + nonce_size + mac_size};
  for (const std::size_t mark : marks)
    if (in_.size() < mark) return mark - in_.size();
  return 0;
}

Handshake::State Handshake::feed(std::span<const std::uint8_t> bytes) {
  while (!bytes.empty() && state_ == State::running) {
    const std::size_t take = std::min(wants(), bytes.size());
    in_.append(reinterpret_cast<const char*>(bytes.data()), take);
    bytes = bytes.subspan(take);
    judge();
  }
  if (!bytes.empty() && state_ == State::done) refuse("bytes after the end of the handshake");
  return state_;
}

void Handshake::judge() {
  if (in_.size() == magic_size) return judge_magic();
  if (role_ == Role::server && in_.size() == magic_size + nonce_size) {
    theirs_ = bytes_at(in_, magic_size);
    append(out_, handshake_magic);
    append(out_, mine_);
    append(out_, signature(Role::server, credentials_.encrypt));
    return;
  }
  if (in_.size() != magic_size + nonce_size + mac_size) return;
  if (role_ == Role::client) theirs_ = bytes_at(in_, magic_size);
  const bool client = role_ == Role::client;
  const Bytes received = bytes_at(in_, magic_size + nonce_size);
  const auto wants = [&](bool encrypt) {
    const Bytes expected = signature(client ? Role::server : Role::client, encrypt);
    return sodium_memcmp(expected.data(), received.data(), mac_size) == 0;
  };
  if (!wants(credentials_.encrypt)) return refuse(why_not(wants(!credentials_.encrypt)));
  if (client) append(out_, signature(Role::client, credentials_.encrypt));
  state_ = State::done;
}

Bytes Handshake::signature(Role signer, bool encrypt) const {
  const bool client = role_ == Role::client;
  return mac(credentials_.key, encrypt ? encrypted : plain, signer, client ? mine_ : theirs_, client ? theirs_ : mine_);
}

// The peer's proof does not hold here; or it would, had this side another opinion of encryption.
const char* Handshake::why_not(bool has_key) const {
  if (!has_key) return "the peer does not have this job's key";
  return credentials_.encrypt ? "the peer does not encrypt, and this side does (--encrypt)"
                              : "the peer encrypts (--encrypt), and this side does not";
}

std::optional<SessionKeys> Handshake::session() const {
  if (state_ != State::done || !credentials_.encrypt) return std::nullopt;
  const bool client = role_ == Role::client;
  const auto key_of = [&](Role sender) {
    return mac(credentials_.key, keys, sender, client ? mine_ : theirs_, client ? theirs_ : mine_);
  };
  return SessionKeys{key_of(role_), key_of(client ? Role::server : Role::client)};
}

void Handshake::judge_magic() {
  const auto* seen = reinterpret_cast<const std::uint8_t*>(in_.data());
  if (!std::equal(handshake_magic.begin(), handshake_magic.end() - 1, seen)) return refuse("wrong first bytes");
  const int version = seen[magic_size - 1];
  if (version == handshake_magic.back()) return;
  // The server speaks second: without its magic the client could not tell its user what is wrong.
  if (role_ == Role::server) append(out_, handshake_magic);
  refuse("peer speaks version " + std::to_string(version) + ", this is version " +
         std::to_string(handshake_magic.back()));
}

void Handshake::refuse(std::string why) {
  state_ = State::refused;
  why_ = std::move(why);
}

}  // namespace dsm::net
