// Jobs on the nodes of a Slurm job, as dsmexec starts them by srun. One cluster (slurm.sh) for the whole program, which
// is taken down when the program ends, in whatever way. Where there can be none, all tests are skipped.
//
// The number of random kills is the environment's DSM_TEST_RUNS, their seed is DSM_TEST_SEED.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "dsm/tests/job_bench.hpp"
#include "ipc/spawn.hpp"

extern char** environ;

namespace dsm::launch::testing {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;
using namespace std::chrono_literals;

class Cluster : public ::testing::Environment {
 public:
  void SetUp() override {
    forget_callers_job();
    const std::string script = fs::absolute("dsm/tests/slurm.sh");
    home_ = ::testing::TempDir() + "dsm-slurm-XXXXXX";
    ASSERT_NE(::mkdtemp(home_.data()), nullptr);
    ::setenv("DSM_SLURM_DIR", (home_ + "/cluster").c_str(), 1);
    ::setenv("SLURM_CONF", (home_ + "/cluster/slurm.conf").c_str(), 1);
    start_ender(script);
    const Said up = shell("'" + script + "' up 3");
    if (up.code == 77) why_not() = up.text;
    ASSERT_TRUE(up.code == 0 || up.code == 77) << up.text;
  }
  void TearDown() override {
    lifeline_.reset();
    int status = -1;
    if (ender_ > 0) ::waitpid(ender_, &status, 0);
    EXPECT_EQ(status, 0) << "slurm.sh down has failed";
    EXPECT_FALSE(fs::exists(home_));
  }
  static std::string& why_not() {
    static std::string text;
    return text;
  }

 private:
  // These tests may themselves run in a Slurm job.
  static void forget_callers_job() {
    Words names;
    for (char** entry = environ; *entry != nullptr; ++entry) {
      const std::string variable = *entry;
      for (const char* prefix : {"SLURM", "SALLOC_", "SBATCH_", "SRUN_", "SINFO_", "SQUEUE_", "SCANCEL_"})
        if (variable.starts_with(prefix)) names.push_back(variable.substr(0, variable.find('=')));
    }
    for (const std::string& name : names) ::unsetenv(name.c_str());
  }
  // A process that waits for our end, and then takes the cluster down. In a session of its own: what ends all of ours
  // shall not end it.
  void start_ender(const std::string& script) {
    ipc::Pipe line = ipc::make_pipe();
    ipc::SpawnOptions options;
    options.arguments = {"setsid", "sh", "-c", "read -r nothing; \"$0\" down && exec rm -rf \"$1\"", script, home_};
    options.standard_input = line.read.get();
    ender_ = ipc::spawn(options);
    lifeline_ = std::move(line.write);
  }

  std::string home_;
  pid_t ender_ = 0;
  ipc::Fd lifeline_;
};
[[maybe_unused]] const auto* const made_before_main = ::testing::AddGlobalTestEnvironment(new Cluster);

// A Slurm job that outlives the dsmexec that runs in it: so Slurm does not end what that leaves.
class Allocation {
 public:
  // `nodes`: as salloc and SLURM_JOB_NODELIST have them; `tasks`: as SLURM_TASKS_PER_NODE.
  Allocation(std::string nodes, std::string tasks, const std::string& options = "")
      : nodes_(std::move(nodes)), tasks_(std::move(tasks)) {
    const Said said = shell("salloc --no-shell --immediate=30 --nodelist='" + nodes_ + "' " + options);
    const std::string words = "Granted job allocation ";
    const auto at = said.text.find(words);
    EXPECT_NE(at, std::string::npos) << said.text;
    if (at != std::string::npos) job_ = std::to_string(std::stol(said.text.substr(at + words.size())));
  }
  Allocation(const Allocation&) = delete;
  ~Allocation() { EXPECT_EQ(shell("scancel " + job_).code, 0); }

  [[nodiscard]] const std::string& job() const { return job_; }
  [[nodiscard]] Words environment() const {
    return {"SLURM_JOB_ID=" + job_, "SLURM_JOB_NODELIST=" + nodes_, "SLURM_TASKS_PER_NODE=" + tasks_};
  }
  // dsmexec OPTIONS... - LINE...
  [[nodiscard]] Order order(Words options, const Words& line, const std::string& machine_file = "-") const {
    Order order;
    order.environment = environment();
    order.arguments = std::move(options);
    order.arguments.push_back(machine_file);
    order.arguments.insert(order.arguments.end(), line.begin(), line.end());
    return order;
  }
  // Whether Slurm has ended all that was started in it.
  [[nodiscard]] bool is_idle() const { return shell("squeue --noheader --steps --jobs=" + job_).text.empty(); }

