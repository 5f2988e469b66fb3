// dsm/tests/fuzz/stream.hpp - what the harnesses share that deal with streams of frames: sockets, how a stream is cut
// into frames according to frame.hpp, and what must hold for each of them.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "dsm/net/channel.hpp"
#include "dsm/net/frame.hpp"
#include "dsm/net/rendezvous.hpp"
#include "ipc/fd.hpp"

namespace dsm::fuzz {

inline constexpr std::size_t max_stream = 16'384;  // bytes: the kernel keeps them, though nobody reads

struct Sockets {
  ipc::Fd one, other;
};
Sockets socket_pair();
// All of it. False if the peer has gone. REQUIRES: it fits into the kernel's buffers.
bool put(int fd, std::string_view bytes);
// What is there now.
std::string take(int fd);

struct Frame {
  net::FrameHeader header;
  std::string body;
};
std::string as_bytes(const net::FrameHeader& header);
// The whole frames at the front of `stream`, up to a header that `takes` refuses: then `refused`.
struct Frames {
  std::vector<Frame> all;
  bool refused = false;
};
Frames cut(std::string_view stream, bool (*takes)(const net::FrameHeader&, std::size_t max_body), std::size_t max_body);
bool fits(const net::FrameHeader& header, std::size_t max_body);  // for cut(): as a Channel has it

void check_equal(const std::vector<Frame>& got, const std::vector<Frame>& expected);

// Asks the channel for a frame by the calls that it has for it. `way`: 0 and 1 do not wait, and read ahead or not; 2
// and 3 do. `guess`: the length that 3 is prepared for, at most the channel's longest body.
net::Io receive_by(unsigned way, net::Channel& channel, std::vector<Frame>& got, std::size_t guess);

// Whatever the decoders take comes back as it was; what they refuse, they do not touch.
void check_header(const net::FrameHeader& header, std::size_t page_size);
// It is within its ranges, and comes back as it was.
void check_control_message(const net::ControlMessage& message);
// Whether it is one or not.
void check_agent_message(std::string_view json);

}  // namespace dsm::fuzz
