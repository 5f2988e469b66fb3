// ipc/fifo.hpp - pipes with a name, by which programs meet that are not related.
//
// Used by this lab's programs, and by whoever serves a control FIFO.
// A FIFO of ours is for this user only (mode 0600), and only such a one is opened: /tmp is everybody's, and who plants
// a FIFO or a symbolic link there before us would read what we send, or tell us what he likes.
// Nothing here removes a FIFO: the programs that meet there do not know who is the last.
// Thread-safety: yes, but see Waiting below. async-signal-safe: no.
// Sources: fifo(7), mkfifo(3), open(2), pipe(7), timer_create(2).
#pragma once
#include <limits.h>

#include <cstddef>
#include <string>
#include <string_view>

#include "ipc/fd.hpp"

namespace ipc {

// Makes a FIFO, or takes the one that is there. Throws std::system_error: EEXIST if something else is in the way (a
// symbolic link, too), EPERM if it belongs to another user, ENOENT, EACCES, ENAMETOOLONG ...
void make_fifo(const std::string& path);

// Opens one end, close-on-exec and blocking, once somebody has the other end open, or is just opening it.
//
// Waiting: `timeout_ms` (negative: no limit) bounds it; ETIMEDOUT then. The wait is that of open(2) itself, since no
// other call tells a writer that a reader has come: poll(2) needs a descriptor first, inotify(7) reports a reader only
// when his own open is through, and to hold both ends for a moment (O_RDWR) would let a third program send to nobody.
// What bounds it is a timer that interrupts open(2) by SIGALRM: while a wait with a limit lasts, SIGALRM is ours, and
// only one thread of the process may wait so. Other signals that are handled do not end the wait.
//
// Throws std::system_error; as above if it is no FIFO of ours.
[[nodiscard]] Fd open_fifo_for_reading(const std::string& path, int timeout_ms = -1);
[[nodiscard]] Fd open_fifo_for_writing(const std::string& path, int timeout_ms = -1);

// For a server, who reads what one sender after the other has to say: opens at once, non-blocking, and never comes to
// an end of file, because the server itself holds the writing end, too (O_RDWR, a Linux extension). Throws as above.
[[nodiscard]] Fd open_fifo_to_serve(const std::string& path);

// So many bytes are written in one piece: those of other senders come before them or behind, never in between.
inline constexpr std::size_t max_record = PIPE_BUF;

// Writes a record as one piece, waiting for room if the descriptor is blocking. Throws std::length_error if it is over
// max_record, std::system_error: EPIPE when the last reader has gone (REQUIRES: SIGPIPE is ignored, else that comes
// first), EAGAIN when a non-blocking descriptor has no room. What was written may still never be read.
void write_record(int fd, std::string_view record);

}  // namespace ipc
