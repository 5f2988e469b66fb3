// Litmus tests on a System V segment, each member a process on one of the hosts: nothing forbidden comes out, as root
// (userfaultfd) and as an ordinary user (SIGSEGV). That such tests find a bug is shown by litmus_test.
//
// The number of rounds is 50 times the environment's DSM_TEST_RUNS, or 500.
#include <gtest/gtest.h>
#include <unistd.h>

#include "dsm/tests/dshm_bench.hpp"
#include "dsm/tests/job_bench.hpp"
#include "dsm/tests/litmus.hpp"

namespace dsm::dshm::testing {
namespace {

struct Trial {
  const char* name;
  std::vector<int> hosts;  // of each member
};

class DshmLitmus : public Dshm {
 protected:
  void play(const Trial& trial, User user) const {
    const std::string rounds = std::to_string(50 * launch::testing::runs(10)), seed = std::to_string(::getpid());
    SCOPED_TRACE(std::string(trial.name) + (user == User::root ? ", root" : ", ordinary user") + ", seed " + seed);
    const std::string key = new_key(), members = std::to_string(trial.hosts.size());
    std::vector<std::unique_ptr<Program>> players;
    for (const int host : trial.hosts) {
      const std::string me = std::to_string(players.size());
      players.push_back(start({host, user}, {"dshm_litmus", trial.name, key, "--members", members, "--member", me,
                                             "--rounds", rounds, "--seed", seed, "--frequencies", "off"}));
    }
    expect_well(players);
    const std::string out = players.front()->wait().out;
    for (const litmus::Shape& shape : litmus::shapes(trial.name)) {
      EXPECT_TRUE(launch::testing::has_line(out, {shape.name + ": " + rounds + " rounds", " 0 times a forbidden one"}))
          << out;
    }
  }
};

TEST_F(DshmLitmus, NothingForbiddenComesOut) {
  for (const User user : {User::root, User::ordinary}) {
    for (const Trial& trial :
         {Trial{"sb", {1, 2}}, Trial{"mp", {1, 2}}, Trial{"corr", {1, 2, 1, 2}}, Trial{"iriw", {1, 2, 3, 2}}}) {
      play(trial, user);
    }
  }
}

}  // namespace
}  // namespace dsm::dshm::testing
