#include "dsm/launch/job.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <string.h>

#include <algorithm>
#include <utility>

namespace dsm::launch {
Job::Job(Config config, Time now) : config_(std::move(config)), ranks_(config_.hosts.size()), agents_(config_.agents) {
  if (config_.timeout) timeout_at_ = now + *config_.timeout;
  start_by_ = now + config_.limits.start;
}

bool Job::is_elsewhere(int rank) const {
  return !config_.elsewhere.empty() && config_.elsewhere[static_cast<std::size_t>(rank)];
}

std::string Job::who(int rank) const {
  return fmt::format("rank {} ({})", rank, config_.hosts[static_cast<std::size_t>(rank)]);
}

bool Job::failed(const Rank& rank) const {
  if (!rank.status) return false;
  return code_of(*rank.status) != 0 || (rank.joined && !rank.finalized);
}

// ---- events
// -----------------------------------------------------------------------------------------------------------

void Job::agent_reached(const std::vector<int>& ranks) {
  for (const int rank : ranks) at(rank).reached = true;
}

void Job::started(int rank, pid_t pid) {
  at(rank).started = true;
  at(rank).pid = pid;
  if (std::all_of(ranks_.begin(), ranks_.end(), [](const Rank& r) { return r.started; })) start_by_.reset();
}

void Job::not_started(int rank, const std::string& step, int error, Time now) {
  const std::string text = strerrordesc_np(error) != nullptr ? strerrordesc_np(error) : fmt::format("error {}", error);
  const bool elsewhere = is_elsewhere(rank);
  start_by_.reset();
  if (step == "execve" && !config_.debugger.empty() && config_.debugged.value_or(rank) == rank) {
    fail({exit_trouble, rank,
          fmt::format("{}: cannot start {}: {} (install it there, or leave out --debug)", who(rank), config_.debugger,
                      text)},
         now);
  } else if (step == "chdir" && error == ENOENT) {
    fail({exit_trouble, rank, fmt::format("{}: the folder that --wdir names is not there", who(rank))}, now);
  } else if (step.substr(0, 4) != "exec") {
    fail({exit_trouble, rank, fmt::format("{}: {} failed: {}", who(rank), step, text)}, now);
  } else if (error == ENOENT && elsewhere) {
    fail({exit_not_found, rank,
          fmt::format("{}: program '{}' is not there, or the interpreter that it names (--send copies a program)",
                      who(rank), config_.program)},
         now);
  } else if (error == ENOENT) {
    // The file was there when it was looked up: what is missing is the interpreter that it names, or somebody took it
    // away.
    fail({exit_not_executable, rank,
          fmt::format("cannot execute '{}': {} (is the interpreter in its first line there?)", config_.program, text)},
         now);
  } else {
    fail({exit_not_executable, rank,
          fmt::format("{}cannot execute '{}': {}", elsewhere ? who(rank) + ": " : "", config_.program, text)},
         now);
  }
}

void Job::exited(int rank, int wait_status, bool stopped, bool out_of_memory, Time now) {
  Rank& r = at(rank);
  if (r.status) return;
  r.status = wait_status;
  r.stopped = stopped && !is_crash(wait_status);
  r.out_of_memory = out_of_memory;
  r.judge_at = now + config_.limits.settle;
  to_judge_.push_back(rank);
  judge(now);
}

void Job::joined(int rank, Time now) {
  at(rank).joined = true;
  if (!first_join_) {
    first_join_ = now;
    first_joined_rank_ = rank;
    join_by_ = now + config_.limits.join;
  }
  if (stopping_) return;
  const auto ended = ranks_that([](const Rank& r) { return r.status && !r.joined; });
  if (!ended.empty() && to_judge_.empty()) {
    fail({exit_trouble, ended[0], never_joined(ended[0], {rank})}, now);
  }
}

void Job::welcomed(Time now) {
  welcomed_ = true;
  join_by_.reset();
  mesh_by_ = now + config_.limits.mesh;
}

void Job::reported(int rank, net::Report report, Time now) {
  using Phase = net::Report::Phase;
  Rank& r = at(rank);
  const auto peer = static_cast<int>(report.value);
  const bool peer_is_rank = report.value >= 0 && report.value < static_cast<std::int64_t>(ranks_.size());
  switch (report.phase) {
    case Phase::telemetry:
      return;
    case Phase::running:
      r.running = true;
      if (std::all_of(ranks_.begin(), ranks_.end(), [](const Rank& each) { return each.running; })) mesh_by_.reset();
      return;
    case Phase::finalized:
      r.finalized = true;
      if (!finalize_by_) finalize_by_ = now + config_.limits.finalize;
      return;
    case Phase::lost_peer:
    case Phase::bad_peer:
      if (!peer_is_rank || peer == rank) return;
      if (!r.secondary) r.blames = peer;
      r.secondary = true;
      suspect({report.phase == Phase::lost_peer ? Suspicion::Kind::lost : Suspicion::Kind::bad, peer, rank,
               now + config_.limits.settle});
      return;
  }
}

void Job::channel_ended(int rank, Time now) {
  Rank& r = at(rank);
  r.channel_ended = true;
  if (r.status) {
    judge(now);
  } else if (!r.finalized && !r.secondary) {
    suspect({Suspicion::Kind::silent, rank, rank, now + 2 * config_.limits.settle});
  }
}

void Job::agent_lost(const std::string& host, const std::vector<int>& ranks, const std::string& how, Time now) {
  --agents_;
  std::vector<int> lost;
  std::copy_if(ranks.begin(), ranks.end(), std::back_inserter(lost),
               [this](int rank) { return at(rank).started && !at(rank).status; });
  fail({exit_trouble, -1,
        fmt::format("the agent on host {} was lost ({}){}", host, how,
                    lost.empty() ? "" : ", and with it " + rank_list(lost))},
       now);
}

void Job::agent_failed(std::string why, Time now) {
  --agents_;
  trouble(std::move(why), now);
}

void Job::stacks_taken(Time now) {
  if (--telling_ == 0 && stacks_by_) stacks_by_ = now;
}

void Job::agent_done() { --agents_; }

void Job::interrupted(int signo, Time now) {
  if (interrupted_by_ != 0) {  // asked twice: no more patience
    kill_at_ = now;
    tick(now);
    return;
  }
  interrupted_by_ = signo;
  if (failure_ && !stopping_) ended_by_ = {.text = fmt::format("ended by {}", signal_name(signo))};
  stop(signo, now);
}

void Job::abort(std::string line, Time now) {
  aborted_ = true;
  trouble(std::move(line), now);
}

void Job::trouble(std::string line, Time now) { fail({exit_trouble, -1, std::move(line)}, now); }

// ---- what follows
// -----------------------------------------------------------------------------------------------------

std::vector<Job::Command> Job::take_commands() { return std::exchange(commands_, {}); }

Time Job::next_deadline() const {
  Time first = Time::max();
  for (const auto& deadline :
       {timeout_at_, stacks_by_, start_by_, join_by_, mesh_by_, finalize_by_, term_at_, kill_at_, gone_by_}) {
    if (deadline) first = std::min(first, *deadline);
  }
  for (const Suspicion& suspicion : suspicions_) first = std::min(first, suspicion.deadline);
  if (!to_judge_.empty()) first = std::min(first, at(to_judge_.front()).judge_at);
  return first;
}

bool Job::over() const {
  if (gave_up_) return true;
  if (agents_ > 0 || !to_judge_.empty()) return false;
  return stopping_ || suspicions_.empty();
}

int Job::exit_code() const {
  if (interrupted_by_ != 0) return 128 + interrupted_by_;
  return failure_ ? failure_->code : 0;
}

std::string Job::status() const {
  std::vector<std::string> parts;
  const auto say = [&](const char* what, const std::vector<int>& ranks) {
    if (!ranks.empty()) parts.push_back(fmt::format("{}: {}", what, rank_list(ranks)));
  };
  say("not started", ranks_that([](const Rank& r) { return !r.started; }));
  say("running", ranks_that([](const Rank& r) { return r.started && !r.status && !r.joined; }));
  say("in dsm_init", ranks_that([](const Rank& r) { return !r.status && r.joined && !r.running; }));
  say("sharing memory", ranks_that([](const Rank& r) { return !r.status && r.running && !r.finalized; }));
  say("out of dsm_finalize", ranks_that([](const Rank& r) { return !r.status && r.finalized; }));
  say("ended well", ranks_that([](const Rank& r) { return r.status && code_of(*r.status) == 0; }));
  say("failed", ranks_that([](const Rank& r) { return r.status && code_of(*r.status) != 0; }));
  return fmt::format("{}", fmt::join(parts, "; "));
}

std::vector<std::string> Job::summary() const {
  if (!failure_ && interrupted_by_ == 0) return {};
  std::vector<std::string> lines;
  const int first = failure_ ? failure_->rank : -1;
  const auto how = [](const Rank& r) {
    return code_of(*r.status) == 0 ? "left without dsm_finalize" : describe_status(*r.status, r.out_of_memory);
  };
  const bool first_has_ended = first >= 0 && at(first).status && !at(first).stopped;
  std::string text = failure_ ? failure_->text : fmt::format("ended by {}", signal_name(interrupted_by_));
  const auto stopped = ranks_that([](const Rank& r) { return r.status && r.stopped; });
  const std::string by_us = stopped.empty() ? "" : fmt::format("; dsmexec stopped {}", rank_list(stopped));
  lines.push_back(ended_by_ ? std::move(text) : text + by_us);
  if (ended_by_) lines.push_back(ended_by_->text + by_us);
  constexpr std::size_t most = 8;
  std::size_t more = 0;
  for (std::size_t i = 0; i < ranks_.size(); ++i) {
    const Rank& r = ranks_[i];
    const auto rank = static_cast<int>(i);
    if (!failed(r) || r.stopped || (rank == first && first_has_ended) || (ended_by_ && rank == ended_by_->rank))
      continue;
    if (lines.size() > most) {
      ++more;
    } else if (r.secondary) {
      lines.push_back(fmt::format("{} lost rank {} and then ended: {}", who(rank), r.blames, how(r)));
    } else {
      lines.push_back(fmt::format("{} failed too: {}", who(rank), how(r)));
    }
  }
  if (more > 0) lines.push_back(fmt::format("{} more ranks failed too", more));
  if (gave_up_) {
    const auto left = ranks_that([](const Rank& r) { return r.started && !r.status; });
    lines.push_back(left.empty() ? "some processes of the job could not be ended"
                                 : fmt::format("{} could not be ended", rank_list(left)));
  }
  return lines;
}

}  // namespace dsm::launch
