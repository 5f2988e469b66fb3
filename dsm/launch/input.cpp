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

void Input::add_to(std::vector<pollfd>& set, Time now) {
  look_again_ = Time::max();
  if (!wants()) return;
  if (in_foreground()) {
    set.push_back({fd_, POLLIN, 0});
  } else {
    look_again_ = now + recheck;
  }
}

Input::Time Input::next_deadline() const { return look_again_; }

void Input::serve(Link& link) {
  if (!wants() || !in_foreground()) return;
  pollfd ready{fd_, POLLIN, 0};
  if (::poll(&ready, 1, 0) != 1) return;
  std::array<char, 16384> buffer;
  const ssize_t got = ::read(fd_, buffer.data(), std::min<std::size_t>(buffer.size(), input_window - under_way_));
  if (got > 0) {
    under_way_ += static_cast<std::uint64_t>(got);
    link.send(Bytes::input, 0, 0, {buffer.data(), static_cast<std::size_t>(got)});
  } else if (got == 0 || (errno != EAGAIN && errno != EINTR && !(errno == EIO && !in_foreground()))) {
    ended_ = true;
    link.send(InputEnd{});
  }
}

}  // namespace dsm::launch
