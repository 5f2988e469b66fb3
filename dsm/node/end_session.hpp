// dsm/node/end_session.hpp - how a member of a session ends that has lost another one, or dsmd.
//
// Nobody can end the processes of a session as an agent ends those of a job. What they share is gone: so each ends itself,
// as it would be ended under dsmexec, with one line on stderr. Called by the service thread, and in dsm_init.
// async-signal-safe: yes; threads of the program may hold any lock.
#pragma once
#include <string_view>

namespace dsm::node {

inline constexpr int exit_session_over = 125;

[[noreturn]] void end_session(int rank, std::string_view why) noexcept;

}  // namespace dsm::node
