// dsm/dshm_agent/local.hpp - between a process and the agent of its host: sockets, credentials, orders.
//
// One agent for each (user, server): an abstract Unix socket (unix(7)), type SOCK_SEQPACKET, whose name says both, and
// the version. Abstract names belong to a network namespace: so hosts that are namespaces of one machine have agents of
// their own. Both ends check the other's uid (SO_PEERCRED).
//
// A process has one *service* connection, and *call* connections, as many as it has threads inside calls at one time.
// Each message is one sysv::Frame (dsm/sysv/wire.hpp) with SCM_CREDENTIALS: the process sends its pid and its *current*
// effective ids, and the kernel vouches for them. Descriptors travel by SCM_RIGHTS.
//
//   service connection, first message:  local_hello{flags = service [| uffd]} + the process's userfaultfd, if any
//                         the answer:   value = process number; + the lease (below), to be mapped read-only
//   call connection, first message:     local_hello{flags = call}; the pid says whose it is. The answer: value = number
//   every other call, on a call connection: the Question of wire.hpp, without caller and process; one at a time, then
//     its Answer. `cancel` may be sent while `operate` waits. What is between process and agent only:
//       attach    -> the Answer + the segment's memfd. The process maps all of it, MAP_SHARED, and says so by
//                    local_mapped (or gives it back by `detach`, if it could not), and only then uses it. The answer's
//                    value: orders of lower numbers are about earlier attaches of the segment, and are not obeyed for
//                    this. Mapped PROT_NONE first. With a userfaultfd it is opened after the answer: the agent
//                    registers the range with its copy of the userfaultfd. Without: orders open it, page by page.
//       detach    after the process has unmapped: id, address.
//       local_unmapped  a part has gone (munmap, mmap or shmat over it).
//       local_fork      see below.
//
// Faults. With a userfaultfd the agent hears of them from the kernel, and the process has no part in it. Without, the
// SIGSEGV handler sends local_fault on the *service* connection (any thread may send: a message is whole), and sleeps
// until an Order about the page has been obeyed. Orders come on the service connection, are obeyed in their order by
// the process's service thread, and those with `acknowledge` are answered by local_lowered{size = number}, sent when it
// is so.
//
// fork. In the parent, before: socketpair(SOCK_SEQPACKET); one end goes to the agent with local_fork, whose answer says
// that the attaches of the child-to-be have been counted. In the parent, after (also if fork failed): the other end is
// closed. In the child: that end is its service connection; its attaches are closed (PROT_NONE, or emptied) until it
// has said local_hello there, with a userfaultfd of its own, and got the answer. If nobody ever says hello there, the
// end of the connection ends the inherited attaches.
//
// Ends. The agent watches each process's pidfd: when it exits, all is detached, and undone. A service connection that
// ends while the process lives: it has done exec, or closed the descriptor. Both are looked into by asking the kernel
// whether the mappings are still there (userfaultfd: ESRCH; else /proc/PID/maps).
//
// Too much. Who says nothing after it has connected is dropped when 512 others wait to be heard, too. Who has more
// faults unanswered, or orders unread, than it can have threads (hosted.hpp: waits_max), or does with its userfaultfd
// or its mappings what makes them none that can be protected, is treated as if it had ended, and its service connection
// is closed.
//
// The lease. A page of memory that the agent writes and each process's service thread reads. While
// CLOCK_BOOTTIME < `until_ns` the pages that are here may be used. When it has passed (dsmd silent, or the agent
// stopped or killed) the service thread puts an empty file over every attach, so that touching it raises SIGBUS, after
// one line on stderr: never silent stale data. The agent does the same from outside, by truncating its memfds, when it
// is the one who notices.
#pragma once
#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <string>

namespace dsm::dshm_agent {

// Flags of local_hello.
inline constexpr std::int32_t hello_call = 0, hello_service = 1, hello_uffd = 2;

// dsmd drops a host that it has not heard for `silence`; the agent believes itself dropped `margin` earlier, counted
// from when it *sent* the last beat that was answered. So it always knows first.
inline constexpr std::int64_t silence_ns = 5'000'000'000, margin_ns = 1'000'000'000, beat_ns = 500'000'000;

struct Lease {
  static constexpr std::uint64_t magic = 0x6473686d6c656173;  // "dshmleas"
  std::uint64_t mark = magic;
  std::atomic<std::int64_t> until_ns{0};  // CLOCK_BOOTTIME; 0: over for good
};
static_assert(std::atomic<std::int64_t>::is_always_lock_free);

// Agent -> process, on the service connection; a plain struct: both are of the same machine and the same build.
struct Order {
  enum class Kind : std::uint32_t {
    protect = 1,  // pages [page, page + count) of the segment, in every attach of it: at most `access` from now on
    over,         // dsmd has gone: as if the lease were over, now
  };
  Kind kind{};
  std::int32_t id = 0;  // of the segment
  std::uint32_t page = 0, count = 1;
  std::uint32_t access = 0;  // core::Access
  std::uint32_t acknowledge = 0;
  std::uint64_t number = 0;  // rising
};

// "dshm-1-1000-localhost:8080": version, uid, server. Without the leading zero byte.
[[nodiscard]] std::string agent_name(uid_t uid, const std::string& server);

}  // namespace dsm::dshm_agent
