// labs/common/session.hpp - the shell sessions of a hand-out, and a shell that goes through them. For tests only.
#pragma once
#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "labs/common/observing.hpp"

namespace ipc::testing {

struct Step {
  int line;  // in the hand-out
  std::string command;
  std::vector<std::string> expected;
};
struct Session {
  std::vector<Step> steps;
};

// An indented block that has a line "$ command" is a session; what follows such a line is expected of it.
inline std::vector<Session> read_sessions(const std::string& path) {
  std::vector<Session> sessions;
  std::ifstream file(path);
  bool inside = false;
  int number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    const bool indented = line.rfind("    ", 0) == 0;
    if (!indented) {
      inside = false;
    } else if (line.rfind("    $ ", 0) == 0) {
      if (!inside) sessions.emplace_back();
      inside = true;
      sessions.back().steps.push_back({number, line.substr(6), {}});
    } else if (inside) {
      sessions.back().steps.back().expected.push_back(line.substr(4));
    }
  }
  return sessions;
}

inline std::string join(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

// Compares expected with real output: see labs/common/README.md.
class Matcher {
 public:
  bool match(std::vector<std::string> expected, const std::vector<std::string>& real) {
    std::erase_if(expected, is_job_line);
    return match_from(expected, 0, real, 0);
  }
  // "[1] 29082": an interactive shell's word on a background job.
  static bool is_job_line(const std::string& line) {
    int job = 0, pid = 0, end = 0;
    return std::sscanf(line.c_str(), "[%d] %d%n", &job, &pid, &end) == 2 &&
           static_cast<std::size_t>(end) == line.size();
  }

 private:
  using Numbers = std::map<std::string, std::string>;

  bool match_from(const std::vector<std::string>& expected, std::size_t e, const std::vector<std::string>& real,
                  std::size_t r) {
    if (e == expected.size()) return r == real.size();
    if (expected[e] == "...") {
      for (std::size_t next = r; next <= real.size(); ++next) {
        if (match_from(expected, e + 1, real, next)) return true;
      }
      return false;
    }
    if (r == real.size()) return false;
    const Numbers before = processes_;
    if (match_line(expected[e], real[r]) && match_from(expected, e + 1, real, r + 1)) return true;
    processes_ = before;
    return false;
  }

  static std::size_t digits(const std::string& text, std::size_t at) {
    const std::size_t end = text.find_first_not_of("0123456789", at);
    return (end == std::string::npos ? text.size() : end) - at;
  }

  bool match_line(const std::string& expected, const std::string& real) {
    std::size_t e = 0, r = 0;
    while (e < expected.size()) {
      const std::size_t length = digits(expected, e);
      if (length == 0) {
        if (r == real.size() || expected[e++] != real[r++]) return false;
        continue;
      }
      const std::string number = expected.substr(e, length);
      const std::string other = real.substr(r, digits(real, r));
      const bool is_process = length == 5 && number.rfind("29", 0) == 0;
      if (is_process ? !same_process(number, other) : number != other) return false;
      e += length, r += other.size();
    }
    return r == real.size();
  }

  bool same_process(const std::string& name, const std::string& number) {
    if (number.empty()) return false;
    for (const auto& [other_name, other_number] : processes_) {
      if ((other_name == name) != (other_number == number)) return false;
    }
    processes_[name] = number;
    return true;
  }

  Numbers processes_;
};

// One bash. Its current folder is a new one, with links to the project's `build` and `labs` in it.
class Shell {
 public:
  Shell() : bash_(start()), commands_(open_commands()) {}

  // What it printed, both streams; nothing if it did not come to an end.
  std::optional<std::vector<std::string>> run(const Step& step) {
    const std::string text = step.command + "\n";
    if (::write(commands_.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) return std::nullopt;
    std::vector<std::string> printed;
    for (;;) {
      auto line = bash_.line();
      if (!line) return std::nullopt;
      const std::size_t mark = line->find(end_of_command);
      if (mark == std::string::npos) {
        printed.push_back(*line);
        continue;
      }
      if (mark > 0) printed.push_back(line->substr(0, mark));
      break;
    }
    if (in_background(step.command) && !see_background(step, printed)) return std::nullopt;
    return printed;
  }

  // Ends it. False if it left processes.
  bool end() {
    commands_.reset();
    const int code = bash_.wait();
    return bash_.left_processes().empty() && code != -1;
  }

 private:
  static constexpr char end_of_command = '\036';

  Started start() {
    namespace fs = std::filesystem;
    fs::create_directory_symlink(build_folder(), folder_.path("build"));
    fs::create_directory_symlink(fs::absolute("labs"), folder_.path("labs"));
    if (::mkfifo(commands_path().c_str(), 0600) == -1) throw std::runtime_error("mkfifo");
    // Commands come on descriptor 9, so that what runs has an empty standard input of its own.
    const char* const loop =
        "exec 9<\"$1\" 2>&1; status=0; "
        "while IFS= read -r -u 9 line; do (exit $status); eval \"$line\" 9<&-; status=$?; printf '\\036\\n'; done";
    return Started({"/bin/bash", "--norc", "-c", loop, "bash", commands_path()},
                   {.environment = {"LC_ALL=C"}, .folder = folder_.path()});
  }
  std::string commands_path() const { return private_.path("commands"); }
  Fd open_commands() const { return Fd(::open(commands_path().c_str(), O_WRONLY | O_CLOEXEC)); }

  static bool in_background(const std::string& command) { return !command.empty() && command.back() == '&'; }

  // A student reads what a background program says, and sees that it waits for something, before he types the next line.
  // One look could catch a program that sleeps for a moment only, on its way to where it is going.
  bool see_background(const Step& step, std::vector<std::string>& printed) {
    const auto wanted = static_cast<std::size_t>(std::count_if(
        step.expected.begin(), step.expected.end(), [](const auto& line) { return !Matcher::is_job_line(line); }));
    while (printed.size() < wanted) {
      auto line = bash_.line();
      if (!line) return false;
      printed.push_back(*line);
    }
    int calm = 0;
    return wait_until([&] { return (calm = all_wait() ? calm + 1 : 0) == 5; });
  }
  bool all_wait() const {
    for (const pid_t pid : children_of(bash_.pid())) {
      const char state = state_of(pid);
      if (state != 'S' && state != 'Z' && state != 'T' && state != '\0') return false;
    }
    return true;
  }

  TempDir folder_, private_;
  Started bash_;
  Fd commands_;
};

}  // namespace ipc::testing
