// ipc/line_mux.hpp - whole lines from many descriptors by poll.
//
// Used by dsmexec's agent for the output of its ranks. No byte is lost: what a sink gets, with a newline after each
// complete piece, is what was sent (and a newline at the very end, if that was missing).
// Thread-safety: none, one thread for each object. async-signal-safe: no. Sources: poll(2), read(2), pipe(7), pty(7).
#pragma once
#include <poll.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "ipc/fd.hpp"

namespace ipc {

// Cuts a stream of bytes into lines, whatever pieces it comes in. Only '\n' ends a line; all other bytes, '\r' and
// zeros included, are passed on. A line longer than `max_line` bytes is passed on in parts.
class LineSplitter {
 public:
  // `complete` is false for a part of a line that goes on (too long, or shown early). The text lacks its newline, and
  // is valid during the call only. A sink that throws loses the bytes that it was given with this call.
  using Sink = std::function<void(std::string_view line, bool complete)>;
  explicit LineSplitter(std::size_t max_line = 1 << 20) : max_line_(max_line > 0 ? max_line : 1) {}
  void feed(std::string_view bytes, const Sink& sink);
  // Shows the unfinished line now (a prompt), as a part that is not complete. Nothing held: nothing shown.
  void flush(const Sink& sink);
  // End of stream: the last line may lack its newline. A line of which parts were shown is completed here, maybe by "".
  void finish(const Sink& sink);
  [[nodiscard]] std::size_t held() const { return held_.size(); }  // bytes of the unfinished line; at most max_line

 private:
  std::size_t max_line_;
  std::string held_;
  bool open_ = false;  // parts of the present line have been shown
};

// Many streams at once. For use alone (run_once) or inside another poll loop (add_to, handle).
// A callback may add streams and may drain or flush others, but not the one that it is called for.
class LineMux {
 public:
  using Token = std::uint64_t;  // the caller's name for a stream
  using Sink = std::function<void(Token token, std::string_view line, bool complete)>;
  using Closed = std::function<void(Token token)>;  // after the stream's last line; the descriptor is closed by then
  explicit LineMux(std::size_t max_line = 1 << 20) : max_line_(max_line) {}
  // The descriptor is made non-blocking (as are all that share its open file: not for one's own terminal). Throws
  // std::invalid_argument if another stream has this token, std::system_error.
  void add(Fd fd, Token token);
  [[nodiscard]] bool empty() const { return streams_.empty(); }
  [[nodiscard]] std::size_t size() const { return streams_.size(); }
  // Appends one pollfd for each stream.
  void add_to(std::vector<pollfd>& set) const;
  // Looks at the pollfds that add_to() appended (others are ignored) and reads at most `budget` bytes from each ready
  // stream, so that a noisy one does not starve the others. A stream ends at end of file, and also where the kernel
  // says that no more will come (EIO of a pty, ECONNRESET).
  void handle(const std::vector<pollfd>& set, const Sink& line, const Closed& closed, std::size_t budget = 65536);
  // poll(2) alone on these streams; `timeout_ms` as there (-1: no limit). False when none is left. A signal ends the
  // wait.
  bool run_once(int timeout_ms, const Sink& line, const Closed& closed);
  // Reads what is there now from one stream to its end or until it would block, then forgets it (its lines are closed).
  // For a stream whose program has ended though somebody else still holds the other end; ends though he goes on
  // writing.
  void drain(Token token, const Sink& line);
  // Bytes of the stream's unfinished line; 0 if there is no such stream.
  [[nodiscard]] std::size_t held(Token token) const;
  // Shows the stream's unfinished line now (LineSplitter::flush).
  void flush(Token token, const Sink& line);

 private:
  struct Stream {
    Token token;
    Fd fd;
    LineSplitter splitter;
  };
  std::map<int, Stream>::iterator find(Token token);
  void close(std::map<int, Stream>::iterator where, const Sink& line);
  std::size_t max_line_;
  std::map<int, Stream> streams_;  // by descriptor
};

}  // namespace ipc
