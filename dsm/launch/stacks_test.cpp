#include "dsm/launch/stacks.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <map>
#include <string>

#include "ipc/spawn.hpp"

namespace dsm::launch {
namespace {

std::string all_of(const ipc::Fd& fd) {
  std::string text;
  char buffer[4096];
  for (ssize_t got; (got = ipc::read_full(fd.get(), buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<std::size_t>(got));
  return text;
}

TEST(Stacks, OnlyLinesThatTellSomething) {
  EXPECT_TRUE(Stacks::tells("#0  0x00007f in read () from /lib/libc.so.6"));
  EXPECT_TRUE(Stacks::tells("Thread 2 (Thread 0x7f (LWP 12) \"prog\"):"));
  EXPECT_TRUE(Stacks::tells("ptrace: Operation not permitted."));
  EXPECT_FALSE(Stacks::tells("[New LWP 12]"));
  EXPECT_FALSE(Stacks::tells(""));
  EXPECT_TRUE(Stacks::lacks_gdb("env: 'gdb': No such file or directory"));
}

// So many at a time, all in the end; whoever has been looked at goes on.
TEST(Stacks, EachProcessOnceAndItGoesOn) {
  std::map<int, pid_t> sleepers;
  Stacks stacks(2);
  for (int rank = 0; rank < 3; ++rank) {
    ipc::SpawnOptions options;
    options.arguments = {"sleep", "600"};
    options.parent_death_signal = SIGKILL;
    options.parent_may_trace = true;
    sleepers[rank] = ipc::spawn(options);
    stacks.want(rank, sleepers[rank]);
  }
  int told = 0;
  while (!stacks.done()) {
    std::map<int, ipc::Fd> outs;
    stacks.start([&outs](int rank, ipc::Fd out) { outs[rank] = std::move(out); });
    ASSERT_LE(outs.size(), 2U);
    ASSERT_FALSE(outs.empty());
    for (const auto& [rank, out] : outs) {
      const std::string text = all_of(out);
      EXPECT_NE(text.find("\n#0 "), std::string::npos) << "rank " << rank << ": " << text;
      stacks.told();
      ++told;
    }
  }
  EXPECT_EQ(told, 3);
  for (const auto& [rank, pid] : sleepers) {
    EXPECT_EQ(::waitpid(pid, nullptr, WNOHANG), 0) << "it goes on";
    ::kill(pid, SIGKILL);
  }
  while (::waitpid(-1, nullptr, 0) > 0) {
  }
}

}  // namespace
}  // namespace dsm::launch
