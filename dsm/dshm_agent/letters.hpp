// dsm/dshm_agent/letters.hpp - what comes and goes on the agent's Unix sockets: a message, who sent it, descriptors.
//
// Thread-safety: functions of their arguments. Not async-signal-safe. Source: unix(7).
#pragma once
#include <sys/socket.h>
#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "ipc/fd.hpp"

namespace dsm::dshm_agent {

struct Letter {
  std::vector<std::uint8_t> bytes;
  ucred from{};                  // as the kernel vouches for it
  ipc::Fd descriptor;            // the last one that came along
  std::vector<ipc::Fd> surplus;  // the others
};

enum class Post : std::uint8_t { done, later, ended };

// From now on each message that comes there says who sent it. Throws std::system_error.
void ask_for_senders(int fd);
// The next message, if there is one. `ended`: no message will come any more, or what came is none that is to be
// trusted.
[[nodiscard]] Post receive(int fd, Letter& out);
// The whole message, or nothing of it. `descriptor`: -1, or one to go along.
[[nodiscard]] Post send(int fd, std::span<const std::uint8_t> bytes, int descriptor = -1);
// The process's supplementary groups, as they are now.
[[nodiscard]] std::vector<std::uint32_t> groups_of(pid_t pid);

}  // namespace dsm::dshm_agent
