// dsm/dshm/run_host.hpp - for dshm_run_test: a dsmd of the test's own, programs under dshmrun, and what is left of
// them.
//
// Thread-safety: none.
#pragma once
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "dsm/tests/daemon_bench.hpp"
#include "dsm/tests/job_bench.hpp"

namespace dsm::dshm::testing {

namespace fs = std::filesystem;
using daemon::testing::Dsmd;
using daemon::testing::Ended;
using daemon::testing::Program;
using daemon::testing::program_path;
using launch::testing::command_line;
using launch::testing::content;
using launch::testing::wait_until;

using Words = std::vector<std::string>;

class Host {
 public:
  explicit Host(std::string pager) : pager_(std::move(pager)) {}

  [[nodiscard]] Words environment(const Words& more = {}) const {
    Words all = more;  // first, so that it counts
    all.push_back("DSM_KEY_FILE=" + dsmd.key_file());
    if (!pager_.empty()) all.push_back("DSHM_PAGER=" + pager_);
    return all;
  }
  [[nodiscard]] Words under(const Words& program) const {
    Words all{program_path("dshmrun"), "-s", dsmd.at()};
    all.insert(all.end(), program.begin(), program.end());
    return all;
  }
  [[nodiscard]] Ended run(const Words& program, const Words& environment_too = {}) const {
    return Program(under(program), environment(environment_too)).wait();
  }
  [[nodiscard]] Ended shell(const std::string& script) const { return run({"/bin/sh", "-c", script}); }

  // Processes that are here because of this host's programs, by the key file in their environment.
  [[nodiscard]] std::vector<pid_t> left() const { return left(dsmd.key_file()); }
  [[nodiscard]] static std::vector<pid_t> left(const std::string& key) {
    std::vector<pid_t> all;
    for (const auto& entry : fs::directory_iterator("/proc")) {
      const std::string name = entry.path().filename();
      if (name.find_first_not_of("0123456789") != std::string::npos) continue;
      const std::string block = std::string(1, '\0') + content(entry.path() / "environ");
      const std::string mark = std::string(1, '\0') + "DSM_KEY_FILE=" + key + std::string(1, '\0');
      if (block.find(mark) != std::string::npos) all.push_back(static_cast<pid_t>(std::stol(name)));
    }
    return all;
  }
  [[nodiscard]] pid_t agent() const {
    for (const pid_t pid : left()) {
      if (command_line(pid).find("dshm_agent") != std::string::npos) return pid;
    }
    return 0;
  }
  // The last program takes the agent with it.
  void expect_empty() const {
    EXPECT_TRUE(wait_until([this] { return left().empty(); })) << left().size() << " processes are left";
  }

  Dsmd dsmd;

 private:
  const std::string pager_;
};

}  // namespace dsm::dshm::testing
