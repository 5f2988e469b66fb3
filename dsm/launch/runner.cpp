#include "dsm/launch/runner.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "dsm/launch/orphan_segments.hpp"
#include "dsm/launch/processes.hpp"
#include "dsm/launch/program.hpp"
#include "ipc/error.hpp"

namespace dsm::launch {
namespace {

using Clock = std::chrono::steady_clock;

constexpr milliseconds look_again{10};         // at /proc, while descendants are being ended
constexpr milliseconds leave_patience{1'000};  // from an agent's last word to its exit
constexpr milliseconds sample_patience{500};
constexpr milliseconds stall_patience{2'000};  // for a reader of our output, once the job was ended by force

sigset_t own_signals() {
  sigset_t set = ipc::signal_set({SIGCHLD, SIGTERM, SIGINT});
  struct sigaction hangup {};
  ::sigaction(SIGHUP, nullptr, &hangup);
  if (hangup.sa_handler != SIG_IGN) sigaddset(&set, SIGHUP);  // ignored under nohup: then it stays so
  return set;
}

// SIGTTIN and SIGTTOU blocked: input.hpp says why; writing our last words in the background shall not stop us either.
sigset_t take_signals() {
  const sigset_t set = own_signals();
  sigset_t blocked = set;
  sigaddset(&blocked, SIGTTIN);
  sigaddset(&blocked, SIGTTOU);
  ipc::check(::sigprocmask(SIG_BLOCK, &blocked, nullptr), "sigprocmask");
  ::signal(SIGPIPE, SIG_IGN);
  return set;
}

Coordinator::Config coordinator_config(const Runner::Plan& plan, const net::JobKey& key) {
  Coordinator::Config config;
  config.hosts = plan.hosts;
  config.credentials = {key, plan.options.encrypt};
  config.protocol = core::name(plan.options.protocol);
  config.home = core::name(plan.options.placement);
  config.pager = pager::name(plan.options.pager);
  config.size = plan.options.size;
  config.page_size = plan.options.page_size;
  config.open = plan.options.open_rendezvous;
  config.ports = plan.options.ports;
  if (plan.options.debugger != Debugger::none) config.join = debug_patience;
  return config;
}

// Which ranks are on machines where nobody has looked for the program.
std::vector<bool> elsewhere(const Runner::Plan& plan) {
  std::vector<bool> out(plan.hosts.size());
  for (const Site& site : plan.sites) {
    for (const int rank : site.ranks) out[static_cast<std::size_t>(rank)] = !site.local;
  }
  return out;
}

Limits limits_of(const Runner::Plan& plan) {
  Limits limits{.start = plan.remote->start_patience()};
  if (plan.options.debugger == Debugger::none) return limits;
  for (milliseconds* phase : {&limits.join, &limits.mesh, &limits.finalize}) *phase = debug_patience;
  return limits;
}

Job::Config job_config(const Runner::Plan& plan) {
  const Options& options = plan.options;
  return {.hosts = plan.hosts,
          .program = options.program,
          .debugger = std::string(name(options.debugger)),
          .debugged = options.debugged == Options::everybody ? std::nullopt : std::optional(options.debugged),
          .elsewhere = elsewhere(plan),
          .silence_advice = plan.remote->silence_advice(),
          .agents = static_cast<int>(plan.sites.size()),
          .timeout = options.timeout,
          .keep_going = options.keep_going,
          .limits = limits_of(plan)};
}

OwnFile own_file() {
  const std::string path = std::filesystem::read_symlink("/proc/self/exe").string();
  return {path, own_identity(), std::filesystem::file_size("/proc/self/exe")};
}

std::set<pid_t> present_children() {
  const auto list = descendants(::getpid());
  return {list.begin(), list.end()};
}

}  // namespace

Runner::Runner(Plan plan)
    : plan_(std::move(plan)),
      began_(Clock::now()),
      not_ours_(present_children()),
      signals_(take_signals()),
      fifo_(plan_.options.control.empty() ? nullptr : std::make_unique<ControlFifo>(plan_.options.control)),
      output_({plan_.options.output, plan_.hosts, STDOUT_FILENO, STDERR_FILENO,
               plan_.options.timestamp ? std::function(time_of_day) : nullptr}),
      job_(job_config(plan_), began_),
      key_(net::random_key()),
      coordinator_(
          [this] {
            auto config = coordinator_config(plan_, key_);
            config.spin_us = [this] { return spin_us(); };
            if (plan_.options.verbose) config.log = [this](const std::string& line) { log(line); };
            config.on_telemetry = [this](int rank, int segment) {
              if (Link* link = agent_of(rank).link()) link->send(Watch{rank, segment});
            };
            return config;
          }(),
          job_),
      viewers_(plan_.options.program),
      input_(STDIN_FILENO),
      pids_(plan_.hosts.size()),
      moved_at_(began_) {
  become_subreaper();
  const bool remote = std::any_of(plan_.sites.begin(), plan_.sites.end(), [](const Site& site) { return !site.local; });
  if (remote) own_ = own_file();
  if (remote && plan_.options.send) {
    program_file_ = (folder() / plan_.program).lexically_normal();
    program_hash_ = hash_of(program_file_);
    program_size_ = std::filesystem::file_size(program_file_);
  }
  for (const Site& site : plan_.sites) agents_.emplace_back(site, plan_.remote.get(), own_);
  start_agents(began_);
}

// Where ranks start.
std::filesystem::path Runner::folder() const {
  return std::filesystem::absolute(plan_.options.wdir.empty() ? "." : plan_.options.wdir).lexically_normal();
}

// Spinning pays only where a core would be idle otherwise: on every machine.
std::uint32_t Runner::spin_us() const {
  constexpr std::uint32_t with_cores_to_spare = 50;
  if (plan_.spin_us) return *plan_.spin_us;
  const bool spare = std::all_of(agents_.begin(), agents_.end(), [](const AgentConnection& agent) {
    return static_cast<std::size_t>(agent.cores) >= 2 * agent.site().ranks.size();
  });
  return spare ? with_cores_to_spare : 0;
}

AgentConnection& Runner::agent_of(int rank) {
  return *std::find_if(agents_.begin(), agents_.end(),
                       [rank](const AgentConnection& agent) { return agent.has(rank); });
}

// ---- viewers
// ----------------------------------------------------------------------------------------------------------

telemetry::Snapshot Runner::snapshot() const {
  telemetry::Snapshot all;
  all.job = viewers_.job();
  all.program = plan_.options.program;
  for (std::size_t rank = 0; rank < plan_.hosts.size(); ++rank) {
    telemetry::RankSample sample;
    sample.rank = static_cast<std::uint32_t>(rank);
    all.ranks.push_back(std::move(sample));
  }
  for (const AgentConnection& agent : agents_) telemetry::merge(all, agent.seen);
  for (telemetry::RankSample& sample : all.ranks) {
    if (sample.rank >= plan_.hosts.size()) continue;
    sample.host = plan_.hosts[sample.rank];
    sample.pid = pids_[sample.rank];
  }
  all.elapsed_us =
      static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - began_).count());
  return all;
}

void Runner::serve_viewers(Time now) {
  viewers_.serve();
  if (!viewers_.pending()) return;
  if (asking_ && !all_answered() && now < asked_at_ + sample_patience) return;
  if (asking_ || !ordered_) {
    // A late agent's host is busy, or its output waits for our reader: the last news must do.
    asking_ = false;
    viewers_.answer(snapshot());
  } else {
    asking_ = true;
    asked_at_ = now;
    ++asked_;
    for (AgentConnection& agent : agents_) {
      if (Link* link = agent.link()) link->send(Ask{asked_});
    }
  }
}

bool Runner::all_answered() const {
  return std::all_of(agents_.begin(), agents_.end(),
                     [this](const AgentConnection& agent) { return !agent.is_open() || agent.answered >= asked_; });
}

void Runner::take_orders(Time now) {
  if (!fifo_ || output_.full()) return;
  fifo_->serve(
      [&](ControlFifo::Order order) {
        if (order == ControlFifo::Order::abort) return job_.abort("ended by 'abort' from " + fifo_->path(), now);
        say(fmt::format("status after {:.1f} s: {}", std::chrono::duration<double>(now - began_).count(),
                        job_.status()));
      },
      [this](std::string_view) { say(fifo_->path() + ": no such order; there are status and abort"); });
}

// ---- the loop
// ---------------------------------------------------------------------------------------------------------

// Then Ctrl-C is for gdb.
bool Runner::is_held_by_gdb(int rank) {
  return plan_.options.debugger == Debugger::gdb && !stopping_ && job_.runs(rank) && agent_of(rank).link() != nullptr;
}

void Runner::read_signals(Time now) {
  signalfd_siginfo info{};
  while (signals_.read(info)) {
    if (info.ssi_signo == SIGINT && is_held_by_gdb(plan_.options.debugged)) {
      agent_of(plan_.options.debugged).link()->send(Interrupt{plan_.options.debugged});
      continue;
    }
    if (info.ssi_signo != SIGCHLD) {
      job_.interrupted(static_cast<int>(info.ssi_signo), now);
      continue;
    }
    for (const ipc::ChildExit& exit : ipc::reap_children()) {
      for (AgentConnection& agent : agents_) {
        if (exit.pid == agent.pid()) agent.ended(exit.status);
      }
    }
  }
}

void Runner::flush_output(Time now) {
  output_.flush();
  if (output_.written() != written_ || output_.empty() || !job_.hasty()) {
    written_ = output_.written();
    moved_at_ = now;
  } else if (now >= moved_at_ + stall_patience) {
    output_.abandon();
  }
  if (!told_output_ && !output_.trouble().empty()) {
    told_output_ = true;
    job_.trouble(output_.trouble(), now);
  }
}

int Runner::timeout_ms(Time now) const {
  Time until = std::min({job_.next_deadline(), coordinator_.next_deadline(), input_.next_deadline()});
  if (sweeping_) until = std::min(until, now + look_again);
  for (const AgentConnection& agent : agents_) until = std::min(until, agent.next_deadline(now));
  if (asking_) until = std::min(until, asked_at_ + sample_patience);
  if (viewers_.clients() > 0) until = std::min(until, now + milliseconds(1000));
  if (job_.hasty() && !output_.empty()) until = std::min(until, moved_at_ + stall_patience);
  if (until == Time::max()) return -1;
  const auto wait = std::chrono::ceil<milliseconds>(until - now).count();
  return static_cast<int>(std::clamp<std::int64_t>(wait, 0, 60'000));
}

void Runner::turn() {
  std::vector<pollfd> set;
  Time now = Clock::now();
  set.push_back({signals_.fd(), POLLIN, 0});
  for (AgentConnection& agent : agents_) {
    agent.flush(now);
    agent.add_to(set, !output_.full());
  }
  input_.add_to(set, readers(), now);
  output_.add_to(set);
  coordinator_.add_to(set);
  viewers_.add_to(set);
  if (fifo_ && !output_.full()) fifo_->add_to(set);
  if (::poll(set.data(), set.size(), timeout_ms(now)) == -1 && errno != EINTR) ipc::throw_errno("poll");

  now = Clock::now();
  read_signals(now);
  coordinator_.serve(now);
  hear_agents(now);
  check_agents(now);
  start_agents(now);
  give_orders(now);
  input_.serve(readers());
  serve_viewers(now);
  take_orders(now);
  flush_output(now);
  sweep(now);
  for (const AgentConnection& agent : agents_) {
    if (!ordered_ && agent.has_spoken()) job_.agent_reached(agent.site().ranks);
  }
  job_.tick(now, output_.full());
  carry_out(now);
}

int Runner::run() {
  give_orders(Clock::now());  // now already, if there is nobody but this machine
  while (!job_.over() || sweeping_) turn();
  finish();
  return job_.exit_code();
}

void Runner::finish() {
  fifo_.reset();
  viewers_.finish(snapshot());
  for (AgentConnection& agent : agents_) agent.close();  // one that still runs ends now, with everything
  for (const std::string& line : job_.summary()) say(line);
  // Whatever is left below us is the job's. An agent that is done ends by itself, and may take its time for it.
  Time now = Clock::now();
  begin_sweep(now);
  leaving_until_ = now + leave_patience;
  afterlife_until_ = now + plan_.remote->afterlife();
  moved_at_ = now;
  while (!sweep(now) || !output_.empty()) {
    std::vector<pollfd> set = {{signals_.fd(), POLLIN, 0}};
    output_.add_to(set);
    if (::poll(set.data(), set.size(), sweeping_ ? static_cast<int>(look_again.count()) : timeout_ms(Clock::now())) ==
            -1 &&
        errno != EINTR) {
      ipc::throw_errno("poll");
    }
    now = Clock::now();
    read_signals(now);
    flush_output(now);
  }
  remove_orphan_segments();  // of ranks whose agent was killed
}

}  // namespace dsm::launch
