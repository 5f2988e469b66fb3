#include "dsm/tests/daemon_bench.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "dsm/tests/job_bench.hpp"
#include "ipc/error.hpp"
#include "ipc/spawn.hpp"

extern char** environ;

namespace dsm::daemon::testing {
namespace {

namespace fs = std::filesystem;
using launch::testing::count;
using launch::testing::has_line;
using launch::testing::text;
using launch::testing::wait_until;

std::string name_of(const std::string& variable) { return variable.substr(0, variable.find('=') + 1); }

std::vector<std::string> with(const std::vector<std::string>& changed) {
  std::vector<std::string> all = changed;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string name = name_of(*entry);
    bool is_changed = false;
    for (const std::string& one : changed) is_changed = is_changed || name_of(one) == name;
    if (!is_changed) all.emplace_back(*entry);
  }
  return all;
}

// A file, not a pipe: nobody has to read it while the program runs.
ipc::Fd make_file() { return ipc::Fd(ipc::check(::memfd_create("said", MFD_CLOEXEC), "memfd_create")); }

void read_on(const ipc::Fd& file, std::string& to) {
  char buffer[4096];
  ssize_t got = 0;
  while ((got = ::pread(file.get(), buffer, sizeof buffer, static_cast<off_t>(to.size()))) > 0) {
    to.append(buffer, static_cast<std::size_t>(got));
  }
}

}  // namespace

std::string program_path(const std::string& name) {
  return fs::path(launch::testing::dsmexec_path()).replace_filename(name).string();
}

Program::Program(const std::vector<std::string>& arguments, const std::vector<std::string>& environment, int err,
                 const std::vector<int>& descriptors)
    : out_(make_file()), err_(make_file()) {
  const ipc::Fd nothing(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  ipc::SpawnOptions options;
  options.arguments = arguments;
  options.environment = with(environment);
  options.standard_input = nothing.get();
  options.standard_output = out_.get();
  options.standard_error = err < 0 ? err_.get() : err;
  for (const int fd : descriptors) options.descriptors.emplace_back(fd, fd);
  pid_ = ipc::spawn(options);
}

Program::~Program() {
  if (ended_) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void Program::kill(int signo) const {
  if (!ended_) ::kill(pid_, signo);
}

bool Program::ended() {
  if (!ended_ && ::waitpid(pid_, &result_.status, WNOHANG) == pid_) ended_ = true;
  read_on(out_, result_.out);  // after that: all that it said before its end
  read_on(err_, result_.err);
  return ended_;
}

bool Program::shows(const std::string& text) {
  const auto seen = [&] {
    return result_.out.find(text) != std::string::npos || result_.err.find(text) != std::string::npos;
  };
  wait_until([&] { return ended() || seen(); });
  if (!seen()) ADD_FAILURE() << "never shown: " << text << "\n" << result_.out << result_.err;
  return seen();
}

Ended Program::wait(std::chrono::seconds limit) {
  if (!wait_until([this] { return ended(); }, limit)) {
    ADD_FAILURE() << "it did not end\n" << result_.out << result_.err;
    kill(SIGKILL);
    wait_until([this] { return ended(); });
  }
  return result_;
}

Dsmd::Dsmd(const std::vector<std::string>& options, const std::string& address)
    : folder_(::testing::TempDir() + "dsm-daemon-XXXXXX"), address_(address) {
  EXPECT_NE(::mkdtemp(folder_.data()), nullptr);
  std::vector<std::string> arguments{program_path("dsmd"), "--listen", address_, "--port", "0", "--key",
                                     key_file(),           "-v"};
  arguments.insert(arguments.end(), options.begin(), options.end());
  itself_ = std::make_unique<Program>(arguments, std::vector<std::string>{});
  const std::string before = "dsmd: listens at " + address_ + ":";
  if (!itself_->shows("; the key file is ")) return;
  port_ = static_cast<std::uint16_t>(std::stoi(itself_->err().substr(itself_->err().find(before) + before.size())));
}

Dsmd::~Dsmd() {
  const bool lives = !itself_->ended();
  itself_->kill(SIGTERM);
  const Ended end = itself_->wait();
  EXPECT_TRUE(!lives || end.code() == 0) << launch::testing::text(end);
  if (::testing::Test::HasFailure()) std::fputs(end.err.c_str(), stderr);
  fs::remove_all(folder_);
}

std::vector<std::string> Dsmd::environment(const std::string& session, int members) const {
  return {"DSM_SESSION=" + at() + "/" + session + ":" + std::to_string(members), "DSM_KEY_FILE=" + key_file()};
}

std::unique_ptr<Program> Dsmd::start(const std::vector<std::string>& arguments, const std::string& session,
                                     int members) const {
  return std::make_unique<Program>(arguments, environment(session, members));
}

Programs Dsmd::start_all(const std::vector<std::string>& arguments, const std::string& session, int members) const {
  Programs all;
  for (int i = 0; i < members; ++i) all.push_back(start(arguments, session, members));
  return all;
}

bool Dsmd::said(const std::string& text) {
  itself_->ended();
  return itself_->err().find(text) != std::string::npos;
}

std::size_t Dsmd::descriptors() const {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& each : fs::directory_iterator("/proc/" + std::to_string(itself_->pid()) + "/fd"))
    ++count;
  return count;
}

std::vector<std::string> member(const std::string& mode, int count) {
  return {launch::testing::own_path(), "--member", mode, std::to_string(count)};
}

void expect_all_well(const Programs& members, std::chrono::seconds limit) {
  for (const auto& one : members) {
    const Ended end = one->wait(limit);
    EXPECT_EQ(end.code(), 0) << text(end);
    EXPECT_EQ(end.err, "") << text(end);
  }
}

void expect_one_line(const Ended& end, int code, const std::vector<std::string>& parts) {
  EXPECT_EQ(end.code(), code) << text(end);
  EXPECT_EQ(count(end.err, "\n"), 1u) << text(end);
  EXPECT_TRUE(has_line(end.err, parts)) << text(end);
}

void expect_unharmed(Dsmd& dsmd) {
  ASSERT_FALSE(dsmd.itself().ended()) << dsmd.itself().err();
  expect_all_well(dsmd.start_all({program_path("hello")}, "unharmed", 2));
}

std::string named(const Program& member) { return "(127.0.0.1, pid " + std::to_string(member.pid()) + ")"; }

}  // namespace dsm::daemon::testing
