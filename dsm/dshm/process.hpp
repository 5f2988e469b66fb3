// dsm/dshm/process.hpp - this process as a user of dsmd's segments and semaphore sets: what it has, and its beginning and
// end.
//
// fresh: nothing has happened yet, not even a connection. The first call makes it live: agent found or started, service
// connection, lease, service thread. over: there is no agent, or no dsmd any more; calls fail with EIDRM, attached memory
// raises SIGBUS. fork makes a live child of a live parent, if it inherits attaches, or could become another user, who has
// another agent; else a fresh one.
//
// Locks, in the order in which they may be taken. None is held while a call waits for a semaphore.
//   shape   beginnings, attaching and detaching, fork. Held over questions to the agent; signals blocked (Quiet::calls).
//   table   `attaches`, and the protections of their pages. For moments, with all signals blocked: a SIGSEGV handler asks
//           for it, so whoever holds it touches no memory of the program's.
//   pool    the call connections (connections.hpp). For moments, all signals blocked.
// Never destroyed: the service thread lives as long as the process.
#pragma once
#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <mutex>
#include <string>
#include <string_view>

#include "dsm/dshm/attaches.hpp"
#include "dsm/dshm/descriptors.hpp"
#include "dsm/dshm/kernel.hpp"
#include "dsm/dshm_agent/local.hpp"
#include "dsm/node/futex.hpp"

namespace dsm::dshm {

enum class State : std::uint32_t { fresh, live, over };

struct Process {
  node::FutexLock shape, table;
  std::atomic<State> state{State::fresh};
  std::atomic<pid_t> pid{0};          // whose all this is: a child that was not made by fork(3) finds another's
  std::atomic<bool> asked{false};     // the kernel asks the agent about faults: userfaultfd
  std::atomic<bool> closed{false};    // something had to be covered by memory that raises SIGSEGV
  Attaches attaches{};                // table
  Descriptor service{}, userfault{};  // since live, unchanged till the end
  const dshm_agent::Lease* lease = nullptr;
  const std::string* server = nullptr;  // "host:port"
  uid_t user = 0;                       // whose agent it is; the program may become another user later

  // Counts what could end a wait for a page: orders obeyed, attaches gone, the end.
  std::atomic<std::uint32_t> turns{0};
  void turn() noexcept {
    turns.fetch_add(1);
    node::futex_wake(turns, INT32_MAX);
  }
};
[[nodiscard]] Process& process() noexcept;

class TableLock {
 public:
  TableLock() noexcept : guard_(process().table) {}

 private:
  kernel::Quiet quiet_{kernel::Quiet::Kind::all};
  std::scoped_lock<node::FutexLock> guard_;
};
class ShapeLock {
 public:
  ShapeLock() noexcept : guard_(process().shape) {}

 private:
  kernel::Quiet quiet_{kernel::Quiet::Kind::calls};
  std::scoped_lock<node::FutexLock> guard_;
};

// 0 once the process is live; EIDRM if it is over. Not async-signal-safe.
[[nodiscard]] int begin();
// The same for who holds shape.
[[nodiscard]] int begin_locked();

// A child that was not made by fork(3) drops what is its parent's. REQUIRES: shape.
void disown_if_foreign();

// From now on it is over: says why on stderr, in one line, and covers all that is attached. Only the first time.
// async-signal-safe: no; REQUIRES: table and pool are not held by the caller.
void end(std::initializer_list<std::string_view> why) noexcept;

// "dshm: " and the words, one line on stderr. async-signal-safe: yes.
void say(std::initializer_list<std::string_view> words) noexcept;

// Puts an empty file over what is left of the attach: touching it raises SIGBUS; or SIGSEGV, if there is no descriptor
// for it. REQUIRES: table.
void cover(const Attach& attach) noexcept;

// ---- fork.cpp

// Nothing: who refers to it brings fork.o, which has nothing else to be called for, out of libdshm.a.
void be_there_at_forks() noexcept;

// ---- service.cpp

// The service connection's first message, and what comes back: the lease. `socket` is adopted. 0 or an errno value, with a
// clause in `why`. Sets service, userfault, asked, lease. A userfaultfd is tried unless DSHM_PAGER says otherwise.
[[nodiscard]] int open_service(int socket, std::string& why);
// 0 or an errno value.
[[nodiscard]] int start_service_thread();

}  // namespace dsm::dshm
