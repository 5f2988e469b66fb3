// dsm/dshm/message.hpp - one message to the agent, or from it: bytes, the caller's present ids, descriptors.
//
// Thread-safe. async-signal-safe: send(), receive_bytes().
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace dsm::dshm {

// 0 or an errno value. With SCM_CREDENTIALS: the ids as they are now. `give`: at most two descriptors.
[[nodiscard]] int send(int socket, std::span<const std::uint8_t> bytes, std::span<const int> give = {}) noexcept;

// The next message, waited for; no bytes: the connection has ended, or errno says why not. `taken`: a descriptor that came
// with it, or -1; the caller's to close. More than one are closed.
[[nodiscard]] std::vector<std::uint8_t> receive(int socket, int& taken);

// Into `room`, without waiting: the number of bytes, 0 at the end of the connection, -1 and errno.
[[nodiscard]] long receive_bytes(int socket, std::span<std::uint8_t> room) noexcept;

}  // namespace dsm::dshm
