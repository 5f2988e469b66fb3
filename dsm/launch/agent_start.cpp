// The agent's order carried out: the ranks of this host, from the program's file to running processes.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "dsm/launch/agent.hpp"
#include "dsm/launch/processes.hpp"
#include "dsm/launch/program.hpp"
#include "dsm/net/rendezvous.hpp"
#include "ipc/error.hpp"

extern char** environ;

namespace dsm::launch {
namespace {

constexpr std::size_t max_starting = 64;  // ranks; each holds a descriptor more until it runs
constexpr int key_number = 3;             // of the key's descriptor in a rank

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

bool contains(const std::vector<int>& ranks, int rank) {
  return std::find(ranks.begin(), ranks.end(), rank) != ranks.end();
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

bool Agent::is_debugged(int rank) const { return contains(start_.debugged, rank); }

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
  if (contains(start_.readers, rank)) {
    in = ipc::make_pipe();
  } else {
    in.read = ipc::Fd(ipc::check(::open("/dev/null", O_RDONLY | O_CLOEXEC), "open /dev/null"));
  }
  one.rank = rank;
  one.options.arguments = start_.arguments;
  one.options.program = start_.program;
  if (is_debugged(rank)) {
    one.options.arguments.front() = std::exchange(one.options.program, "");
    one.options.arguments.insert(one.options.arguments.begin(), start_.debugger.begin(), start_.debugger.end());
  }
  one.options.environment = environment;
  one.options.environment->push_back("DSMEXEC_RANKID=" + std::to_string(rank));
  one.options.working_directory = start_.working_directory;
  one.options.standard_input = in.read.get();
  one.options.standard_output = out.write.get();
  one.options.standard_error = err.write.get();
  one.options.descriptors = {{key.get(), key_number}};
  one.options.new_process_group = true;
  one.options.parent_death_signal = SIGKILL;
  one.options.parent_may_trace = start_.traceable;
  one.starting = ipc::begin_spawn(one.options);
  one.out = std::move(out.read);
  one.err = std::move(err.read);
  one.in = std::move(in.write);
  return one;
}

}  // namespace dsm::launch
