#include "dsm/launch/output.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>

#include "ipc/error.hpp"
#include "ipc/spawn.hpp"

namespace dsm::launch {

// ---- Writer
// -----------------------------------------------------------------------------------------------------------

Writer::Writer(int fd) : fd_(fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return;  // a closed descriptor: the first write tells
  if (S_ISSOCK(status.st_mode)) {
    way_ = Way::socket;
  } else if (S_ISFIFO(status.st_mode) || ::isatty(fd) == 1) {
    // A descriptor of our own: O_NONBLOCK on the given one would change it for everybody who has it, our shell
    // included.
    own_ = ipc::Fd(::open(fmt::format("/proc/self/fd/{}", fd).c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    way_ = own_ ? Way::nonblocking : Way::polled;
  }
}

std::ptrdiff_t Writer::write_some(std::string_view bytes) const {
  switch (way_) {
    case Way::plain:
      return ::write(fd_, bytes.data(), std::min(bytes.size(), std::size_t{1} << 20));
    case Way::nonblocking:
      return ::write(own_.get(), bytes.data(), bytes.size());
    case Way::socket:
      return ::send(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    case Way::polled: {
      // A pipe that is ready takes PIPE_BUF bytes without waiting (pipe(7)).
      pollfd ready{fd_, POLLOUT, 0};
      if (::poll(&ready, 1, 0) == 1) return ::write(fd_, bytes.data(), std::min<std::size_t>(bytes.size(), PIPE_BUF));
      errno = EAGAIN;
      return -1;
    }
  }
  return -1;
}

void Writer::put(std::string_view bytes) {
  if (!dropping_) buffer_.append(bytes);
}

void Writer::flush() {
  while (queued() > 0) {
    const std::ptrdiff_t put = write_some(std::string_view(buffer_).substr(sent_));
    if (put >= 0) {
      sent_ += static_cast<std::size_t>(put);
      written_ += static_cast<std::uint64_t>(put);
    } else if (errno == EAGAIN) {
      break;
    } else if (errno != EINTR) {
      error_ = errno;
      abandon();
    }
  }
  if (queued() == 0) {
    buffer_.clear();
    sent_ = 0;
  } else if (sent_ > Output::max_queued) {
    buffer_.erase(0, sent_);
    sent_ = 0;
  }
}

void Writer::add_to(std::vector<pollfd>& set) const {
  if (queued() > 0) set.push_back({own_ ? own_.get() : fd_, POLLOUT, 0});
}

void Writer::abandon() {
  dropping_ = true;
  buffer_.clear();
  sent_ = 0;
}

// ---- Output
// -----------------------------------------------------------------------------------------------------------

namespace {

bool same_file(int one, int other) {
  struct stat a {
  }, b{};
  return ::fstat(one, &a) == 0 && ::fstat(other, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

// Not for what somebody has put there: a FIFO without a reader would make us wait.
ipc::Fd open_file(const std::string& path) {
  ipc::Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0666));
  struct stat status {};
  if (!file && errno != ENXIO) ipc::throw_errno("--output: cannot write " + path);
  if (!file || ::fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    throw std::runtime_error("--output: " + path + " is in the way, and no ordinary file: remove it");
  }
  return file;
}

}  // namespace

Output::Output(Config config)
    : config_(std::move(config)), out_(config_.out), err_(config_.err), shared_(same_file(config_.out, config_.err)) {
  sinks_[0].writer = &out_;
  sinks_[1].writer = &err_;
  const bool tagged = config_.mode == "tag";
  const bool files = !tagged && config_.mode != "plain";
  for (std::size_t rank = 0; rank < config_.hosts.size(); ++rank) {
    for (const char* name : {"stdout", "stderr"}) {
      tags_.push_back(tagged ? fmt::format("[Proc {} : {} : {}] ", rank, config_.hosts[rank], name) : std::string());
      if (!files) continue;
      const std::string path = fmt::format("{}/rank-{}.{}", config_.mode, rank, name);
      files_.push_back(open_file(path));
      within_line_.push_back(false);
    }
  }
}

bool Output::to_file(int key, std::string_view text) {
  if (files_.empty()) return false;
  if (!config_.time) {
    write_file(key, text);
    return true;
  }
  std::string stamped;
  while (!text.empty()) {
    if (!within_line_[static_cast<std::size_t>(key)]) stamped += config_.time();
    const std::size_t size = std::min(text.find('\n'), text.size() - 1) + 1;
    stamped += text.substr(0, size);
    within_line_[static_cast<std::size_t>(key)] = text[size - 1] != '\n';
    text.remove_prefix(size);
  }
  write_file(key, stamped);
  return true;
}

void Output::write_file(int key, std::string_view text) {
  const int file = files_[static_cast<std::size_t>(key)].get();
  if (file_trouble_.empty() && ipc::write_full(file, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    file_trouble_ = fmt::format("cannot write into {}: {}", config_.mode, std::strerror(errno));
  }
}

// Leaves the sink where text of the stream `key` may follow: after its own unfinished line, or at the start of a tagged
// one.
void Output::begin_line(Sink& sink, int key) {
  if (sink.open == key) return;
  if (sink.open != -1) sink.writer->put("\n");
  sink.open = -1;
  if (config_.time) sink.writer->put(config_.time());
  sink.writer->put(tags_[static_cast<std::size_t>(key)]);
}

void Output::lines(int rank, Stream stream, std::string_view text) {
  const int k = key(rank, stream);
  if (to_file(k, text)) return;
  Sink& to = sink(stream);
  const auto held = held_.find(k);
  while (!text.empty()) {
    const std::size_t size = std::min(text.find('\n'), text.size() - 1) + 1;
    begin_line(to, k);
    if (held != held_.end() && !held->second.empty()) {
      to.writer->put(held->second);
      held->second = std::string();
    }
    to.writer->put(text.substr(0, size));
    to.open = -1;
    text.remove_prefix(size);
  }
}

void Output::part(int rank, Stream stream, std::string_view text) {
  const int k = key(rank, stream);
  if (to_file(k, text)) return;
  std::string& held = held_[k];
  held.append(text);
  if (held.size() < max_held) return;
  // A line that would fill our memory is shown in pieces, each a line of its own.
  held += '\n';
  const std::string piece = std::exchange(held, std::string());
  lines(rank, stream, piece);
}

void Output::shown(int rank, Stream stream, std::string_view text) {
  const int k = key(rank, stream);
  if (to_file(k, text)) return;
  Sink& to = sink(stream);
  begin_line(to, k);
  to.writer->put(text);
  to.open = k;
}

void Output::own(std::string_view line) {
  Sink& to = sink(Stream::err);
  if (to.open != -1) to.writer->put("\n");
  to.open = -1;
  to.writer->put("dsmexec: ");
  to.writer->put(line);
  to.writer->put("\n");
}

bool Output::full() const { return out_.queued() > max_queued || err_.queued() > max_queued; }

void Output::flush() {
  out_.flush();
  err_.flush();
}

void Output::add_to(std::vector<pollfd>& set) const {
  out_.add_to(set);
  err_.add_to(set);
}

void Output::abandon() {
  out_.abandon();
  err_.abandon();
}

std::string Output::trouble() const {
  if (!file_trouble_.empty()) return file_trouble_;
  if (out_.error() != 0) return fmt::format("cannot write standard output: {}", std::strerror(out_.error()));
  if (err_.error() != 0) return fmt::format("cannot write standard error: {}", std::strerror(err_.error()));
  return {};
}

std::string time_of_day() {
  timespec now{};
  tm parts{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  ::localtime_r(&now.tv_sec, &parts);
  return fmt::format("{:02}:{:02}:{:02}.{:03} ", parts.tm_hour, parts.tm_min, parts.tm_sec, now.tv_nsec / 1'000'000);
}

}  // namespace dsm::launch
