#include "dsm/launch/runner.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "dsm/launch/processes.hpp"
#include "ipc/error.hpp"
#include "ipc/spawn.hpp"

namespace dsm::launch {
namespace {

using Clock = std::chrono::steady_clock;

constexpr milliseconds look_again{10};  // at /proc, while descendants are being ended
constexpr milliseconds sweep_patience{5'000};
constexpr milliseconds agent_exit_patience{1'000};  // from the end of its connection to its exit
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
  config.key = key;
  config.protocol = core::name(plan.options.protocol);
  config.home = core::name(plan.options.placement);
  config.pager = pager::name(plan.options.pager);
  config.size = plan.options.size;
  config.page_size = plan.options.page_size;
  config.open = plan.options.open_rendezvous;
  return config;
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
      output_({plan_.options.output, plan_.hosts, STDOUT_FILENO, STDERR_FILENO}),
      job_({plan_.hosts, plan_.options.program, plan_.options.timeout, {}}, began_),
      key_(net::random_key()),
      coordinator_(
          [this] {
            auto config = coordinator_config(plan_, key_);
            config.spin_us = [this] { return spin_us(); };
            if (plan_.options.verbose) config.log = [this](const std::string& line) { log(line); };
            config.on_telemetry = [this](int rank, int segment) {
              if (link_) link_->send(Watch{rank, segment});
            };
            return config;
          }(),
          job_),
      viewers_(plan_.options.program),
      input_(STDIN_FILENO),
      pids_(plan_.hosts.size()),
      moved_at_(began_) {
  become_subreaper();
  start_agent();
}

// Spinning pays only where a core would be idle otherwise.
std::uint32_t Runner::spin_us() const {
  constexpr std::uint32_t with_cores_to_spare = 50;
  if (plan_.spin_us) return *plan_.spin_us;
  return static_cast<std::size_t>(agent_cores_) >= 2 * plan_.hosts.size() ? with_cores_to_spare : 0;
}

// ---- the agent
// --------------------------------------------------------------------------------------------------------

void Runner::start_agent() {
  int ends[2];
  ipc::check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), "socketpair");
  ipc::Fd ours(ends[0]);
  const ipc::Fd theirs(ends[1]);
  ipc::SpawnOptions options;
  options.program = "/proc/self/exe";
  options.arguments = {"dsmexec", "--agent"};
  options.standard_input = theirs.get();
  options.standard_output = theirs.get();
  options.new_process_group = true;  // what a terminal sends goes to dsmexec, which decides what is passed on
  agent_ = ipc::spawn(options);
  ipc::Fd copy(ipc::check(::fcntl(ours.get(), F_DUPFD_CLOEXEC, 3), "fcntl"));
  link_.emplace(std::move(ours), std::move(copy));
  log(fmt::format("agent on host {} started (pid {}); rendezvous on port {}", plan_.hosts.front(), agent_,
                  coordinator_.port()));
  send_start();
}

void Runner::send_start() {
  const Options& options = plan_.options;
  const bool terminal = ::isatty(STDOUT_FILENO) == 1;
  Start start;
  for (std::size_t rank = 0; rank < plan_.hosts.size(); ++rank) start.ranks.push_back(static_cast<int>(rank));
  start.hosts = plan_.hosts;
  start.program = plan_.program;
  start.arguments = {options.program};
  start.arguments.insert(start.arguments.end(), options.arguments.begin(), options.arguments.end());
  start.working_directory = options.wdir;
  start.environment = {fmt::format("DSMEXEC_RANKNUM={}", plan_.hosts.size()), "DSMEXEC_HOSTNAME=127.0.0.1",
                       fmt::format("DSMEXEC_PORTNUM={}", coordinator_.port())};
  if (terminal) start.environment.emplace_back("DSMEXEC_TTY=1");
  start.key = key_;
  start.stdin_rank = 0;
  start.prompts = terminal && (options.output == "tag" || options.output == "plain");
  link_->send(start);
}

void Runner::hear_agent(Time now) {
  if (!link_ || lost_at_ || output_.full()) return;
  const auto state = link_->receive([this, now](const Link::Frame& frame) { handle(frame, now); });
  if (state == Link::State::open) return;
  if (state == Link::State::broken) {
    log("the agent is not understood: " + link_->why());
    ::kill(agent_, SIGKILL);
  }
  if (agent_done_) {
    link_.reset();
  } else {
    lost_at_ = now;
  }
}

void Runner::handle(const Link::Frame& frame, Time now) {
  if (frame.header.kind == static_cast<std::uint8_t>(net::FrameKind::control)) {
    std::string why;
    const auto message = parse_message(frame.body, why);
    if (!message) return job_.trouble("the agent sent what dsmexec does not understand: " + why, now);
    return std::visit([this, now](const auto& m) { on(m, now); }, *message);
  }
  const auto what = static_cast<Bytes>(frame.header.op);
  if (what == Bytes::sample) {
    if (auto part = telemetry::decode(frame.body)) seen_ = std::move(*part);
    answered_ = std::max<std::uint64_t>(answered_, frame.header.a);
    return;
  }
  const auto rank = static_cast<int>(frame.header.a);
  if (!known(rank) || frame.header.b < 1 || frame.header.b > 2) return;
  const auto stream = static_cast<Stream>(static_cast<std::uint64_t>(frame.header.b));
  if (what == Bytes::lines) output_.lines(rank, stream, frame.body);
  if (what == Bytes::part) output_.part(rank, stream, frame.body);
  if (what == Bytes::shown) output_.shown(rank, stream, frame.body);
}

void Runner::on(const Hello& m, Time now) {
  agent_cores_ = m.cores;
  if (m.version == agent_version) return;
  job_.trouble(fmt::format("the agent on host {} is of another version", plan_.hosts.front()), now);
}

void Runner::on(const Started& m, Time) {
  if (!known(m.rank)) return;
  pids_[static_cast<std::size_t>(m.rank)] = m.pid;
  log(fmt::format("rank {} started (pid {})", m.rank, m.pid));
  job_.started(m.rank, static_cast<pid_t>(m.pid));
}

void Runner::on(const NotStarted& m, Time now) {
  if (known(m.rank)) job_.not_started(m.rank, m.step, m.error, now);
}

void Runner::on(const Exited& m, Time now) {
  if (!known(m.rank)) return;
  log(fmt::format("rank {} has ended: {}{}", m.rank, describe_status(m.status, m.out_of_memory),
                  m.stopped ? ", stopped by dsmexec" : ""));
  // Its last words are in our socket already, if it had any: they shall be known when its end is judged.
  coordinator_.serve(now);
  job_.exited(m.rank, m.status, m.stopped, m.out_of_memory, now);
}

void Runner::on(const InputTaken& m, Time) { input_.taken(m.bytes); }

void Runner::on(const InputClosed&, Time) { input_.close(); }

void Runner::on(const Done& m, Time) {
  agent_done_ = true;
  if (m.left > 0) say(fmt::format("{} processes of the job could not be ended", m.left));
  job_.agent_done();
}

template <class Other>
void Runner::on(const Other&, Time now) {
  job_.trouble("the agent sent what only dsmexec says", now);
}

// An agent whose connection ended too early: how it died is known as soon as it has been reaped.
void Runner::check_agent(Time now) {
  if (agent_done_ || agent_told_lost_) return;
  const bool died = agent_status_ && *agent_status_ != 0;
  if (died && !sweeping_) {
    sweeping_ = true;
    sweep_until_ = now + sweep_patience;
  }
  if (!lost_at_) return;
  if (!agent_status_) {
    if (now < *lost_at_ + agent_exit_patience) return;
    ::kill(agent_, SIGKILL);
  }
  agent_told_lost_ = true;
  if (!sweeping_) sweep_until_ = now + sweep_patience;
  sweeping_ = true;
  job_.agent_lost(plan_.hosts.front(), agent_status_ ? describe_status(*agent_status_) : "it closed its connection",
                  now);
}

bool Runner::sweep(Time now) {
  if (!sweeping_) return true;
  if (signal_descendants(::getpid(), SIGKILL, not_ours_) == 0) {
    sweeping_ = false;
  } else if (now >= sweep_until_) {
    say("some processes of the job could not be ended");
    sweeping_ = false;
  }
  return !sweeping_;
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
  telemetry::merge(all, seen_);
  for (telemetry::RankSample& sample : all.ranks) {
    if (!known(static_cast<int>(sample.rank))) continue;
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
  if (asking_ && answered_ < asked_ && now < asked_at_ + sample_patience) return;
  if (asking_ || !link_) {
    // A late agent's host is busy, or its output waits for our reader: the last news must do.
    asking_ = false;
    viewers_.answer(snapshot());
  } else {
    asking_ = true;
    asked_at_ = now;
    link_->send(Ask{++asked_});
  }
}

// ---- the loop
// ---------------------------------------------------------------------------------------------------------

void Runner::read_signals(Time now) {
  signalfd_siginfo info{};
  while (signals_.read(info)) {
    if (info.ssi_signo != SIGCHLD) {
      job_.interrupted(static_cast<int>(info.ssi_signo), now);
      continue;
    }
    for (const ipc::ChildExit& exit : ipc::reap_children()) {
      if (exit.pid == agent_) agent_status_ = exit.status;
    }
  }
}

void Runner::carry_out() {
  for (const Job::Command& command : job_.take_commands()) {
    if (!link_) continue;
    if (command.kind == Job::Command::Kind::kill) {
      log("ending all ranks by SIGKILL");
      link_->send(KillAll{});
    } else {
      log(fmt::format("stopping all ranks by {}", signal_name(command.signo)));
      link_->send(PassSignal{command.signo});
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
  if (lost_at_ && !agent_told_lost_) until = std::min(until, *lost_at_ + agent_exit_patience);
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
  if (link_ && !link_->flush() && !lost_at_) lost_at_ = now;
  if (link_ && !lost_at_) {
    link_->add_to(set, !output_.full());
    input_.add_to(set, now);
  }
  output_.add_to(set);
  coordinator_.add_to(set);
  viewers_.add_to(set);
  if (::poll(set.data(), set.size(), timeout_ms(now)) == -1 && errno != EINTR) ipc::throw_errno("poll");

  now = Clock::now();
  read_signals(now);
  coordinator_.serve(now);
  hear_agent(now);
  check_agent(now);
  if (link_ && !lost_at_) input_.serve(*link_);
  serve_viewers(now);
  flush_output(now);
  sweep(now);
  job_.tick(now, output_.full());
  carry_out();
}

int Runner::run() {
  while (!job_.over() || sweeping_) turn();
  finish();
  return job_.exit_code();
}

void Runner::finish() {
  link_.reset();  // an agent that still runs ends now, with everything
  viewers_.finish(snapshot());
  for (const std::string& line : job_.summary()) say(line);
  // Whatever is left below us is the job's: the agent, when it is done but not reaped yet, ends by itself.
  Time now = Clock::now();
  sweeping_ = true;
  sweep_until_ = now + sweep_patience;
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
}

}  // namespace dsm::launch