 private:
  std::string nodes_, tasks_, job_;
};

class SlurmCluster : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!Cluster::why_not().empty()) GTEST_SKIP() << Cluster::why_not();
  }
};

void expect_one_line(const Ended& r, const Words& parts) {
  EXPECT_EQ(r.code(), 125) << text(r);
  EXPECT_EQ(count(r.err, "\n"), 1u) << text(r);
  EXPECT_TRUE(has_line(r.err, parts)) << text(r);
  EXPECT_EQ(r.out, "") << text(r);
}

// ---- what must work -------------------------------------------------------------------------------------------------

TEST_F(SlurmCluster, TheDemoRunsUnderSalloc) {
  Order order;
  order.before = {"salloc", "--quiet", "--nodelist=ln[1-2]", "--ntasks=3"};
  order.arguments = {"--size", "64M", "-", "demo"};
  const Ended r = run(order);
  EXPECT_EQ(r.code(), 0) << text(r);
  EXPECT_TRUE(has_line(r.out, {"[Proc 0 : ln1 : stdout] demo: OK"})) << text(r);
  EXPECT_EQ(r.err, "");
}

// What a batch job with two tasks on each of two nodes has printed, and its exit code. (sbatch --wait looks only every
// ten seconds.)
Said batch(const std::string& line) {
  const std::string out = ::testing::TempDir() + "dsm-slurm-" + std::to_string(::getpid()) + ".out";
  const Said sent = shell("sbatch --parsable --nodelist='ln[1-2]' --ntasks-per-node=2 --output=" + out + " --wrap='" +
                          dsmexec_path() + " --size 64M - " + line + "'");
  EXPECT_EQ(sent.code, 0) << sent.text;
  std::string job;
  EXPECT_TRUE(wait_until([&] {
    job = shell("scontrol show job " + sent.text).text;
    return has_line(job, {"JobState=COMPLETED"}) || has_line(job, {"JobState=FAILED"});
  })) << job;
  const std::string words = "ExitCode=";
  const auto at = job.find(words);
  const Said said{at != std::string::npos ? std::atoi(job.c_str() + at + words.size()) : -1, content(out)};
  ::unlink(out.c_str());
  return said;
}

TEST_F(SlurmCluster, TheDemoRunsUnderSbatchOnEveryTaskOfEachNode) {
  const Said demo = batch("demo");
  EXPECT_EQ(demo.code, 0) << demo.text;
  EXPECT_TRUE(has_line(demo.text, {"[Proc 0 : ln1 : stdout] demo: OK"})) << demo.text;
  const Said where = batch("sh -c \"echo rank \\$DSMEXEC_RANKID\"");
  EXPECT_EQ(where.code, 0) << where.text;
  for (const char* line : {"[Proc 0 : ln1 : stdout] rank 0\n", "[Proc 1 : ln1 : stdout] rank 1\n",
                           "[Proc 2 : ln2 : stdout] rank 2\n", "[Proc 3 : ln2 : stdout] rank 3\n"}) {
    EXPECT_EQ(count(where.text, line), 1u) << where.text;
  }
  const Said three = batch("sh -c \"exit \\$((DSMEXEC_RANKID == 2 ? 3 : 0))\"");
  EXPECT_EQ(three.code, 3) << three.text;
}

TEST_F(SlurmCluster, AFileChoosesAmongTheNodesOfTheJob) {
  const Allocation three("ln[1-3]", "1(x3)");
  Order order = three.order({"--launcher", "slurm"}, {"true"}, "@");
  order.machines = "ln3\nln1 slots=2\n";
  order.arguments.insert(order.arguments.begin(), "-v");
  const Ended r = run(order);
  EXPECT_EQ(r.code(), 0) << text(r);
  for (const char* line : {"srun for the agent on host ln3 started", "srun for the agent on host ln1 started"})
    EXPECT_TRUE(has_line(r.err, {line})) << text(r);
  EXPECT_EQ(r.err.find("host ln2"), std::string::npos) << text(r);
}

