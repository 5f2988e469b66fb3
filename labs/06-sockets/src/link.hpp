// labs/06-sockets/src/link.hpp - how dispatcher and worker are connected: a shared segment, and a pipe each way.
//
//   dispatcher                      segment: one text                     worker
//       | text_ --------------------> [ to be or not ... ] ------------------> |
//       | Request{number, bytes} ====== pipe "requests" ====================> |
//       | <==================== pipe "replies" ======= Reply{number, words...} |
//
// What is sent on which descriptor, and why nobody can wait for ever:
// - The parent makes it (the watchdog; of a dispatcher that is alone, itself), and it is never repaired: when either
//   side was started anew, both get a new one, so nothing that the dead one left can ever be read.
// - It comes as one record on the socketpair to the parent (Supervised::control_fd): the segment's id as bytes, the two
//   pipe ends as descriptors (SCM_RIGHTS). The parent keeps no end of a pipe, so a side that dies is end of file, or
//   EPIPE, to the other. On the same socketpair, the other way, go the beats; nothing else does.
// - At most one request is under way. The dispatcher writes the text, then the Request, and does not touch the segment
//   until the Reply has come: so the segment has one owner at every moment, and each pipe never holds more than one
//   record. A record is smaller than PIPE_BUF: it is written whole or not at all, and with 64 KiB of room no write ever
//   waits. So two full pipes cannot face each other, and there is no deadlock.
// - Nobody waits for the other in read(): both sides poll all they have, with the next beat as the limit.
// - The number of the request comes back in the reply. In a link that never was another's it always fits; if it does
//   not, something is broken, and the dispatcher had rather die than give somebody another's answer.
// - The segment is marked for removal before anybody hears of it: it goes with its last process, even by kill -9. Linux
//   lets others attach by id until then. The parent stays attached until the next link, so that they come in time.
// Sources: unix(7), cmsg(3), pipe(7), shmctl(2).
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>

#include "ipc/fd.hpp"
#include "ipc/sysv_segment.hpp"

inline constexpr std::size_t max_text = 65536;  // bytes

struct Request {
  std::uint64_t number, bytes;
};
struct Reply {
  std::uint64_t number, words, bytes;
};

// What one side holds. `segment` is attached when the side has it; the parent only passes the id on.
struct Link {
  ipc::Fd in, out;  // what the other side wrote; what we write
  std::optional<ipc::SysvSegment> segment = {};
  [[nodiscard]] explicit operator bool() const { return static_cast<bool>(in); }
  [[nodiscard]] char* text() const { return static_cast<char*>(segment->data()); }
};

struct NewLink {
  ipc::SysvSegment segment;  // attached
  Link dispatcher, worker;   // the pipe ends; no segment yet
};
[[nodiscard]] NewLink make_link();  // Throws std::system_error

// Sends a side its pipe ends and the segment's id. False if that cannot be sent now: the other end has gone, or has not
// read for very long.
[[nodiscard]] bool send_link(int control, const Link& side, int segment_id);
// Takes what has come on `control`; never waits. The newest link replaces `link`; what was older is closed. If its
// segment has gone already, a newer one is on its way, and `link` is empty. False: end of file, the parent is dead.
// Throws std::system_error; std::runtime_error for a record that is no link.
[[nodiscard]] bool receive_links(int control, Link& link);
