#include "dsm/launch/coordinator.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace dsm::launch {
namespace {

constexpr std::size_t max_body = 64u << 10;  // what a rank says is short

const char* phase_text(net::Report::Phase phase) {
  using Phase = net::Report::Phase;
  switch (phase) {
    case Phase::telemetry:
      return "publishes its counters in segment";
    case Phase::running:
      return "runs";
    case Phase::finalized:
      return "has finalized";
    case Phase::lost_peer:
      return "lost its connection to rank";
    case Phase::bad_peer:
      return "says that the protocol was broken by rank";
  }
  return "";
}

}  // namespace

std::uint32_t lanes_for(std::size_t ranks) { return ranks <= 4 ? 4 : ranks <= 8 ? 2 : 1; }

Coordinator::Coordinator(Config config, Job& job)
    : config_(std::move(config)), job_(job), joined_(config_.hosts.size()) {
  if (!config_.open) return;
  Classroom::Options options;
  options.ranks = static_cast<int>(config_.hosts.size());
  options.log = config_.log;
  classroom_.emplace(std::move(options));
}

std::uint16_t Coordinator::listen(const std::string& address) {
  const auto known = acceptors_.find(address);
  if (known != acceptors_.end()) return known->second.port();
  return acceptors_.try_emplace(address, config_.credentials, acceptor_options(address)).first->second.port();
}

net::Acceptor::Options Coordinator::acceptor_options(const std::string& address) {
  net::Acceptor::Options options;
  options.address = address;
  options.ports = config_.ports;
  options.max_body = max_body;
  options.log = config_.log;
  if (config_.open) {
    options.other = [this](ipc::Fd fd, std::string first, std::string peer) {
      classroom_->admit(std::move(fd), std::move(first), std::move(peer), std::chrono::steady_clock::now());
    };
  }
  return options;
}

void Coordinator::log(const std::string& line) const {
  if (config_.log) config_.log(line);
}

void Coordinator::add_to(std::vector<pollfd>& set) const {
  for (const auto& each : acceptors_) each.second.add_to(set);
  if (classroom_) classroom_->add_to(set);
  for (const Guest& guest : guests_) {
    if (!guest.held) set.push_back({guest.channel.fd(), POLLIN, 0});
  }
}

Time Coordinator::next_deadline() const {
  Time first = Time::max();
  for (const auto& each : acceptors_) first = std::min(first, each.second.next_deadline());
  if (classroom_) first = std::min(first, classroom_->next_deadline());
  for (const Guest& guest : guests_) {
    if (guest.rank < 0 && !guest.held) first = std::min(first, guest.join_by);
  }
  return first;
}

void Coordinator::serve(Time now) {
  for (auto& each : acceptors_) {
    for (net::Acceptor::Arrival& arrival : each.second.serve()) {
      guests_.push_back(
          {std::move(arrival.channel), std::move(arrival.peer_address), now + config_.join, -1, false, 0});
    }
  }
  if (classroom_) classroom_->serve(now);
  for (auto guest = guests_.begin(); guest != guests_.end();) {
    if (guest->held || hear(*guest, now)) {
      ++guest;
      continue;
    }
    if (guest->rank >= 0) {
      log(fmt::format("rank {}: its connection has ended", guest->rank));
      job_.channel_ended(guest->rank, now);
    }
    guest = guests_.erase(guest);
  }
}

