// dsm/dshm/connections.hpp - questions to the agent, each on a call connection of its own.
//
// There are as many connections as threads have been inside calls at one time. Thread-safe. Not async-signal-safe (the
// codec allocates). REQUIRES: signals blocked (Quiet::calls), so that no handler asks while its thread does.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "dsm/dshm/descriptors.hpp"
#include "dsm/dshm/kernel.hpp"
#include "dsm/sysv/wire.hpp"

namespace dsm::dshm {

// -1 and errno. The peer is checked to be of the same user (EPERM).
[[nodiscard]] int connect_agent();

// A connection taken from the pool, or made. What has gone wrong on it is closed, not given back.
class Connection {
 public:
  Connection() = default;
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection();

  // False: there is no agent.
  [[nodiscard]] bool take();
  // Numbers the question. 0 or an errno value.
  [[nodiscard]] int send(sysv::Question& question, std::span<const int> give = {});
  // 0 and the answer (whose `error` is the call's), or EIDRM. `passed`: a descriptor that came with it, or -1.
  [[nodiscard]] int receive(sysv::Answer& answer, int& passed);
  // Waits until there is an answer, with this signal mask: 0, EINTR, or EIDRM.
  [[nodiscard]] int wait(const kernel::Mask& mask) noexcept;
  // Whether this is a child that a handler has made during wait(): then the question, and the connection, are its
  // parent's, and here nothing more is done with them.
  [[nodiscard]] bool left_to_parent() noexcept;

 private:
  Descriptor socket_{};
  pid_t asker_ = 0;
  bool well_ = false;
};

// All at once: 0, and the answer's `error` is 0 too; else an errno value, the agent's or EIDRM.
// `passed`: if not nullptr, takes a descriptor that came.
[[nodiscard]] int ask(sysv::Question& question, sysv::Answer& answer, int* passed = nullptr,
                      std::span<const int> give = {});
[[nodiscard]] int ask(sysv::Question& question);

// An answer, out of a message; nothing if it is none.
[[nodiscard]] std::optional<sysv::Answer> answer_in(std::span<const std::uint8_t> message);

// Whoever waits on a connection wakes up and finds it ended. REQUIRES: state is over.
void shut_connections() noexcept;
// One more, for the first call: a child may become another user before that, whom the agent would not let in.
void make_connection();
// For fork: nobody changes the pool until it is unlocked; a child forgets (and closes) what it has from its parent.
void lock_connections() noexcept;
void unlock_connections() noexcept;
void forget_connections() noexcept;  // REQUIRES: locked

}  // namespace dsm::dshm
