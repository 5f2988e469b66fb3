// dsm/net/job_key.hpp - the key that ranks of a job, members of a session and agents prove to each other that they have.
//
// Thread-safety: functions without state. Not async-signal-safe.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace dsm::net {

// Before each use of libsodium. Throws std::runtime_error if that cannot be initialized.
void start_sodium();

inline constexpr std::size_t key_size = 32;
using JobKey = std::array<std::uint8_t, key_size>;

[[nodiscard]] JobKey random_key();

// The key of one session of dsmd's, for the connections between its members. Whoever has dsmd's key can make it:
// it keeps nobody out who would be let in. What it is for: dsmd draws a nonce for each session, so a member that is left
// over from another one, maybe of the same name, cannot be taken for a rank of this, though ports and ranks are used again.
using SessionNonce = std::array<std::uint8_t, 32>;
[[nodiscard]] JobKey session_key(const JobKey& daemon_key, std::string_view session, const SessionNonce& nonce);

}  // namespace dsm::net
