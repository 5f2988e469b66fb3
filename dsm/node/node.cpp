#include "dsm/node/node.hpp"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include "ipc/error.hpp"

namespace dsm::node {

namespace {

void add_to_poll_set(int epoll, int fd, std::uint32_t mark) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u32 = mark;
  ipc::check(::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
}

core::Config core_config(const net::Mesh& mesh, const Node::Options& options, std::size_t ranks) {
  return core::Config{.self = static_cast<core::Node>(mesh.rank),
                      .nodes = static_cast<std::uint8_t>(ranks),
                      .pages = static_cast<core::Page>(options.pages),
                      .protocol = options.protocol,
                      .placement = options.placement,
                      .requests = static_cast<std::uint16_t>(ranks * core::max_waiters),  // all threads of all others
                      .pins = core::max_pins,
                      .hold = options.hold,
                      .absence = 500 * options.hold};
}

core::SyncConfig sync_config(const net::Mesh& mesh, std::size_t ranks) {
  return core::SyncConfig{.self = static_cast<core::Node>(mesh.rank), .nodes = static_cast<std::uint8_t>(ranks)};
}

}  // namespace

Node::Node(net::Mesh mesh, const Options& options, telemetry::Publisher& publisher)
    : mesh_(std::move(mesh)),
      ranks_(mesh_.links.empty() ? 1 : static_cast<int>(mesh_.links.size())),
      options_(options),
      all_signals_(ipc::all_signals()),
      nothing_(options.page_size),
      publisher_(publisher),
      core_(core_config(mesh_, options, static_cast<std::size_t>(ranks_))),
      sync_(sync_config(mesh_, static_cast<std::size_t>(ranks_))),
      sync_actions_(sync_config(mesh_, static_cast<std::size_t>(ranks_))),
      access_(options.pages),
      epoll_(ipc::check(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")),
      timer_(ipc::check(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK), "timerfd_create")),
      stop_(ipc::check(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd")) {
  if (mesh_.welcome.lanes > max_lanes)
    throw std::runtime_error("the job asks for more call lanes than this libdsm has");
  for (auto& word : seats_free_) word.store(~std::uint64_t{0}, std::memory_order_relaxed);
  lanes_free_.store(ranks_ > 1 ? ((1U << mesh_.welcome.lanes) - 1U) << 1U : 0U, std::memory_order_relaxed);
  add_to_poll_set(epoll_.get(), timer_.get(), timer_mark);
  add_to_poll_set(epoll_.get(), stop_.get(), stop_mark);
  if (!mesh_.session.empty()) add_to_poll_set(epoll_.get(), mesh_.coordinator->fd(), daemon_mark);
  const auto add_port = [this](std::unique_ptr<net::Channel> channel, std::size_t peer, std::size_t lane) {
    auto port = std::make_unique<Port>();
    port->channel = std::move(channel);
    port->peer = static_cast<core::Node>(peer);
    port->lane = static_cast<core::Lane>(lane);
    port->index = static_cast<std::uint32_t>(ports_.size());
    add_to_poll_set(epoll_.get(), port->channel->fd(), port->index);
    ports_.push_back(std::move(port));
  };
  const auto me = static_cast<std::size_t>(mesh_.rank);
  for (std::size_t peer = 0; peer < mesh_.links.size(); ++peer) {
    if (peer == me) {
      ports_.push_back(nullptr);
    } else {
      add_port(std::move(mesh_.links[peer].service), peer, 0);
    }
  }
  for (std::size_t peer = 0; peer < mesh_.links.size(); ++peer) {
    for (std::size_t i = 0; i < mesh_.welcome.lanes; ++i) {
      if (peer == me) {
        ports_.push_back(nullptr);
      } else {
        add_port(std::move(mesh_.links[peer].answers[i]), peer, i + 1);
      }
    }
  }
}

void Node::start(pager::Pager& pager) {
  pager_ = &pager;
  borders_max_ = pager.runs_max();
  const ipc::ScopedMask mask(all_signals_);  // inherited by the thread: signals are the application's
  service_ = std::thread([this] { serve(); });
  publisher_.set_state(telemetry::RankState::running);
}

void Node::finalize() {
  barrier();
  pager_->settle();
  for (const auto& word : seats_free_) {
    if (~word.load(std::memory_order_acquire) == 0) continue;
    std::fprintf(stderr,
                 "dsm: rank %d: dsm_finalize while another thread still uses the region or waits in a dsm_ call; join "
                 "it first\n",
                 mesh_.rank);
    std::abort();
  }
  Errand errand;
  begin(errand, [&] {
    net::FrameHeader bye{};
    bye.kind = static_cast<std::uint8_t>(net::FrameKind::bye);
    for (int peer = 0; peer < ranks_; ++peer) {
      if (peer != mesh_.rank) send(static_cast<core::Node>(peer), 0, false, bye, nullptr, errand);
    }
  });
  finalizing_.store(true, std::memory_order_release);
  const std::uint64_t one = 1;
  ipc::check(::write(stop_.get(), &one, sizeof one), "write to an eventfd");
  service_.join();
  publisher_.set_state(telemetry::RankState::finalized);
}

void Node::close_in_child() noexcept {
  if (mesh_.coordinator != nullptr) ::close(mesh_.coordinator->fd());
  for (const net::Link& link : mesh_.links) {
    for (const auto& channel : link.calls) ::close(channel->fd());
  }
  for (const auto& port : ports_) {
    if (port != nullptr) ::close(port->channel->fd());
  }
}

}  // namespace dsm::node
