// How dsmexec gets on with srun and scontrol, which here are scripts of a few lines: what it makes of what they say,
// and of how they end. The real ones: slurm_test.cpp.
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>

#include "dsm/launch/control.hpp"
#include "dsm/tests/launch_bench.hpp"
#include "ipc/spawn.hpp"

namespace dsm::launch::testing {
namespace {

using Words = std::vector<std::string>;

// A folder with the two, which is all that PATH has in front.
class SlurmStandIn : public ::testing::Test {
 protected:
  SlurmStandIn() {
    std::string name = ::testing::TempDir() + "dsm-srun-test.XXXXXX";
    folder_ = ::mkdtemp(name.data());
    script("srun", run_task);
    script("scontrol", "echo 'scontrol: warning: not a node' >&2; echo n1; echo n2");
  }
  ~SlurmStandIn() override { std::filesystem::remove_all(folder_); }

  void script(const std::string& name, const std::string& text) {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path) << "#!/bin/sh\n" << text << "\n";
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  }
  [[nodiscard]] Order order(const Words& line, const std::string& path = "$0:$PATH") const {
    Order order;
    order.arguments = {"-"};
    order.arguments.insert(order.arguments.end(), line.begin(), line.end());
    order.environment = {"SLURM_JOB_ID=7", "SLURM_JOB_NODELIST=n[1-2]", "SLURM_TASKS_PER_NODE=2,1"};
    order.before = {"/bin/sh", "-c", "PATH=" + path + " && exec \"$@\"", folder_};
    return order;
  }
  static void expect_one_line(const Ended& end, const std::string& part) {
    EXPECT_EQ(end.code(), 125) << end.err;
    EXPECT_EQ(count(end.err, "\n"), 1u) << end.err;
    EXPECT_EQ(count(end.err, part), 1u) << end.err;
    EXPECT_EQ(end.out, "");
  }

  // As srun does: the command behind the options, with the caller's address.
  static constexpr const char* run_task =
      "while :; do case $1 in --*) shift;; *) break;; esac; done\n"
      "SLURM_LAUNCH_NODE_IPADDR=127.0.0.1; export SLURM_LAUNCH_NODE_IPADDR\n"
      "\"$@\"";
  std::string folder_;
};

TEST_F(SlurmStandIn, TheJobsNodesBecomeRanksAndWarningsDoNot) {
  Order job = order({"sh", "-c", "echo rank $DSMEXEC_RANKID gpus ${SLURM_GPUS-none} job $SLURM_JOB_ID"});
  job.environment.emplace_back("SLURM_GPUS=8");
  const Ended end = run(job);
  EXPECT_EQ(end.code(), 0) << end.err;
  EXPECT_EQ(end.err, "");
  EXPECT_EQ(count(end.out, "\n"), 3u) << end.out;
  for (const char* line :
       {"[Proc 0 : n1 : stdout] rank 0 gpus none job 7\n", "[Proc 1 : n1 : stdout] rank 1 gpus none job 7\n",
        "[Proc 2 : n2 : stdout] rank 2 gpus none job 7\n"}) {
    EXPECT_EQ(count(end.out, line), 1u) << end.out;
  }
}

// What srun said was read and dropped: "exit code 1" was all.
TEST_F(SlurmStandIn, AnAgentThatSlurmHasEndedIsLostForTheReasonThatSlurmGives) {
  script("srun",
         std::string(run_task) + "\necho 'slurmstepd: error: *** STEP CANCELLED DUE TO TIME LIMIT ***' >&2; exit 1");
  // Rank 2 ends the guard, under which its agent is.
  const Ended end = run(order({"sh", "-c",
                               "test $DSMEXEC_RANKID != 2 || { read -r stat </proc/$PPID/stat; set -- ${stat##*) }; "
                               "kill -9 $2; }; exec sleep 600"}));
  EXPECT_EQ(end.code(), 125) << end.err;
  EXPECT_EQ(count(end.err, "the agent on host n2 was lost (*** STEP CANCELLED DUE TO TIME LIMIT ***)"), 1u) << end.err;
}

TEST_F(SlurmStandIn, WhatIsMissingOrFailsIsOneLine) {
  expect_one_line(run(order({"/bin/true"}, "$0/none")),
                  "dsmexec: machine_file '-' needs Slurm's scontrol: No such file");
  script("scontrol", "echo 'scontrol: error: Invalid hostlist: n[1' >&2; exit 1");
  expect_one_line(run(order({"true"})), "Invalid hostlist: n[1");
  script("scontrol", "echo n1; echo n2");
  script("srun",
         "echo 'srun: error: Unable to create step for job 7: Job/step already completing or completed' >&2; exit 1");
  expect_one_line(run(order({"true"})),
                  "(Slurm job 7): Unable to create step for job 7: Job/step already completing or "
                  "completed: the Slurm job has ended\n");
  Order none = order({"true"});
  none.environment = {"SLURM_JOB_ID="};
  expect_one_line(run(none),
                  "machine_file '-' is for use inside a Slurm job, and this is none: start dsmexec by salloc");
}

// An agent as ssh or srun starts it, whose connection stays open.
struct LoneAgent {
  explicit LoneAgent(bool by_srun) {
    ipc::SpawnOptions options;
    options.program = dsmexec_path();
    options.arguments = {"dsmexec", "--agent", "remote"};
    options.environment = Words{"PATH=/usr/bin:/bin"};
    if (by_srun) options.environment->emplace_back("SLURM_LAUNCH_NODE_IPADDR=127.0.0.1");
    options.standard_input = in.read.get();
    options.standard_output = out.write.get();
    pid = ipc::spawn(options);
  }
  LoneAgent(const LoneAgent&) = delete;
  ~LoneAgent() {
    if (lives()) ::kill(pid, SIGKILL);
    if (status == 0) ::waitpid(pid, &status, 0);
  }
  bool lives() { return status == 0 && ::waitpid(pid, &status, WNOHANG) == 0; }

  ipc::Pipe in = ipc::make_pipe(), out = ipc::make_pipe();
  pid_t pid = 0;
  int status = 0;
};

// As it is under Slurm when srun is killed before its task runs: nobody says so to the agent.
TEST(LaunchOrphan, AnAgentBySrunThatHearsNothingBeforeItHasRanksEnds) {
  LoneAgent silent(true), answered(true), by_ssh(false);
  ::signal(SIGPIPE, SIG_IGN);
  Link link(std::move(answered.out.read), std::move(answered.in.write));
  auto beat_at = Clock::now();
  EXPECT_TRUE(wait_until([&] {
    if (Clock::now() >= beat_at) {
      beat_at += beat_period;
      link.send(Beat{});
    }
    EXPECT_TRUE(link.flush());
    EXPECT_EQ(link.receive([](const Link::Frame&) {}), Link::State::open);
    return !silent.lives();
  }));
  EXPECT_TRUE(WIFEXITED(silent.status) && WEXITSTATUS(silent.status) == 1) << silent.status;
  EXPECT_TRUE(answered.lives());
  EXPECT_TRUE(by_ssh.lives()) << "of ssh's end it hears";
}

}  // namespace
}  // namespace dsm::launch::testing
