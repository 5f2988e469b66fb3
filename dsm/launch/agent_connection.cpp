#include "dsm/launch/agent_connection.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>

#include "dsm/launch/processes.hpp"
#include "dsm/launch/status.hpp"
#include "ipc/error.hpp"
#include "ipc/socket.hpp"
#include "ipc/spawn.hpp"

namespace dsm::launch {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds exit_patience{1'000};  // from the end of its connection to the exit of its process
constexpr int max_tries = 5;
constexpr milliseconds first_pause{200};     // before the second try; it doubles
constexpr std::size_t max_said = 16u << 10;  // bytes of ssh's or srun's complaints that are kept
constexpr std::size_t piece_size = 64u << 10;
constexpr std::size_t max_queued = 4 * piece_size;  // bytes of a program under way

// What ssh's or srun's exit says about the process there: its exit code, or 128 + signal.
std::string describe_remote(int status) {
  const int code = code_of(status);
  return WIFEXITED(status) && code > 128 && code < 128 + 64 ? describe_status(code - 128) : describe_status(status);
}

}  // namespace

AgentConnection::AgentConnection(Site site, const Remote* remote, const OwnFile& own)
    : site_(std::move(site)), remote_(remote), own_(own) {}

bool AgentConnection::has(int rank) const { return std::binary_search(site_.ranks.begin(), site_.ranks.end(), rank); }

void AgentConnection::start(Time now) {
  state_ = State::starting;
  status_.reset();
  received_.clear();
  said_.clear();
  ++tries_;
  silence_.heard(now);
  if (site_.local) return start_here();
  try {
    start_there();
  } catch (const ipc::SpawnError& error) {
    said_ = fmt::format("cannot run '{}': {} ({})", remote_->command(site_.machine, "").front(),
                        std::generic_category().message(error.error), remote_->origin());
    status_ = 0;
    ended_at_ = now;
  }
}

void AgentConnection::start_here() {
  int ends[2];
  ipc::check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), "socketpair");
  ipc::Fd ours(ends[0]);
  const ipc::Fd theirs(ends[1]);
  ipc::SpawnOptions options;
  options.program = "/proc/self/exe";
  options.arguments = {"dsmexec", "--agent"};
  options.standard_input = options.standard_output = theirs.get();
  options.new_process_group = true;  // what a terminal sends goes to dsmexec, which decides what is passed on
  pid_ = ipc::spawn(options);
  ipc::Fd copy(ipc::check(::fcntl(ours.get(), F_DUPFD_CLOEXEC, 3), "fcntl"));
  link_.emplace(std::move(ours), std::move(copy));
  greeting_ = Greeting::heard;
  // It is not waited for: what it is to do can lie there when it comes, and what it would say of this machine is known.
  cores = usable_cores();
  set_open();
}

void AgentConnection::start_there() {
  greeting_ = Greeting::none;
  ipc::Pipe in = ipc::make_pipe(), out = ipc::make_pipe(), errors = ipc::make_pipe();
  ipc::SpawnOptions options;
  options.arguments = remote_->command(site_.machine, remote_line(own_.path, own_.hash, own_.size));
  options.environment = remote_->environment();
  options.standard_input = in.read.get();
  options.standard_output = out.write.get();
  options.standard_error = errors.write.get();
  options.new_process_group = true;       // as above
  options.parent_death_signal = SIGKILL;  // its connection ends with it, and the agent there with its connection
  pid_ = ipc::spawn(options);
  in_ = std::move(out.read);
  out_ = std::move(in.write);
  errors_ = std::move(errors.read);
  for (const ipc::Fd* fd : {&in_, &out_, &errors_}) ipc::set_nonblocking(fd->get());
}

void AgentConnection::give_up() {
  kill();
  state_ = State::done;
  let_go();
}

void AgentConnection::kill() {
  if (pid_ != 0 && !status_) ::kill(pid_, SIGKILL);
}

void AgentConnection::add_to(std::vector<pollfd>& set, bool want_input) const {
  if (errors_) set.push_back({errors_.get(), POLLIN, 0});
  if (ended_at_ || is_over()) return;
  if (link_) return link_->add_to(set, want_input);
  if (in_) set.push_back({in_.get(), POLLIN, 0});
  if (greeting_ == Greeting::sending) set.push_back({out_.get(), POLLOUT, 0});
}

// ---- before it has spoken

void AgentConnection::read_errors() {
  std::array<char, 4096> buffer{};
  while (errors_) {
    const ssize_t got = ::read(errors_.get(), buffer.data(), buffer.size());
    if (got > 0) {
      said_.append(buffer.data(), static_cast<std::size_t>(got));
      if (said_.size() > max_said) said_.erase(0, said_.size() - max_said);
    } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
      errors_.reset();
    } else if (errno == EAGAIN) {
      return;
    }
  }
}

void AgentConnection::read_greeting() {
  std::array<char, 4096> buffer{};
  while (in_ && !link_) {
    const ssize_t got = ::read(in_.get(), buffer.data(), buffer.size());
    if (got == -1 && errno == EINTR) continue;
    if (got == -1 && errno == EAGAIN) return;
    if (got <= 0 || received_.size() > max_noise) {
      in_.reset();
      return;
    }
    received_.append(buffer.data(), static_cast<std::size_t>(got));
    const std::string ready = ready_line(own_.hash), send = send_line(own_.hash);
    if (const auto at = received_.find(ready); at != std::string::npos) {
      link_.emplace(std::move(in_), std::move(out_), received_.substr(at + ready.size()));
      greeting_ = Greeting::heard;
      received_.clear();
    } else if (greeting_ == Greeting::none && received_.find(send) != std::string::npos) {
      file_ = ipc::Fd(ipc::check(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC), "open dsmexec's own file"));
      greeting_ = Greeting::sending;
    }
  }
}

