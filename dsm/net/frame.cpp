#include "dsm/net/frame.hpp"

#include <limits>

namespace dsm::net {
namespace {

using core::Access;
using core::Message;
using core::SyncMessage;

// FrameHeader::flags of a coherence frame; all other bits, and all bits of a sync frame, are zero.
constexpr std::uint8_t flag_carries_page = 1;
constexpr std::uint8_t flag_have = 2;
constexpr std::uint8_t flag_prefetch = 4;
constexpr std::uint8_t flags_defined = flag_carries_page | flag_have | flag_prefetch;

constexpr auto last_message = static_cast<std::uint8_t>(Message::Kind::write_back);
constexpr auto last_sync_message = static_cast<std::uint8_t>(SyncMessage::Kind::barrier_go);
constexpr auto last_access = static_cast<std::uint8_t>(Access::write);

}  // namespace

FrameHeader encode(const Message& message, std::size_t page_size) noexcept {
  FrameHeader header{};
  header.length = static_cast<std::uint32_t>(message.carries_page ? page_size : 0);
  header.kind = static_cast<std::uint8_t>(FrameKind::coherence);
  header.op = static_cast<std::uint8_t>(message.kind);
  header.access = static_cast<std::uint8_t>(message.access);
  header.flags = static_cast<std::uint8_t>((message.carries_page ? flag_carries_page : 0) |
                                           (message.have ? flag_have : 0) | (message.prefetch ? flag_prefetch : 0));
  header.page = message.page;
  header.seq = message.seq;
  return header;
}

FrameHeader encode(const SyncMessage& message) noexcept {
  FrameHeader header{};
  header.kind = static_cast<std::uint8_t>(FrameKind::sync);
  header.op = static_cast<std::uint8_t>(message.kind);
  header.page = message.lock;
  header.seq = message.waiter;
  header.a = message.round;
  return header;
}

bool decode(const FrameHeader& header, std::size_t page_size, Message& out) noexcept {
  const bool carries_page = (header.flags & flag_carries_page) != 0;
  if (header.kind != static_cast<std::uint8_t>(FrameKind::coherence) || header.op > last_message ||
      header.access > last_access || (header.flags & ~flags_defined) != 0 || header.a != 0 || header.b != 0 ||
      header.length != (carries_page ? page_size : 0)) {
    return false;
  }
  out.kind = static_cast<Message::Kind>(header.op);
  out.access = static_cast<Access>(header.access);
  out.carries_page = carries_page;
  out.have = (header.flags & flag_have) != 0;
  out.prefetch = (header.flags & flag_prefetch) != 0;
  out.page = header.page;
  out.seq = header.seq;
  return true;
}

bool decode(const FrameHeader& header, SyncMessage& out) noexcept {
  if (header.kind != static_cast<std::uint8_t>(FrameKind::sync) || header.op > last_sync_message ||
      header.access != 0 || header.flags != 0 || header.length != 0 || header.b != 0 ||
      header.seq > std::numeric_limits<core::Waiter>::max()) {
    return false;
  }
  out.kind = static_cast<SyncMessage::Kind>(header.op);
  out.waiter = static_cast<core::Waiter>(header.seq);
  out.lock = header.page;
  out.round = header.a;
  return true;
}

}  // namespace dsm::net
