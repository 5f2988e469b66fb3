#include "dsm/launch/processes.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <sstream>
#include <string_view>

#include "ipc/error.hpp"
#include "ipc/fd.hpp"
#include "ipc/spawn.hpp"

namespace dsm::launch {
namespace {

struct Entry {
  pid_t pid = 0, parent = 0;
  bool zombie = false;
};

// The first fields of /proc/PID/stat (proc(5)): "pid (name) state ppid ..."; the name may hold anything, parentheses
// too.
bool read_stat(const char* pid_text, Entry& out) {
  std::array<char, 512> buffer{};
  const std::string path = std::string("/proc/") + pid_text + "/stat";
  const ipc::Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return false;
  const ssize_t size = ipc::read_full(file.get(), buffer.data(), buffer.size());
  if (size <= 0) return false;
  std::string_view text(buffer.data(), static_cast<std::size_t>(size));
  const auto name_end = text.rfind(") ");
  if (name_end == std::string_view::npos || name_end + 5 > text.size()) return false;
  out.zombie = text[name_end + 2] == 'Z' || text[name_end + 2] == 'X';
  const char* const parent = text.data() + name_end + 4;
  const char* const end = text.data() + text.size();
  std::from_chars(pid_text, pid_text + std::strlen(pid_text), out.pid);
  return std::from_chars(parent, end, out.parent).ec == std::errc();
}

// Whether all children of this process, which has one thread, are in `except`: so it has no descendants but those. A
// zombie counts. False, too, if the kernel has no such list (CONFIG_PROC_CHILDREN). The list may miss children when
// one is reaped while it is being read, proc(5); but nobody but us reaps ours.
bool all_children_are_in(const std::set<pid_t>& except) {
  const std::string self = std::to_string(::getpid());
  const ipc::Fd file(::open(("/proc/self/task/" + self + "/children").c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return false;
  std::array<char, 512> buffer{};
  const ssize_t size = ipc::read_full(file.get(), buffer.data(), buffer.size());
  if (size < 0 || static_cast<std::size_t>(size) == buffer.size()) return false;  // so many are not all excepted
  const char* const end = buffer.data() + size;
  for (const char* at = buffer.data(); at != end;) {
    pid_t child = 0;
    const auto [behind, error] = std::from_chars(at, end, child);
    if (error != std::errc() || except.count(child) == 0) return false;
    at = behind != end ? behind + 1 : end;  // each has a blank behind it
  }
  return true;
}

}  // namespace

bool is_gone(pid_t pid) {
  Entry process;
  return !read_stat(std::to_string(pid).c_str(), process) ? ::kill(pid, 0) == -1 && errno == ESRCH : process.zombie;
}

void become_subreaper() { ipc::check(::prctl(PR_SET_CHILD_SUBREAPER, 1), "prctl PR_SET_CHILD_SUBREAPER"); }

std::vector<pid_t> descendants(pid_t root, const std::set<pid_t>& except) {
  if (root == ::getpid() && all_children_are_in(except)) return {};  // as when a job ends well; a look at all costs
  std::multimap<pid_t, Entry> children;
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir("/proc"), &::closedir);
  if (!folder) ipc::throw_errno("opendir /proc");
  while (const dirent* entry = ::readdir(folder.get())) {
    Entry process;
    if (entry->d_name[0] < '1' || entry->d_name[0] > '9' || !read_stat(entry->d_name, process)) continue;
    children.emplace(process.parent, process);
  }
  std::vector<pid_t> out, roots = {root};
  while (!roots.empty()) {
    const auto [first, last] = children.equal_range(roots.back());
    roots.pop_back();
    for (auto child = first; child != last; ++child) {
      if (except.count(child->second.pid) != 0) continue;
      roots.push_back(child->second.pid);  // a zombie's threads are gone, and so are its children; harmless
      if (!child->second.zombie) out.push_back(child->second.pid);
    }
  }
  return out;
}

std::size_t signal_descendants(pid_t root, int signo, const std::set<pid_t>& except) {
  const auto found = descendants(root, except);
  for (const pid_t pid : found) ::kill(pid, signo);
  return found.size();
}

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return ::sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

std::string oom_file(const std::string& cgroups) {
  std::string found;
  std::istringstream lines(cgroups);
  for (std::string line; std::getline(lines, line);) {  // "4:memory:/path", or of version 2 "0::/path"
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string path = line.substr(second + 1);
    if (controllers.find(",memory,") != std::string::npos)
      return "/sys/fs/cgroup/memory" + path + "/memory.oom_control";
    if (controllers == ",,") found = "/sys/fs/cgroup" + path + "/memory.events";
  }
  return found;
}

std::uint64_t oom_kills_in(std::istream& file) {
  std::uint64_t count = 0;
  for (std::string word; file >> word;) {
    if (word == "oom_kill" && file >> count) return count;
  }
  return 0;
}

std::uint64_t oom_kills() {
  std::ifstream own("/proc/self/cgroup");
  std::ifstream of_cgroup(oom_file({std::istreambuf_iterator<char>(own), {}}));
  if (of_cgroup) return oom_kills_in(of_cgroup);
  std::ifstream of_machine("/proc/vmstat");
  return oom_kills_in(of_machine);
}

}  // namespace dsm::launch
