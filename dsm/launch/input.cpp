#include "dsm/launch/input.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace dsm::launch {
namespace {

constexpr std::chrono::milliseconds recheck{300};

}  // namespace

Input::Input(int fd) : fd_(fd), terminal_(::isatty(fd) == 1) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return;
  if (!S_ISFIFO(status.st_mode) && !terminal_) return;
  // A descriptor of our own: others that share the given one may read first what poll() has promised us, and O_NONBLOCK
  // on that would change it for them, too.
  own_ = ipc::Fd(::open(fmt::format("/proc/self/fd/{}", fd).c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (own_) fd_ = own_.get();
}

bool Input::in_foreground() const { return !terminal_ || ::tcgetpgrp(fd_) == ::getpgrp(); }

std::size_t Input::room(const std::vector<Reader>& readers) const {
  if (ended_ || readers.empty()) return 0;
  std::uint64_t most = 0;
  for (const Reader& reader : readers) most = std::max(most, *reader.under_way);
  return most < input_window ? input_window - most : 0;
}

void Input::add_to(std::vector<pollfd>& set, const std::vector<Reader>& readers, Time now) {
  look_again_ = Time::max();
  if (room(readers) == 0) return;
  if (in_foreground()) {
    set.push_back({fd_, POLLIN, 0});
  } else {
    look_again_ = now + recheck;
  }
}

Input::Time Input::next_deadline() const { return look_again_; }

void Input::serve(const std::vector<Reader>& readers) {
  const std::size_t most = room(readers);
  if (most == 0 || !in_foreground()) return;
  pollfd ready{fd_, POLLIN, 0};
  if (::poll(&ready, 1, 0) != 1) return;
  std::array<char, 16384> buffer;
  const ssize_t got = ::read(fd_, buffer.data(), std::min(buffer.size(), most));
  if (got > 0) {
    for (const Reader& reader : readers) {
      *reader.under_way += static_cast<std::uint64_t>(got);
      reader.link->send(Bytes::input, 0, 0, {buffer.data(), static_cast<std::size_t>(got)});
    }
  } else if (got == 0 || (errno != EAGAIN && errno != EINTR && !(errno == EIO && !in_foreground()))) {
    ended_ = true;
    for (const Reader& reader : readers) reader.link->send(InputEnd{});
  }
}

}  // namespace dsm::launch
