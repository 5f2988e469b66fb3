// dsm/net/channel_impl.hpp - the inside of a Channel. Used by channel.cpp (the sender's half) and channel_receive.cpp.
#pragma once
#include <sys/uio.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "dsm/net/channel.hpp"
#include "dsm/net/seal.hpp"
#include "ipc/socket.hpp"

namespace dsm::net {

inline constexpr std::size_t least_buffer = 4096;  // bytes; lets one read bring many small frames

// A broken invariant ends the program; no stdio, for it may happen in a signal handler.
void require(bool holds, std::string_view what) noexcept;

// What a failed transfer means for the connection; a host or a process that went away is no fault of the peer's.
[[nodiscard]] Io verdict(int error) noexcept;

inline iovec part(const void* data, std::size_t size) noexcept { return {const_cast<void*>(data), size}; }

struct Queued {
  FrameHeader header;
  const void* body;
};

struct Channel::Impl {
  Impl(ipc::Fd socket, std::size_t body_max, std::size_t queue_size, const std::optional<SessionKeys>& keys)
      : fd(std::move(socket)),
        seal(keys ? std::make_unique<Seal>(*keys, body_max) : nullptr),
        max_body(body_max),
        capacity(std::max(frame_size(body_max), least_buffer)),
        buffer(std::make_unique_for_overwrite<std::uint8_t[]>(capacity)),
        ring_size(std::max<std::size_t>(queue_size, 1)),
        ring(std::make_unique_for_overwrite<Queued[]>(ring_size)),
        record(seal ? std::make_unique_for_overwrite<std::uint8_t[]>(Seal::body_record_size(body_max)) : nullptr) {}

  [[nodiscard]] std::size_t frame_size(std::size_t length) const noexcept {  // on the wire, at most
    return sizeof(FrameHeader) + length + (seal ? 2 * Seal::extra : 0);
  }

  // Both directions remember why they ended: half a frame may have gone, and nothing sensible can follow it.
  Io fail_out(Io why) noexcept { return out_state = why; }
  Io fail_in(Io why) noexcept { return in_state = why; }

  [[nodiscard]] std::size_t buffered() const noexcept { return end - begin; }
  void release_returned() noexcept;
  Io accept_header(const FrameHeader& header) noexcept;
  Io fill(std::uint8_t* to, std::size_t size, Patience patience) noexcept;
  Io fill_header(FrameHeader& out, Patience patience) noexcept;
  Io read_more(std::size_t need, Ahead ahead) noexcept;
  Io receive_sealed(FrameHeader& header, const std::uint8_t*& body, Ahead ahead) noexcept;
  Io flush_some() noexcept;
  Io flush_sealed() noexcept;
  void count_out(const FrameHeader& header) noexcept;

  ipc::Fd fd;
  const std::unique_ptr<Seal> seal;  // null: frames travel as they are
  Counters counters;

  // Receiver's. The buffer holds what was read and not yet taken: bytes [begin, end); the first `returned` of them are
  // the frame that receive() returned last.
  const std::size_t max_body;
  const std::size_t capacity;
  std::unique_ptr<std::uint8_t[]> buffer;
  std::size_t begin = 0, end = 0, returned = 0;
  std::size_t body_due = 0;  // announced by receive_header() or receive_into(), not yet taken
  bool drained = false;      // the last read of receive() found less than it had room for
  Patience patience;         // of the header, holds for its body too
  Io in_state = Io::done;
  std::optional<FrameHeader> opened;  // by receive_sealed(), whose body is still to come

  // Sender's. A ring of frames, of which the first has been sent up to sent_of_first.
  const std::size_t ring_size;
  std::unique_ptr<Queued[]> ring;
  std::size_t first = 0, sent_of_first = 0;
  std::atomic<std::size_t> waiting{0};  // any thread may look; at 0 nothing that was queued will be read again
  bool sealing = false;                 // the first of the ring is sealed, and perhaps a part of it sent
  Io out_state = Io::done;

  const std::unique_ptr<std::uint8_t[]> record;  // receiver's: a sealed body, or one that was opened
};

}  // namespace dsm::net
