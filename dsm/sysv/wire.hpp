// dsm/sysv/wire.hpp - what System V programs, the agents and dsmd say to each other: questions, answers, pages.
//
// A process asks its agent, over a Unix socket (dsm/dshm_agent/local.hpp); the agent adds who asks, and asks dsmd, over a Channel
// (FrameKind::sysv). One encoding for both: numbers in network byte order, vectors with their length in front. PROTOCOL.md
// lists each frame with its fields. A question has all the fields of all calls; those that a call does not use are 0.
//
// Decoding checks everything: what is not exactly one well-formed frame is nothing. Thread-safety: functions of their
// arguments. Not async-signal-safe (they allocate).
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "dsm/core/types.hpp"
#include "dsm/sysv/segments.hpp"
#include "dsm/sysv/semaphores.hpp"
#include "dsm/sysv/types.hpp"

namespace dsm::sysv {

inline constexpr std::uint32_t wire_version = 1;
inline constexpr std::size_t page_bytes = 4096;  // of what moves; both ends have it, whatever the machine's pages
inline constexpr std::size_t max_frame = 128u
                                         << 10;  // bytes of one encoded frame: SETALL of a set of SEMMSL is half of it

// The frame's type: its first byte.
enum class Type : std::uint8_t {
  create = 1,  // shmget, semget
  attach = 2,  // shmat; fork
  detach = 3,  // shmdt, exec, exit
  remove = 4,  // IPC_RMID
  read = 5,    // bytes go to who asked for them: want, grant
  write = 6,  // bytes, or access, are given up: recall, recalled, invalidate, invalidated; and the last words of a host
  control = 7,  // all else
};

enum class Object : std::uint8_t { segment, set };

// What is asked. Beside each: the fields that count (beside request, caller), and those of the answer (beside error).
enum class Call : std::uint8_t {
  // Type::create
  get = 1,  // kind key size flags (size: of a set, how many)     -> value: the id
  // Type::attach
  attach = 10,  // process id flags                                   -> value: size in bytes; tenure, slot
  fork,         // process (the child) other (the parent): it inherits all attaches, once each
  // Type::detach
  detach = 20,  // process id: one attach
  exec,         // process: all its attaches
  exit,         // process: all its attaches, its semaphore undo values, its waiting calls
  // Type::remove
  remove = 30,  // kind id
  // Type::control
  hello = 40,  // agent -> dsmd, first frame: text (names the host), size (wire_version) -> value: host number
  beat,        // size: a stamp                                      -> value: the stamp
  leave,       // tenure: all pages held for writing have been sent (Bytes::last); the host has no pages any more
  stat,        // kind id                                            -> segment or set
  stat_index,  // kind number (index) flags (1: SHM_STAT_ANY, no check) -> value: the id; segment or set
  set,         // kind id uid gid mode
  lock,
  unlock,   // id: SHM_LOCK, SHM_UNLOCK
  info,     // kind: IPC_INFO, SHM_INFO, SEM_INFO                 -> segment_totals or set_totals
  operate,  // process id ops timeout_ns (-1: none)               -> 0, EAGAIN (too late too), EIDRM ... when it is over
  cancel,  // other: the request to be given up. No answer of its own: the request is answered, with EINTR unless it is over
  get_value,  // id number                                          -> value
  get_all,    // id                                                 -> values
  set_value,  // id number, key: the value
  set_all,    // id values
  get_pid,    // id number                                          -> value
  get_ncnt,
  get_zcnt,  // id number                                       -> value
  report,    // what dsmd knows (dshmctl stat)                     -> text: lines
  // Between a process and its agent only (dsm/dshm_agent/local.hpp says when); dsmd refuses them.
  local_hello = 80,  // flags: Local bits; size: wire_version              -> value: process number
  local_mapped,      // id address size flags: an attach is at that address -> value: the next Order's number
  local_unmapped,    // id address size: part of it, or all, is not mapped any more
  local_fork,        // + descriptor: a child will come on it              -> when its attaches have been counted
  local_fault,       // id number (page) flags (1: to write): no answer, an Order
  local_lowered,     // size: an Order's number has been obeyed; no answer
};

[[nodiscard]] std::optional<Type> type_of(Call call);  // nothing: a local one, or none at all

struct Question {
  Call call{};
  std::uint32_t request = 0;  // the answer names it
  Caller caller{};            // filled in by the agent
  Object kind{};
  ProcessNumber process = 0, other = 0;
  std::int32_t id = 0, key = 0, flags = 0, number = 0;
  std::uint64_t size = 0, address = 0;
  std::int64_t timeout_ns = -1;
  std::uint32_t uid = 0, gid = 0, mode = 0, tenure = 0;
  std::vector<SemOp> ops{};
  std::vector<std::uint16_t> values{};
  std::string text{};
};

// Pids in here are as the asking host is to see them (shown_to): host is 0.
struct Answer {
  std::uint32_t request = 0;
  std::int32_t error = 0;  // errno, or 0
  std::int64_t value = 0;
  std::uint32_t tenure = 0;
  core::Node slot = 0;
  std::optional<SegmentStat> segment{};
  std::optional<SetStat> set{};
  std::optional<SegmentTotals> segment_totals{};
  std::optional<SetTotals> set_totals{};
  std::vector<std::uint16_t> values{};
  std::string text{};
};

// One message of the coherence protocol about a page of a segment. Agent and dsmd, both ways; never answered by an Answer.
// `tenure` names the segment at this agent, from the Attach that opened it until Leave: what is said about an older
// tenure is ignored.
struct PageFrame {
  std::uint32_t tenure = 0;
  bool last = false;  // agent -> dsmd, before leave: this page, held for writing, is now so; message.page only
  core::Message message{};
  std::vector<std::uint8_t> bytes{};  // page_bytes of them if message.carries_page or last, else none
};

using Frame = std::variant<Question, Answer, PageFrame>;

[[nodiscard]] std::vector<std::uint8_t> encode(const Frame& frame);
// Nothing if it is no frame; then `why` is one clause.
[[nodiscard]] std::optional<Frame> decode(std::span<const std::uint8_t> bytes, std::string& why);

}  // namespace dsm::sysv
