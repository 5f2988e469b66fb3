// dsm/tests/dshm_bench.hpp - hosts of hosts.sh and a dsmd that they reach, for tests of programs that share by System V
// calls and know nothing of us.
//
// Hosts 1, 2 and 3 have IPC, network, process and mount namespaces of their own; dsmd is on this machine. After each test
// no object may be left in dsmd, and nothing on any host: no process (so no agent), no file, no segment.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dsm/tests/daemon_bench.hpp"
#include "dsm/tests/hosts_bench.hpp"

namespace dsm::dshm::testing {

using daemon::testing::Dsmd;
using daemon::testing::Program;
using launch::testing::Ended;
using launch::testing::HostFile;
using launch::testing::Said;
using launch::testing::wait_until;
using Words = std::vector<std::string>;

// Root may use userfaultfd; an ordinary user may not, and his pages go by SIGSEGV.
enum class User { root, ordinary };

// How a program is started: on which host, by whom; under dshmrun, or natively.
struct Place {
  int host = 1;
  User user = User::root;
  bool native = false;
};

class Dshm : public launch::testing::Hosts {
 protected:
  void SetUp() override;
  void TearDown() override;

  // A line of words, the first of which is a program of build/bin, if it is there.
  [[nodiscard]] std::unique_ptr<Program> start(const Place& place, const Words& line, const Words& environment = {},
                                               const std::vector<int>& descriptors = {}) const;
  [[nodiscard]] Ended run(const Place& place, const Words& line, const Words& environment = {}) const;
  // The process itself, as this machine numbers it: what was started is nsenter(1), and that is its child.
  static pid_t inside(const Program& program);
  static void kill_inside(const Program& program, int signo = SIGKILL);
  [[nodiscard]] std::vector<pid_t> agents(int host) const;  // of this host
  static Words shell(const std::string& command);           // sh -c, which finds the programs of build/bin

  [[nodiscard]] Dsmd& dsmd() const { return *dsmd_; }
  void restart_dsmd();  // at another port: all before it is over
  // dshmctl WORDS..., on a host; its output. Fails the test if it does not end with 0.
  [[nodiscard]] std::string dshmctl(const Words& words, int host = 1) const;
  // IPC_STAT's nattch, as `dshmctl stat` has it; -1 if there is none of this id.
  [[nodiscard]] int attached(int id, int host = 1) const;

 private:
  static void end_all();
  void give_keys();
  void take_keys();
  [[nodiscard]] Words there(const Place& place, const Words& line) const;
  std::unique_ptr<Dsmd> dsmd_;
  std::vector<std::unique_ptr<HostFile>> keys_;
};

// A key that no other test has.
std::string new_key();
// The number that stands behind `word` in what it has said.
int number_behind(const Program& program, const std::string& word);
// They all end with 0 and have nothing to complain of.
void expect_well(const std::vector<std::unique_ptr<Program>>& programs);

}  // namespace dsm::dshm::testing
