// The service thread: answers the other ranks, while the application computes.
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include <string_view>

#include "dsm/node/end_session.hpp"
#include "dsm/node/node.hpp"
#include "dsm/pager/own_thread.hpp"

namespace dsm::node {

namespace {

void drain(int fd) noexcept {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t n = ::read(fd, &count, sizeof count);  // EAGAIN: somebody set the timer anew meanwhile
}

bool is_request(const net::FrameHeader& header) noexcept {
  using core::Message;
  if (header.kind == static_cast<std::uint8_t>(net::FrameKind::coherence)) {
    return core::is_question(static_cast<Message::Kind>(header.op));
  }
  return header.kind == static_cast<std::uint8_t>(net::FrameKind::sync) &&
         core::is_question(static_cast<core::SyncMessage::Kind>(header.op));
}

}  // namespace

void Node::serve() noexcept {
  pager::block_all_signals();
  pager::ask_for_short_waits();
  std::array<epoll_event, 64> events{};
  core::Micros last_busy = 0;
  while (!finalizing_.load(std::memory_order_acquire) || !all_said_bye()) {
    const bool look_again = options_.patience.spin_us != 0 && now_us() - last_busy < options_.patience.spin_us;
    const int ready = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), look_again ? 0 : -1);
    for (int i = 0; i < ready; ++i) {
      const std::uint32_t mark = events[static_cast<std::size_t>(i)].data.u32;
      if (mark == stop_mark) {
        drain(stop_.get());
      } else if (mark == timer_mark) {
        drain(timer_.get());
        tick();
      } else if (mark == daemon_mark) {
        hear_daemon();
      } else {
        if ((events[static_cast<std::size_t>(i)].events & EPOLLOUT) != 0) flush(*ports_[mark]);
        serve_port(*ports_[mark]);
      }
    }
    if (ready > 0 && options_.patience.spin_us != 0) last_busy = now_us();
  }
}

void Node::tick() noexcept {
  Errand errand;
  lock_.lock();
  core_.step(core::Tick{now_us()}, actions_);
  carry_out(errand);
  lock_.unlock();
  send_off(errand);
}

void Node::hear_daemon() noexcept {
  for (;;) {
    net::FrameHeader header{};
    const std::uint8_t* body = nullptr;
    const net::Io io = mesh_.coordinator->receive(header, body);
    if (io == net::Io::again) return;
    if (io != net::Io::done) end_session(mesh_.rank, "dsmd has ended, or cannot be reached any more");
    const std::string_view line = net::read_verdict(header, body);
    end_session(mesh_.rank, line.empty() ? "dsmd sent what no dsmd of this version sends" : line);
  }
}

void Node::serve_port(Port& port) noexcept {
  if (port.gone) return;
  for (;;) {
    net::FrameHeader header{};
    const std::uint8_t* body = nullptr;
    switch (port.channel->receive(header, body)) {
      case net::Io::again:
        return;
      case net::Io::done:
        if (handle(port, header, body)) break;
        return peer_gone(port, core::Abort::Why::bad_message);
      case net::Io::closed:
        return peer_gone(port, core::Abort::Why::peer_lost);
      case net::Io::broken:
        return peer_gone(port, core::Abort::Why::bad_message);
    }
  }
}

// False if no peer may say that.
bool Node::handle(Port& port, const net::FrameHeader& header, const std::uint8_t* body) noexcept {
  Errand errand;
  errand.body = body;
  bool understood = false;
  if (port.lane != 0 && !is_request(header)) return false;  // there the peer asks, and we answer
  switch (static_cast<net::FrameKind>(header.kind)) {
    case net::FrameKind::coherence:
      understood = receive_coherence(port.peer, port.lane, header, errand);
      break;
    case net::FrameKind::sync:
      understood = receive_sync(port.peer, port.lane, header, errand);
      break;
    case net::FrameKind::bye:
      understood = header.length == 0 && port.lane == 0;
      said_bye_[port.peer] = understood;
      break;
    default:
      break;
  }
  send_off(errand);
  return understood;
}

// After its goodbye a peer may hang up. Before it, the job has failed, and the coordinator finds out who was first.
void Node::peer_gone(Port& port, core::Abort::Why why) noexcept {
  port.gone = true;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, port.channel->fd(), nullptr);
  // The goodbye travels on the service lane, and TCP keeps no order between connections: the end of another lane says
  // nothing. If the peer is dead its service lane ends, too.
  if (why == core::Abort::Why::peer_lost && (port.lane != 0 || said_bye_[port.peer])) return;
  declare_lost({why, port.peer});
}

// Called with port.sending held.
void Node::watch(Port& port, bool output) noexcept {
  epoll_event event{};
  event.events = output ? EPOLLIN | EPOLLOUT : EPOLLIN;
  event.data.u32 = port.index;
  port.watching_output = output;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, port.channel->fd(), &event);  // ENOENT: the peer is gone
}

bool Node::all_said_bye() const noexcept {
  for (int peer = 0; peer < ranks_; ++peer) {
    if (peer != mesh_.rank && !said_bye_[static_cast<std::size_t>(peer)]) return false;
  }
  for (const auto& port : ports_) {
    if (port != nullptr && !port->gone && port->watching_output) return false;
  }
  return true;
}

}  // namespace dsm::node
