// dsm/tests/daemon_bench.hpp - a dsmd of the test's own, and programs that are started by hand, as if in terminals.
//
// Each has its folder, key file and port. What a failed test leaves is killed in the end.
#pragma once
#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "dsm/tests/launch_bench.hpp"

namespace dsm::daemon::testing {

using launch::testing::Ended;

class Program {
 public:
  // `environment`: "NAME=value", in place of what these names have here. `err`: its stderr, instead of what is read here.
  // `descriptors`: more that it gets, under the numbers that they have here.
  Program(const std::vector<std::string>& arguments, const std::vector<std::string>& environment, int err = -1,
          const std::vector<int>& descriptors = {});
  Program(const Program&) = delete;
  ~Program();

  [[nodiscard]] pid_t pid() const { return pid_; }
  bool ended();                         // takes in what it has said, waits for nothing
  bool shows(const std::string& text);  // waits for it; fails the test when it does not come
  // Kills it, and fails the test, if it takes longer.
  Ended wait(std::chrono::seconds limit = launch::testing::patience);
  [[nodiscard]] const std::string& out() const { return result_.out; }  // till the last look at it
  [[nodiscard]] const std::string& err() const { return result_.err; }
  void kill(int signo) const;

 private:
  pid_t pid_ = 0;
  ipc::Fd out_, err_;
  bool ended_ = false;
  Ended result_;
};

using Programs = std::vector<std::unique_ptr<Program>>;

class Dsmd {
 public:
  // Listens at that address of this machine, at a port of its own, and says all there is to say (-v).
  explicit Dsmd(const std::vector<std::string>& options = {}, const std::string& address = "127.0.0.1");
  Dsmd(const Dsmd&) = delete;
  ~Dsmd();

  [[nodiscard]] std::string at() const { return address_ + ":" + std::to_string(port_); }
  [[nodiscard]] std::uint16_t port() const { return port_; }
  [[nodiscard]] const std::string& folder() const { return folder_; }
  [[nodiscard]] std::string key_file() const { return folder_ + "/key"; }
  // DSM_SESSION and DSM_KEY_FILE for a program.
  [[nodiscard]] std::vector<std::string> environment(const std::string& session, int members) const;
  [[nodiscard]] std::unique_ptr<Program> start(const std::vector<std::string>& arguments, const std::string& session,
                                               int members) const;
  // So many of them, the members of one session.
  [[nodiscard]] Programs start_all(const std::vector<std::string>& arguments, const std::string& session,
                                   int members) const;
  Program& itself() { return *itself_; }
  bool said(const std::string& text);  // till now
  [[nodiscard]] std::size_t descriptors() const;

 private:
  std::string folder_, address_;
  std::unique_ptr<Program> itself_;
  std::uint16_t port_ = 0;
};

// They all end with 0, and have nothing to complain of.
void expect_all_well(const Programs& members, std::chrono::seconds limit = launch::testing::patience);
// One line on stderr, with all these parts.
void expect_one_line(const Ended& end, int code, const std::vector<std::string>& parts);
// It lives, and serves.
void expect_unharmed(Dsmd& dsmd);
std::string named(const Program& member);  // as dsmd does: "(127.0.0.1, pid 4711)"

std::string program_path(const std::string& name);  // in build/bin
// What `daemon_run_test --member MODE` does: daemon_member.cpp.
int member_main(const std::vector<std::string>& arguments);
std::vector<std::string> member(const std::string& mode, int count = 0);  // the command line for it

}  // namespace dsm::daemon::testing
