// The agents of a job: started, told what to start, heard, stopped; and what they leave.
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "dsm/launch/processes.hpp"
#include "dsm/launch/runner.hpp"
#include "dsm/launch/status.hpp"
#include "dsm/net/mesh.hpp"

namespace dsm::launch {
namespace {

constexpr milliseconds sweep_patience{5'000};
// Of ssh, or of srun, at one time: sshd drops bursts above ten (sshd_config(5), MaxStartups).
constexpr std::size_t max_starting = 8;

bool is_loopback(const std::string& address) { return is_this_machine(address, {}); }

}  // namespace

// ---- started, and told what to start

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
    log(fmt::format("{} on host {} started (pid {})",
                    agent.site().local ? "agent" : plan_.remote->name() + " for the agent", agent.host(), agent.pid()));
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
      if (plan_.options.ports.first != 0 &&
          (error.code() == std::errc::address_in_use || error.code() == std::errc::permission_denied)) {
        return job_.trouble(fmt::format("--port-range {}: none of these ports can be had at {} ({}); name others",
                                        net::to_text(plan_.options.ports), address, error.code().message()),
                            now);
      }
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

std::vector<Input::Reader> Runner::readers() {
  std::vector<Input::Reader> out;
  for (AgentConnection& agent : agents_) {
    Link* const link = agent.link();
    if (link != nullptr && agent.reads_input) out.push_back({link, &agent.input_under_way});
  }
  return out;
}

Start Runner::order_for(AgentConnection& agent) {
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
  if (options.encrypt) start.environment.push_back(fmt::format("{}=1", net::encrypt_variable));
  if (options.ports.first != 0) {
    start.environment.push_back(fmt::format("{}={}", net::ports_variable, net::to_text(options.ports)));
  }
  start.environment.insert(start.environment.end(), options.exported.begin(), options.exported.end());
  if (!agent.site().local) {
    start.working_directory = folder();
    start.lenient = options.wdir.empty();
    if (options.send) start.program = program_file_;
    start.program_hash = program_hash_;
    start.program_size = program_size_;
  }
  start.key = key_;
  if (options.input == Options::everybody) start.readers = start.ranks;
  if (agent.has(options.input)) start.readers = {options.input};
  start.debugger = command_of(options.debugger);
  if (!start.debugger.empty()) {
    start.environment.push_back(fmt::format("{}={}", net::patience_variable, debug_patience.count()));
    if (options.debugged == Options::everybody) start.debugged = start.ranks;
    if (agent.has(options.debugged)) start.debugged = {options.debugged};
  }
  agent.reads_input = !start.readers.empty();
  start.traceable = options.timeout.has_value();
  start.prompts = terminal && (options.output == "tag" || options.output == "plain");
  return start;
}

// ---- what they say

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
  if (what == Bytes::stack && from.has(rank)) {
    return say(fmt::format("rank {} ({}): {}", rank, from.host(), frame.body));
  }
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
  job_.agent_reached(from.site().ranks);
  if (m.version != agent_version) {
    return job_.trouble(fmt::format("the agent on host {} is of another version", from.host()), now);
  }
  if (stopping_ && !from.ordered) stop(from);
}

void Runner::on(AgentConnection& from, const NeedProgram&, Time) {
  log(fmt::format("host {}: sending the program, {} bytes", from.host(), program_size_));
  from.send_program(program_file_);
}

void Runner::on(AgentConnection& from, const NoFolder&, Time) {
  say(fmt::format("host {} has no folder {}: its ranks start in {} there (--wdir names another)", from.host(),
                  std::filesystem::current_path().string(), plan_.remote->first_folder()));
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

void Runner::on(AgentConnection& from, const StacksTaken& m, Time now) {
  if (m.without_gdb) log(fmt::format("host {}: where its ranks stand cannot be told without gdb", from.host()));
  job_.stacks_taken(now);
}

void Runner::on(AgentConnection& from, const InputTaken& m, Time) {
  from.input_under_way -= std::min(m.bytes, from.input_under_way);
}

void Runner::on(AgentConnection& from, const InputClosed&, Time) { from.reads_input = false; }

void Runner::on(AgentConnection& from, const Done& m, Time) {
  from.set_done();
  if (m.left > 0) say(fmt::format("{} processes of the job could not be ended on host {}", m.left, from.host()));
  job_.agent_done();
}

template <class Other>
void Runner::on(AgentConnection&, const Other&, Time now) {
  job_.trouble("the agent sent what only dsmexec says", now);
}

// ---- stopped, or lost

void Runner::carry_out(Time now) {
  for (const Job::Command& command : job_.take_commands()) {
    if (command.kind == Job::Command::Kind::stacks) {
      take_stacks(now);
      continue;
    }
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

void Runner::take_stacks(Time now) {
  for (AgentConnection& agent : agents_) {
    Link* const link = agent.link();
    if (link != nullptr && agent.ordered) {
      link->send(TakeStacks{});
    } else if (!agent.is_over()) {
      job_.stacks_taken(now);
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

void Runner::check_agents(Time now) {
  for (AgentConnection& agent : agents_) {
    const bool news = agent.check(now);
    // What a dead agent of this machine leaves behind falls to us; on another machine its guard sees to it.
    if (agent.site().local && !sweeping_ && (news || agent.has_crashed())) begin_sweep(now);
    if (!news) continue;
    if (agent.state() == AgentConnection::State::failed) {
      job_.agent_failed(agent.how(), now);
    } else {
      job_.agent_lost(agent.host(), agent.site().ranks, agent.how(), now);
    }
  }
}

void Runner::begin_sweep(Time now) {
  sweeping_ = true;
  sweep_until_ = now + sweep_patience;
}

bool Runner::sweep(Time now) {
  if (!sweeping_) return true;
  std::set<pid_t> spared = not_ours_;
  bool wait = false;
  for (const AgentConnection& agent : agents_) {
    const bool works = !agent.site().local && !agent.is_over();  // ssh or srun to an agent that is still at work
    const bool leaves = agent.state() == AgentConnection::State::done && !agent.has_ended() && now < leaving_until_;
    if ((works || leaves) && agent.pid() != 0) spared.insert(agent.pid());
    wait = wait || leaves;
  }
  const bool ends_by_itself = now < afterlife_until_;
  const std::size_t left =
      ends_by_itself ? descendants(::getpid(), spared).size() : signal_descendants(::getpid(), SIGKILL, spared);
  if (left == 0 && !wait) {
    sweeping_ = false;
  } else if (now >= sweep_until_) {
    say("some processes of the job could not be ended");
    sweeping_ = false;
  }
  return !sweeping_;
}

}  // namespace dsm::launch