TEST_F(SlurmCluster, ExitCodesAndSignalsComeThroughAndNameTheNode) {
  const Allocation two("ln[1-2]", "2,1");
  for (const auto& [what, code, how] :
       {std::tuple("exit 7", 7, "exit code 7"), {"kill -SEGV $$", 139, "killed by signal 11 (SIGSEGV)"}}) {
    const Ended r =
        run(two.order({}, {"sh", "-c", std::string("test $DSMEXEC_RANKID != 2 || ") + what + "; exec sleep 600"}));
    EXPECT_EQ(r.code(), code) << text(r);
    EXPECT_EQ(r.own_lines(), Words{std::string("rank 2 (ln2) failed: ") + how + "; dsmexec stopped ranks 0-1"});
  }
  const Ended none = run(two.order({}, {"./no_such_program"}));
  EXPECT_EQ(none.code(), 127) << text(none);
  EXPECT_TRUE(wait_until([&] { return two.is_idle(); })) << "Slurm still has a step";
}

// Every byte, with and without newlines, both ways; and whatever the user's settings for srun are.
TEST_F(SlurmCluster, TheConnectionIsTransparent) {
  const Allocation one("ln1", "1");
  std::minstd_rand random(1);
  Order order = one.order({"--output", "plain"}, {"cat"});
  for (int i = 0; i < 300'000; ++i) order.input += static_cast<char>(random() % 256);
  order.input += "\n";
  const std::string input = order.input;
  for (const char* setting :
       {"SLURM_LABELIO=1", "SLURM_STDINMODE=none", "SLURM_STDOUTMODE=none", "SLURM_EXPORT_ENV=NONE",
        "SLURM_UNBUFFEREDIO=0", "SLURM_NTASKS_PER_NODE=2", "SLURM_CPU_BIND=cores"}) {
    order.environment.emplace_back(setting);
  }
  const Ended r = run(order);
  EXPECT_EQ(r.code(), 0) << r.err;
  EXPECT_TRUE(r.out == input) << r.out.size() << " of " << input.size() << " bytes";
  EXPECT_EQ(r.err, "");
}

// Both lie where no slurmd sees them.
TEST_F(SlurmCluster, DsmexecAndTheProgramAreSentToNodesThatLackThem) {
  const Allocation two("ln[1-2]", "1(x2)");
  Order order = two.order({"--send", "--output", "plain"}, {"/mnt/my_echo", "here"});
  order.before = {"unshare", "--mount", "sh", "-c",
                  "mount -t tmpfs own /mnt && cp \"$0\" /mnt && cp /bin/echo /mnt/my_echo && exec /mnt/dsmexec \"$@\""};
  const Ended r = run(order);
  EXPECT_EQ(r.code(), 0) << text(r);
  EXPECT_EQ(r.out, "here\nhere\n");
  EXPECT_EQ(r.err, "");
}

// ---- what is refused ------------------------------------------------------------------------------------------------

TEST_F(SlurmCluster, ANodeThatIsNotInTheJobIsOneLine) {
  const Allocation two("ln[1-2]", "1(x2)");
  for (const char* stranger : {"ln3", "nowhere", "localhost"}) {
    Order order = two.order({"--launcher", "slurm"}, {"echo", "started"}, "@");
    order.machines = std::string("ln1\n") + stranger + "\n";
    expect_one_line(run(order), {std::string("dsmexec: no agent on host ") + stranger +
                                     " (machine_file, line 2; Slurm job " + two.job(),
                                 "it is not one of the job's nodes"});
  }
}

TEST_F(SlurmCluster, ANodeThatIsDownIsOneLine) {
  struct Down {  // the tests behind this one need the node
    Down() { EXPECT_EQ(shell("scontrol update nodename=ln3 state=down reason=test").code, 0); }
    Down(const Down&) = delete;
    ~Down() {
      EXPECT_EQ(shell("scontrol update nodename=ln3 state=resume").code, 0);
      EXPECT_TRUE(wait_until([] { return shell("sinfo -h -n ln3 -o %t").text == "idle\n"; }));
    }
  };
  const Allocation two("ln[2-3]", "1(x2)", "--no-kill");
  const Down down;
  expect_one_line(run(two.order({}, {"echo", "started"})),
                  {"dsmexec: no agent on host ln3 (Slurm job " + two.job(), "is one no longer"});
}

TEST_F(SlurmCluster, AJobThatHasEndedIsOneLine) {
  Order order;
  std::string job;
  {
    const Allocation gone("ln[1-2]", "1(x2)");
    order = gone.order({}, {"echo", "started"});
    job = gone.job();
  }
  expect_one_line(run(order), {"dsmexec: no agent on host ln", "(Slurm job " + job + "): ", "the Slurm job has ended"});
}

// ---- the end --------------------------------------------------------------------------------------------------------

TEST_F(SlurmCluster, ACancelledJobLeavesNothing) {
  const Allocation two("ln[1-2]", "2,1");
  Dsmexec job(two.order({"-v"}, {"sleep", "600"}));
  EXPECT_TRUE(job.shows("dsmexec: rank 2 started"));
  EXPECT_EQ(shell("scancel " + two.job()).code, 0);
  const Ended r = job.wait();
  // Slurm tells the ranks first, and srun; either may be the first news.
  const bool lost = r.code() == 125 && has_line(r.err, {"dsmexec: the agent on host ln", " was lost (", "CANCELLED"});
  const bool ended = r.code() == 143 && has_line(r.err, {"dsmexec: rank ", " (ln", "killed by signal 15 (SIGTERM)"});
  EXPECT_TRUE(lost || ended) << text(r);
  EXPECT_TRUE(wait_until([&] { return job.left().empty(); }));
}

// Each rank with a child in its group, and one that has left group and session and ignores what it can. None forks
// again: where srun or dsmexec is killed it is Slurm that ends the step, and proctrack/linuxproc, which this cluster
// has because it works everywhere, misses who is born meanwhile.
const char* const family =
    "(exec sleep 600) & (setsid sh -c 'trap \"\" TERM INT HUP; exec sleep 600' &); exec sleep 600";

bool is_a(const std::string& kind, pid_t pid, pid_t dsmexec) {
  const std::string line = command_line(pid);
  const auto has = [&line](const char* words) { return line.find(words) != std::string::npos; };
  if (kind == "dsmexec") return pid == dsmexec;
  if (kind == "srun")
    return line.starts_with("srun ") &&
           content("/proc/" + std::to_string(pid) + "/stat").find(") S " + std::to_string(dsmexec) + " ") !=
               std::string::npos;
  if (kind == "guard") return is_guard(line);
  if (kind == "agent") return has("dsmexec --agent remote ");
  return has("sleep 600") && !has("dsmexec ") && ::getpgid(pid) == pid && ::getsid(pid) != pid;  // the rank itself
}

// Slurm's books are another matter: a srun that is killed between the making of its step and the start of its task leaves
// a step without a process there, until the Slurm job ends.
TEST_F(SlurmCluster, WhoeverIsKilledAtARandomMomentNoRankIsLeftTwoSecondsLater) {
  const Allocation two("ln[1-2]", "2,1");
  const char* const asked = std::getenv("DSM_TEST_SEED");
  const unsigned seed = asked != nullptr ? static_cast<unsigned>(std::atoi(asked)) : 20260402u;
  std::minstd_rand random(seed);
  const Words kinds = {"dsmexec", "srun", "guard", "agent", "rank"};
  for (unsigned i = 0; i < static_cast<unsigned>(runs(10)); ++i) {
    const std::string kind = kinds[i % kinds.size()];
    const auto moment = static_cast<useconds_t>(random() % 800'000);
    SCOPED_TRACE("seed " + std::to_string(seed) + ", kill " + std::to_string(i) + ": " + kind + ", after " +
                 std::to_string(moment) + " us");
    Dsmexec job(two.order({"--wdir", "/"}, {"sh", "-c", family}));
    ::usleep(moment);  // not synchronization: any moment will do
    ASSERT_TRUE(wait_until([&] {
      std::vector<pid_t> victims = job.left();
      std::erase_if(victims, [&](pid_t pid) { return !is_a(kind, pid, job.pid()); });
      return !victims.empty() && ::kill(victims[random() % victims.size()], SIGKILL) == 0;
    }));
    const auto left = [&job](const char* what) {
      std::string lines;
      for (const pid_t pid : job.left()) {
        if (pid == job.pid() && *what != '\0') continue;  // its own command line has the words, too
        const std::string line = command_line(pid);
        if (line.find(what) != std::string::npos) lines += line + "\n";
      }
      return lines;
    };
    EXPECT_TRUE(wait_until([&] { return left("sleep 600").empty(); }, 2s)) << left("sleep 600");
    EXPECT_TRUE(wait_until([&] { return left("").empty(); }, 10s)) << left("");
    const Ended r = job.wait();
    EXPECT_NE(r.status, 0) << text(r);
    EXPECT_TRUE(r.signal() == SIGKILL || !r.own_lines().empty()) << text(r);
    if (HasFailure()) break;
  }
}

}  // namespace
}  // namespace dsm::launch::testing
