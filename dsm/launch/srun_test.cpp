#include "dsm/launch/srun.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>

namespace dsm::launch {
namespace {

Machine node() {
  Machine machine;
  machine.host = "node7";
  return machine;
}

TEST(Srun, OneTaskOnThatNodeWithABareConnection) {
  std::string all;
  for (const std::string& word : Srun("42").command(node(), "the line")) all += (all.empty() ? "" : "|") + word;
  EXPECT_EQ(all,
            "srun|--jobid=42|--nodes=1|--ntasks=1|--nodelist=node7|--overlap|--mem=0|--cpu-bind=none|--unbuffered|"
            "--input=all|--output=all|--error=all|--export=ALL|--mpi=none|--quiet|sh|-c|the line");
}

TEST(Srun, SettingsThatWouldChangeTheStepStayBehind) {
  // The last two are none.
  const std::vector<const char*> names = {"SLURM_LABELIO",          "SRUN_CPUS_PER_TASK", "SLURM_GPUS",
                                          "SLURM_THREADS_PER_CORE", "SLURM_LABELIO_NOT",  "SLURM_JOB_GPUS"};
  for (const char* name : names) ::setenv(name, "1", 1);
  const auto environment = Srun("42").environment();
  for (const char* name : names) ::unsetenv(name);
  ASSERT_TRUE(environment.has_value());
  for (std::size_t i = 0; i < names.size(); ++i) {
    EXPECT_EQ(std::count(environment->begin(), environment->end(), names[i] + std::string("=1")),
              i + 2 < names.size() ? 0 : 1)
        << names[i];
  }
}

TEST(Srun, WhatIsWrongIsSaidInOneLine) {
  const auto said = [](std::string_view text) { return Srun("42").explain(node(), text, "exit code 1"); };
  const std::string begin = "no agent on host node7 (Slurm job 42): ";
  EXPECT_EQ(said("srun: cluster configuration lacks support for cpu binding\n"
                 "srun: error: Unable to create step for job 42: Requested node configuration is not available\n"),
            begin +
                "Unable to create step for job 42: Requested node configuration is not available: it is not one of the "
                "job's nodes, or is one no longer, or has not what is asked for (squeue and sinfo tell)");
  EXPECT_EQ(said("srun: error: Task launch for StepId=42.3 failed on node node7: Communication connection failure\n"
                 "srun: error: Application launch failed: Communication connection failure\n"
                 "srun: Job step aborted\n"),
            begin + "Application launch failed: Communication connection failure: no slurmd answers there");
  EXPECT_EQ(said("dsmexec cannot run there: libraries are missing\n"
                 "srun: error: node7: task 0: Exited with exit code 1\n"),
            begin + "dsmexec cannot run there: libraries are missing");
  EXPECT_EQ(said("slurmstepd: error: no such user\n"
                 "slurmstepd: error: couldn't chdir to `/here': No such file or directory: going to /tmp instead\n"),
            begin + "no such user");
  EXPECT_EQ(said(""), begin + "srun ended with exit code 1");
  Machine listed = node();
  listed.line = 3;
  EXPECT_EQ(Srun("42").explain(listed, "", "exit code 1"),
            "no agent on host node7 (machine_file, line 3; Slurm job 42): srun ended with exit code 1");
}

TEST(Srun, WhyAnAgentIsGoneIsWhatSlurmHasSaid) {
  const Srun srun("42");
  EXPECT_EQ(srun.connection_ended(1,
                                  "slurmstepd: error: *** STEP 42.0 ON n1 CANCELLED AT 12:00 DUE TO TIME LIMIT ***\n"
                                  "srun: Job step aborted: Waiting up to 32 seconds for job step to finish.\n"),
            "*** STEP 42.0 ON n1 CANCELLED AT 12:00 DUE TO TIME LIMIT ***");
  EXPECT_EQ(srun.connection_ended(253, ""), "a process there ran out of memory");
  EXPECT_EQ(srun.connection_ended(1, ""), "");
}

}  // namespace
}  // namespace dsm::launch
