// dsm/tests/run.hpp - runs a program to its end, or kills it in the middle, and keeps what it said. For tests only.
#pragma once
#include <sys/types.h>

#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "ipc/fd.hpp"

namespace dsm::testing {

// A program of build/bin, found beside this test's own folder.
[[nodiscard]] std::string program(const std::string& name);
// A machine_file that names this machine `lines` times; in the folder of the tests, made once.
[[nodiscard]] std::string machine_file(int lines = 4);

struct Result {
  int status = -1;   // as wait(2) says it
  int code = -1;     // as a shell says it: exit code, or 128 + signal
  bool timed_out = false;
  std::string out, err;
  std::chrono::milliseconds took{0};
};

// A running program; its output is read by two threads while it runs. The environment has MARK=<mark()>, which all that it
// starts inherits, so that left_behind() can tell whose they are.
class Running {
 public:
  explicit Running(std::vector<std::string> arguments, const std::string& standard_input = {});
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
  ~Running();  // kills what is left

  [[nodiscard]] pid_t pid() const { return pid_; }
  // Waits for the end; at the deadline kills it, and all that carries its mark.
  Result finish(std::chrono::seconds deadline = std::chrono::seconds(60));
  // Pids of the living processes that carry the mark, but for the program itself.
  [[nodiscard]] std::vector<pid_t> family() const;

 private:
  std::string mark_;
  pid_t pid_ = -1;
  std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
  std::string out_, err_;
  std::vector<std::thread> readers_;
};

[[nodiscard]] Result run(std::vector<std::string> arguments, std::chrono::seconds deadline = std::chrono::seconds(60));
// dsmexec OPTIONS... machine_file PROGRAM...
[[nodiscard]] std::vector<std::string> job(std::vector<std::string> options, const std::vector<std::string>& program_line);

// NAME=value of a process's environment; empty if it has none, or is gone.
[[nodiscard]] std::string variable_of(pid_t pid, const std::string& name);
[[nodiscard]] bool wait_until(const std::function<bool()>& condition, std::chrono::milliseconds deadline);

}  // namespace dsm::testing
