#include "dsm/launch/agent.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>

#include "dsm/launch/orphan_segments.hpp"
#include "dsm/launch/output.hpp"
#include "dsm/launch/processes.hpp"
#include "dsm/launch/program.hpp"
#include "dsm/net/rendezvous.hpp"
#include "ipc/error.hpp"

extern char** environ;

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
constexpr std::size_t max_starting = 64;      // ranks; each holds a descriptor more until it runs
constexpr int key_number = 3;                 // of the key's descriptor in a rank

ipc::LineMux::Token token_of(int rank, Stream stream) {
  return static_cast<ipc::LineMux::Token>(rank) * 4 + static_cast<ipc::LineMux::Token>(stream);
}

sigset_t agent_signals() { return ipc::signal_set({SIGCHLD, SIGTERM, SIGINT, SIGHUP}); }

// What we inherited, without the variables of a job that dsmexec itself may be a rank of.
std::vector<std::string> inherited_environment() {
  std::vector<std::string> out;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (std::strncmp(*entry, "DSMEXEC_", 8) != 0) out.emplace_back(*entry);
  }
  return out;
}

// "NAME=value" instead of what NAME was before.
void set_variable(std::vector<std::string>& environment, const std::string& variable) {
  const std::string name = variable.substr(0, variable.find('=') + 1);
  std::erase_if(environment, [&name](const std::string& each) { return each.rfind(name, 0) == 0; });
  environment.push_back(variable);
}

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

// A file in memory that was written and is now to be executed: it must not be open for writing (ETXTBSY).
ipc::Fd reopened(const ipc::Fd& file) {
  const std::string path = "/proc/self/fd/" + std::to_string(file.get());
  return ipc::Fd(ipc::check(::open(path.c_str(), O_RDONLY | O_CLOEXEC), "open the program that was sent"));
}

// The read end of a pipe that holds the key and nothing else.
ipc::Fd key_pipe(const net::JobKey& key) {
  ipc::Pipe pipe = ipc::make_pipe();
  if (ipc::write_full(pipe.write.get(), key.data(), key.size()) != static_cast<ssize_t>(key.size()))
    ipc::throw_errno("write key");
  return std::move(pipe.read);
}

}  // namespace

