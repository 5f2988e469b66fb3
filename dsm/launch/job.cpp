#include "dsm/launch/job.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <string.h>

#include <algorithm>
#include <utility>

namespace dsm::launch {
namespace {

std::string seconds(milliseconds time) { return fmt::format("{:g} s", static_cast<double>(time.count()) / 1000); }

}  // namespace

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

std::string Job::never_joined(int rank, const std::vector<int>& waiting) const {
  return fmt::format("{} ended without dsm_init ({}), and {} {} for it there", who(rank),
                     describe_status(*at(rank).status, at(rank).out_of_memory), rank_list(waiting),
                     waiting.size() == 1 ? "waits" : "wait");
}

bool Job::failed(const Rank& rank) const {
  if (!rank.status) return false;
  return code_of(*rank.status) != 0 || (rank.joined && !rank.finalized);
}

// An agent gets its order when all have said hello: who has not keeps the others waiting, too.
std::string Job::not_started_in_time() const {
  const auto silent = ranks_that([](const Rank& r) { return !r.reached; });
  const auto late = ranks_that([](const Rank& r) { return !r.started; });
  const int first = silent.empty() ? late[0] : silent[0];
  const std::string& host = config_.hosts[static_cast<std::size_t>(first)];
  if (silent.empty()) {
    return fmt::format("the agent on host {} has not started {} within {}", host, rank_list(late),
                       seconds(config_.limits.start));
  }
  const bool advised = is_elsewhere(first) && !config_.silence_advice.empty();
  return fmt::format("no word from host {} within {}{}{}", host, seconds(config_.limits.start), advised ? ": " : "",
                     advised ? config_.silence_advice : "");
}

template <class Test>
std::vector<int> Job::ranks_that(Test test) const {
  std::vector<int> out;
  for (std::size_t i = 0; i < ranks_.size(); ++i) {
    if (test(ranks_[i])) out.push_back(static_cast<int>(i));
  }
  return out;
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

// ---- judging
// ----------------------------------------------------------------------------------------------------------

void Job::fail(Failure failure, Time now) {
  if (stopping_) return;
  name(std::move(failure));
  stop(SIGTERM, now);
}

void Job::name(Failure failure) {
  if (failure_) ended_by_ = failure;
  note(std::move(failure));
}

void Job::note(Failure failure) {
  if (!failure_) failure_ = std::move(failure);
}

void Job::stop(int signo, Time now) {
  stopping_ = true;
  suspicions_.clear();
  start_by_.reset();
  join_by_.reset();
  mesh_by_.reset();
  finalize_by_.reset();
  timeout_at_.reset();
  stacks_by_.reset();
  commands_.push_back({Command::Kind::signal, signo});
  Time softly_until = now + config_.limits.grace;
  if (signo != SIGTERM && !term_at_) {
    term_at_ = softly_until;
    softly_until += config_.limits.grace;
  }
  if (!kill_at_ && !gone_by_) kill_at_ = softly_until;
}

void Job::judge(Time now) {
  while (!to_judge_.empty()) {
    const Rank& r = at(to_judge_.front());
    if (r.joined && !r.channel_ended && now < r.judge_at) return;
    const int rank = to_judge_.front();
    to_judge_.erase(to_judge_.begin());
    judge_exit(rank, now);
  }
}

void Job::judge_exit(int rank, Time now) {
  const Rank& r = at(rank);
  if (stopping_) return;
  if (r.stopped) return;  // by an agent that was told to go itself: that it is lost is what counts, and comes next
  if (r.secondary && failed(r)) return;  // the suspicion that it raised has its own deadline
  const int code = code_of(*r.status);
  if (code != 0) {
    Failure failure{code, rank, fmt::format("{} failed: {}", who(rank), describe_status(*r.status, r.out_of_memory))};
    const bool needed = (r.joined && !r.finalized) || waiting_to_join();
    if (config_.keep_going && !needed) return note(std::move(failure));
    fail(std::move(failure), now);
  } else if (r.joined && !r.finalized) {
    fail({exit_trouble, rank, fmt::format("{} left without dsm_finalize (exit code 0)", who(rank))}, now);
  } else if (!r.joined && waiting_to_join()) {
    fail({exit_trouble, rank, never_joined(rank, ranks_that([](const Rank& other) { return other.joined; }))}, now);
  }
}

void Job::suspect(Suspicion suspicion) {
  if (stopping_) return;
  const auto same = [&](const Suspicion& s) { return s.suspect == suspicion.suspect && s.kind == suspicion.kind; };
  if (std::none_of(suspicions_.begin(), suspicions_.end(), same)) suspicions_.push_back(suspicion);
}

void Job::check_suspicions(Time now) {
  for (std::size_t i = 0; i < suspicions_.size() && !stopping_; ++i) {
    if (now < suspicions_[i].deadline) continue;
    const Suspicion due = suspicions_[i];
    // An exit that waits to be judged will explain it, or not, within a moment.
    if (!to_judge_.empty()) {
      suspicions_[i].deadline = at(to_judge_.front()).judge_at;
      continue;
    }
    suspicions_.erase(suspicions_.begin() + static_cast<std::ptrdiff_t>(i--));
    blame(due, now);
  }
}

// Nothing has explained the suspicion in time. Whoever is blamed may itself blame another: the end of that chain
// counts.
void Job::blame(const Suspicion& suspicion, Time now) {
  int culprit = suspicion.suspect, last = suspicion.by;  // who blames the culprit
  for (std::size_t steps = 0; at(culprit).secondary && at(culprit).blames >= 0; ++steps) {
    last = std::exchange(culprit, at(culprit).blames);
    if (steps < ranks_.size()) continue;
    fail({exit_trouble, suspicion.by,
          fmt::format("{} and {} lost the connection between them", who(suspicion.by), who(suspicion.suspect))},
         now);
    return;
  }
  const Rank& by = at(suspicion.by);
  std::string text;
  if (suspicion.kind == Suspicion::Kind::bad) {
    text = fmt::format("{} broke the protocol, says rank {}", who(culprit), suspicion.by);
  } else if (suspicion.kind == Suspicion::Kind::silent) {
    // From another machine no news of its process is no news: that machine may be off.
    text = fmt::format("{} {}", who(culprit),
                       is_elsewhere(culprit)
                           ? "was lost: its connection has ended, and nothing is known of the end of its process"
                           : "left the job without dsm_finalize, though its process goes on");
  } else if (at(culprit).status) {
    text = fmt::format("{} lost its connection to {}, which has ended with {}", who(suspicion.by), who(culprit),
                       describe_status(*at(culprit).status, at(culprit).out_of_memory));
  } else {
    text = fmt::format("{} and {} lost the connection between them, though the process of rank {} goes on",
                       who(culprit), who(last), culprit);
  }
  const int code = by.status && code_of(*by.status) != 0 ? code_of(*by.status) : exit_trouble;
  fail({code, culprit, std::move(text)}, now);
}

void Job::check_phases(Time now) {
  const auto past = [now](const std::optional<Time>& deadline) { return deadline && now >= *deadline; };
  const Limits& limits = config_.limits;
  if (past(timeout_at_)) {
    timed_out_ = true;
    timeout_at_.reset();
    name({exit_timeout, -1, fmt::format("timeout after {}", seconds(*config_.timeout))});
    commands_.push_back({Command::Kind::stacks});
    telling_ = agents_;
    stacks_by_ = now + limits.stacks;
  } else if (past(stacks_by_)) {
    stop(SIGTERM, now);
  } else if (past(start_by_)) {
    fail({exit_trouble, -1, not_started_in_time()}, now);
  } else if (past(join_by_)) {
    const auto late = ranks_that([](const Rank& r) { return !r.joined; });
    fail({exit_trouble, late[0],
          fmt::format("{} did not come to dsm_init within {} of the first ({}); the first that is missing: {}",
                      rank_list(late), seconds(limits.join), who(first_joined_rank_), who(late[0]))},
         now);
  } else if (past(mesh_by_)) {
    const auto late = ranks_that([](const Rank& r) { return !r.running && !r.status; });
    mesh_by_.reset();
    if (late.empty()) return;
    fail({exit_trouble, late[0],
          fmt::format("{} did not connect to the other ranks within {} (dsm_init); the first: {}", rank_list(late),
                      seconds(limits.mesh), who(late[0]))},
         now);
  } else if (past(finalize_by_)) {
    const auto late = ranks_that([](const Rank& r) { return r.joined && !r.finalized && !r.status; });
    finalize_by_.reset();
    if (late.empty()) return;
    fail({exit_trouble, late[0],
          fmt::format("{} did not come out of dsm_finalize within {} of the first; the first that is missing: {}",
                      rank_list(late), seconds(limits.finalize), who(late[0]))},
         now);
  }
}

void Job::tick(Time now, bool held_up) {
  judge(now);
  if (!stopping_) check_suspicions(now);
  if (!stopping_) check_phases(now);
  if (term_at_ && now >= *term_at_) {
    term_at_.reset();
    commands_.push_back({Command::Kind::signal, SIGTERM});
  }
  if (kill_at_ && now >= *kill_at_) {
    kill_at_.reset();
    term_at_.reset();
    commands_.push_back({Command::Kind::kill, SIGKILL});
    gone_by_ = now + config_.limits.killed;
  }
  if (gone_by_ && now >= *gone_by_) {
    if (held_up) {
      gone_by_ = now + config_.limits.killed;
    } else {
      gave_up_ = true;
      gone_by_.reset();
    }
  }
}

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
