#include "dsm/launch/agent.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <type_traits>
#include <utility>

#include "dsm/launch/orphan_segments.hpp"
#include "dsm/launch/processes.hpp"
#include "ipc/error.hpp"

namespace dsm::launch {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t max_queued = 1u << 20;  // bytes to dsmexec, before the ranks must wait
constexpr std::size_t max_batch = 64u << 10;  // bytes
constexpr milliseconds prompt_after{500};
constexpr milliseconds linger{250};           // what a rank left running may end by itself
constexpr milliseconds leftover_grace{500};   // then, from SIGTERM to SIGKILL
constexpr milliseconds give_up_after{5'000};  // after the first SIGKILL
constexpr milliseconds look_again{10};        // /proc has no descriptor to wait on

// What gdb prints about a rank is a third stream of it.
constexpr ipc::LineMux::Token stack_mark = 3;
bool is_stack(ipc::LineMux::Token token) { return token % 4 == stack_mark; }

sigset_t agent_signals() { return ipc::signal_set({SIGCHLD, SIGTERM, SIGINT, SIGHUP}); }

// Where srun was called that started this process, srun(1); null: it was not srun.
const char* srun_address() { return std::getenv("SLURM_LAUNCH_NODE_IPADDR"); }

// Where the connection came from by which this machine was reached: from srun; or "client port server port", ssh(1).
// Srun brings the caller's environment along, and so may name another ssh's; ssh brings none.
std::string caller_address() {
  if (const char* const address = srun_address()) return address;
  const char* const connection = std::getenv("SSH_CONNECTION");
  const std::string text = connection != nullptr ? connection : "";
  return text.substr(0, text.find(' '));
}

}  // namespace

Agent::Agent(ipc::Fd in, ipc::Fd out, bool remote)
    : link_(std::move(in), std::move(out)),
      signals_(agent_signals()),
      remote_(remote),
      by_srun_(remote && srun_address() != nullptr),
      stacks_(usable_cores()) {
  link_.send(Hello{agent_version, usable_cores(), remote ? caller_address() : ""});
}

// ---- what dsmexec says
// ------------------------------------------------------------------------------------------------

void Agent::handle(const Link::Frame& frame) {
  silence_.heard(Clock::now());
  if (frame.header.kind == static_cast<std::uint8_t>(net::FrameKind::bytes)) {
    if (frame.header.op == static_cast<std::uint8_t>(Bytes::program)) return take_program(frame.body);
    if (frame.header.op != static_cast<std::uint8_t>(Bytes::input)) return;
    return feed_.put(frame.body);
  }
  std::string why;
  const auto message = parse_message(frame.body, why);
  if (!message) throw std::runtime_error("dsmexec sent what this agent does not understand: " + why);
  std::visit([this](const auto& m) { on(m); }, *message);
}

template <class Other>
void Agent::on(const Other&) {
  throw std::runtime_error("dsmexec sent what only an agent says");
}

void Agent::on(const PassSignal& signal) {
  // Who has ended by itself shall not be told of as stopped by us. A leader that has not been reaped keeps its group's
  // number.
  reap(0);
  stacks_.stop();
  for (Rank& rank : ranks_) {
    if (rank.pid == 0) continue;
    rank.stopped = true;
    ::kill(-rank.pid, signal.signo);
    ::kill(-rank.pid, SIGCONT);  // one that is stopped could not take the signal
  }
}

void Agent::on(const Interrupt& interrupt) {
  for (const Rank& rank : ranks_) {
    if (rank.number == interrupt.rank && rank.pid != 0) ::kill(-rank.pid, SIGINT);
  }
}

void Agent::on(const KillAll&) {
  reap(0);
  for (Rank& rank : ranks_) rank.stopped = rank.stopped || rank.pid != 0;
  if (!killing_) kill_at_ = Clock::now();
  killing_ = true;
  stacks_.stop();
}

void Agent::on(const InputEnd&) { feed_.end(); }

void Agent::on(const Watch& watch) {
  // Why a segment cannot be attached is no matter for the job: its rank is then shown without figures.
  watching_ = sampler_.attach(watch.segment, static_cast<std::uint32_t>(watch.rank)).empty() || watching_;
}

void Agent::on(const Ask& ask) { send_sample(ask.id); }

void Agent::on(const TakeStacks&) {
  for (const Rank& rank : ranks_) {
    // One that runs under a debugger cannot have a second.
    if (rank.pid != 0 && !is_debugged(rank.number)) stacks_.want(rank.number, rank.pid);
  }
  telling_ = true;
  take_more_stacks();
}

void Agent::take_more_stacks() {
  if (!telling_) return;
  try {
    stacks_.start([this](int rank, ipc::Fd out) {
      lines_.add(std::move(out), static_cast<ipc::LineMux::Token>(rank) * 4 + stack_mark);
    });
  } catch (const std::exception&) {  // no process or descriptor to be had: then without
    stacks_.stop();
  }
  if (!stacks_.done()) return;
  telling_ = false;
  link_.send(StacksTaken{without_gdb_});
}

void Agent::send_sample(std::uint64_t id) {
  const std::string sample = telemetry::encode(sampler_.sample());
  link_.send(Bytes::sample, id, 0, sample.size() <= max_frame ? std::string_view(sample) : std::string_view());
}

// ---- what ranks do
// ----------------------------------------------------------------------------------------------------

// waitpid gives the children that have ended in the order of their birth. The first SIGCHLD of several names the one
// that was first; the others came after it.
void Agent::reap(pid_t first_to_end) {
  auto exits = ipc::reap_children();
  std::stable_partition(exits.begin(), exits.end(),
                        [first_to_end](const ipc::ChildExit& e) { return e.pid == first_to_end; });
  for (const ipc::ChildExit& exit : exits) {
    const auto rank = std::find_if(ranks_.begin(), ranks_.end(), [&](const Rank& r) { return r.pid == exit.pid; });
    stacks_.reaped(exit.pid);
    if (rank == ranks_.end()) continue;  // a debugger; or something that a rank had started, and left to us
    rank->pid = 0;
    link_.send(Exited{rank->number, exit.status, rank->stopped, !rank->stopped && ended_by_kernel(exit.status)});
    if (--running_ == 0) ended_at_ = Clock::now();
  }
}

// Whether one more process has been ended for want of memory since the last look. It need not be this one, but of a rank
// that got a SIGKILL which is not ours it is what must be thought.
bool Agent::ended_by_kernel(int wait_status) {
  if (!WIFSIGNALED(wait_status) || WTERMSIG(wait_status) != SIGKILL) return false;
  const std::uint64_t before = std::exchange(oom_kills_, oom_kills());
  return oom_kills_ != before;
}

void Agent::read_signals() {
  signalfd_siginfo info{};
  while (signals_.read(info)) {
    if (info.ssi_signo == SIGCHLD) {
      reap(static_cast<pid_t>(info.ssi_pid));
    } else {  // somebody wants this agent to go: then with everything
      lost_ = true;
    }
  }
}

void Agent::take_line(ipc::LineMux::Token token, std::string_view line, bool complete) {
  if (is_stack(token)) {
    if (Stacks::tells(line)) link_.send(Bytes::stack, token / 4, 0, line);
    without_gdb_ = without_gdb_ || Stacks::lacks_gdb(line);
    return;
  }
  if (token != batch_of_ || batch_.size() > max_batch) ship();
  batch_of_ = token;
  if (complete) {
    batch_.append(line);
    batch_ += '\n';
    return;
  }
  ship();
  link_.send(showing_ ? Bytes::shown : Bytes::part, token / 4, token % 4, line);
}

void Agent::ship() {
  if (!batch_.empty()) link_.send(Bytes::lines, batch_of_ / 4, batch_of_ % 4, batch_);
  batch_.clear();
}

void Agent::take_output(const std::vector<pollfd>& set) {
  const auto line = [this](ipc::LineMux::Token t, std::string_view text, bool complete) {
    take_line(t, text, complete);
  };
  lines_.handle(set, line, [this](ipc::LineMux::Token token) {
    held_.erase(token);
    if (is_stack(token)) stacks_.told();
  });
  take_more_stacks();
  ship();
  if (prompts_) show_prompts();
}

void Agent::show_prompts() {
  const auto now = Clock::now();
  showing_ = true;
  for (const Rank& rank : ranks_) {
    for (const Stream stream : {Stream::out, Stream::err}) {
      const auto token = token_of(rank.number, stream);
      const std::size_t bytes = lines_.held(token);
      Held& held = held_[token];
      if (bytes != held.bytes) held = {bytes, now};
      if (bytes == 0 || now < held.since + prompt_after) continue;
      lines_.flush(token,
                   [this](ipc::LineMux::Token t, std::string_view text, bool whole) { take_line(t, text, whole); });
      held.bytes = 0;
    }
  }
  showing_ = false;
}

void Agent::write_input() {
  if (!begun_) return;
  feed_.write();
  if (const std::uint64_t bytes = feed_.taken(); bytes > 0) link_.send(InputTaken{bytes});
  if (fed_ && !feed_.wanted()) {
    fed_ = false;
    link_.send(InputClosed{});
  }
}

// ---- the end
// ----------------------------------------------------------------------------------------------------------

bool Agent::finish() {
  const auto now = Clock::now();
  if (lost_ && !killing_) on(KillAll{});
  if (!killing_ && (!begun_ || running_ > 0)) return false;
  if (!killing_ && now >= ended_at_ + linger && !hushed_) {
    hushed_ = true;
    signal_descendants(::getpid(), SIGTERM);
  }
  if (!killing_ && now >= ended_at_ + linger + leftover_grace) on(KillAll{});

  const std::size_t left = killing_ ? signal_descendants(::getpid(), SIGKILL) : descendants(::getpid()).size();
  if (left > 0 && !(killing_ && now >= kill_at_ + give_up_after)) return false;
  reap(0);
  if (left == 0 && running_ > 0) return false;  // zombies: their SIGCHLD is on its way
  remove_orphan_segments();
  if (lost_) return true;
  if (!lines_.empty()) {
    // Everything that wrote has ended, but a pipe is still open elsewhere: what is in it now is all that counts.
    if (!room()) return false;
    const auto line = [this](ipc::LineMux::Token t, std::string_view text, bool complete) {
      take_line(t, text, complete);
    };
    for (const Rank& rank : ranks_) {
      for (const Stream stream : {Stream::out, Stream::err}) lines_.drain(token_of(rank.number, stream), line);
    }
    ship();
  }
  if (watching_) send_sample(0);
  if (telling_) link_.send(StacksTaken{without_gdb_});
  link_.send(Done{static_cast<int>(left)});
  return true;
}

bool Agent::room() const { return link_.queued() < max_queued; }

int Agent::timeout_ms() const {
  if (killing_ || (begun_ && running_ == 0)) return static_cast<int>(look_again.count());
  if (prompts_ && std::any_of(held_.begin(), held_.end(), [](const auto& h) { return h.second.bytes > 0; })) return 50;
  return remote_ ? ipc::milliseconds_until(beats_.next(), Clock::now()) : -1;
}

// Not behind other things that wait to be sent: if dsmexec does not read for so long, it needs no more news of us.
void Agent::beat() {
  if (!remote_ || !beats_.due(Clock::now())) return;
  if (link_.queued() == 0) link_.send(Beat{});
}

int Agent::run() {
  std::vector<pollfd> set;
  for (bool done = false; !done || link_.queued() > 0;) {
    set.clear();
    beat();
    if (!link_.flush()) lost_ = true;
    if (lost_ && done) break;
    link_.add_to(set, true);
    set.push_back({signals_.fd(), POLLIN, 0});
    if (room()) lines_.add_to(set);
    feed_.add_to(set);
    if (::poll(set.data(), set.size(), done ? -1 : timeout_ms()) == -1 && errno != EINTR) ipc::throw_errno("poll");

    read_signals();
    if (!lost_ && link_.receive([this](const Link::Frame& frame) { handle(frame); }) != Link::State::open) lost_ = true;
    if (by_srun_ && !started_ && silence_.silent(Clock::now())) lost_ = true;  // what has come counts: after receive
    write_input();
    if (!done) {
      take_output(set);
      done = finish();
    }
  }
  return lost_ ? 1 : 0;
}

int agent_main(bool remote) {
  ::signal(SIGPIPE, SIG_IGN);
  const sigset_t signals = agent_signals();
  ipc::check(::sigprocmask(SIG_BLOCK, &signals, nullptr), "sigprocmask");
  become_subreaper();
  // Out of the way of everything that reads 0 and writes 1, and of what ranks inherit.
  ipc::Fd in(ipc::check(::fcntl(0, F_DUPFD_CLOEXEC, 3), "fcntl"));
  ipc::Fd out(ipc::check(::fcntl(1, F_DUPFD_CLOEXEC, 3), "fcntl"));
  const ipc::Fd null(ipc::check(::open("/dev/null", O_RDWR | O_CLOEXEC), "open /dev/null"));
  ipc::check(::dup2(null.get(), 0), "dup2");
  ipc::check(::dup2(null.get(), 1), "dup2");
  Agent agent(std::move(in), std::move(out), remote);
  return agent.run();
}

}  // namespace dsm::launch
