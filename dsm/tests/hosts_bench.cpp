#include "dsm/tests/hosts_bench.hpp"

#include <dirent.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <sstream>

#include "ipc/spawn.hpp"

namespace dsm::launch::testing {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

fs::path build_folder() { return fs::path(own_path()).parent_path().parent_path(); }

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> out;
  std::istringstream parts(list);
  for (std::string part; std::getline(parts, part, ',');) out.push_back(part);
  return out;
}

// What can be left: files where anybody may write, and System V segments.
using Things = std::set<std::string>;

class Set : public ::testing::Environment {
 public:
  void SetUp() override {
    script_ = fs::absolute("dsm/tests/hosts.sh");
    std::string name = ::testing::TempDir() + "dsm-hosts-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    home_ = name;
    fs::create_directory(home_ / "tmp");
    for (const auto& [variable, value] :
         std::map<std::string, std::string>{{"DSM_HOSTS_DIR", home_ / "set"},
                                            {"DSM_HOSTS_TREE", build_folder()},
                                            {"DSM_SLOW_LINK", build_folder() / "bin/dsm_slow_link"},
                                            {"HIDE", "1"},
                                            {"TMPDIR", home_ / "tmp"}}) {
      ::setenv(variable.c_str(), value.c_str(), 1);
    }
    start_ender();
    const Said up = hosts_sh({"up", std::to_string(Hosts::all)});
    if (up.code == 77) why_not_ = up.text;
    ASSERT_TRUE(up.code == 0 || up.code == 77) << up.text;
    std::istringstream lines(up.text);
    for (std::string line; std::getline(lines, line);) {
      const auto equals = std::min(line.find('='), line.size());
      said_[line.substr(0, equals)] = split(line.substr(std::min(equals + 1, line.size())));
    }
    stood_ = fs::current_path();
    fs::current_path(build_folder());
    for (int host = 1; host <= Hosts::all && why_not_.empty(); ++host) before_[host] = things(host);
  }
  void TearDown() override {
    if (!stood_.empty()) fs::current_path(stood_);
    EXPECT_TRUE(fs::is_empty(home_ / "tmp")) << "something is left in TMPDIR";
    lifeline_.reset();
    int status = -1;
    if (ender_ > 0) ::waitpid(ender_, &status, 0);
    EXPECT_EQ(status, 0) << "hosts.sh down has failed";
    EXPECT_FALSE(fs::exists(home_));
    before_.clear();
    said_.clear();
    why_not_.clear();
  }

  [[nodiscard]] Said hosts_sh(const std::vector<std::string>& words) const {
    std::string command = "'" + script_.string() + "'";
    for (const std::string& word : words) command += " " + word;
    return shell(command);
  }
  [[nodiscard]] std::string item(const std::string& list, int host) const {
    const auto found = said_.find(list);
    const auto at = static_cast<std::size_t>(host - 1);
    return found != said_.end() && at < found->second.size() ? found->second[at] : "";
  }
  [[nodiscard]] std::string state() const { return home_ / "set"; }
  [[nodiscard]] const std::string& why_not() const { return why_not_; }
  // The first process of a host; 0 if it has been switched off.
  [[nodiscard]] pid_t first(int host) const {
    pid_t pid = 0;
    std::ifstream(state() + "/" + std::to_string(host) + ".pid") >> pid;
    return command_line(pid).find("sshd") != std::string::npos ? pid : 0;
  }
  [[nodiscard]] Things left(int host) const {
    Things now = things(host);
    if (const auto then = before_.find(host); then != before_.end()) {
      for (const std::string& thing : then->second) now.erase(thing);
    }
    return now;
  }

 private:
  // A process that waits for our end, and then takes the hosts down. In a session of its own: what ends all of ours
  // shall not end it.
  void start_ender() {
    ipc::Pipe line = ipc::make_pipe();
    ipc::SpawnOptions options;
    options.arguments = {"setsid", "sh", "-c", "read -r nothing; \"$0\" down && exec rm -rf \"$1\"", script_, home_};
    options.standard_input = line.read.get();
    ender_ = ipc::spawn(options);
    lifeline_ = std::move(line.write);
  }
  [[nodiscard]] Things things(int host) const {
    Things found;
    const pid_t pid = first(host);
    if (pid == 0) return found;
    const std::string at = "/proc/" + std::to_string(pid) + "/root";
    for (const char* folder : {"/tmp", "/var/tmp", "/dev/shm", "/root"}) {
      for (const auto& entry : fs::directory_iterator(at + folder))
        found.insert(folder + ("/" + entry.path().filename().string()));
    }
    const Said segments = shell("nsenter --ipc=/proc/" + std::to_string(pid) + "/ns/ipc tail -n +2 /proc/sysvipc/shm");
    std::istringstream lines(segments.text);
    for (std::string line; std::getline(lines, line);) found.insert("segment " + line);
    return found;
  }

