#include "ipc/line_mux.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <stdexcept>
#include <utility>

#include "ipc/error.hpp"

namespace ipc {
namespace {

// Reads at most `budget` bytes into the splitter. False at the end of the stream.
bool read_some(int fd, LineSplitter& splitter, const LineSplitter::Sink& sink, std::size_t budget) {
  std::array<char, 16384> buffer;
  //@ solution 04.drain
  while (budget > 0) {
    const std::size_t want = std::min(budget, buffer.size());
    const ssize_t got = ::read(fd, buffer.data(), want);
    if (got > 0) {
      splitter.feed({buffer.data(), static_cast<std::size_t>(got)}, sink);
      budget -= static_cast<std::size_t>(got);
    } else if (got == 0) {
      return false;
    } else if (errno == EAGAIN) {
      return true;
    } else if (errno == EBADF || errno == EFAULT || errno == EINVAL || errno == EISDIR) {
      throw_errno("read descriptor " + std::to_string(fd));  // our own mistake
    } else if (errno != EINTR) {
      return false;  // EIO: the other side of a pty has closed (pty(7)). ECONNRESET and the like: no more will come
    }
  }
  return true;
  //@ starter
  // TODO 04.drain: read until nothing is there or the budget is spent, and feed the splitter. What does read() return
  // at the end of a pipe, what when nothing is there now, and what if a signal comes?
  //| static_cast<void>(fd), static_cast<void>(splitter), static_cast<void>(sink), static_cast<void>(budget);
  //| static_cast<void>(buffer);
  //| return false;
  //@ end
}

}  // namespace

void LineSplitter::feed(std::string_view bytes, const Sink& sink) {
  //@ solution 04.split
  while (!bytes.empty()) {
    const std::size_t newline = bytes.find('\n');
    std::string_view piece = bytes.substr(0, newline);
    while (held_.size() + piece.size() > max_line_) {
      const std::size_t room = max_line_ - held_.size();
      held_.append(piece.substr(0, room));
      piece.remove_prefix(room);
      flush(sink);
    }
    if (newline == std::string_view::npos) {
      held_.append(piece);
      return;
    }
    bytes.remove_prefix(newline + 1);
    open_ = false;
    if (held_.empty()) {
      sink(piece, true);  // the common case, without a copy
    } else {
      held_.append(piece);
      sink(held_, true);
      held_.clear();
    }
  }
  //@ starter
  // TODO 04.split: hand every whole line, without its newline, to the sink, and hold what comes after the last newline
  // until the next bytes come. A line may be longer than max_line_, and a newline may be the first byte of the next
  // piece.
  //| static_cast<void>(bytes), static_cast<void>(sink);
  //@ end
}

void LineSplitter::flush(const Sink& sink) {
  if (held_.empty()) return;
  open_ = true;
  sink(held_, false);
  held_.clear();
}

void LineSplitter::finish(const Sink& sink) {
  if (held_.empty() && !open_) return;
  open_ = false;
  sink(held_, true);
  held_.clear();
}

void LineMux::add(Fd fd, Token token) {
  const int number = fd.get();
  for (const auto& entry : streams_) {
    if (entry.second.token == token)
      throw std::invalid_argument("LineMux::add: token " + std::to_string(token) + " is taken");
  }
  const int flags = check(::fcntl(number, F_GETFL), "fcntl F_GETFL");
  check(::fcntl(number, F_SETFL, flags | O_NONBLOCK), "fcntl F_SETFL");
  streams_.emplace(number, Stream{token, std::move(fd), LineSplitter(max_line_)});
}

void LineMux::add_to(std::vector<pollfd>& set) const {
  for (const auto& [number, stream] : streams_) set.push_back({number, POLLIN, 0});
}

void LineMux::handle(const std::vector<pollfd>& set, const Sink& line, const Closed& closed, std::size_t budget) {
  for (const pollfd& entry : set) {
    if (entry.revents == 0) continue;
    // Looked up each time: a callback may have added streams, or drained some.
    const auto found = streams_.find(entry.fd);
    if (found == streams_.end()) continue;
    Stream& stream = found->second;
    const Token token = stream.token;
    const auto sink = [&](std::string_view text, bool complete) { line(token, text, complete); };
    if (read_some(entry.fd, stream.splitter, sink, budget)) continue;
    close(found, line);
    closed(token);
  }
}

bool LineMux::run_once(int timeout_ms, const Sink& line, const Closed& closed) {
  if (streams_.empty()) return false;
  std::vector<pollfd> set;
  add_to(set);
  const int ready = ::poll(set.data(), set.size(), timeout_ms);
  if (ready == -1 && errno != EINTR) throw_errno("poll");
  if (ready > 0) handle(set, line, closed);
  return !streams_.empty();
}

void LineMux::drain(Token token, const Sink& line) {
  const auto found = find(token);
  if (found == streams_.end()) return;
  // What is there now, not what a writer that lives on may add for ever. The floor is for kinds of file that do not
  // count all they hold (a pty).
  int waiting = 0;
  if (::ioctl(found->first, FIONREAD, &waiting) == -1) waiting = 0;
  const std::size_t budget = std::max(static_cast<std::size_t>(waiting), std::size_t{1} << 20);
  const auto sink = [&](std::string_view text, bool complete) { line(token, text, complete); };
  read_some(found->first, found->second.splitter, sink, budget);
  close(found, line);
}

std::size_t LineMux::held(Token token) const {
  for (const auto& entry : streams_) {
    if (entry.second.token == token) return entry.second.splitter.held();
  }
  return 0;
}

void LineMux::flush(Token token, const Sink& line) {
  const auto found = find(token);
  if (found == streams_.end()) return;
  found->second.splitter.flush([&](std::string_view text, bool complete) { line(token, text, complete); });
}

std::map<int, LineMux::Stream>::iterator LineMux::find(Token token) {
  return std::find_if(streams_.begin(), streams_.end(), [&](const auto& entry) { return entry.second.token == token; });
}

// Taken out of the map first: the sink may add a stream that gets the same number.
void LineMux::close(std::map<int, Stream>::iterator where, const Sink& line) {
  Stream stream = std::move(where->second);
  streams_.erase(where);
  stream.splitter.finish([&](std::string_view text, bool complete) { line(stream.token, text, complete); });
}

}  // namespace ipc
