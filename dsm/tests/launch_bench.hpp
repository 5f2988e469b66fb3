// dsm/tests/launch_bench.hpp - runs the real dsmexec and sees what it prints, how it ends and what it leaves.
//
// Everything below a run carries a mark of its own in its environment, so that /proc tells what is left of this run,
// whatever else runs on this machine. What a failed test leaves is killed in the end.
#pragma once
#include <sys/types.h>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "ipc/fd.hpp"

namespace dsm::launch::testing {

using Clock = std::chrono::steady_clock;
inline constexpr std::chrono::seconds patience{60};  // far beyond what anything here takes

// Asks again and again, until true or out of patience; false then.
bool wait_until(const std::function<bool()>& condition, std::chrono::milliseconds limit = patience);

struct Ended {
  int status = 0;  // as wait(2) has it
  std::string out, err;
  [[nodiscard]] int code() const;                            // -1 if a signal ended it
  [[nodiscard]] int signal() const;                          // 0 if none did
  [[nodiscard]] std::vector<std::string> own_lines() const;  // dsmexec's own, without "dsmexec: "
};

struct Order {
  std::vector<std::string> arguments;  // of dsmexec, "@" standing for the machine_file
  std::string machines = "localhost\nlocalhost\nlocalhost\nlocalhost\n";
  std::string input;                     // on dsmexec's stdin, then end of file
  std::vector<std::string> environment;  // "NAME=value", beside the present one
  bool one_pipe = false;                 // stderr goes where stdout goes
  bool read = true;                      // whether its output is read while it runs
  bool terminal = false;                 // stdin, stdout, stderr: a terminal, with dsmexec in its foreground
  std::vector<std::string> before{};     // a command that becomes the one behind it, which is dsmexec
};

class Dsmexec {
 public:
  explicit Dsmexec(Order order);
  Dsmexec(const Dsmexec&) = delete;
  ~Dsmexec();

  [[nodiscard]] pid_t pid() const { return pid_; }
  // Reads until `text` has been seen in the output.
  bool shows(const std::string& text);
  void type(const std::string& text) { input_ += text; }  // REQUIRES: a terminal
  // Until dsmexec has ended and its output is at its end. Kills it, and fails the test, when that does not happen.
  Ended wait();
  void close_output() { out_.reset(); }
  void stop_reading() { reading_ = false; }
  void start_reading() { reading_ = true; }
  // Processes that carry this run's mark, dsmexec included; the others have ended or never were.
  [[nodiscard]] std::vector<pid_t> left() const;
  [[nodiscard]] pid_t agent() const;                                   // 0 if there is none
  [[nodiscard]] const std::string& folder() const { return folder_; }  // of its own, gone with it

 private:
  bool turn(std::chrono::milliseconds limit);  // reads, writes, reaps; false when everything has ended
  std::string folder_, mark_, input_;
  ipc::Fd in_, out_, err_;
  pid_t pid_ = 0;
  bool reading_ = true, ended_ = false, terminal_ = false;
  Ended result_;
};

Ended run(Order order);

struct Said {
  int code = -1;
  std::string text;  // stdout and stderr
};
Said shell(const std::string& command);

// `arguments` with the usual four localhosts and a shell script as the program.
Ended run_script(const std::string& script, std::vector<std::string> options = {});
std::string dsmexec_path();
std::string own_path();
// The words of a process's command line, a blank behind each; empty if it is gone.
std::string command_line(pid_t pid);
// Whether these are the words of a guard: the shell and the ssh that start one have them, too, but behind others.
bool is_guard(const std::string& command_line);
std::string content(const std::string& path);  // of a file; empty if it cannot be read
[[nodiscard]] std::size_t count(const std::string& text, const std::string& part);

// What `launch_run_test --rank MODE` does: plays a rank of a DSM job (launch_rank.cpp).
int rank_main(const std::string& mode);

}  // namespace dsm::launch::testing
