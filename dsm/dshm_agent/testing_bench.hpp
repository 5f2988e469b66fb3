// dsm/dshm_agent/testing_bench.hpp - agents of a test's own, and processes that are their clients. Used by the agent's
// tests.
//
// What a failed test leaves is killed in the end.
#pragma once
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "dsm/dshm_agent/testing_client.hpp"
#include "dsm/tests/daemon_bench.hpp"
#include "ipc/fd.hpp"

namespace dsm::dshm_agent::testing {

// build/bin/dshm_agent, started as libdshm does.
class AgentProgram {
 public:
  AgentProgram(const std::string& server, const std::string& key_file);
  AgentProgram(const AgentProgram&) = delete;
  ~AgentProgram();

  [[nodiscard]] const std::string& said() const { return said_; }      // its one line
  [[nodiscard]] const std::string& server() const { return server_; }  // as it was named
  [[nodiscard]] pid_t pid() const { return pid_; }
  void kill(int signo) const { ::kill(pid_, signo); }
  void stop() const;         // SIGSTOP; returns when all its threads have stopped
  [[nodiscard]] int wait();  // its exit code; 128 + n: signal n; -1, and the test fails, if it does not end

 private:
  std::string server_, said_;
  pid_t pid_ = 0;
};

// A child of the test's that does `body`, and ends: 0, or 1 and a line on stderr if it throws.
class Child {
 public:
  explicit Child(const std::function<void(Child&)>& body);
  Child(const Child&) = delete;
  ~Child();

  [[nodiscard]] pid_t pid() const { return pid_; }
  void kill(int signo) const { ::kill(pid_, signo); }
  void stop() const;         // as AgentProgram's
  [[nodiscard]] int wait();  // as AgentProgram's

  // In step: the child says what it has to say, the test waits for it, and lets it go on.
  void tell(std::int64_t value);                         // child
  void await();                                          // child: until the test says go
  [[nodiscard]] std::int64_t hear();                     // test; -1, and the test fails, if nothing comes
  [[nodiscard]] bool speaks_within_ms(int limit) const;  // test: hear() would not wait for longer
  void go();                                             // test

 private:
  ipc::Fd read_, write_;
  pid_t pid_ = 0;
};

// A dsmd, and two agents that know it by two names: two hosts, to it and to the pages.
class Hosts : public ::testing::Test {
 protected:
  Hosts();
  daemon::testing::Dsmd dsmd;
  std::unique_ptr<AgentProgram> here, there;
  void expect_all_ended();  // both agents, well
};

}  // namespace dsm::dshm_agent::testing
