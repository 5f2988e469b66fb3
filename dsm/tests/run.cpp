#include "dsm/tests/run.hpp"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "ipc/error.hpp"
#include "ipc/spawn.hpp"
#include "labs/common/testing.hpp"

extern char** environ;

namespace dsm::testing {

namespace fs = std::filesystem;

namespace {

fs::path tests_folder() { return fs::read_symlink("/proc/self/exe").parent_path(); }

void read_all(ipc::Fd fd, std::string& into) {
  char buffer[65536];
  for (ssize_t n = 0; (n = ::read(fd.get(), buffer, sizeof buffer)) != 0;) {
    if (n < 0 && errno != EINTR) return;
    if (n > 0) into.append(buffer, static_cast<std::size_t>(n));
  }
}

std::string new_mark() {
  static std::atomic<int> count{0};
  return "dsm-test-" + std::to_string(::getpid()) + "-" + std::to_string(++count);
}

}  // namespace

std::string program(const std::string& name) { return (tests_folder().parent_path() / "bin" / name).string(); }

std::string machine_file(int lines) {
  const fs::path path = tests_folder() / ("machines-" + std::to_string(lines));
  const fs::path fresh = path.string() + "." + new_mark();
  {
    std::ofstream file(fresh);
    for (int i = 0; i < lines; ++i) file << "localhost\n";
  }
  fs::rename(fresh, path);  // whole or not at all, should another test make it at the same moment
  return path.string();
}

std::string variable_of(pid_t pid, const std::string& name) {
  const std::string text = ipc::testing::read_text("/proc/" + std::to_string(pid) + "/environ");
  std::istringstream variables(text);
  for (std::string variable; std::getline(variables, variable, '\0');) {
    if (variable.rfind(name + "=", 0) == 0) return variable.substr(name.size() + 1);
  }
  return {};
}

bool wait_until(const std::function<bool()>& condition, std::chrono::milliseconds deadline) {
  return ipc::testing::wait_until(condition, deadline);
}

Running::Running(std::vector<std::string> arguments, const std::string& standard_input) : mark_(new_mark()) {
  ipc::SpawnOptions options;
  options.arguments = std::move(arguments);
  options.environment.emplace();
  for (char** variable = environ; *variable != nullptr; ++variable) options.environment->push_back(*variable);
  options.environment->push_back("MARK=" + mark_);
  ipc::Pipe in = ipc::make_pipe(), out = ipc::make_pipe(), err = ipc::make_pipe();
  options.standard_input = in.read.get();
  options.standard_output = out.write.get();
  options.standard_error = err.write.get();
  pid_ = ipc::spawn(options);
  readers_.emplace_back([this, fd = std::move(out.read)]() mutable { read_all(std::move(fd), out_); });
  readers_.emplace_back([this, fd = std::move(err.read)]() mutable { read_all(std::move(fd), err_); });
  ipc::write_full(in.write.get(), standard_input.data(), standard_input.size());  // at most what a pipe holds
}

Running::~Running() {
  if (pid_ > 0) finish(std::chrono::seconds(0));
}

std::vector<pid_t> Running::family() const {
  std::vector<pid_t> found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const pid_t pid = std::stoi(name);
    if (pid != pid_ && variable_of(pid, "MARK") == mark_) found.push_back(pid);
  }
  return found;
}

Result Running::finish(std::chrono::seconds deadline) {
  Result result;
  result.timed_out = !wait_until(
      [&] {
        siginfo_t info{};
        return ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid_;
      },
      deadline);
  result.took = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - began_);
  if (result.timed_out) {
    for (const pid_t pid : family()) ::kill(pid, SIGKILL);
    ::kill(pid_, SIGKILL);
  }
  ::waitpid(pid_, &result.status, 0);
  pid_ = -1;
  for (auto& reader : readers_) reader.join();
  result.code = WIFSIGNALED(result.status) ? 128 + WTERMSIG(result.status) : WEXITSTATUS(result.status);
  result.out = std::move(out_);
  result.err = std::move(err_);
  return result;
}

Result run(std::vector<std::string> arguments, std::chrono::seconds deadline) {
  return Running(std::move(arguments)).finish(deadline);
}

std::vector<std::string> job(std::vector<std::string> options, const std::vector<std::string>& program_line) {
  std::vector<std::string> all = {program("dsmexec")};
  all.insert(all.end(), options.begin(), options.end());
  all.push_back(machine_file());
  all.insert(all.end(), program_line.begin(), program_line.end());
  return all;
}

}  // namespace dsm::testing
