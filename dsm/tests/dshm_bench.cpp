#include "dsm/tests/dshm_bench.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "dsm/tests/job_bench.hpp"

namespace dsm::dshm::testing {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

constexpr uid_t nobody = 65534;
constexpr int hosts = 3;

// Where libdshm looks for a key, without DSM_KEY_FILE and HOME: a program may go on as another user.
const char* home_of(User user) { return user == User::root ? "/root" : "/nonexistent"; }

// The first process of that host, whose namespaces are the host's.
std::string first_of(const std::string& root) { return root.substr(6, root.find('/', 6) - 6); }

}  // namespace

void Dshm::SetUp() {
  Hosts::SetUp();
  if (IsSkipped()) return;
  dsmd_ = std::make_unique<Dsmd>(Words{}, master());
  give_keys();
}

void Dshm::TearDown() {
  if (IsSkipped() || dsmd_ == nullptr) return;
  if (!dsmd_->itself().ended()) {
    const std::string left = dshmctl({"list"});
    EXPECT_EQ(launch::testing::count(left, "\n"), 4u) << "objects are left:\n" << left;
  }
  take_keys();
  expect_nothing_left();  // dsmd still lives: an agent ends for want of processes, not of a server
  if (HasFailure()) end_all();
  dsmd_.reset();
  Hosts::TearDown();
}

// What a failed test has left would be the next one's.
void Dshm::end_all() {
  for (int host = 1; host <= hosts; ++host) {
    for (const pid_t pid : processes(host)) ::kill(pid, SIGKILL);
  }
}

void Dshm::take_keys() {
  keys_.clear();
  for (int host = 1; host <= hosts; ++host) {
    fs::remove_all(root(host) + home_of(User::root) + "/.config");
    fs::remove_all(root(host) + home_of(User::ordinary));
  }
}

void Dshm::give_keys() {
  keys_.clear();
  const std::string text = launch::testing::content(dsmd_->key_file());
  for (int host = 1; host <= hosts; ++host) {
    for (const User user : {User::root, User::ordinary}) {
      const std::string path = root(host) + home_of(user) + "/.config/dsm/key";
      fs::create_directories(fs::path(path).parent_path());
      keys_.push_back(std::make_unique<HostFile>(path, text));
      const uid_t owner = user == User::root ? 0 : nobody;
      EXPECT_EQ(::chmod(path.c_str(), 0600), 0);
      EXPECT_EQ(::chown(path.c_str(), owner, owner), 0);
    }
  }
}

void Dshm::restart_dsmd() {
  dsmd_.reset();
  dsmd_ = std::make_unique<Dsmd>(Words{}, master());
  give_keys();
}

Words Dshm::there(const Place& place, const Words& line) const {
  Words words{"nsenter", "--target", first_of(root(place.host))};
  for (const char* each : {"--net", "--uts", "--ipc", "--pid", "--mount", "--cgroup", "--root", "--wd"})
    words.emplace_back(each);
  if (place.user == User::ordinary) {
    words.insert(words.end(), {"--setgid", std::to_string(nobody), "--setuid", std::to_string(nobody)});
  }
  const auto ours = [this](const std::string& name) {
    const std::string path = build() + "/bin/" + name;
    return fs::exists(path) ? path : name;
  };
  if (!place.native) words.insert(words.end(), {ours("dshmrun"), "-s", dsmd_->at()});
  words.push_back(ours(line.front()));
  words.insert(words.end(), line.begin() + 1, line.end());
  return words;
}

std::unique_ptr<Program> Dshm::start(const Place& place, const Words& line, const Words& environment,
                                     const std::vector<int>& descriptors) const {
  Words variables = environment;
  variables.insert(variables.end(), {"DSM_KEY_FILE=", "HOME="});
  return std::make_unique<Program>(there(place, line), variables, -1, descriptors);
}

Ended Dshm::run(const Place& place, const Words& line, const Words& environment) const {
  return start(place, line, environment)->wait();
}

pid_t Dshm::inside(const Program& program) {
  const std::string path = "/proc/" + std::to_string(program.pid());
  pid_t child = 0;
  wait_until([&] {
    std::ifstream(path + "/task/" + std::to_string(program.pid()) + "/children") >> child;
    return child > 0 || !fs::exists(path);
  });
  return child;
}

void Dshm::kill_inside(const Program& program, int signo) {
  const pid_t pid = inside(program);
  ASSERT_GT(pid, 0) << "it has ended already";
  ::kill(pid, signo);
}

std::vector<pid_t> Dshm::agents(int host) const {
  std::vector<pid_t> found;
  for (const pid_t pid : processes(host)) {
    if (launch::testing::command_line(pid).find("dshm_agent") != std::string::npos) found.push_back(pid);
  }
  return found;
}

std::string Dshm::dshmctl(const Words& words, int host) const {
  Words line{"dshmctl", "-s", dsmd_->at()};
  line.insert(line.end(), words.begin(), words.end());
  const Ended end = run({host, User::root, true}, line);
  EXPECT_EQ(end.code(), 0) << launch::testing::text(end);
  return end.out;
}

int Dshm::attached(int id, int host) const {
  const Ended end = run({host, User::root, true}, {"dshmctl", "-s", dsmd_->at(), "stat", std::to_string(id)});
  const std::string before = "\nattached ";
  const std::size_t at = end.out.find(before);
  return end.code() != 0 || at == std::string::npos ? -1 : std::stoi(end.out.substr(at + before.size()));
}

Words Dshm::shell(const std::string& command) { return {"sh", "-c", "PATH=" + build() + "/bin:$PATH; " + command}; }

int number_behind(const Program& program, const std::string& word) {
  const std::size_t at = program.out().find(word);
  return at == std::string::npos ? -1 : std::stoi(program.out().substr(at + word.size()));
}

std::string new_key() {
  static int last = 0;
  return std::to_string(0x44000000 + ::getpid() % 65536 * 256 + ++last);
}

void expect_well(const std::vector<std::unique_ptr<Program>>& programs) {
  for (const auto& one : programs) {
    const Ended end = one->wait();
    EXPECT_EQ(end.code(), 0) << launch::testing::text(end);
    EXPECT_EQ(end.err, "") << launch::testing::text(end);
  }
}

}  // namespace dsm::dshm::testing
