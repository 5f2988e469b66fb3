#include "dsm/net/frame.hpp"

#include <limits>

namespace dsm::net {
namespace {

using core::Access;
using core::Atomic;
using core::Message;
using core::SyncMessage;

// FrameHeader::flags of a coherence frame, and of a sync frame; all other bits are zero.
constexpr std::uint8_t flag_carries_page = 1;
constexpr std::uint8_t flag_have = 2;
constexpr std::uint8_t flag_prefetch = 4;
constexpr std::uint8_t flags_defined = flag_carries_page | flag_have | flag_prefetch;
constexpr unsigned atomic_kind_at = 3, atomic_state_at = 5, atomic_mask = 3;  // in the flags of a message that has one
constexpr std::uint8_t flag_yes = 1;
constexpr std::uint8_t flag_attempt = 2;
constexpr std::uint8_t flag_all = 4;
constexpr std::uint8_t flag_full = 8;
constexpr std::uint8_t sync_flags_defined = flag_yes | flag_attempt | flag_all | flag_full;

constexpr auto last_message = static_cast<std::uint8_t>(Message::Kind::located);
constexpr auto last_sync_message = static_cast<std::uint8_t>(SyncMessage::Kind::cond_wake);
constexpr auto last_atomic_kind = static_cast<std::uint8_t>(Atomic::Kind::compare_swap);
constexpr auto last_atomic_state = static_cast<std::uint8_t>(Atomic::State::missed);
constexpr auto last_access = static_cast<std::uint8_t>(Access::write);

void encode(const Atomic& atomic, FrameHeader& header) noexcept {
  header.flags = static_cast<std::uint8_t>(header.flags | static_cast<unsigned>(atomic.kind) << atomic_kind_at |
                                           static_cast<unsigned>(atomic.state) << atomic_state_at);
  header.a = atomic.value;
  header.b = atomic.expected;
  header.word = atomic.word;
}

// False if it is none, or beside the page.
bool decode(const FrameHeader& header, std::size_t page_size, Atomic& out) noexcept {
  const unsigned kind = header.flags >> atomic_kind_at & atomic_mask;
  const unsigned state = header.flags >> atomic_state_at & atomic_mask;
  if (kind == 0 || kind > last_atomic_kind || state > last_atomic_state ||
      std::size_t{header.word} * sizeof(std::uint64_t) >= page_size) {
    return false;
  }
  out = {.kind = static_cast<Atomic::Kind>(kind),
         .state = static_cast<Atomic::State>(state),
         .word = header.word,
         .value = header.a,
         .expected = header.b};
  return true;
}

bool has_atomic(std::uint8_t op) noexcept {
  return op == static_cast<std::uint8_t>(Message::Kind::perform) ||
         op == static_cast<std::uint8_t>(Message::Kind::performed);
}

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
  if (has_atomic(header.op)) encode(message.atomic, header);
  return header;
}

FrameHeader encode(const SyncMessage& message) noexcept {
  FrameHeader header{};
  header.kind = static_cast<std::uint8_t>(FrameKind::sync);
  header.op = static_cast<std::uint8_t>(message.kind);
  header.flags = static_cast<std::uint8_t>((message.yes ? flag_yes : 0) | (message.attempt ? flag_attempt : 0) |
                                           (message.all ? flag_all : 0) | (message.full ? flag_full : 0));
  header.page = message.node;
  header.seq = message.waiter;
  header.a = message.key;
  header.b = message.number;
  return header;
}

bool decode(const FrameHeader& header, std::size_t page_size, Message& out) noexcept {
  const bool carries_page = (header.flags & flag_carries_page) != 0;
  if (header.kind != static_cast<std::uint8_t>(FrameKind::coherence) || header.op > last_message ||
      header.access > last_access || header.spare != 0 || header.length != (carries_page ? page_size : 0)) {
    return false;
  }
  Atomic atomic;
  if (has_atomic(header.op)) {
    constexpr unsigned atomic_bits = atomic_mask << atomic_kind_at | atomic_mask << atomic_state_at;
    if ((header.flags & ~(flags_defined | atomic_bits)) != 0 || !decode(header, page_size, atomic)) return false;
  } else if ((header.flags & ~flags_defined) != 0 || header.a != 0 || header.b != 0 || header.word != 0) {
    return false;
  }
  out.kind = static_cast<Message::Kind>(header.op);
  out.access = static_cast<Access>(header.access);
  out.carries_page = carries_page;
  out.have = (header.flags & flag_have) != 0;
  out.prefetch = (header.flags & flag_prefetch) != 0;
  out.page = header.page;
  out.seq = header.seq;
  out.atomic = atomic;
  return true;
}

bool decode(const FrameHeader& header, SyncMessage& out) noexcept {
  if (header.kind != static_cast<std::uint8_t>(FrameKind::sync) || header.op > last_sync_message ||
      header.access != 0 || (header.flags & ~sync_flags_defined) != 0 || header.length != 0 || header.word != 0 ||
      header.spare != 0 || header.page > std::numeric_limits<core::Node>::max() ||
      header.seq > std::numeric_limits<core::Waiter>::max()) {
    return false;
  }
  out.kind = static_cast<SyncMessage::Kind>(header.op);
  out.yes = (header.flags & flag_yes) != 0;
  out.attempt = (header.flags & flag_attempt) != 0;
  out.all = (header.flags & flag_all) != 0;
  out.full = (header.flags & flag_full) != 0;
  out.waiter = static_cast<core::Waiter>(header.seq);
  out.node = static_cast<core::Node>(header.page);
  out.key = header.a;
  out.number = header.b;
  return true;
}

}  // namespace dsm::net
