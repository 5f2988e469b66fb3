#include "dsm/dshm_agent/letters.hpp"

#include <errno.h>

#include <array>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>

#include "dsm/sysv/wire.hpp"
#include "ipc/error.hpp"

namespace dsm::dshm_agent {

void ask_for_senders(int fd) {
  const int on = 1;
  ipc::check(::setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on), "setsockopt SO_PASSCRED");
}

namespace {

constexpr std::size_t descriptors_max = 253;  // SCM_MAX_FD: the kernel has none left that it would close in our name

bool take_ancillary(msghdr& message, Letter& out) {
  bool vouched = false;
  for (cmsghdr* one = CMSG_FIRSTHDR(&message); one != nullptr; one = CMSG_NXTHDR(&message, one)) {
    if (one->cmsg_level != SOL_SOCKET) continue;
    if (one->cmsg_type == SCM_CREDENTIALS && one->cmsg_len == CMSG_LEN(sizeof(ucred))) {
      std::memcpy(&out.from, CMSG_DATA(one), sizeof(ucred));
      vouched = true;
    } else if (one->cmsg_type == SCM_RIGHTS) {
      for (std::size_t at = 0; CMSG_LEN(at + sizeof(int)) <= one->cmsg_len; at += sizeof(int)) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(one) + at, sizeof fd);
        if (out.descriptor) out.surplus.push_back(std::move(out.descriptor));
        out.descriptor.reset(fd);
      }
    }
  }
  return vouched;
}

}  // namespace

Post receive(int fd, Letter& out) {
  out.bytes.resize(sysv::max_frame);
  out.descriptor.reset();
  iovec part{out.bytes.data(), out.bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(ucred)) + CMSG_SPACE(descriptors_max * sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t got = 0;
  do {
    got = ::recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return errno == EAGAIN ? Post::later : Post::ended;
  const bool vouched = take_ancillary(message, out);
  if (got == 0 || !vouched || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) return Post::ended;
  out.bytes.resize(static_cast<std::size_t>(got));
  return Post::done;
}

Post send(int fd, std::span<const std::uint8_t> bytes, int descriptor) {
  iovec part{const_cast<std::uint8_t*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (descriptor >= 0) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* const rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(rights), &descriptor, sizeof descriptor);
  }
  ssize_t sent = 0;
  do {
    sent = ::sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent >= 0) return Post::done;
  return errno == EAGAIN ? Post::later : Post::ended;
}

std::vector<std::uint32_t> groups_of(pid_t pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  std::string line;
  while (std::getline(status, line)) {
    if (!line.starts_with("Groups:")) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    return {std::istream_iterator<std::uint32_t>(words), {}};
  }
  return {};  // what is not known gives no right
}

}  // namespace dsm::dshm_agent
