#include "dsm/daemon/sessions.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace dsm::daemon {

// Why no session of this dsmd can have that member; empty if one could.
std::string Sessions::against(const net::Enter& enter) const {
  const net::Platform here = net::Platform::here();
  if (enter.platform.version != here.version) {
    return fmt::format(
        "this program's libdsm speaks version {} of the protocol, and this dsmd {}; build both from the same "
        "sources",
        enter.platform.version, here.version);
  }
  if (enter.members > static_cast<int>(core::max_ranks)) {
    return fmt::format("a session has at most {} members", core::max_ranks);
  }
  if (enter.platform.page_size > config_.region.page_size) {
    return fmt::format("its page size is {}, and this dsmd's sessions have {}; start dsmd with --page-size {}K",
                       enter.platform.page_size, config_.region.page_size, enter.platform.page_size / 1024);
  }
  if (config_.only == 0) return "";
  if (enter.members != config_.only) {
    return fmt::format("this dsmd serves a session of {} members (--nproc), and this program was told {}", config_.only,
                       enter.members);
  }
  if (ended_ != Ended::not_yet || (!sessions_.empty() && sessions_.front().name() != enter.session)) {
    return "this dsmd serves one session only (--once), and has it already";
  }
  return "";
}

Session& Sessions::session_for(const net::Enter& enter, Time now) {
  const auto found = std::find_if(sessions_.begin(), sessions_.end(), [&](const Session& session) {
    return session.name() == enter.session && (config_.only != 0 || !session.lets_go_of_name());
  });
  if (found != sessions_.end()) return *found;
  return sessions_.emplace_back(
      Session::Config{enter.session, enter.members, config_.nonce(), config_.region, config_.limits, config_.log}, now);
}

void Sessions::entered(GuestId guest, const net::Enter& enter, const std::string& address, Time now) {
  config_.log(fmt::format("{} (pid {}) comes for session '{}'", address, enter.pid, enter.session));
  const std::string wrong = against(enter);
  if (!wrong.empty()) {
    config_.log(fmt::format("session '{}': refused: {}", enter.session, wrong));
    commands_.push_back({guest, net::Refusal{wrong}});
    return;
  }
  Session& session = session_for(enter, now);
  session.entered(guest, enter, address, now);
  look(session);
  sweep();
}

template <class Tell>
void Sessions::tell(GuestId guest, const Tell& tell) {
  for (Session& session : sessions_) {
    if (!session.has(guest)) continue;
    tell(session);
    look(session);
    break;
  }
  sweep();
}

void Sessions::joined(GuestId guest, const net::Join& join, Time now) {
  tell(guest, [&](Session& session) {
    const bool before = session.started();
    session.joined(guest, join, now);
    if (before || !session.started()) return;
    config_.say(fmt::format("session '{}' has started", session.name()));
    if (config_.started) config_.started(session);
  });
}

void Sessions::reported(GuestId guest, net::Report report, Time now) {
  tell(guest, [&](Session& session) {
    session.reported(guest, report, now);
    if (report.phase != net::Report::Phase::telemetry || !config_.telemetry) return;
    config_.telemetry(session, guest, static_cast<int>(report.value));
  });
}

void Sessions::misbehaved(GuestId guest, const std::string& how) {
  tell(guest, [&](Session& session) { session.misbehaved(guest, how); });
}

void Sessions::gone(GuestId guest) {
  tell(guest, [&](Session& session) { session.gone(guest); });
}

void Sessions::give_up(const std::string& why) {
  for (Session& session : sessions_) {
    session.give_up(why);
    look(session);
  }
  sweep();
}

void Sessions::tick(Time now) {
  for (Session& session : sessions_) {
    session.tick(now);
    look(session);
  }
  sweep();
}

void Sessions::look(Session& session) {
  for (Command& command : session.take_commands()) commands_.push_back(std::move(command));
}

void Sessions::sweep() {
  sessions_.remove_if([this](const Session& session) {
    if (!session.over()) return false;
    const bool well = session.ended_well();
    if (!well && session.why().empty()) return true;  // it had not begun, and nobody is left of those who had come
    ended_ = well ? Ended::well : Ended::badly;
    losses_ = losses_ || (!well && session.started());
    config_.say(well ? fmt::format("session '{}' has ended well", session.name()) : session.why());
    if (config_.over) config_.over(session);
    return true;
  });
}

Time Sessions::next_deadline() const {
  Time first = Time::max();
  for (const Session& session : sessions_) first = std::min(first, session.next_deadline());
  return first;
}

}  // namespace dsm::daemon
