// What a Job makes of what it is told: who failed first, which deadline is past, and when all ranks are to be ended.
#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <utility>

#include "dsm/launch/job.hpp"

namespace dsm::launch {
namespace {

std::string seconds(milliseconds time) { return fmt::format("{:g} s", static_cast<double>(time.count()) / 1000); }

}  // namespace

std::string Job::never_joined(int rank, const std::vector<int>& waiting) const {
  return fmt::format("{} ended without dsm_init ({}), and {} {} for it there", who(rank),
                     describe_status(*at(rank).status, at(rank).out_of_memory), rank_list(waiting),
                     waiting.size() == 1 ? "waits" : "wait");
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

}  // namespace dsm::launch
