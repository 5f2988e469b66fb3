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
      "folder: this one; where a machine has none of that name, the home folder\n"
      "connections: to dsmexec at the address by which each machine is reached\n"
      "if it shares memory: 3M in pages of 4K, protocol msi, homes cyclic, pager sigsegv\n"
      "nothing was started: leave out --dry-run\n");
}

TEST(DryRun, SaysHowItConnectsAndWhatItSends) {
  Runner::Plan plan;
  plan.options.send = plan.options.encrypt = plan.options.open_rendezvous = true;
  plan.options.interface = "10.0.0.1";
  plan.options.ports = {4000, 4010};
  const std::string text = describe(plan);
  for (const char* line :
       {"\nto machines that have another program at that path, or none: sent (--send)\n",
        "\nconnections: encrypted, to dsmexec at 10.0.0.1, ports 4000-4010, where any program may take part in the "
        "rendezvous\n"}) {
    EXPECT_NE(text.find(line), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace dsm::launch
