#include "dsm/launch/dry_run.hpp"

#include <gtest/gtest.h>

#include <memory>

#include "dsm/launch/ssh.hpp"

namespace dsm::launch {
namespace {

TEST(DryRun, SaysWhereHowAndWhat) {
  Runner::Plan plan;
  Site here, there;
  here.machine.host = "localhost";
  here.local = true;
  here.ranks = {0, 1};
  there.machine.host = "far";
  there.machine.port = 2222;
  there.ranks = {2};
  plan.sites = {here, there};
  plan.hosts = {"localhost", "localhost", "far"};
  plan.program = "/opt/prog";
  plan.options.arguments = {"plain", "", "it's", "*"};
  plan.remote = std::make_shared<Ssh>(std::vector<std::string>{"ssh", "-F", "my file"});
  plan.options.size = 3u << 20;
  EXPECT_EQ(
      describe(plan),
      "ranks 0-1 on localhost: by fork\n"
      "rank 2 on far: by ssh -F 'my file' -T -x -a -o BatchMode=yes -o ConnectTimeout=5 -o EscapeChar=none -p 2222 "
      "far ...\n"
      "program: /opt/prog plain '' 'it'\"'\"'s' '*'\n"
      "folder: this one\n"
      "if it shares memory: 3M in pages of 4K, protocol msi, homes cyclic, pager sigsegv\n"
      "nothing was started: leave out --dry-run\n");
}

}  // namespace
}  // namespace dsm::launch
