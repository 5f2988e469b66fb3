// dsm/launch/output.hpp - the ranks' output, whole lines only, on dsmexec's own stdout and stderr or in files.
//
// Nothing is lost and nothing is cut: what the reader of our stdout does not take yet is held here, and full() tells
// the runner to stop reading from agents, whose pipes then fill, so that in the end the ranks wait. stdout and stderr
// that are the same file (2>&1) share one queue: a line of one never lands within a line of the other.
//
// Thread-safety: none. Not async-signal-safe.
#pragma once
#include <poll.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ipc/fd.hpp"

namespace dsm::launch {

enum class Stream : std::uint8_t { out = 1, err = 2 };

// Bytes to a descriptor that we share with others (so it cannot simply be made non-blocking). Never waits for a reader.
class Writer {
 public:
  explicit Writer(int fd);  // does not own it
  void put(std::string_view bytes);
  void flush();  // writes what it can
  void add_to(std::vector<pollfd>& set) const;
  void abandon();  // drops what is held and all that comes
  [[nodiscard]] std::size_t queued() const { return buffer_.size() - sent_; }
  [[nodiscard]] std::uint64_t written() const { return written_; }
  [[nodiscard]] int error() const { return error_; }  // errno of the write that failed; then everything is dropped

 private:
  enum class Way : std::uint8_t { plain, nonblocking, socket, polled };
  [[nodiscard]] std::ptrdiff_t write_some(std::string_view bytes) const;  // as write(2)

  int fd_;
  ipc::Fd own_;  // the same pipe or terminal, opened anew to be non-blocking
  Way way_ = Way::plain;
  std::string buffer_;
  std::size_t sent_ = 0;
  std::uint64_t written_ = 0;
  int error_ = 0;
  bool dropping_ = false;
};

class Output {
 public:
  struct Config {
    std::string mode = "tag";             // "tag", "plain", or a folder that exists
    std::vector<std::string> hosts;       // by rank
    int out = 1, err = 2;                 // descriptors
    std::function<std::string()> time{};  // put in front of each line of a rank; empty: nothing is
  };
  explicit Output(Config config);  // throws std::system_error if a file cannot be made

  // Whole lines, each with its newline; the first may be the end of a line of which parts came before.
  void lines(int rank, Stream stream, std::string_view text);
  // A part of a line too long to come at once. Held until it is complete, or `max_held` bytes long.
  void part(int rank, Stream stream, std::string_view text);
  // An unfinished line to be shown now (a prompt). What follows it goes on in the same line, if nothing came between.
  void shown(int rank, Stream stream, std::string_view text);
  // A line of dsmexec's own, on stderr; "dsmexec: " is put in front.
  void own(std::string_view line);

  [[nodiscard]] bool full() const;  // so much waits that no more should be read
  [[nodiscard]] bool empty() const { return out_.queued() == 0 && err_.queued() == 0; }
  [[nodiscard]] std::uint64_t written() const { return out_.written() + err_.written(); }
  void flush();
  void add_to(std::vector<pollfd>& set) const;
  void abandon();
  // What went wrong with writing, in one clause ("cannot write standard output: Broken pipe"); empty: nothing.
  [[nodiscard]] std::string trouble() const;

  static constexpr std::size_t max_held = 16u << 20;   // bytes of one line
  static constexpr std::size_t max_queued = 1u << 20;  // bytes, before full()

 private:
  struct Sink {
    Writer* writer = nullptr;
    int open = -1;  // stream (key) whose unfinished line is the last that was written; -1: at the start of a line
  };
  [[nodiscard]] static int key(int rank, Stream stream) { return rank * 2 + (stream == Stream::err ? 1 : 0); }
  [[nodiscard]] Sink& sink(Stream stream) { return sinks_[stream == Stream::err && !shared_ ? 1 : 0]; }
  void begin_line(Sink& sink, int key);
  bool to_file(int key, std::string_view text);
  void write_file(int key, std::string_view text);

  Config config_;
  Writer out_, err_;
  bool shared_ = false;
  Sink sinks_[2];
  std::vector<std::string> tags_;    // by key
  std::vector<ipc::Fd> files_;       // by key, when the mode is a folder
  std::vector<bool> within_line_;    // by key, of these files: the last byte was no newline
  std::map<int, std::string> held_;  // parts, by key
  std::string file_trouble_;
};

// "23:59:59.999 ": this machine's time of day. Not async-signal-safe.
[[nodiscard]] std::string time_of_day();

}  // namespace dsm::launch
