#include "dsm/launch/status.hpp"

#include <gtest/gtest.h>
#include <signal.h>

namespace dsm::launch {
namespace {

TEST(Status, CodesAndTexts) {
  EXPECT_EQ(code_of(3 << 8), 3);
  EXPECT_EQ(code_of(SIGKILL), 137);
  EXPECT_EQ(describe_status(3 << 8), "exit code 3");
  EXPECT_EQ(describe_status(SIGKILL), "killed by signal 9 (SIGKILL)");
  EXPECT_EQ(describe_status(SIGSEGV | 0x80), "killed by signal 11 (SIGSEGV), core dumped");
  EXPECT_EQ(describe_status(SIGKILL, true), "killed by signal 9 (SIGKILL), by the kernel: out of memory");
  EXPECT_TRUE(is_crash(SIGABRT));
  EXPECT_FALSE(is_crash(SIGTERM));
  EXPECT_FALSE(is_crash(SIGSEGV << 8));
}

TEST(Status, RankLists) {
  EXPECT_EQ(rank_list({3}), "rank 3");
  EXPECT_EQ(rank_list({0, 1}), "ranks 0-1");
  EXPECT_EQ(rank_list({0, 2, 3, 4, 9}), "ranks 0, 2-4, 9");
}

}  // namespace
}  // namespace dsm::launch