bool Coordinator::hear(Guest& guest, Time now) {
  for (;;) {
    net::FrameHeader header{};
    const std::uint8_t* body = nullptr;
    const net::Io io = guest.channel.receive(header, body);
    if (io == net::Io::again) {
      if (guest.rank >= 0 || now < guest.join_by) return true;
      log(guest.address + ": knows the key but did not join");
      return false;
    }
    if (io != net::Io::done) return false;
    if (guest.rank < 0) {
      std::string why;
      const auto message = net::read_control(header, body, &why);
      const auto* const request = message ? std::get_if<net::Join>(&*message) : nullptr;
      if (request == nullptr) {
        log(guest.address + ": said something else than join" + (why.empty() ? "" : ": " + why));
        return false;
      }
      if (!join(guest, *request, now)) return false;
      if (guest.held) return true;
      continue;
    }
    const auto report = net::read_report(header);
    if (!report) {
      log(fmt::format("rank {} sent what is no report", guest.rank));
      return false;
    }
    const bool with_value =
        report->phase != net::Report::Phase::running && report->phase != net::Report::Phase::finalized;
    log(fmt::format("rank {} {}{}", guest.rank, phase_text(report->phase),
                    with_value ? fmt::format(" {}", report->value) : ""));
    if (report->phase == net::Report::Phase::telemetry) {
      config_.on_telemetry(guest.rank, static_cast<int>(report->value));
    } else {
      job_.reported(guest.rank, *report, now);
    }
  }
}

// A fresh connection's buffer takes these few bytes at once, so that the blocking send does not block.
bool Coordinator::refuse(Guest& guest, const std::string& why) {
  log(guest.address + ": refused: " + why);
  (void)net::send(guest.channel, net::Refusal{why});
  return false;
}

bool Coordinator::join(Guest& guest, const net::Join& join, Time now) {
  const std::size_t ranks = config_.hosts.size();
  if (join.rank < 0 || static_cast<std::size_t>(join.rank) >= ranks) {
    return refuse(guest, fmt::format("{} is no rank of this job", join.rank));
  }
  const auto rank = static_cast<std::size_t>(join.rank);
  if (joined_[rank]) return refuse(guest, fmt::format("rank {} has joined already", rank));
  if (ranks > core::max_ranks) {
    // Answered by the end of the job, not by a Refusal that each of so many ranks would print.
    job_.trouble(fmt::format("refused: rank {} ({}) uses the DSM, which has at most {} ranks, and this job has {}",
                             rank, config_.hosts[rank], core::max_ranks, ranks),
                 now);
    guest.held = true;
    return true;
  }
  if (!platform_) platform_ = join.platform;
  std::string wrong = net::difference(*platform_, join.platform);
  if (wrong.empty() && join.platform.page_size > config_.page_size) {
    wrong = fmt::format("its page size is {}, this job's is {}", join.platform.page_size, config_.page_size);
  }
  if (!wrong.empty()) {
    job_.trouble(fmt::format("refused: rank {} ({}) cannot take part: {}", rank, config_.hosts[rank], wrong), now);
    return refuse(guest, wrong);
  }
  joined_[rank] = true;
  guest.rank = join.rank;
  guest.mesh_port = join.mesh_port;
  log(fmt::format("rank {} ({}) has joined from {}", rank, config_.hosts[rank], guest.address));
  job_.joined(join.rank, now);
  if (++joined_count_ == ranks) welcome(now);
  return true;
}

void Coordinator::welcome(Time now) {
  net::Welcome welcome;
  welcome.peers.resize(config_.hosts.size());
  welcome.protocol = config_.protocol;
  welcome.home = config_.home;
  welcome.pager = config_.pager;
  welcome.size = config_.size;
  welcome.page_size = config_.page_size;
  welcome.lanes = lanes_for(config_.hosts.size());
  welcome.spin_us = config_.spin_us();
  std::size_t here = 0;
  for (const Guest& guest : guests_) {
    if (guest.rank < 0) continue;
    welcome.peers[static_cast<std::size_t>(guest.rank)] = {guest.address, guest.mesh_port};
    ++here;
  }
  if (here != joined_count_) return;  // one has left again: the job has been told so, and will not go on
  for (Guest& guest : guests_) {
    // One that cannot be told has ended: its connection says so next.
    if (guest.rank >= 0) (void)net::send(guest.channel, welcome);
  }
  log("all ranks have joined");
  job_.welcomed(now);
}

}  // namespace dsm::launch
