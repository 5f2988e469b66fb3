// labs/06-sockets/tests/watchdog_bench.hpp - what the tests of 6C share: a client, and a watchdog seen from outside.
#pragma once
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <optional>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "ipc/socket.hpp"
#include "labs/common/observing.hpp"

namespace ipc::testing {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

inline std::pair<Fd, Fd> socket_pair(int type) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends.data()) == -1) throw std::runtime_error("socketpair");
  return {Fd(ends[0]), Fd(ends[1])};
}

// A named pipe that is full, for a program to write to: nobody reads it until the test does.
class FullPipe {
 public:
  FullPipe() : path_(folder_.path("pipe")) {
    if (::mkfifo(path_.c_str(), 0600) == -1) throw std::runtime_error("mkfifo");
    fd_ = Fd(::open(path_.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
    fill();
  }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] int fd() const { return fd_.get(); }
  void fill() {
    const std::string empty_lines(65536, '\n');
    for (const std::size_t size : {empty_lines.size(), std::size_t{1}}) {
      while (::write(fd_.get(), empty_lines.data(), size) > 0) continue;
    }
  }
  // What is in it now, without empty lines.
  std::vector<std::string> drain() {
    std::string text;
    std::array<char, 65536> buffer;
    for (ssize_t size = 0; (size = ::read(fd_.get(), buffer.data(), buffer.size())) > 0;) {
      text.append(buffer.data(), static_cast<std::size_t>(size));
    }
    std::vector<std::string> lines;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) {
      if (!line.empty()) lines.push_back(line);
    }
    return lines;
  }

 private:
  TempDir folder_;
  std::string path_;
  Fd fd_;
};

// A program whose standard output is such a pipe.
inline std::vector<std::string> into(const FullPipe& pipe, std::vector<std::string> command) {
  command.front() = program_path(command.front());
  command.insert(command.begin(), {"/bin/sh", "-c", "out=$0; exec \"$@\" > \"$out\"", pipe.path()});
  return command;
}

// A client of the dispatcher that is no `request`: it may say anything, and stop in the middle.
class Asker {
 public:
  explicit Asker(const std::string& path) : fd_(connect_unix(path, SOCK_STREAM)) {}
  Asker(const std::string& path, const std::string& text) : Asker(path) { send(text); }
  void send(const std::string& text) {
    static_cast<void>(send_frame(fd_.get(), std::as_bytes(std::span(text))));  // who hears it may be dead
  }
  void send_raw(const std::string& bytes) {
    const iovec part{const_cast<char*>(bytes.data()), bytes.size()};
    static_cast<void>(send_all(fd_.get(), {&part, 1}));
  }
  // The answer; "end" if there is none, "silence" if nothing comes.
  std::string answer(milliseconds deadline = long_enough) {
    pollfd wait{fd_.get(), POLLIN, 0};
    if (::poll(&wait, 1, static_cast<int>(deadline.count())) != 1) return "silence";
    std::array<char, 1024> buffer;
    const Transfer got = receive_frame(fd_.get(), std::as_writable_bytes(std::span(buffer)));
    return got.end || got.error != 0 ? "end" : std::string(buffer.data(), got.bytes);
  }

 private:
  Fd fd_;
};

inline std::string ask(const std::string& path, const std::string& text) { return Asker(path, text).answer(); }

// A text of so many words and bytes in all, and what must be said of it.
inline std::string text_of(std::size_t words, std::size_t bytes) {
  std::string text;
  for (std::size_t i = 0; i < words; ++i) text += "w ";
  text.resize(bytes, words == 0 ? ' ' : 'x');
  if (words > 0 && text.size() > 2 * words) text[2 * words - 1] = 'x';  // the filling belongs to the last word
  return text;
}
inline std::string count_of(std::size_t words, std::size_t bytes) {
  return "words=" + std::to_string(words) + " bytes=" + std::to_string(bytes);
}

inline bool failed_politely(const std::string& answer) { return answer == "error: try again" || answer == "end"; }

// A running watchdog, its lines read as they come.
class Watched {
 public:
  explicit Watched(std::vector<std::string> more = {}) : socket_(folder_.path("s")), run_(command(std::move(more))) {
    listening_ = run_.line() == "listening on " + socket_;
    next_start("worker");
    next_start("dispatcher");
  }
  [[nodiscard]] const std::string& socket() const { return socket_; }
  [[nodiscard]] bool is_listening() const { return listening_; }
  Started& run() { return run_; }
  [[nodiscard]] pid_t pid() const { return run_.pid(); }
  [[nodiscard]] pid_t worker() const { return worker_; }
  [[nodiscard]] pid_t dispatcher() const { return dispatcher_; }
  [[nodiscard]] pid_t pid_of(const std::string& name) const { return name == "worker" ? worker_ : dispatcher_; }

  // The next line; its "NAME PID started" is taken notice of.
  std::optional<std::string> line() {
    auto text = run_.line();
    if (!text) return text;
    history_.push_back(*text);
    char name[32], what[32];
    int pid = 0;
    if (std::sscanf(text->c_str(), "%31s %d %31s", name, &pid, what) == 3 && std::string(what) == "started") {
      (std::string(name) == "worker" ? worker_ : dispatcher_) = pid;
    }
    return text;
  }
  // All lines so far that told of the children.
  [[nodiscard]] const std::vector<std::string>& history() const { return history_; }
  // Reads on until such a program is started. False if none is.
  bool next_start(const std::string& name) {
    const pid_t before = pid_of(name);
    while (pid_of(name) == before) {
      if (!line()) return false;
    }
    return true;
  }
  // Sends a signal to one of its children, and to nobody else; to one that was said to be started: before its exec
  // SIGSTOP would hold the watchdog, too (ipc/watchdog.hpp, start()).
  bool hit(const std::string& name, int signo) {
    const auto children = children_of(pid());
    const pid_t victim = pid_of(name);
    return std::find(children.begin(), children.end(), victim) != children.end() && ::kill(victim, signo) == 0;
  }
  // The kernel's number of the socket file, and of the watchdog's own listening socket.
  [[nodiscard]] std::string socket_identity() const {
    struct stat file {};
    ::stat(socket_.c_str(), &file);
    std::string sockets = std::to_string(file.st_ino);
    // Of the dispatcher's sockets only the listening one is the watchdog's too.
    for (const auto& [fd, what] : open_descriptors(std::to_string(pid()))) {
      for (const auto& [its_fd, its] : open_descriptors(std::to_string(dispatcher_))) {
        if (what == its && what.rfind("socket:", 0) == 0) sockets += " " + what;
      }
    }
    return sockets;
  }

 private:
  std::vector<std::string> command(std::vector<std::string> more) {
    more.insert(more.begin(), {"watchdog", "--socket", socket_});
    return more;
  }
  TempDir folder_;
  std::string socket_;
  Started run_;
  bool listening_ = false;
  std::vector<std::string> history_;
  pid_t worker_ = 0, dispatcher_ = 0;
};

// System V segments that one of these made or used last. (No process has the number 0: it stands for "nobody yet" in a
// stranger's segment, and for a child that was not found.)
inline std::size_t segments_of(std::vector<pid_t> pids) {
  const auto all = system_v_segments();
  std::erase_if(pids, [](pid_t pid) { return pid <= 0; });
  return static_cast<std::size_t>(std::count_if(all.begin(), all.end(), [&](const ListedSegment& segment) {
    return std::find(pids.begin(), pids.end(), segment.creator) != pids.end() ||
           std::find(pids.begin(), pids.end(), segment.last_user) != pids.end();
  }));
}

}  // namespace ipc::testing
