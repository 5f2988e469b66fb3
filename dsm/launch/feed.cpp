#include "dsm/launch/feed.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "ipc/socket.hpp"

namespace dsm::launch {

void Feed::add(ipc::Fd pipe) {
  ipc::set_nonblocking(pipe.get());
  pipes_.push_back({std::move(pipe), 0});
}

bool Feed::write(Pipe& pipe) const {
  while (pipe.written < waiting_.size()) {
    const ssize_t put = ::write(pipe.fd.get(), waiting_.data() + pipe.written, waiting_.size() - pipe.written);
    if (put >= 0) {
      pipe.written += static_cast<std::size_t>(put);
    } else if (errno != EINTR) {
      return errno == EAGAIN;
    }
  }
  return !ended_;
}

void Feed::write() {
  std::erase_if(pipes_, [this](Pipe& pipe) { return !write(pipe); });
}

void Feed::add_to(std::vector<pollfd>& set) const {
  for (const Pipe& pipe : pipes_) {
    if (pipe.written < waiting_.size()) set.push_back({pipe.fd.get(), POLLOUT, 0});
  }
}

std::uint64_t Feed::taken() {
  std::size_t least = waiting_.size();
  for (const Pipe& pipe : pipes_) least = std::min(least, pipe.written);
  waiting_.erase(0, least);
  for (Pipe& pipe : pipes_) pipe.written -= least;
  return least;
}

}  // namespace dsm::launch