void AgentConnection::send_own_file() {
  while (greeting_ == Greeting::sending && out_ && (file_ || !piece_.empty())) {
    if (piece_.empty()) {
      piece_.resize(piece_size);
      const ssize_t got = ipc::read_full(file_.get(), piece_.data(), piece_.size());
      piece_.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
      if (piece_.size() < piece_size) file_.reset();
      if (piece_.empty()) return;
    }
    const ssize_t put = ::write(out_.get(), piece_.data(), piece_.size());
    if (put > 0) {
      piece_.erase(0, static_cast<std::size_t>(put));
    } else if (errno == EAGAIN) {
      return;
    } else if (errno != EINTR) {  // it has gone: the process's end says why
      file_.reset();
      piece_.clear();
    }
  }
}

// ---- once it speaks

void AgentConnection::send_program(const std::string& path) {
  file_ = ipc::Fd(ipc::check(::open(path.c_str(), O_RDONLY | O_CLOEXEC), "open the program that is to be sent"));
  sending_program_ = true;
}

void AgentConnection::flush(Time now) {
  send_own_file();
  if (!link_ || ended_at_ || is_over()) return;
  if (!site_.local && is_open() && beats_.due(now) && link_->queued() == 0) link_->send(Beat{});
  while (sending_program_ && file_ && link_->queued() < max_queued) {
    std::string piece(piece_size, '\0');
    const ssize_t got = ipc::read_full(file_.get(), piece.data(), piece.size());
    if (got > 0) link_->send(Bytes::program, 0, 0, std::string_view(piece).substr(0, static_cast<std::size_t>(got)));
    if (got < static_cast<ssize_t>(piece.size())) file_.reset();
    if (!link_->flush()) break;
  }
  if (!link_->flush()) ended_at_ = now;
}

void AgentConnection::hear(Time now, const Link::Sink& sink, const std::function<void(const std::string&)>& log) {
  if (is_over()) return;
  if (!link_) read_greeting();
  if (!link_ && greeting_ != Greeting::heard && !in_ && !ended_at_ && pid_ != 0) ended_at_ = now;
  if (!link_ || ended_at_) return;
  bool heard = false;
  const auto state = link_->receive([&](const Link::Frame& frame) {
    heard = true;
    sink(frame);
  });
  if (heard) silence_.heard(now);
  if (is_over()) return let_go();
  if (state == Link::State::open) return;
  if (state == Link::State::broken) {
    log(fmt::format("the agent on host {} is not understood: {}", host(), link_->why()));
    kill();
  }
  ended_at_ = now;
}

// A server that is overrun: it is asked again, later, and not by all at the same time.
bool AgentConnection::try_again(Time now) {
  if (tries_ >= max_tries || !remote_->worth_another_try(said_)) return false;
  state_ = State::waiting;
  let_go();
  ended_at_.reset();
  pid_ = 0;
  start_at_ = now + first_pause * (1 << (tries_ - 1)) + milliseconds(site_.ranks.front() * 37 % 200);
  return true;
}

void AgentConnection::let_go() {
  link_.reset();
  for (ipc::Fd* fd : {&in_, &out_, &errors_, &file_}) fd->reset();
  piece_.clear();
}

bool AgentConnection::check(Time now) {
  read_errors();
  if (state_ == State::waiting || is_over()) return false;
  if (is_open() && !site_.local && !ended_at_ && silence_.silent(now)) {
    kill();
    state_ = State::lost;
    how_ = fmt::format("nothing was heard from it for {} s",
                       std::chrono::duration_cast<std::chrono::seconds>(silence).count());
    let_go();
    return true;
  }
  if (!ended_at_) return false;
  if (!status_) {  // how it died is known as soon as it has been reaped
    if (now < *ended_at_ + exit_patience) return false;
    kill();
  }
  read_errors();
  if (state_ == State::starting && !site_.local) {
    const std::string end = status_ ? describe_remote(*status_) : "no word";
    if (status_ && try_again(now)) return false;
    state_ = State::failed;
    how_ = received_.size() > max_noise ? fmt::format("no agent on host {}: its login prints more than 1 MiB", host())
                                        : remote_->explain(site_.machine, said_, end);
  } else {
    state_ = State::lost;
    how_ = !status_ ? "it closed its connection" : site_.local ? describe_status(*status_) : describe_remote(*status_);
    const std::string connection = !site_.local && status_ ? remote_->connection_ended(code_of(*status_), said_) : "";
    if (!connection.empty()) how_ = connection;
  }
  let_go();
  return true;
}

AgentConnection::Time AgentConnection::next_deadline(Time now) const {
  Time first = Time::max();
  if (state_ == State::waiting && start_at_ > now) first = start_at_;
  if (ended_at_ && !is_over()) first = std::min(first, *ended_at_ + exit_patience);
  if (is_open() && !site_.local && !ended_at_) first = std::min({first, silence_.deadline(), beats_.next()});
  return first;
}

}  // namespace dsm::launch
