#include "dsm/launch/processes.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "ipc/spawn.hpp"

namespace dsm::launch {
namespace {

// A shell whose grandchild leaves group and session; both report their pids, then hold the pipe open.
struct Family {
  Family() {
    ipc::Pipe out = ipc::make_pipe();
    ipc::SpawnOptions options;
    options.arguments = {"sh", "-c", "setsid sh -c 'echo $$; exec sleep 1000' & wait"};
    options.standard_output = out.write.get();
    parent = ipc::spawn(options);
    out.write.reset();
    std::string text;
    char c = 0;
    while (ipc::read_full(out.read.get(), &c, 1) == 1 && c != '\n') text += c;
    grandchild = std::stoi(text);
  }
  pid_t parent = 0, grandchild = 0;
};

bool contains(const std::vector<pid_t>& list, pid_t pid) {
  return std::find(list.begin(), list.end(), pid) != list.end();
}

TEST(Processes, DescendantsAreFoundAcrossSessionsAndAfterTheirParentsDeath) {
  become_subreaper();
  const std::vector<pid_t> before = descendants(::getpid());
  EXPECT_TRUE(before.empty());
  const Family family;
  EXPECT_TRUE(contains(descendants(::getpid()), family.parent));
  EXPECT_TRUE(contains(descendants(::getpid()), family.grandchild));
  EXPECT_TRUE(descendants(::getpid(), {family.parent}).empty());
  const Family other;
  EXPECT_EQ(descendants(::getpid(), {family.parent, other.parent}), std::vector<pid_t>());
  EXPECT_TRUE(contains(descendants(::getpid(), {family.parent}), other.grandchild));
  EXPECT_FALSE(contains(descendants(::getpid(), {family.parent}), family.grandchild));
  EXPECT_FALSE(contains(descendants(family.grandchild), family.parent));

  ASSERT_EQ(::kill(family.parent, SIGKILL), 0);
  ASSERT_EQ(::waitpid(family.parent, nullptr, 0), family.parent);
  EXPECT_TRUE(contains(descendants(::getpid()), family.grandchild)) << "it must have come to us";
  while (signal_descendants(::getpid(), SIGKILL) > 0) {
    while (::waitpid(-1, nullptr, WNOHANG) > 0) continue;
  }
  while (::waitpid(-1, nullptr, 0) > 0) continue;
  EXPECT_TRUE(descendants(::getpid()).empty());
}

TEST(OutOfMemory, TheFileThatCountsIsThatOfTheOwnCgroup) {
  EXPECT_EQ(oom_file("0::/user.slice/a\n"), "/sys/fs/cgroup/user.slice/a/memory.events");
  EXPECT_EQ(oom_file("9:name=systemd:/\n4:cpu,memory:/box/7\n0::/\n"),
            "/sys/fs/cgroup/memory/box/7/memory.oom_control");
  EXPECT_EQ(oom_file("9:name=systemd:/\n"), "");
}

TEST(OutOfMemory, KillsAreCounted) {
  std::istringstream events("low 0\nhigh 0\nmax 81\noom 2\noom_kill 3\noom_group_kill 0\n");
  EXPECT_EQ(oom_kills_in(events), 3U);
  std::istringstream control("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n");
  EXPECT_EQ(oom_kills_in(control), 7U);
  std::istringstream nothing("low 0\n");
  EXPECT_EQ(oom_kills_in(nothing), 0U);
}

}  // namespace
}  // namespace dsm::launch
