#include "dsm/launch/runner.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "dsm/launch/processes.hpp"
#include "dsm/launch/program.hpp"
#include "ipc/error.hpp"
#include "ipc/spawn.hpp"

namespace dsm::launch {
namespace {

using Clock = std::chrono::steady_clock;

constexpr milliseconds look_again{10};  // at /proc, while descendants are being ended
constexpr milliseconds sweep_patience{5'000};
constexpr std::size_t max_starting = 8;  // ssh at one time: sshd drops bursts above ten (sshd_config(5), MaxStartups)
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

// Which ranks are on machines where nobody has looked for the program.
std::vector<bool> elsewhere(const Runner::Plan& plan) {
  std::vector<bool> out(plan.hosts.size());
  for (const Site& site : plan.sites) {
    for (const int rank : site.ranks) out[static_cast<std::size_t>(rank)] = !site.local;
  }
  return out;
}

Job::Config job_config(const Runner::Plan& plan) {
  return {.hosts = plan.hosts,
          .program = plan.options.program,
          .elsewhere = elsewhere(plan),
          .agents = static_cast<int>(plan.sites.size()),
          .timeout = plan.options.timeout};
}

OwnFile own_file() {
  const std::string path = std::filesystem::read_symlink("/proc/self/exe").string();
  return {path, hash_of("/proc/self/exe"), std::filesystem::file_size("/proc/self/exe")};
}

bool is_loopback(const std::string& address) { return is_this_machine(address, {}); }

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
  for (const Site& site : plan_.sites) agents_.emplace_back(site, plan_.options.ssh, own_);
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

// ---- agents: started, and told what to start

void Runner::start_agents(Time now) {
  if (stopping_) return;
  auto starting =
      static_cast<std::size_t>(std::count_if(agents_.begin(), agents_.end(), [](const AgentConnection& agent) {
        return !agent.site().local && agent.state() == AgentConnection::State::starting;
      }));
  for (AgentConnection& agent : agents_) {
    if (!agent.start_due(now) || (!agent.site().local && starting >= max_starting)) continue;
    agent.start(now);
    starting += agent.site().local ? 0 : 1;
    log(fmt::format("{} on host {} started (pid {})", agent.site().local ? "agent" : "ssh for the agent", agent.host(),
                    agent.pid()));
  }
}

// The address of this machine that the agent's ranks are to connect to: the one that --iface names, or by which their
// machine has seen us. Ranks here, too, are seen by others at the address from which they connect: that must not be the
// loopback if there are others.
std::string Runner::address_for(const AgentConnection& agent) const {
  if (!plan_.options.interface.empty()) return plan_.options.interface;
  const auto reaches_others = [](const AgentConnection& each) {
    return !each.site().local && !each.caller.empty() && !is_loopback(each.caller);
  };
  if (reaches_others(agent)) return agent.caller;
  const auto other = std::find_if(agents_.begin(), agents_.end(), reaches_others);
  if (other != agents_.end()) return other->caller;
  return agent.caller.empty() ? "127.0.0.1" : agent.caller;
}

void Runner::give_orders(Time now) {
  const bool all =
      std::all_of(agents_.begin(), agents_.end(), [](const AgentConnection& agent) { return agent.is_open(); });
  if (ordered_ || stopping_ || !all) return;
  ordered_ = true;
  for (AgentConnection& agent : agents_) {
    const std::string address = address_for(agent);
    if (!agent.site().local && agent.caller.empty() && is_loopback(address)) {
      return job_.trouble(fmt::format("host {} does not say from where it was reached: name an address of this machine "
                                      "that it can connect to, by --iface ADDRESS",
                                      agent.host()),
                          now);
    }
    try {
      const std::uint16_t port = coordinator_.listen(address);
      log(fmt::format("host {}: rendezvous at {}, port {}", agent.host(), address, port));
    } catch (const std::system_error& error) {
      return job_.trouble(
          fmt::format("cannot listen at {}, where host {} shall reach this machine: {} (--iface ADDRESS "
                      "names another address)",
                      address, agent.host(), error.code().message()),
          now);
    }
  }
  for (AgentConnection& agent : agents_) {
    agent.ordered = true;
    if (Link* link = agent.link()) link->send(order_for(agent));
  }
}

Start Runner::order_for(const AgentConnection& agent) {
  const Options& options = plan_.options;
  const bool terminal = ::isatty(STDOUT_FILENO) == 1;
  const std::string address = address_for(agent);
  Start start;
  start.ranks = agent.site().ranks;
  for (const int rank : start.ranks) start.hosts.push_back(plan_.hosts[static_cast<std::size_t>(rank)]);
  start.program = plan_.program;
  start.arguments = {options.program};
  start.arguments.insert(start.arguments.end(), options.arguments.begin(), options.arguments.end());
  start.working_directory = options.wdir;
  start.environment = {fmt::format("DSMEXEC_RANKNUM={}", plan_.hosts.size()), "DSMEXEC_HOSTNAME=" + address,
                       fmt::format("DSMEXEC_PORTNUM={}", coordinator_.listen(address))};
  if (terminal) start.environment.emplace_back("DSMEXEC_TTY=1");
  start.environment.insert(start.environment.end(), options.exported.begin(), options.exported.end());
  if (!agent.site().local) {
    start.working_directory = folder();
    start.lenient = options.wdir.empty();
    if (options.send) start.program = program_file_;
    start.program_hash = program_hash_;
    start.program_size = program_size_;
  }
  start.key = key_;
  start.stdin_rank = agent.has(0) ? 0 : -1;
  start.prompts = terminal && (options.output == "tag" || options.output == "plain");
  return start;
}

// ---- agents: what they say

void Runner::hear_agents(Time now) {
  for (AgentConnection& agent : agents_) {
    if (output_.full()) {
      agent.not_heard(now);
      continue;
    }
    agent.hear(
        now, [&](const Link::Frame& frame) { handle(agent, frame, now); },
        [this](const std::string& line) { log(line); });
  }
}

void Runner::handle(AgentConnection& from, const Link::Frame& frame, Time now) {
  if (frame.header.kind == static_cast<std::uint8_t>(net::FrameKind::control)) {
    std::string why;
    const auto message = parse_message(frame.body, why);
    if (!message) return job_.trouble("the agent sent what dsmexec does not understand: " + why, now);
    return std::visit([&](const auto& m) { on(from, m, now); }, *message);
  }
  const auto what = static_cast<Bytes>(frame.header.op);
  if (what == Bytes::sample) {
    if (auto part = telemetry::decode(frame.body)) from.seen = std::move(*part);
    from.answered = std::max<std::uint64_t>(from.answered, frame.header.a);
    return;
  }
  const auto rank = static_cast<int>(frame.header.a);
  if (!from.has(rank) || frame.header.b < 1 || frame.header.b > 2) return;
  const auto stream = static_cast<Stream>(static_cast<std::uint64_t>(frame.header.b));
  if (what == Bytes::lines) output_.lines(rank, stream, frame.body);
  if (what == Bytes::part) output_.part(rank, stream, frame.body);
  if (what == Bytes::shown) output_.shown(rank, stream, frame.body);
}

void Runner::on(AgentConnection& from, const Hello& m, Time now) {
  from.cores = m.cores;
  from.caller = m.caller;
  from.set_open();
  if (m.version != agent_version) {
    return job_.trouble(fmt::format("the agent on host {} is of another version", from.host()), now);
  }
  if (stopping_) stop(from);
}

void Runner::on(AgentConnection& from, const NeedProgram&, Time) {
  log(fmt::format("host {}: sending the program, {} bytes", from.host(), program_size_));
  from.send_program(program_file_);
}

void Runner::on(AgentConnection& from, const NoFolder&, Time) {
  say(fmt::format("host {} has no folder {}: its ranks start in the home folder there (--wdir names another)",
                  from.host(), std::filesystem::current_path().string()));
}

void Runner::on(AgentConnection&, const Beat&, Time) {}

void Runner::on(AgentConnection& from, const Started& m, Time) {
  if (!from.has(m.rank)) return;
  pids_[static_cast<std::size_t>(m.rank)] = m.pid;
  log(fmt::format("rank {} started (pid {})", m.rank, m.pid));
  job_.started(m.rank, static_cast<pid_t>(m.pid));
}

void Runner::on(AgentConnection& from, const NotStarted& m, Time now) {
  if (from.has(m.rank)) job_.not_started(m.rank, m.step, m.error, now);
}

void Runner::on(AgentConnection& from, const Exited& m, Time now) {
  if (!from.has(m.rank)) return;
  log(fmt::format("rank {} has ended: {}{}", m.rank, describe_status(m.status, m.out_of_memory),
                  m.stopped ? ", stopped by dsmexec" : ""));
  // Its last words are in our socket already, if it had any: they shall be known when its end is judged.
  coordinator_.serve(now);
  job_.exited(m.rank, m.status, m.stopped, m.out_of_memory, now);
}

void Runner::on(AgentConnection&, const InputTaken& m, Time) { input_.taken(m.bytes); }

void Runner::on(AgentConnection&, const InputClosed&, Time) { input_.close(); }

void Runner::on(AgentConnection& from, const Done& m, Time) {
  from.set_done();
  if (m.left > 0) say(fmt::format("{} processes of the job could not be ended on host {}", m.left, from.host()));
  job_.agent_done();
}

template <class Other>
void Runner::on(AgentConnection&, const Other&, Time now) {
  job_.trouble("the agent sent what only dsmexec says", now);
}

void Runner::check_agents(Time now) {
  for (AgentConnection& agent : agents_) {
    const bool news = agent.check(now);
    // What a dead agent of this machine leaves behind falls to us; on another machine its guard sees to it.
    if (agent.site().local && !sweeping_ && (news || agent.has_crashed())) {
      sweeping_ = true;
      sweep_until_ = now + sweep_patience;
    }
    if (!news) continue;
    if (agent.state() == AgentConnection::State::failed) {
      job_.agent_failed(agent.how(), now);
    } else {
      job_.agent_lost(agent.host(), agent.site().ranks, agent.how(), now);
    }
  }
}

bool Runner::sweep(Time now) {
  if (!sweeping_) return true;
  std::set<pid_t> spared = not_ours_;  // ssh to machines where agents still work
  for (const AgentConnection& agent : agents_) {
    if (!agent.site().local && !agent.is_over() && agent.pid() != 0) spared.insert(agent.pid());
  }
  if (signal_descendants(::getpid(), SIGKILL, spared) == 0) {
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
      for (AgentConnection& agent : agents_) {
        if (exit.pid == agent.pid()) agent.ended(exit.status);
      }
    }
  }
}

void Runner::carry_out() {
  for (const Job::Command& command : job_.take_commands()) {
    const bool kill = command.kind == Job::Command::Kind::kill;
    log(kill ? "ending all ranks by SIGKILL" : fmt::format("stopping all ranks by {}", signal_name(command.signo)));
    stopping_ = true;
    for (AgentConnection& agent : agents_) {
      Link* const link = agent.link();
      if (!agent.ordered) {
        stop(agent);
      } else if (link != nullptr && kill) {
        link->send(KillAll{});
      } else if (link != nullptr) {
        link->send(PassSignal{command.signo});
      }
    }
  }
}

// An agent that has started nothing. One that has not even spoken is ended with its connection.
void Runner::stop(AgentConnection& agent) {
  if (Link* link = agent.link()) {
    link->send(KillAll{});
  } else if (!agent.is_over()) {
    agent.give_up();
    job_.agent_done();
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
  AgentConnection& reader = agent_of(0);  // of our standard input
  if (reader.link() != nullptr && reader.ordered) input_.add_to(set, now);
  output_.add_to(set);
  coordinator_.add_to(set);
  viewers_.add_to(set);
  if (::poll(set.data(), set.size(), timeout_ms(now)) == -1 && errno != EINTR) ipc::throw_errno("poll");

  now = Clock::now();
  read_signals(now);
  coordinator_.serve(now);
  hear_agents(now);
  check_agents(now);
  start_agents(now);
  give_orders(now);
  if (Link* link = reader.link(); link != nullptr && reader.ordered) input_.serve(*link);
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
  viewers_.finish(snapshot());
  agents_.clear();  // an agent that still runs ends now, with everything
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
