#include "dsm/dshm/message.hpp"

#include <errno.h>
#include <string.h>

#include "dsm/dshm/kernel.hpp"

namespace dsm::dshm {

int send(int socket, std::span<const std::uint8_t> bytes, std::span<const int> give) noexcept {
  const int before = errno;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred)) + CMSG_SPACE(2 * sizeof(int))] = {};
  iovec part{const_cast<std::uint8_t*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = CMSG_SPACE(sizeof(ucred));
  cmsghdr* head = reinterpret_cast<cmsghdr*>(control);
  head->cmsg_level = SOL_SOCKET;
  head->cmsg_type = SCM_CREDENTIALS;
  head->cmsg_len = CMSG_LEN(sizeof(ucred));
  const ucred own{::getpid(), ::geteuid(), ::getegid()};
  ::memcpy(CMSG_DATA(head), &own, sizeof own);
  if (!give.empty()) {
    head = reinterpret_cast<cmsghdr*>(control + CMSG_SPACE(sizeof(ucred)));
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(give.size_bytes());
    ::memcpy(CMSG_DATA(head), give.data(), give.size_bytes());
    message.msg_controllen += CMSG_SPACE(give.size_bytes());
  }
  ssize_t sent = 0;
  do {
    sent = kernel::send(socket, message, 0);
  } while (sent == -1 && errno == EINTR);
  const int error = sent == -1 ? errno : 0;
  errno = before;
  return error;
}

std::vector<std::uint8_t> receive(int socket, int& taken) {
  taken = -1;
  msghdr message{};
  ssize_t size = 0;
  do {  // how long is it?
    size = kernel::receive(socket, message, MSG_PEEK | MSG_TRUNC);
  } while (size == -1 && errno == EINTR);
  if (size <= 0) return {};
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(size));
  // Beside descriptors the kernel puts credentials here, if the socket was made to ask for them.
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred)) + CMSG_SPACE(8 * sizeof(int))];
  iovec part{bytes.data(), bytes.size()};
  message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  do {
    size = kernel::receive(socket, message, 0);
  } while (size == -1 && errno == EINTR);
  if (size <= 0) return {};
  for (cmsghdr* head = CMSG_FIRSTHDR(&message); head != nullptr; head = CMSG_NXTHDR(&message, head)) {
    if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      ::memcpy(&fd, CMSG_DATA(head) + i * sizeof fd, sizeof fd);
      if (taken == -1) {
        taken = fd;
      } else {
        kernel::close(fd);
      }
    }
  }
  bytes.resize(static_cast<std::size_t>(size));
  return bytes;
}

long receive_bytes(int socket, std::span<std::uint8_t> room) noexcept {
  iovec part{room.data(), room.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  return kernel::receive(socket, message, MSG_DONTWAIT);
}

}  // namespace dsm::dshm
