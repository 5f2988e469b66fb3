// dsm/launch/job_scene.hpp - what the tests of Job share: a job of a few ranks, and a clock that the test moves.
#pragma once
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include "dsm/launch/job.hpp"

namespace dsm::launch::testing {

using Phase = net::Report::Phase;

inline constexpr int exit_status(int code) { return code << 8; }  // as wait(2) has it
inline constexpr int death_by(int signo) { return signo; }

// A job of `n` ranks on hosts a, b, c ..., all started, and a clock that the test moves.
struct Scene {
  explicit Scene(int n, std::optional<milliseconds> timeout = std::nullopt, bool keep_going = false)
      : ranks(n), job(config(n, timeout, keep_going), now) {
    for (int rank = 0; rank < n; ++rank) job.started(rank, 100 + rank);
  }
  static Job::Config config(int n, std::optional<milliseconds> timeout, bool keep_going = false) {
    Job::Config out;
    for (int rank = 0; rank < n; ++rank) out.hosts.emplace_back(1, static_cast<char>('a' + rank));
    out.program = "prog";
    out.timeout = timeout;
    out.keep_going = keep_going;
    return out;
  }
  void after(int ms) {
    now += milliseconds(ms);
    job.tick(now);
  }
  void all_join() {
    for (int rank = 0; rank < ranks; ++rank) job.joined(rank, now);
    job.welcomed(now);
    for (int rank = 0; rank < ranks; ++rank) job.reported(rank, {Phase::running, 0}, now);
  }
  void exit(int rank, int status, bool stopped = false, bool out_of_memory = false) {
    job.exited(rank, status, stopped, out_of_memory, now);
  }
  // What a rank that joined does at its end: its connection ends too.
  void exit_and_close(int rank, int status, bool stopped = false) {
    job.channel_ended(rank, now);
    exit(rank, status, stopped);
  }
  std::string commands() {
    std::string out;
    for (const auto& c : job.take_commands()) {
      using Kind = Job::Command::Kind;
      const char* const words[] = {"", "kill", "stacks"};
      out += (out.empty() ? "" : " ") +
             (c.kind == Kind::signal ? signal_name(c.signo) : words[static_cast<std::size_t>(c.kind)]);
    }
    return out;
  }
  [[nodiscard]] std::string first_line() const {
    const auto lines = job.summary();
    return lines.empty() ? "" : lines[0];
  }

  Time now = Time{} + std::chrono::hours(1);
  int ranks;
  Job job;
};

}  // namespace dsm::launch::testing
