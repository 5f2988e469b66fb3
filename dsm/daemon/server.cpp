#include "dsm/daemon/server.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "dsm/launch/orphan_segments.hpp"
#include "dsm/launch/status.hpp"
#include "dsm/net/address.hpp"
#include "ipc/error.hpp"

namespace dsm::daemon {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t max_body = sysv::max_frame;   // what a member says is shorter
constexpr std::size_t frames_per_turn = 256;        // of one agent, before others are heard
constexpr milliseconds time_per_turn{2};            // likewise, for some of what it may ask takes long
constexpr std::size_t unread_max = 16u << 20;       // bytes that may wait for one agent
constexpr std::size_t all_unread_max = 128u << 20;  // and for all: beyond it, the one for whom most waits is dropped
constexpr std::size_t pending_max = 16'384;         // strangers and guests in the handshake, if descriptors allow
constexpr milliseconds enter_patience{10'000};      // from the handshake of a guest to its Enter
constexpr milliseconds leave_patience{5'000};       // from its dismissal to its going

sigset_t take_signals() {
  const sigset_t set = ipc::stop_signals();
  ipc::check(::sigprocmask(SIG_BLOCK, &set, nullptr), "sigprocmask");
  return set;
}

net::Acceptor::Options door(const Options& options, std::function<void(const std::string&)> log) {
  net::Acceptor::Options out;
  out.address = options.listen;
  out.ports = {options.port, options.port};
  out.pending = pending_max;
  out.max_body = max_body;
  out.log = std::move(log);
  return out;
}

}  // namespace

Server::Server(const Options& options, const net::JobKey& key)
    : verbose_(options.verbose),
      once_(options.members != 0),
      signals_(take_signals()),
      turned_away_([this](const std::string& line) { log(line); }),
      door_(key, door(options, [this](const std::string& line) { turned_away_.add(line, Clock::now()); })),
      sessions_(
          {.region = options,
           .limits = {.gather = options.gather},
           .only = options.members,
           .nonce = [] { return net::random_key(); },
           .say = [this](const std::string& line) { say(line); },
           .log = [this](const std::string& line) { log(line); },
           .started = [this](const Session& session) { open_window(session); },
           .telemetry = [this](const Session& session, GuestId guest, int segment) { watch(session, guest, segment); },
           .over = [this](const Session& session) { windows_.erase(&session); }}),
      sysv_({.limits = {.segments = {.max_pages = options.shm_size / sysv::page_bytes}},
             .seconds = [] { return static_cast<std::int64_t>(::time(nullptr)); },
             .say = [this](const std::string& line) { say(line); },
             .log = [this](const std::string& line) { log(line); }}) {}

// Whoever reads this may be slow, or have stopped: that must not stop the sessions. What poll(2) calls ready takes a line
// (PIPE_BUF bytes at least) without blocking.
void Server::say(const std::string& line) {
  pollfd err{STDERR_FILENO, POLLOUT, 0};
  if (::poll(&err, 1, 0) != 1 || (err.revents & POLLOUT) == 0) {
    ++unsaid_;
    return;
  }
  std::string text;
  if (const std::size_t lost = std::exchange(unsaid_, 0); lost != 0) {
    text = fmt::format("dsmd: {} lines are left out here, for nobody read them\n", lost);
  }
  text += fmt::format("dsmd: {}\n", line);
  if (::write(STDERR_FILENO, text.data(), text.size()) < 0) ++unsaid_;
}

void Server::log(const std::string& line) {
  if (verbose_) say(line);
}

bool Server::run() {
  while (!ending_ || !guests_.empty()) turn();
  return !once_ || sessions_.served_well();
}

int Server::timeout_ms(Time now) const {
  Time until =
      std::min({door_.next_deadline(), turned_away_.next_deadline(), sessions_.next_deadline(), sysv_.next_deadline()});
  for (const auto& [id, guest] : guests_) {
    if (guest.more) return 0;
    if (!guest.entered || guest.dismissed) until = std::min(until, guest.until);
  }
  for (const auto& [session, window] : windows_) {
    if (window.watched()) until = std::min(until, now + milliseconds(1'000));
  }
  if (until == Time::max()) return -1;
  return static_cast<int>(std::clamp<std::int64_t>(std::chrono::ceil<milliseconds>(until - now).count(), 0, 60'000));
}

// Those who are here are heard before others are let in: when a member of a session that has just ended comes again, the
// end of that session is known.
void Server::turn() {
  std::vector<pollfd> set{{signals_.fd(), POLLIN, 0}};
  for (const auto& [id, guest] : guests_) {
    set.push_back({guest.channel.fd(), static_cast<short>(guest.out.empty() ? POLLIN : POLLIN | POLLOUT), 0});
  }
  for (const auto& [session, window] : windows_) window.add_to(set);
  if (!ending_) door_.add_to(set);
  if (::poll(set.data(), set.size(), timeout_ms(Clock::now())) == -1 && errno != EINTR) ipc::throw_errno("poll");
  const Time now = Clock::now();
  told_ = 0;
  read_signals();
  hear(now);
  sessions_.tick(now);
  sysv_.tick(now);
  turned_away_.tick(now);
  carry_out(now);
  hand_out(now);
  flush(now);
  for (auto& [session, window] : windows_) window.serve();
  if (sessions_.take_losses()) launch::remove_orphan_segments();  // of members here that were killed
  if (ending_) return;
  if (signo_ == 0 && !sessions_.served()) return take_in(now);
  ending_ = true;
  std::erase_if(guests_, [](const auto& each) { return !each.second.entered || each.second.agent; });
  for (auto& [id, guest] : guests_) dismiss(guest, now);
}

void Server::read_signals() {
  signalfd_siginfo info{};
  while (signals_.read(info)) {
    if (ending_) guests_.clear();  // asked twice: no more patience
    signo_ = static_cast<int>(info.ssi_signo);
    sessions_.give_up("dsmd was ended by " + launch::signal_name(signo_));
  }
}

void Server::open_window(const Session& session) {
  std::vector<Shown> members;
  for (int rank = 0; rank < session.members(); ++rank) members.push_back({session.address(rank), session.pid(rank)});
  try {
    windows_.try_emplace(&session, session.name(), members);
  } catch (const std::system_error& error) {
    say(fmt::format("session '{}' is not shown by dsmtop: {}", session.name(), error.what()));
  }
}

// Another machine's segment has a number that may be here, too, and another one's.
void Server::watch(const Session& session, GuestId guest, int segment) {
  const auto window = windows_.find(&session);
  const auto from = guests_.find(guest);
  if (window == windows_.end() || from == guests_.end()) return;
  if (net::local_address(from->second.channel.fd()).host != from->second.address) return;
  const std::string why = window->second.watch(session.rank_of(guest), segment);
  if (!why.empty()) log(fmt::format("session '{}': a member is shown without figures: {}", session.name(), why));
}

void Server::take_in(Time now) {
  for (net::Acceptor::Arrival& arrival : door_.serve()) {
    guests_.emplace(next_++, Guest{std::move(arrival.channel), std::move(arrival.peer_address), now + enter_patience});
  }
}

void Server::hear(Time now) {
  for (auto at = guests_.begin(); at != guests_.end();) {
    auto& [id, guest] = *at;
    if (hear(id, guest, now)) {
      ++at;
      continue;
    }
    sessions_.gone(id);
    sysv_.gone(id, "its connection ended", now);
    at = guests_.erase(at);
  }
}

bool Server::hear(GuestId id, Guest& guest, Time now) {
  guest.more = false;
  const Time begun = Clock::now();
  for (std::size_t frames = 0;; ++frames) {
    const bool enough = frames == frames_per_turn || told_ > all_unread_max || Clock::now() - begun >= time_per_turn;
    if (guest.agent && frames != 0 && enough) {
      guest.more = true;
      return !guest.dismissed || now < guest.until;
    }
    net::FrameHeader header{};
    const std::uint8_t* body = nullptr;
    const net::Io io = guest.channel.receive(header, body);
    if (io == net::Io::broken && !guest.dismissed) sessions_.misbehaved(id, "it sent what is no frame");
    if (io == net::Io::done && (guest.dismissed || take(id, guest, header, body, now))) continue;
    if (io != net::Io::again) return false;
    if (now < guest.until || (guest.entered && !guest.dismissed)) return true;
    if (!guest.entered) log(guest.address + ": knows the key but did not enter a session");
    return false;
  }
}

// False if no guest may say that.
bool Server::take(GuestId id, Guest& guest, const net::FrameHeader& header, const std::uint8_t* body, Time now) {
  const bool is_sysv = header.kind == static_cast<std::uint8_t>(net::FrameKind::sysv);
  if (is_sysv && once_ && !guest.entered) {
    refuse_sysv(guest, {body, header.length}, now);
    return true;
  }
  if (guest.agent || (is_sysv && !guest.entered)) return take_sysv(id, guest, header, body);
  if (const auto report = net::read_report(header); report && guest.entered) {
    sessions_.reported(id, *report, now);
    return true;
  }
  std::string why;
  const auto message = net::read_control(header, body, &why);
  if (message && !guest.entered && std::holds_alternative<net::Enter>(*message)) {
    guest.entered = true;
    sessions_.entered(id, std::get<net::Enter>(*message), guest.address, now);
    return true;
  }
  if (message && guest.entered && std::holds_alternative<net::Join>(*message)) {
    sessions_.joined(id, std::get<net::Join>(*message), now);
    return true;
  }
  log(guest.address + ": said what no member says now" + (why.empty() ? "" : ": " + why));
  sessions_.misbehaved(id, "it said what no member says now");
  return false;
}

// The time is that of the hearing, not of the turn: an agent's lease must have ended when its pages are given away, and
// it counts from when this was sent.
bool Server::take_sysv(GuestId id, Guest& guest, const net::FrameHeader& header, const std::uint8_t* body) {
  net::FrameHeader expected{};
  expected.length = header.length;
  expected.kind = static_cast<std::uint8_t>(net::FrameKind::sysv);
  if (std::memcmp(&header, &expected, sizeof header) != 0) {
    sysv_.gone(id, "it sent what no agent sends", Clock::now());
    return false;
  }
  guest.entered = guest.agent = true;
  const Time now = Clock::now();
  sysv_.heard(id, guest.address, {body, header.length}, now);
  hand_out(now);
  return true;
}

void Server::refuse_sysv(Guest& guest, std::span<const std::uint8_t> hello, Time now) {
  guest.entered = guest.agent = true;
  std::string why;
  const auto frame = sysv::decode(hello, why);
  if (const auto* question = frame ? std::get_if<sysv::Question>(&*frame) : nullptr) {
    guest.out.push(sysv::encode(sysv::Answer{
        .request = question->request,
        .error = ENOSYS,
        .text = "it serves one session only (--once), and no System V IPC; start one without --once for that"}));
  }
  dismiss(guest, now);
}

// An agent that has been ended is told why, and its connection closed when it has read that.
void Server::hand_out(Time now) {
  for (SysvHome::Command& command : sysv_.take_commands()) {
    const auto found = guests_.find(command.to);
    if (found == guests_.end() || found->second.dismissed) continue;
    told_ += command.frame.size();
    if (!command.frame.empty()) found->second.out.push(std::move(command.frame));
    if (command.end) dismiss(found->second, now);
  }
}

// An agent that was ended sees the end of file, and goes. It is not closed at once: see dismiss().
void Server::shut_if_over(Guest& guest) {
  if (!guest.agent || !guest.dismissed || !guest.out.empty() || std::exchange(guest.shut, true)) return;
  (void)::shutdown(guest.channel.fd(), SHUT_WR);  // it may have gone already
}

// Others may have waited for what an agent had that is dropped here: they are told, too.
void Server::flush(Time now) {
  for (bool again = true; again;) {
    again = false;
    std::size_t all = 0;
    auto most = guests_.end();
    for (auto at = guests_.begin(); at != guests_.end();) {
      auto& [id, guest] = *at;
      const net::Io io = guest.out.empty() ? net::Io::done : guest.out.flush(guest.channel);
      if (io == net::Io::done || (io == net::Io::again && guest.out.bytes() <= unread_max)) {
        shut_if_over(guest);
        all += guest.out.bytes();
        if (most == guests_.end() || guest.out.bytes() > most->second.out.bytes()) most = at;
        ++at;
        continue;
      }
      sysv_.gone(id, io == net::Io::again ? "it does not read what it is told" : "its connection ended", now);
      at = guests_.erase(at);
      again = true;
    }
    if (all > all_unread_max) {
      sysv_.gone(most->first, "it reads least of what all are told", now);
      guests_.erase(most);
      again = true;
    }
    hand_out(now);
  }
}

void Server::carry_out(Time now) {
  for (const Command& command : sessions_.take_commands()) {
    const auto found = guests_.find(command.to);
    if (found == guests_.end()) continue;
    Guest& guest = found->second;
    // One that cannot be told has gone: its connection says so next.
    if (const auto* place = std::get_if<net::Place>(&command.what)) {
      (void)net::send(guest.channel, *place);
    } else if (const auto* welcome = std::get_if<net::Welcome>(&command.what)) {
      (void)net::send(guest.channel, *welcome);
    } else {
      const auto* const refusal = std::get_if<net::Refusal>(&command.what);
      if (refusal != nullptr) (void)net::send(guest.channel, *refusal);
      if (refusal == nullptr) (void)net::send_verdict(guest.channel, std::get<Verdict>(command.what).why);
      dismiss(guest, now);
    }
  }
}

// Not closed at once: what it says meanwhile would then reset the connection, and what it was told could be lost.
void Server::dismiss(Guest& guest, Time now) {
  if (std::exchange(guest.dismissed, true)) return;
  guest.until = now + leave_patience;
}

}  // namespace dsm::daemon
