// dsm/tests/hosts_bench.hpp - the hosts of hosts.sh, for tests that start whole jobs on them over ssh.
//
// One set for the whole program, numbered from 1. Each has the build folder, read-only, at its path, but for the last
// one, and that is also where the tests and so their jobs stand. The set is taken down when the program ends, in
// whatever way. Where there can be none, all tests are skipped. After each test nothing may be left: no process, file
// or segment on any host, nothing in this machine's folder for temporary files.
#pragma once
#include <gtest/gtest.h>
#include <sys/types.h>

#include <string>
#include <vector>

#include "dsm/tests/job_bench.hpp"

namespace dsm::launch::testing {

class Hosts : public ::testing::Test {
 public:
  // 1 to 4 are used by all tests, and as they were after each.
  static constexpr int all = 6, to_crash = 5, without_tree = 6;

 protected:
  using Words = std::vector<std::string>;
  void SetUp() override;
  void TearDown() override;

  static std::string name(int host);
  static std::string v4(int host);
  static std::string v6(int host);           // empty: this kernel has no IPv6
  static std::string master();               // this machine's address among them
  static std::string folder();               // the state folder of hosts.sh
  static std::string root(int host);         // of its files, as this machine sees it
  static std::string build();                // the build folder, here and there
  static Said hosts_sh(const Words& words);  // a verb of hosts.sh

  // dsmexec OPTIONS... machine_file LINE..., the machine_file having one line for each of `machines`.
  static Order on_machines(const Words& machines, Words options, const Words& line);
  static Order on(const std::vector<int>& hosts, Words options, const Words& line);
  // The option --ssh for the hosts' keys and names; `more`: options of ssh that count more than those.
  static Words ssh(const std::string& more = "");

  // Pids, as this machine counts them, of all that runs on that host, but for its sshd.
  static std::vector<pid_t> processes(int host);
  static void expect_nothing_left();  // on any host, within two seconds
};

// A file of a host's, or one that will be made: gone with it.
class HostFile {
 public:
  explicit HostFile(std::string path) : path_(std::move(path)) {}  // as this machine sees it
  HostFile(std::string path, const std::string& text);
  HostFile(const HostFile&) = delete;
  ~HostFile();
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace dsm::launch::testing