  fs::path script_, home_, stood_;
  std::string why_not_;
  std::map<std::string, std::vector<std::string>> said_;
  std::map<int, Things> before_;
  pid_t ender_ = 0;
  ipc::Fd lifeline_;
};

Set& set() {
  static Set* const one = [] {
    auto* made = new Set;  // GoogleTest's from now on
    ::testing::AddGlobalTestEnvironment(made);
    return made;
  }();
  return *one;
}
[[maybe_unused]] const Set& made_before_main = set();

std::string link_of(const std::string& path) {
  std::error_code error;
  return fs::read_symlink(path, error).string();
}

}  // namespace

HostFile::HostFile(std::string path, const std::string& text) : path_(std::move(path)) {
  std::ofstream(path_, std::ios::binary) << text;
}
HostFile::~HostFile() { ::unlink(path_.c_str()); }

void Hosts::SetUp() {
  if (!set().why_not().empty()) GTEST_SKIP() << set().why_not();
}

void Hosts::TearDown() {
  if (!IsSkipped()) expect_nothing_left();
}

void Hosts::expect_nothing_left() {
  const auto runs_on = [](int host) {
    std::string lines;
    for (const pid_t pid : processes(host)) lines += name(host) + ": " + command_line(pid) + "\n";
    return lines;
  };
  std::string left;
  EXPECT_TRUE(wait_until(
      [&] {
        left.clear();
        for (int host = 1; host <= all; ++host) left += runs_on(host);
        return left.empty();
      },
      2s))
      << left;
  for (int host = 1; host <= all; ++host) EXPECT_EQ(set().left(host), Things()) << "on host " << host;
}

std::string Hosts::name(int host) { return set().item("DSM_HOSTS_NAMES", host); }
std::string Hosts::v4(int host) { return set().item("DSM_HOSTS_V4", host); }
std::string Hosts::v6(int host) { return set().item("DSM_HOSTS_V6", host); }
std::string Hosts::master() { return set().item("DSM_HOSTS_MASTER", 1); }
std::string Hosts::folder() { return set().state(); }
std::string Hosts::root(int host) { return "/proc/" + std::to_string(set().first(host)) + "/root"; }
std::string Hosts::build() { return build_folder(); }
Said Hosts::hosts_sh(const Words& words) { return set().hosts_sh(words); }

Hosts::Words Hosts::ssh(const std::string& more) {
  return {"--ssh", "ssh " + more + " -F " + folder() + "/ssh_config"};
}

Order Hosts::on_machines(const Words& machines, Words options, const Words& line) {
  // A sanitizer's options, in a build that has one: a job's SIGSEGV is not the sanitizer's business.
  for (const char* variable : {"ASAN_OPTIONS", "UBSAN_OPTIONS"}) options.insert(options.end(), {"-x", variable});
  if (std::find(options.begin(), options.end(), "--ssh") == options.end()) {
    for (const std::string& word : ssh()) options.push_back(word);
  }
  Order order = job(std::move(options), line);
  order.machines.clear();
  for (const std::string& machine : machines) order.machines += machine + "\n";
  return order;
}

Order Hosts::on(const std::vector<int>& hosts, Words options, const Words& line) {
  Words names;
  for (const int host : hosts) names.push_back(name(host));
  return on_machines(names, std::move(options), line);
}

std::vector<pid_t> Hosts::processes(int host) {
  std::vector<pid_t> found;
  const pid_t first = set().first(host);
  const std::string space = link_of("/proc/" + std::to_string(first) + "/ns/pid");
  if (first == 0 || space.empty()) return found;
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir("/proc"), &::closedir);
  while (const dirent* entry = ::readdir(folder.get())) {
    if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
    const pid_t pid = std::stoi(entry->d_name);
    if (pid != first && link_of("/proc/" + std::to_string(pid) + "/ns/pid") == space) found.push_back(pid);
  }
  return found;
}

}  // namespace dsm::launch::testing
