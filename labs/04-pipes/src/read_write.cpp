// The fault path of ipc/spawn.hpp.
#include <poll.h>
#include <unistd.h>

#include <cerrno>

#include "ipc/spawn.hpp"

namespace ipc {
namespace {

// Waits until a non-blocking descriptor is ready. False and errno if that cannot be waited for.
bool wait_ready(int fd, short event) noexcept {
  pollfd wait{fd, event, 0};
  return ::poll(&wait, 1, -1) != -1 || errno == EINTR;
}

bool may_be_repeated(int fd, short event) noexcept {
  return errno == EINTR || (errno == EAGAIN && wait_ready(fd, event));
}

}  // namespace

ssize_t read_full(int fd, void* buffer, std::size_t size) noexcept {
  std::size_t done = 0;
  //@ solution 04.read_full
  while (done < size) {
    const ssize_t got = ::read(fd, static_cast<char*>(buffer) + done, size - done);
    if (got == 0) break;
    if (got > 0) {
      done += static_cast<std::size_t>(got);
    } else if (!may_be_repeated(fd, POLLIN)) {
      return -1;
    }
  }
  //@ starter
  // TODO 04.read_full: read() gives what is there, which may be one byte. Go on until all has come. When must you stop
  // early?
  //| static_cast<void>(fd), static_cast<void>(buffer), static_cast<void>(size);
  //@ end
  return static_cast<ssize_t>(done);
}

ssize_t write_full(int fd, const void* buffer, std::size_t size) noexcept {
  std::size_t done = 0;
  //@ solution 04.write_full
  while (done < size) {
    const ssize_t put = ::write(fd, static_cast<const char*>(buffer) + done, size - done);
    if (put >= 0) {
      done += static_cast<std::size_t>(put);
    } else if (!may_be_repeated(fd, POLLOUT)) {
      return -1;
    }
  }
  //@ starter
  // TODO 04.write_full: write() may take only a part, too.
  //| static_cast<void>(fd), static_cast<void>(buffer), static_cast<void>(size), static_cast<void>(may_be_repeated);
  //@ end
  return static_cast<ssize_t>(done);
}

}  // namespace ipc
