// The receiver's half of a Channel.
#include <time.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <span>

#include "dsm/net/channel_impl.hpp"

namespace dsm::net {
namespace {

Io verdict(const ipc::Transfer& transfer) noexcept {
  if (transfer.error != 0) return net::verdict(transfer.error);
  return transfer.end ? Io::closed : Io::done;
}

std::uint64_t now_ns() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(now.tv_nsec);
}

void relax() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// As ipc::receive_some, but waits in the system call itself: one call instead of a look in vain, poll(2) and another
// look.
ipc::Transfer receive_asleep(int fd, std::span<const iovec> parts) noexcept {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(parts.data());  // recvmsg only reads the array
  message.msg_iovlen = parts.size();
  for (;;) {
    const ssize_t received = ::recvmsg(fd, &message, 0);
    if (received >= 0) return {static_cast<std::size_t>(received), 0, received == 0};
    if (errno != EINTR) return {0, errno, false};
  }
}

// One transfer of at least one byte, waited for as patience says; never `again`, for the socket blocks.
ipc::Transfer receive_patiently(int fd, std::span<const iovec> parts, Patience patience) noexcept {
  if (patience.spin_us != 0) {
    const std::uint64_t end = now_ns() + std::uint64_t{patience.spin_us} * 1000;
    do {
      const ipc::Transfer got = ipc::receive_some(fd, parts);
      if (got.error != EAGAIN) return got;
      for (int i = 0; i < 8; ++i) relax();
    } while (now_ns() < end);
  }
  return receive_asleep(fd, parts);
}

}  // namespace

void Channel::Impl::release_returned() noexcept {
  begin += returned;
  returned = 0;
  if (begin == end) begin = end = 0;
}

Io Channel::Impl::accept_header(const FrameHeader& header) noexcept {
  if (header.length > max_body) return fail_in(Io::broken);
  ++counters.frames_in;
  counters.bytes_in += sizeof header + header.length;
  return Io::done;
}

// Exactly `size` bytes: what is buffered first, the rest from the socket without a copy.
Io Channel::Impl::fill(std::uint8_t* to, std::size_t size, Patience how_long) noexcept {
  const std::size_t ready = std::min(size, buffered());
  std::memcpy(to, buffer.get() + begin, ready);
  begin += ready;
  release_returned();
  for (std::size_t have = ready; have < size;) {
    const iovec rest = part(to + have, size - have);
    const ipc::Transfer got = receive_patiently(fd.get(), {&rest, 1}, how_long);
    if (const Io io = verdict(got); io != Io::done) return fail_in(io);
    have += got.bytes;
  }
  return Io::done;
}

Io Channel::Impl::fill_header(FrameHeader& out, Patience how_long) noexcept {
  if (!seal) return fill(reinterpret_cast<std::uint8_t*>(&out), sizeof out, how_long);
  if (opened) {  // by receive(), which then found no body yet
    out = *std::exchange(opened, std::nullopt);
    return Io::done;
  }
  std::array<std::uint8_t, Seal::header_record_size> bytes;
  if (!seal->opened_stream()) {
    if (const Io io = fill(bytes.data(), Seal::stream_header_size, how_long); io != Io::done) return io;
    if (!seal->open_stream(bytes.data())) return fail_in(Io::broken);
  }
  if (const Io io = fill(bytes.data(), bytes.size(), how_long); io != Io::done) return io;
  return seal->open_header(bytes.data(), out) ? Io::done : fail_in(Io::broken);
}

Io Channel::receive_header(FrameHeader& out, Patience patience) noexcept {
  Impl& me = *impl_;
  if (me.in_state != Io::done) return me.in_state;
  require(me.body_due == 0, "a header is asked for before the body of the last frame was taken");
  me.release_returned();
  me.drained = false;
  me.patience = patience;
  if (const Io io = me.fill_header(out, patience); io != Io::done) return io;
  if (const Io io = me.accept_header(out); io != Io::done) return io;
  me.body_due = out.length;
  return Io::done;
}

Io Channel::receive_body(void* to) noexcept {
  Impl& me = *impl_;
  if (me.in_state != Io::done) return me.in_state;
  const std::size_t size = std::exchange(me.body_due, 0);
  if (size == 0) return Io::done;
  if (!me.seal) return me.fill(static_cast<std::uint8_t*>(to), size, me.patience);
  if (const Io io = me.fill(me.record.get(), Seal::body_record_size(size), me.patience); io != Io::done) return io;
  return me.seal->open_body(me.record.get(), size, to) ? Io::done : me.fail_in(Io::broken);
}

