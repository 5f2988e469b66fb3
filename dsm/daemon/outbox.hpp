// dsm/daemon/outbox.hpp - what waits to be sent to one agent, who may be slow to read: nobody else waits for it.
//
// A channel's queue is short and does not copy; this has any number of frames, and keeps them until they are sent.
// Thread-safety: none. Not async-signal-safe.
#pragma once
#include <cstdint>
#include <deque>
#include <vector>

#include "dsm/net/channel.hpp"

namespace dsm::daemon {

class Outbox {
 public:
  // One encoded sysv::Frame.
  void push(std::vector<std::uint8_t> frame);
  // Sends what can be sent without waiting. again: wait for POLLOUT. REQUIRES: always the same channel.
  net::Io flush(net::Channel& channel);
  [[nodiscard]] bool empty() const { return frames_.empty(); }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }  // that have not been sent, whole frames

 private:
  std::deque<std::vector<std::uint8_t>> frames_;  // the first `queued_` of them are in the channel
  std::size_t queued_ = 0, bytes_ = 0;
};

}  // namespace dsm::daemon
