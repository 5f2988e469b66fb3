#include "link.hpp"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "ipc/error.hpp"
#include "ipc/spawn.hpp"

namespace {

constexpr std::size_t descriptors_of_link = 2;

// Room for the descriptors, aligned as cmsg(3) wants it.
union Ancillary {
  cmsghdr head;
  std::array<char, CMSG_SPACE(sizeof(int) * descriptors_of_link)> room;
};

enum class Received { link, nothing, end };

// One record from the parent.
Received receive_one(int control, Link& link, int& segment_id) {
  //@ solution 06.receive_link
  iovec part{&segment_id, sizeof segment_id};
  Ancillary ancillary{};
  msghdr message{};
  message.msg_iov = &part, message.msg_iovlen = 1;
  message.msg_control = &ancillary, message.msg_controllen = sizeof ancillary;
  ssize_t size = 0;
  do {
    size = ::recvmsg(control, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (size == -1 && errno == EINTR);
  if (size == 0 || (size == -1 && errno == ECONNRESET)) return Received::end;
  if (size == -1 && errno == EAGAIN) return Received::nothing;
  if (size == -1) ipc::throw_errno("recvmsg");
  const cmsghdr* const head = CMSG_FIRSTHDR(&message);
  std::array<int, descriptors_of_link> fds{};
  if (size != sizeof segment_id || head == nullptr || head->cmsg_type != SCM_RIGHTS ||
      head->cmsg_len != CMSG_LEN(sizeof fds)) {
    throw std::runtime_error("the parent sent something that is no link");
  }
  std::memcpy(fds.data(), CMSG_DATA(head), sizeof fds);
  link = Link{ipc::Fd(fds[0]), ipc::Fd(fds[1])};
  return Received::link;
  //@ starter
  // TODO 06.receive_link: recvmsg(2) with room for two descriptors. What does it return when nothing is there, and when
  // the parent has died? Which flag keeps the new descriptors from a program that we may exec?
  //| static_cast<void>(control), static_cast<void>(link), static_cast<void>(segment_id);
  //| static_cast<void>(sizeof(Ancillary));
  //| return Received::nothing;
  //@ end
}

}  // namespace

NewLink make_link() {
  //@ solution 06.make_link
  ipc::Pipe requests = ipc::make_pipe(), replies = ipc::make_pipe();
  NewLink made{ipc::SysvSegment::create(max_text), Link{std::move(replies.read), std::move(requests.write)},
               Link{std::move(requests.read), std::move(replies.write)}};
  made.segment.remove();
  return made;
  //@ starter
  // TODO 06.make_link: two pipes and a segment. Which end is whose? When is the right moment to remove the segment, so
  // that nothing can ever leave it behind?
  //| throw std::system_error(ENOSYS, std::generic_category(), "make_link");
  //@ end
}

bool send_link(int control, const Link& side, int segment_id) {
  //@ solution 06.send_link
  const std::array<int, descriptors_of_link> fds = {side.in.get(), side.out.get()};
  iovec part{&segment_id, sizeof segment_id};
  Ancillary ancillary{};
  msghdr message{};
  message.msg_iov = &part, message.msg_iovlen = 1;
  message.msg_control = &ancillary, message.msg_controllen = sizeof ancillary;
  cmsghdr* const head = CMSG_FIRSTHDR(&message);
  head->cmsg_level = SOL_SOCKET, head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = CMSG_LEN(sizeof fds);
  std::memcpy(CMSG_DATA(head), fds.data(), sizeof fds);
  ssize_t size = 0;
  do {
    size = ::sendmsg(control, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (size == -1 && errno == EINTR);
  return size == sizeof segment_id;
  //@ starter
  // TODO 06.send_link: sendmsg(2) with the segment's id as bytes and the two descriptors beside them, see cmsg(3).
  // Whose descriptors are they while they are on their way?
  //| static_cast<void>(control), static_cast<void>(side), static_cast<void>(segment_id);
  //| return false;
  //@ end
}

bool receive_links(int control, Link& link) {
  for (int segment_id = -1;;) {
    const Received received = receive_one(control, link, segment_id);
    if (received == Received::end) return false;
    if (received == Received::nothing) return true;
    try {
      link.segment = ipc::SysvSegment::attach(segment_id);
    } catch (const std::system_error& failure) {
      if (failure.code().value() != EINVAL && failure.code().value() != EIDRM) throw;
      link = {};
    }
  }
}