Io Channel::receive_into(FrameHeader& out, void* place, std::size_t length, Patience patience) noexcept {
  Impl& me = *impl_;
  require(length <= me.max_body, "a place longer than the longest body");
  me.release_returned();
  if (me.in_state != Io::done || me.buffered() != 0 || length == 0 || me.seal) {
    const Io io = receive_header(out, patience);
    return io == Io::done && out.length == length ? receive_body(place) : io;
  }
  require(me.body_due == 0, "a header is asked for before the body of the last frame was taken");
  me.drained = false;
  me.patience = patience;
  auto* const header_bytes = reinterpret_cast<std::uint8_t*>(&out);
  std::size_t have = 0;  // of header and place together
  while (have < sizeof out) {
    const std::array<iovec, 2> parts = {part(header_bytes + have, sizeof out - have), part(place, length)};
    const ipc::Transfer got = receive_patiently(me.fd.get(), parts, patience);
    if (const Io io = verdict(got); io != Io::done) return me.fail_in(io);
    have += got.bytes;
  }
  have -= sizeof out;
  if (const Io io = me.accept_header(out); io != Io::done) return io;
  if (out.length == length) return me.fill(static_cast<std::uint8_t*>(place) + have, length - have, patience);
  std::memcpy(me.buffer.get(), place, have);  // it fits: have <= length <= max_body, and the buffer was empty
  me.end = have;
  me.body_due = out.length;
  return Io::done;
}

// From the socket, behind what is buffered, of which there is less than `need`. done: something came.
Io Channel::Impl::read_more(std::size_t need, Ahead ahead) noexcept {
  if (std::exchange(drained, false)) return Io::again;
  if (begin + need > capacity) {
    std::memmove(buffer.get(), buffer.get() + begin, buffered());
    end = buffered();
    begin = 0;
  }
  const std::size_t room = ahead == Ahead::yes ? capacity - end : need - buffered();
  const iovec to = part(buffer.get() + end, room);
  const ipc::Transfer got = ipc::receive_some(fd.get(), {&to, 1});
  if (const Io io = verdict(got); io != Io::done) return io == Io::again ? io : fail_in(io);
  end += got.bytes;
  drained = got.bytes < room;
  return Io::done;
}

// Record by record: each is opened as soon as it is whole, and the body lies in `record` then.
Io Channel::Impl::receive_sealed(FrameHeader& header, const std::uint8_t*& body, Ahead ahead) noexcept {
  for (;;) {
    const std::uint8_t* const bytes = buffer.get() + begin;
    const std::size_t need = !seal->opened_stream() ? Seal::stream_header_size
                             : !opened              ? Seal::header_record_size
                                                    : Seal::body_record_size(opened->length);
    if (buffered() < need) {
      if (const Io io = read_more(need, ahead); io != Io::done) return io;
      continue;
    }
    begin += need;
    if (begin == end) begin = end = 0;
    if (!seal->opened_stream()) {
      if (!seal->open_stream(bytes)) return fail_in(Io::broken);
      continue;
    }
    if (!opened) {
      if (!seal->open_header(bytes, header) || header.length > max_body) return fail_in(Io::broken);
      opened = header;
      if (header.length != 0) continue;
    } else if (!seal->open_body(bytes, opened->length, record.get())) {
      return fail_in(Io::broken);
    }
    header = *opened;
    opened.reset();
    body = record.get();
    return accept_header(header);
  }
}

Io Channel::receive(FrameHeader& header, const std::uint8_t*& body, Ahead ahead) noexcept {
  Impl& me = *impl_;
  if (me.in_state != Io::done) return me.in_state;
  require(me.body_due == 0, "a frame is asked for before the body of the last frame was taken");
  me.release_returned();
  if (me.seal) return me.receive_sealed(header, body, ahead);
  for (;;) {
    std::size_t need = sizeof header;
    if (me.buffered() >= need) {
      std::memcpy(&header, me.buffer.get() + me.begin, sizeof header);
      if (header.length > me.max_body) return me.fail_in(Io::broken);
      need += header.length;
    }
    if (me.buffered() >= need) {
      me.returned = need;
      body = me.buffer.get() + me.begin + sizeof header;
      return me.accept_header(header);
    }
    if (const Io io = me.read_more(need, ahead); io != Io::done) return io;
  }
}

}  // namespace dsm::net
