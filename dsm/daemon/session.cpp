#include "dsm/daemon/session.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "dsm/launch/coordinator.hpp"

namespace dsm::daemon {
namespace {

std::string seconds(milliseconds time) { return fmt::format("{:g} s", static_cast<double>(time.count()) / 1000); }

bool is_loopback(const std::string& address) { return address == "::1" || address.rfind("127.", 0) == 0; }

}  // namespace

Session::Session(Config config, Time now)
    : config_(std::move(config)),
      places_(static_cast<std::size_t>(config_.members)),
      gather_by_(now + config_.limits.gather) {}

int Session::rank_of(GuestId guest) const {
  for (std::size_t rank = 0; rank < places_.size(); ++rank) {
    if (places_[rank] && places_[rank]->here && places_[rank]->guest == guest) return static_cast<int>(rank);
  }
  return -1;
}

std::string Session::who(int rank) const {
  return fmt::format("rank {} ({}, pid {})", rank, at(rank).address, at(rank).pid);
}

int Session::count() const {
  return static_cast<int>(
      std::count_if(places_.begin(), places_.end(), [](const auto& place) { return place.has_value(); }));
}

int Session::first_that(bool Member::*is_not) const {
  for (std::size_t rank = 0; rank < places_.size(); ++rank) {
    if (places_[rank] && places_[rank]->here && !((*places_[rank]).*is_not)) return static_cast<int>(rank);
  }
  return -1;
}

void Session::log(const std::string& line) const { config_.log(title() + ": " + line); }

// ---- gathering ----

// Why this one cannot be a member now; empty if it can.
std::string Session::against(const net::Enter& enter, const std::string& address) const {
  if (enter.members != config_.members) {
    return fmt::format(
        "it has {} members, as the first of them said, and this program was told {}; say the same number "
        "everywhere",
        config_.members, enter.members);
  }
  if (started_ || count() == config_.members) {
    return fmt::format("its {} members have come already{}; wait until it is over, or choose another name",
                       config_.members, started_ ? ", and it runs" : "");
  }
  if (!platform_) return "";
  const std::string differs = net::difference(*platform_, enter.platform, "that of its first member");
  if (!differs.empty()) return "this program cannot take part: " + differs;
  const auto other = std::find_if(places_.begin(), places_.end(), [](const auto& place) { return place.has_value(); });
  if (other != places_.end() && is_loopback((*other)->address) != is_loopback(address)) {
    return fmt::format(
        "this program comes from {}, and another member from {}, and they could not reach each other; name "
        "dsmd's host by its address in the network, everywhere",
        address, (*other)->address);
  }
  return "";
}

void Session::refuse(GuestId guest, const std::string& why) {
  log("refused: " + why);
  commands_.push_back({guest, net::Refusal{why}});
}

void Session::entered(GuestId guest, const net::Enter& enter, const std::string& address, Time now) {
  const std::string wrong = against(enter, address);
  if (!wrong.empty()) return refuse(guest, wrong);
  if (!platform_) platform_ = enter.platform;
  const auto place = std::find(places_.begin(), places_.end(), std::nullopt);
  const auto rank = static_cast<int>(place - places_.begin());
  *place = Member{guest, address, enter.pid, enter.cores, 0, now + config_.limits.open};
  const auto patience = std::chrono::ceil<std::chrono::seconds>(config_.limits.gather);
  commands_.push_back({guest, net::Place{rank, config_.nonce, std::max(1, static_cast<int>(patience.count()))}});
  log(fmt::format("{} has come, {} of {}", who(rank), count(), config_.members));
}

void Session::joined(GuestId guest, const net::Join& join, Time now) {
  const int rank = rank_of(guest);
  if (started_ || join.rank != rank || at(rank).port != 0) return misbehaved(guest, "it sent a Join that cannot be");
  at(rank).port = join.mesh_port;
  const auto ready = [](const auto& place) { return place && place->port != 0; };
  if (std::all_of(places_.begin(), places_.end(), ready)) start(now);
}

// Spinning pays only where a core would be idle otherwise: on every machine.
std::uint32_t Session::spin_us() const {
  constexpr std::uint32_t with_cores_to_spare = 50;
  std::map<std::string, int> members;
  for (const auto& member : places_) ++members[member->address];
  const bool spare = std::all_of(places_.begin(), places_.end(),
                                 [&](const auto& member) { return member->cores >= 2 * members[member->address]; });
  return spare ? with_cores_to_spare : 0;
}

void Session::start(Time now) {
  net::Welcome welcome;
  for (const auto& member : places_) welcome.peers.push_back({member->address, member->port});
  welcome.protocol = core::name(config_.region.protocol);
  welcome.home = core::name(config_.region.placement);
  welcome.pager = pager::name(config_.region.pager);
  welcome.size = config_.region.size;
  welcome.page_size = config_.region.page_size;
  welcome.lanes = launch::lanes_for(places_.size());
  welcome.spin_us = spin_us();
  for (const auto& member : places_) commands_.push_back({member->guest, welcome});
  started_ = true;
  gather_by_.reset();
  mesh_by_ = now + config_.limits.mesh;
}

// ---- started ----

void Session::reported(GuestId guest, net::Report report, Time now) {
  using Phase = net::Report::Phase;
  const int rank = rank_of(guest);
  if (!started_) return misbehaved(guest, "it sent a report before the session had started");
  Member& member = at(rank);
  const bool about_another =
      report.value >= 0 && report.value < static_cast<std::int64_t>(places_.size()) && report.value != rank;
  switch (report.phase) {
    case Phase::telemetry:
      return;
    case Phase::running:
      member.running = true;
      if (first_that(&Member::running) < 0) mesh_by_.reset();
      return;
    case Phase::finalized:
      member.finalized = true;
      if (!finalize_by_) finalize_by_ = now + config_.limits.finalize;
      log(who(rank) + " has finalized");
      return;
    case Phase::lost_peer:
    case Phase::bad_peer:
      log(fmt::format("{} says that it has lost rank {}", who(rank), report.value));
      if (!about_another || !at(static_cast<int>(report.value)).here) return;
      suspicions_.push_back(
          {rank, static_cast<int>(report.value), report.phase == Phase::bad_peer, now + config_.limits.settle});
      return;
  }
}

void Session::misbehaved(GuestId guest, const std::string& how) {
  if (started_) {
    commands_.push_back({guest, Verdict{title() + ": " + how}});
  } else {
    refuse(guest, how);
  }
  gone(guest, how);
}

void Session::gone(GuestId guest, const std::string& how) {
  const int rank = rank_of(guest);
  log(who(rank) + " has gone" + (how.empty() ? "" : ": " + how));
  if (!started_) {
    places_[static_cast<std::size_t>(rank)].reset();
    return;
  }
  Member& member = at(rank);
  member.here = false;
  if (member.finalized) return;
  // It has gone because it had lost another one, who is still here: that is what is wrong.
  const auto its = std::find_if(suspicions_.begin(), suspicions_.end(), [rank](const auto& s) { return s.by == rank; });
  if (its != suspicions_.end()) return blame(*its);
  const char* const when = !member.running ? "in dsm_init" : finalize_by_ ? "in dsm_finalize" : "before dsm_finalize";
  fail(fmt::format("{} was lost {}: {}", who(rank), when,
                   how.empty() ? "its process has ended, or its host is silent" : how));
}

void Session::blame(Suspicion suspicion) {
  if (suspicion.broke_protocol) {
    fail(fmt::format("{} was lost: it broke the protocol, says rank {}", who(suspicion.suspect), suspicion.by));
  } else {
    fail(fmt::format("{} and {} lost the connection between them", who(suspicion.by), who(suspicion.suspect)));
  }
}

// REQUIRES: started, and has not failed.
void Session::fail(const std::string& what) {
  why_ = title() + " is over: " + what;
  suspicions_.clear();
  mesh_by_.reset();
  finalize_by_.reset();
  for (auto& member : places_) {
    if (member->here && !member->finalized) commands_.push_back({member->guest, Verdict{why_}});
    member->here = false;
  }
}

void Session::give_up(const std::string& why) {
  if (over()) return;
  if (started_) return fail(why);
  why_ = title() + " is over: " + why;
  for (auto& place : places_) {
    if (place) commands_.push_back({place->guest, net::Refusal{why}});
    place.reset();
  }
}

void Session::tick(Time now) {
  const auto past = [now](const std::optional<Time>& deadline) { return deadline && now >= *deadline; };
  for (auto& place : places_) {
    if (started_ || !place || place->port != 0 || now < place->open_by) continue;
    refuse(place->guest, "this program did not open its part of the mesh within " + seconds(config_.limits.open));
    place.reset();
  }
  const auto due = std::find_if(suspicions_.begin(), suspicions_.end(), [now](const auto& s) { return now >= s.due; });
  if (due != suspicions_.end()) return blame(*due);
  if (past(gather_by_) && count() > 0) {
    give_up(fmt::format("only {} of its {} members have come within {}; start all of them anew", count(),
                        config_.members, seconds(config_.limits.gather)));
  } else if (past(mesh_by_)) {
    const int late = first_that(&Member::running);
    mesh_by_.reset();
    if (late < 0) return;
    fail(fmt::format("{} has not connected to the others within {} (dsm_init)", who(late),
                     seconds(config_.limits.mesh)));
  } else if (past(finalize_by_)) {
    const int late = first_that(&Member::finalized);
    finalize_by_.reset();
    if (late < 0) return;
    fail(fmt::format("{} did not come out of dsm_finalize within {} of the first", who(late),
                     seconds(config_.limits.finalize)));
  }
}

// ---- what follows ----

std::vector<Command> Session::take_commands() { return std::exchange(commands_, {}); }

Time Session::next_deadline() const {
  Time first = Time::max();
  const auto sooner = [&first](Time at) { first = std::min(first, at); };
  if (gather_by_ && count() > 0) sooner(*gather_by_);
  if (mesh_by_) sooner(*mesh_by_);
  if (finalize_by_) sooner(*finalize_by_);
  for (const Suspicion& suspicion : suspicions_) sooner(suspicion.due);
  for (const auto& place : places_) {
    if (!started_ && place && place->port == 0) sooner(place->open_by);
  }
  return first;
}

bool Session::over() const {
  if (!started_) return count() == 0;
  return std::none_of(places_.begin(), places_.end(), [](const auto& member) { return member->here; });
}

bool Session::ended_well() const {
  return started_ && std::all_of(places_.begin(), places_.end(), [](const auto& member) { return member->finalized; });
}

}  // namespace dsm::daemon
