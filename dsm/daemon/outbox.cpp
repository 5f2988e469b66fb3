#include "dsm/daemon/outbox.hpp"

namespace dsm::daemon {

void Outbox::push(std::vector<std::uint8_t> frame) {
  bytes_ += frame.size();
  frames_.push_back(std::move(frame));
}

net::Io Outbox::flush(net::Channel& channel) {
  for (;;) {
    while (queued_ != frames_.size()) {
      const std::vector<std::uint8_t>& next = frames_[queued_];
      net::FrameHeader header{};
      header.length = static_cast<std::uint32_t>(next.size());
      header.kind = static_cast<std::uint8_t>(net::FrameKind::sysv);
      if (!channel.queue(header, next.data())) break;
      ++queued_;
    }
    const net::Io io = channel.flush();
    for (; queued_ != channel.queued(); --queued_) {
      bytes_ -= frames_.front().size();
      frames_.pop_front();
    }
    if (io != net::Io::done || frames_.empty()) return io;
  }
}

}  // namespace dsm::daemon