Agent::Agent(ipc::Fd in, ipc::Fd out, bool remote)
    : link_(std::move(in), std::move(out)),
      signals_(agent_signals()),
      remote_(remote),
      by_srun_(remote && srun_address() != nullptr) {
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

void Agent::on(const Start& start) {
  if (started_) throw std::runtime_error("dsmexec sent a second start");
  started_ = true;
  start_ = start;
  if (start_.lenient && ::access(start_.working_directory.c_str(), X_OK) != 0) {
    start_.working_directory.clear();
    link_.send(NoFolder{});
  }
  if (start_.program_hash.empty() || hash_of(start_.program) == start_.program_hash) return start_ranks();
  program_ = ipc::Fd(ipc::check(::memfd_create("program", MFD_CLOEXEC), "memfd_create"));
  program_bytes_ = start_.program_size;
  link_.send(NeedProgram{});
}

void Agent::take_program(std::string_view piece) {
  if (!program_ || piece.size() > program_bytes_)
    throw std::runtime_error("dsmexec sent more of a program than it said");
  if (ipc::write_full(program_.get(), piece.data(), piece.size()) != static_cast<ssize_t>(piece.size())) {
    ipc::throw_errno("write the program that was sent");
  }
  program_bytes_ -= piece.size();
  if (program_bytes_ > 0 || killing_) return;
  program_ = reopened(program_);
  start_.program = "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(program_.get());
  start_ranks();
}

void Agent::start_ranks() {
  oom_kills_ = oom_kills();
  prompts_ = start_.prompts;
  std::vector<std::string> environment = inherited_environment();
  for (const std::string& variable : start_.environment) set_variable(environment, variable);
  environment.push_back(net::key_fd_variable + ("=" + std::to_string(key_number)));
  bool all_run = true;
  for (std::size_t first = 0; all_run && first < start_.ranks.size(); first += max_starting) {
    const std::size_t count = std::min(max_starting, start_.ranks.size() - first);
    all_run = start_some({start_.ranks.data() + first, count}, environment);
  }
  if (!all_run) on(KillAll{});
  begun_ = true;
  if (running_ == 0) ended_at_ = Clock::now();
}

// Forks all before it waits for the first to run: each gets ready while the next is forked. Dsmexec hears of the first
// trouble only.
bool Agent::start_some(std::span<const int> ranks, const std::vector<std::string>& environment) {
  std::vector<Beginning> begun;
  bool all_run = true;
  const auto trouble = [&](int rank, const std::string& step, int error) {
    if (all_run) link_.send(NotStarted{rank, step, error});
    all_run = false;
  };
  for (std::size_t i = 0; all_run && i < ranks.size(); ++i) {
    try {
      begun.push_back(begin_rank(ranks[i], environment));
    } catch (const std::system_error& error) {
      trouble(ranks[i], "starting a process", error.code().value());
    }
  }
  for (Beginning& one : begun) {
    try {
      ranks_.push_back({one.rank, ipc::finish_spawn(one.starting, one.options), false});
    } catch (const ipc::SpawnError& error) {
      trouble(one.rank, error.step, error.error);
      continue;
    }
    ++running_;
    lines_.add(std::move(one.out), token_of(one.rank, Stream::out));
    lines_.add(std::move(one.err), token_of(one.rank, Stream::err));
    if (one.in) {
      feed_.add(std::move(one.in));
      fed_ = true;
    }
    link_.send(Started{one.rank, ranks_.back().pid});
  }
  return all_run;
}

Agent::Beginning Agent::begin_rank(int rank, const std::vector<std::string>& environment) const {
  Beginning one;
  ipc::Pipe out = ipc::make_pipe(), err = ipc::make_pipe(), in;
  const ipc::Fd key = key_pipe(start_.key);
  if (std::find(start_.readers.begin(), start_.readers.end(), rank) != start_.readers.end()) {
    in = ipc::make_pipe();
  } else {
    in.read = ipc::Fd(ipc::check(::open("/dev/null", O_RDONLY | O_CLOEXEC), "open /dev/null"));
  }
  one.rank = rank;
  one.options.arguments = start_.arguments;
  one.options.program = start_.program;
  one.options.environment = environment;
  one.options.environment->push_back("DSMEXEC_RANKID=" + std::to_string(rank));
  one.options.working_directory = start_.working_directory;
  one.options.standard_input = in.read.get();
  one.options.standard_output = out.write.get();
  one.options.standard_error = err.write.get();
  one.options.descriptors = {{key.get(), key_number}};
  one.options.new_process_group = true;
  one.options.parent_death_signal = SIGKILL;
  one.starting = ipc::begin_spawn(one.options);
  one.out = std::move(out.read);
  one.err = std::move(err.read);
  one.in = std::move(in.write);
  return one;
}

void Agent::on(const PassSignal& signal) {
  // Who has ended by itself shall not be told of as stopped by us. A leader that has not been reaped keeps its group's
  // number.
  reap(0);
  for (Rank& rank : ranks_) {
    if (rank.pid == 0) continue;
    rank.stopped = true;
    ::kill(-rank.pid, signal.signo);
    ::kill(-rank.pid, SIGCONT);  // one that is stopped could not take the signal
  }
}

void Agent::on(const KillAll&) {
  reap(0);
  for (Rank& rank : ranks_) rank.stopped = rank.stopped || rank.pid != 0;
  if (!killing_) kill_at_ = Clock::now();
  killing_ = true;
}

void Agent::on(const InputEnd&) { feed_.end(); }

void Agent::on(const Watch& watch) {
  // Why a segment cannot be attached is no matter for the job: its rank is then shown without figures.
  watching_ = sampler_.attach(watch.segment, static_cast<std::uint32_t>(watch.rank)).empty() || watching_;
}

void Agent::on(const Ask& ask) { send_sample(ask.id); }

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
    if (rank == ranks_.end()) continue;  // something that a rank had started, and left to us
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
  lines_.handle(set, line, [this](ipc::LineMux::Token token) { held_.erase(token); });
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
