#include "dsm/tests/launch_bench.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

#include "ipc/spawn.hpp"

extern char** environ;

namespace dsm::launch::testing {
namespace {

// Reads what is there; closes the descriptor at the end.
void drain(ipc::Fd& fd, std::string& to) {
  char buffer[65536];
  for (;;) {
    const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
    if (n > 0) {
      to.append(buffer, static_cast<std::size_t>(n));
    } else if (n == 0 || errno != EINTR) {  // EIO: a terminal that nobody has open any more
      if (n == 0 || errno != EAGAIN) fd.reset();
      return;
    }
  }
}

}  // namespace

std::string content(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

bool wait_until(const std::function<bool()>& condition, std::chrono::milliseconds limit) {
  const auto deadline = Clock::now() + limit;
  while (!condition()) {
    if (Clock::now() >= deadline) return false;
    ::poll(nullptr, 0, 10);
  }
  return true;
}

int Ended::code() const { return WIFEXITED(status) ? WEXITSTATUS(status) : -1; }
int Ended::signal() const { return WIFSIGNALED(status) ? WTERMSIG(status) : 0; }

std::vector<std::string> Ended::own_lines() const {
  std::vector<std::string> lines;
  std::istringstream text(err);
  const std::string prefix = "dsmexec: ";
  for (std::string line; std::getline(text, line);) {
    if (line.compare(0, prefix.size(), prefix) == 0) lines.push_back(line.substr(prefix.size()));
  }
  return lines;
}

std::string own_path() { return std::filesystem::read_symlink("/proc/self/exe").string(); }

std::string dsmexec_path() {
  const auto build = std::filesystem::path(own_path()).parent_path().parent_path();
  return (build / "bin" / "dsmexec").string();
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++found;
  return found;
}

Said shell(const std::string& command) {
  Said said;
  std::FILE* const pipe = ::popen(("{ " + command + "\n} 2>&1 </dev/null").c_str(), "re");
  if (pipe == nullptr) return said;
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) said.text += static_cast<char>(c);
  const int status = ::pclose(pipe);
  said.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return said;
}

std::string command_line(pid_t pid) {
  std::string line = content("/proc/" + std::to_string(pid) + "/cmdline");
  std::replace(line.begin(), line.end(), '\0', ' ');
  return line;
}

bool is_guard(const std::string& command_line) {
  const auto first_blank = command_line.find(' ');
  return first_blank != std::string::npos && command_line.compare(first_blank, 9, " --guard ") == 0;
}

Dsmexec::Dsmexec(Order order) : input_(std::move(order.input)), reading_(order.read) {
  static std::atomic<int> number{0};
  mark_ = "DSM_LAUNCH_TEST=" + std::to_string(::getpid()) + "-" + std::to_string(++number);
  folder_ = ::testing::TempDir() + "dsm-launch-XXXXXX";
  EXPECT_NE(::mkdtemp(folder_.data()), nullptr);
  std::ofstream(folder_ + "/machines") << order.machines;

  terminal_ = order.terminal;
  ipc::Pipe in = ipc::make_pipe(), out = ipc::make_pipe(), err = ipc::make_pipe();
  ipc::SpawnOptions options;
  options.program = dsmexec_path();
  options.arguments = {"dsmexec"};
  for (std::string& argument : order.arguments) {
    options.arguments.push_back(argument == "@" ? folder_ + "/machines" : std::move(argument));
  }
  options.environment.emplace();
  for (char** entry = environ; *entry != nullptr; ++entry) options.environment->emplace_back(*entry);
  options.environment->insert(options.environment->end(), order.environment.begin(), order.environment.end());
  options.environment->push_back(mark_);
  options.standard_input = in.read.get();
  options.standard_output = out.write.get();
  options.standard_error = order.one_pipe ? out.write.get() : err.write.get();
  // setsid -c becomes dsmexec, as the leader of a session whose terminal is its stdin.
  if (terminal_) order.before.insert(order.before.end(), {"setsid", "-c"});
  if (!order.before.empty()) {
    options.program.clear();
    options.arguments[0] = dsmexec_path();
    options.arguments.insert(options.arguments.begin(), order.before.begin(), order.before.end());
  }
  if (terminal_) {
    out.read = ipc::Fd(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    EXPECT_TRUE(out.read && ::grantpt(out.read.get()) == 0 && ::unlockpt(out.read.get()) == 0);
    out.write = ipc::Fd(::open(::ptsname(out.read.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
    options.standard_input = options.standard_output = options.standard_error = out.write.get();
    in.write = ipc::Fd(::fcntl(out.read.get(), F_DUPFD_CLOEXEC, 3));
  }
  pid_ = ipc::spawn(options);
  in_ = std::move(in.write);
  out_ = std::move(out.read);
  err_ = std::move(err.read);
  for (const auto* fd : {&in_, &out_, &err_}) ::fcntl(fd->get(), F_SETFL, O_NONBLOCK);
}

Dsmexec::~Dsmexec() {
  wait_until(
      [this] {
        for (const pid_t pid : left()) ::kill(pid, SIGKILL);
        while (!ended_ && ::waitpid(pid_, nullptr, WNOHANG) == pid_) ended_ = true;
        return ended_ && left().empty();
      },
      std::chrono::seconds(10));
  std::filesystem::remove_all(folder_);
}

bool Dsmexec::turn(std::chrono::milliseconds limit) {
  std::vector<pollfd> set;
  if (in_ && !(terminal_ && input_.empty())) set.push_back({in_.get(), POLLOUT, 0});
  if (reading_ && out_) set.push_back({out_.get(), POLLIN, 0});
  if (reading_ && err_) set.push_back({err_.get(), POLLIN, 0});
  ::poll(set.data(), set.size(), static_cast<int>(limit.count()));
  if (in_) {
    const ssize_t put = input_.empty() ? 0 : ::write(in_.get(), input_.data(), input_.size());
    if (put > 0) input_.erase(0, static_cast<std::size_t>(put));
    if ((input_.empty() && !terminal_) || (put < 0 && errno != EAGAIN)) in_.reset();
  }
  if (reading_ && out_) drain(out_, result_.out);
  if (reading_ && err_) drain(err_, result_.err);
  if (!ended_ && ::waitpid(pid_, &result_.status, WNOHANG) == pid_) ended_ = true;
  return !ended_ || (reading_ && (out_ || err_));
}

bool Dsmexec::shows(const std::string& text) {
  const auto deadline = Clock::now() + patience;
  const auto seen = [&] {
    return result_.out.find(text) != std::string::npos || result_.err.find(text) != std::string::npos;
  };
  while (!seen()) {
    // It may come with the last turn.
    if (Clock::now() > deadline || (!turn(std::chrono::milliseconds(10)) && !seen())) {
      ADD_FAILURE() << "never shown: " << text << "\n" << result_.out << result_.err;
      return false;
    }
  }
  return true;
}

Ended Dsmexec::wait() {
  const auto deadline = Clock::now() + patience;
  while (turn(std::chrono::milliseconds(10))) {
    if (Clock::now() < deadline) continue;
    ADD_FAILURE() << "dsmexec did not end\n" << result_.out.substr(0, 4000) << result_.err.substr(0, 4000);
    for (const pid_t pid : left()) ::kill(pid, SIGKILL);
    break;
  }
  return result_;
}

std::vector<pid_t> Dsmexec::left() const {
  std::vector<pid_t> found;
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir("/proc"), &::closedir);
  while (const dirent* entry = ::readdir(folder.get())) {
    if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
    const std::string environment = '\0' + content("/proc/" + std::string(entry->d_name) + "/environ");
    if (environment.find('\0' + mark_ + '\0') == std::string::npos) continue;
    found.push_back(std::stoi(entry->d_name));
  }
  return found;
}

pid_t Dsmexec::agent() const {
  for (const pid_t pid : left()) {
    if (content("/proc/" + std::to_string(pid) + "/cmdline").find("--agent") != std::string::npos) return pid;
  }
  return 0;
}

Ended run(Order order) {
  Dsmexec one(std::move(order));
  Ended result = one.wait();
  EXPECT_TRUE(wait_until([&] { return one.left().empty(); })) << "something is left";
  return result;
}

Ended run_script(const std::string& script, std::vector<std::string> options) {
  Order order;
  order.arguments = std::move(options);
  for (const char* word : {"@", "sh", "-c"}) order.arguments.emplace_back(word);
  order.arguments.push_back(script);
  return run(std::move(order));
}

}  // namespace dsm::launch::testing
