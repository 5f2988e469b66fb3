// labs/common/testing.hpp - what the module tests share: conditions with a deadline, and looking at a process from
// outside. For tests only. Header-only, so that a hand-out can carry it beside the tests.
#pragma once
#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace ipc::testing {

inline constexpr std::chrono::seconds long_enough{
    30};  // a deadline, not a duration: generous, because machines are busy

// A module that is not right yet may wait for ever: then the test program ends after this long (SIGALRM, "Alarm
// clock"), and the last test it named is the one.
inline const unsigned watchdog = ::alarm(120);

// Waits until `condition` holds. False if it does not within the deadline.
inline bool wait_until(const std::function<bool()>& condition, std::chrono::milliseconds deadline = long_enough) {
  const auto end = std::chrono::steady_clock::now() + deadline;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

// The errno of the std::system_error that `action` throws; 0 if it throws none.
template <class Action>
int error_of(Action&& action) {
  try {
    std::forward<Action>(action)();
  } catch (const std::system_error& failure) {
    return failure.code().value();
  }
  return 0;
}

inline std::string read_text(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// A field of /proc/<who>/status, "SigBlk" for instance; empty if the process is gone.
inline std::string status_field(const std::string& who, const std::string& field) {
  std::istringstream lines(read_text("/proc/" + who + "/status"));
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind(field + ":", 0) == 0) return line.substr(line.find_first_not_of(" \t", field.size() + 1));
  }
  return {};
}

// One bit of a signal mask in /proc/<who>/status.
inline bool has_signal(const std::string& who, const std::string& field, int signo) {
  const std::string text = status_field(who, field);
  return !text.empty() && (std::stoull(text, nullptr, 16) >> (signo - 1) & 1) != 0;
}

// Descriptor -> what it is ("pipe:[1234]", a path). The descriptor that reads the list is left out.
inline std::map<int, std::string> open_descriptors(const std::string& who = "self") {
  std::map<int, std::string> result;
  const std::string folder = "/proc/" + who + "/fd";
  DIR* const list = ::opendir(folder.c_str());
  if (list == nullptr) return result;
  while (const dirent* entry = ::readdir(list)) {
    if (entry->d_name[0] == '.') continue;
    const int number = std::stoi(entry->d_name);
    if (who == "self" && number == ::dirfd(list)) continue;
    char target[512];
    const ssize_t length = ::readlink((folder + "/" + entry->d_name).c_str(), target, sizeof target);
    if (length > 0) result[number] = std::string(target, static_cast<std::size_t>(length));
  }
  ::closedir(list);
  return result;
}

// The lines of /proc/self/maps or smaps that speak of this address: the header, and in smaps what follows it.
inline std::string map_entry(const void* address, const char* file = "maps") {
  const auto wanted = reinterpret_cast<unsigned long>(address);
  std::istringstream lines(read_text(std::string("/proc/self/") + file));
  std::string result;
  bool inside = false;
  for (std::string line; std::getline(lines, line);) {
    unsigned long begin = 0, end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2) inside = begin <= wanted && wanted < end;
    if (inside) result += line + "\n";
  }
  return result;
}

// A folder of its own, gone at the end with all that is in it.
class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "ipc-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::system_error(errno, std::generic_category(), "mkdtemp");
    path_ = name;
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] std::string path(const std::string& name) const { return path_ + "/" + name; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// kill(2), but only for a child of ours. What is being tested may hand out any number as a pid, and -1 would be
// everybody.
inline bool is_child(pid_t pid) {
  return pid > 1 && ::waitid(P_PID, static_cast<id_t>(pid), nullptr, WEXITED | WNOHANG | WNOWAIT) == 0;
}
inline int kill_child(pid_t pid, int signo) { return is_child(pid) ? ::kill(pid, signo) : -1; }
inline int kill_group_of_child(pid_t leader, int signo) {
  return is_child(leader) && ::getpgid(leader) == leader ? ::kill(-leader, signo) : -1;
}

// A forked child that runs `body` and leaves with what it returns (99 if it throws). Killed and reaped at the end.
class Child {
 public:
  explicit Child(const std::function<int()>& body) : pid_(::fork()) {
    if (pid_ == -1) throw std::system_error(errno, std::generic_category(), "fork");
    if (pid_ != 0) return;
    int code = 99;
    try {
      code = body();
    } catch (const std::exception& failure) {
      std::fprintf(stderr, "child: %s\n", failure.what());
    }
    ::_exit(code);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    if (pid_ <= 0) return;
    kill_child(pid_, SIGKILL);
    wait();
  }
  [[nodiscard]] pid_t pid() const { return pid_; }
  // The status as waitpid(2) gives it; -1 if somebody else has reaped it.
  int wait() {
    int status = -1;
    while (::waitpid(pid_, &status, 0) == -1 && errno == EINTR) continue;
    pid_ = -1;
    return status;
  }
  void forget() { pid_ = -1; }  // somebody else reaps it

 private:
  pid_t pid_;
};

// Has the process ended? Looks without reaping it.
inline bool has_ended(pid_t pid) {
  siginfo_t info{};
  return ::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

}  // namespace ipc::testing
