#include "dsm/dshm_agent/testing_bench.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <exception>

#include "ipc/error.hpp"
#include "ipc/spawn.hpp"

namespace dsm::dshm_agent::testing {
namespace {

constexpr int patience_ms = 60'000;

int code_of(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

bool is_readable(int fd) {
  pollfd one{fd, POLLIN, 0};
  return ::poll(&one, 1, patience_ms) == 1;
}

// Waits for the end of `pid`, and kills it if that does not come.
int wait_for(pid_t& pid, const char* whose) {
  if (pid <= 0) return -1;
  const ipc::Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  const bool well = is_readable(pidfd.get());
  if (!well) {
    ADD_FAILURE() << whose << " has not ended";
    ::kill(pid, SIGKILL);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  pid = 0;
  return well ? code_of(status) : -1;
}

// kill(2) returns before they have: the other threads go on until one has taken the signal.
void stop_all_threads(pid_t pid) {
  int status = 0;
  ::kill(pid, SIGSTOP);
  EXPECT_EQ(::waitpid(pid, &status, WUNTRACED), pid);
  EXPECT_TRUE(WIFSTOPPED(status));
}

void kill_if_left(pid_t pid) {
  if (pid <= 0) return;
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
}

}  // namespace

AgentProgram::AgentProgram(const std::string& server, const std::string& key_file) : server_(server) {
  ipc::Pipe pipe = ipc::make_pipe();
  const ipc::Fd nothing(::open("/dev/null", O_RDWR | O_CLOEXEC));
  ipc::SpawnOptions options;
  options.arguments = {daemon::testing::program_path("dshm_agent"), "--server", server, "--ready-fd", "3"};
  options.environment = {"DSM_KEY_FILE=" + key_file};
  options.standard_input = options.standard_output = options.standard_error = nothing.get();
  options.descriptors = {{pipe.write.get(), 3}};
  pid_ = ipc::spawn(options);
  pipe.write.reset();
  char buffer[512];
  ssize_t got = 0;
  while (is_readable(pipe.read.get()) && (got = ::read(pipe.read.get(), buffer, sizeof buffer)) > 0) {
    said_.append(buffer, static_cast<std::size_t>(got));
  }
}

AgentProgram::~AgentProgram() { kill_if_left(pid_); }

void AgentProgram::stop() const { stop_all_threads(pid_); }

int AgentProgram::wait() { return wait_for(pid_, "the agent"); }

Child::Child(const std::function<void(Child&)>& body) {
  ipc::Pipe up = ipc::make_pipe(), down = ipc::make_pipe();
  pid_ = ipc::check(::fork(), "fork");
  if (pid_ != 0) {
    read_ = std::move(up.read);
    write_ = std::move(down.write);
    return;
  }
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  up.read.reset();
  down.write.reset();
  read_ = std::move(down.read);
  write_ = std::move(up.write);
  try {
    body(*this);
    ::_exit(0);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "client %d: %s\n", ::getpid(), error.what());
    ::_exit(1);
  }
}

Child::~Child() { kill_if_left(pid_); }

void Child::stop() const { stop_all_threads(pid_); }

int Child::wait() { return wait_for(pid_, "a client"); }

void Child::tell(std::int64_t value) {
  if (ipc::write_full(write_.get(), &value, sizeof value) != sizeof value)
    throw std::runtime_error("the test has gone");
}

std::int64_t Child::hear() {
  std::int64_t value = -1;
  if (is_readable(read_.get()) && ipc::read_full(read_.get(), &value, sizeof value) == sizeof value) return value;
  ADD_FAILURE() << "a client has not come so far";
  return -1;
}

bool Child::speaks_within_ms(int limit) const {
  pollfd one{read_.get(), POLLIN, 0};
  return ::poll(&one, 1, limit) == 1;
}

void Child::go() {
  const char word = 'g';
  if (ipc::write_full(write_.get(), &word, 1) != 1) ADD_FAILURE() << "a client has gone";
}

void Child::await() {
  char word = 0;
  if (ipc::read_full(read_.get(), &word, 1) != 1) throw std::runtime_error("the test has gone");
}

Hosts::Hosts()
    : here(std::make_unique<AgentProgram>("127.0.0.1:" + std::to_string(dsmd.port()), dsmd.key_file())),
      there(std::make_unique<AgentProgram>("localhost:" + std::to_string(dsmd.port()), dsmd.key_file())) {
  EXPECT_EQ(here->said(), "ready\n");
  EXPECT_EQ(there->said(), "ready\n");
}

void Hosts::expect_all_ended() {
  EXPECT_EQ(here->wait(), 0);
  EXPECT_EQ(there->wait(), 0);
}

}  // namespace dsm::dshm_agent::testing
