#include "dsm/launch/slurm.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <functional>

namespace dsm::launch {
namespace {

using Tasks = std::vector<int>;

std::string refusal(const std::function<void()>& call) {
  try {
    call();
  } catch (const SlurmError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Slurm, TasksPerNode) {
  EXPECT_EQ(parse_tasks_per_node("1", 9), (Tasks{1}));
  EXPECT_EQ(parse_tasks_per_node("2(x3),1", 9), (Tasks{2, 2, 2, 1}));
  EXPECT_EQ(parse_tasks_per_node("4,3(x2),16(x1)", 4), (Tasks{4, 3, 3, 16}));
  EXPECT_EQ(parse_tasks_per_node("100000", 1), (Tasks{max_slots})) << "more than a job may have anyway";
  for (const char* bad : {"", "0", "x", "-1", "2(x3", "2(3)", "2(x)", "2(x0)", "2,", ",2", "2 ", "2(x3)1", "2;1",
                          "99999999999999999999"}) {
    EXPECT_NE(refusal([bad] { (void)parse_tasks_per_node(bad, 9); }).find("is not understood"), std::string::npos)
        << bad;
  }
  for (const char* bad : {"1(x10)", "1(x9),1", "1(x18446744073709551615)"}) {
    EXPECT_NE(refusal([bad] { (void)parse_tasks_per_node(bad, 9); }).find("more than the 9 nodes"), std::string::npos)
        << bad;
  }
}

TEST(Slurm, NodesAreMachinesWithSlots) {
  const auto machines = machines_of_nodes("a1\na2\nb7\n", "2(x2),5");
  ASSERT_EQ(machines.size(), 3u);
  EXPECT_EQ(machines[1].host, "a2");
  EXPECT_EQ(machines[1].slots, 2);
  EXPECT_EQ(machines[1].line, 0) << "messages would name a line of no file";
  EXPECT_EQ(machines[2].host, "b7");
  EXPECT_EQ(machines[2].slots, 5);
  EXPECT_NE(refusal([] { (void)machines_of_nodes("a1\na2\n", "1"); }).find("is for 1 of the 2 nodes"),
            std::string::npos);
}

TEST(Slurm, OutsideAJobIsRefusedInOneLineThatSaysWhatToDo) {
  ::unsetenv("SLURM_JOB_ID");
  for (const std::string& why : {refusal([] { (void)slurm_machines(); }), refusal([] { (void)slurm_job("-"); })}) {
    EXPECT_NE(why.find("start dsmexec by salloc or sbatch"), std::string::npos) << why;
    EXPECT_EQ(why.find('\n'), std::string::npos) << why;
  }
}

}  // namespace
}  // namespace dsm::launch
