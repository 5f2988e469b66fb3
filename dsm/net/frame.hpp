// dsm/net/frame.hpp - what travels on every connection of a job: a fixed header of 40 bytes, then a body.
//
// One byte order on the wire (little-endian, Boost.Endian), whatever the host's; a peer with another layout of data in
// its pages is refused when it joins (rendezvous.hpp). async-signal-safe: yes, all of it.
#pragma once
#include <boost/endian/arithmetic.hpp>
#include <cstddef>
#include <cstdint>

#include "dsm/core/sync.hpp"
#include "dsm/core/types.hpp"

namespace dsm::net {

enum class FrameKind : std::uint8_t {
  coherence = 1,   // core::Message; body: the page, if it carries one
  sync = 2,        // core::SyncMessage; no body
  lane_hello = 3,  // first frame on a mesh connection: who calls whom, and which lane this is; no body
  bye = 4,         // this rank has finalized: end of file is normal from now on; no body
  control = 5,     // rank <-> coordinator, agent <-> dsmexec: body is JSON (rendezvous.hpp, launch/control.hpp)
  bytes = 6,       // agent -> dsmexec: body is raw output or a telemetry sample; `a`, `b` say of what
  sysv = 7,        // an agent of System V IPC <-> dsmd: body is one sysv::Frame (dsm/sysv/wire.hpp)
};

struct FrameHeader {
  boost::endian::little_uint32_t length;  // of the body, in bytes
  std::uint8_t kind;                      // FrameKind
  std::uint8_t op;                        // Message::Kind, SyncMessage::Kind; free for other kinds
  std::uint8_t access;                    // core::Access
  std::uint8_t flags;                     // see frame.cpp
  boost::endian::little_uint32_t page;    // page; SyncMessage::node; the rank that is called
  boost::endian::little_uint32_t seq;     // Seq, or waiter
  boost::endian::little_uint64_t a;       // SyncMessage::key; Atomic::value; rank; stream
  boost::endian::little_uint64_t b;       // SyncMessage::number; Atomic::expected
  boost::endian::little_uint32_t word;    // Atomic::word
  boost::endian::little_uint32_t spare;   // 0
};
static_assert(sizeof(FrameHeader) == 40);

[[nodiscard]] FrameHeader encode(const core::Message& message, std::size_t page_size) noexcept;
[[nodiscard]] FrameHeader encode(const core::SyncMessage& message) noexcept;
// False if the header is not a well-formed message of that kind (unknown op or access, undefined flags, wrong length).
[[nodiscard]] bool decode(const FrameHeader& header, std::size_t page_size, core::Message& out) noexcept;
[[nodiscard]] bool decode(const FrameHeader& header, core::SyncMessage& out) noexcept;

}  // namespace dsm::net
