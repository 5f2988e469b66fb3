// Options of dsmexec that a program notices, or its user.
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>

#include "dsm/tests/job_bench.hpp"
#include "ipc/fifo.hpp"
#include "ipc/socket.hpp"

namespace dsm::launch::testing {
namespace {

TEST(LaunchOptions, StandardInputGoesToWhomTheUserSays) {
  Order order;
  for (int i = 0; i < 100'000; ++i) order.input += "line " + std::to_string(i) + "\n";
  const std::string all = " : localhost : stdout] " + std::to_string(order.input.size()) + "\n";
  order.arguments = {"--stdin", "2", "@", "wc", "-c"};
  Ended end = run(order);
  EXPECT_EQ(count(end.out, "[Proc 2" + all), 1U) << text(end);
  EXPECT_EQ(count(end.out, "stdout] 0\n"), 3U) << text(end);
  order.arguments = {"--stdin", "all", "@", "wc", "-c"};
  end = run(order);
  EXPECT_EQ(count(end.out, all), 4U) << text(end);
  order.arguments = {"--stdin", "none", "@", "wc", "-c"};
  end = run(order);
  EXPECT_EQ(count(end.out, "stdout] 0\n"), 4U) << text(end);
  order.arguments = {"--stdin", "4", "@", "wc", "-c"};
  end = run(order);
  EXPECT_EQ(end.code(), 125);
  EXPECT_EQ(end.err, "dsmexec: --stdin 4: the job has ranks 0 to 3\n");
}

// One that goes without having read holds up nobody.
TEST(LaunchOptions, StandardInputForAllReachesThoseWhoReadIt) {
  Order order;
  order.input = std::string(1 << 20, 'x');
  order.arguments = {"--stdin", "all", "@", "sh", "-c", "[ $DSMEXEC_RANKID = 1 ] || exec wc -c"};
  const Ended end = run(order);
  EXPECT_EQ(end.code(), 0) << text(end);
  EXPECT_EQ(count(end.out, "stdout] 1048576\n"), 3U) << text(end);
}

TEST(LaunchOptions, KeepGoingLetsTheOthersFinish) {
  const std::string script = "[ $DSMEXEC_RANKID = 1 ] && exit 3; while [ ! -e $GO ]; do sleep 0.02; done; echo done";
  Order order;
  order.arguments = {"--keep-going", "-v", "@", "sh", "-c", script};
  const std::string go = ::testing::TempDir() + "dsm-keep-going-" + std::to_string(::getpid());
  order.environment = {"GO=" + go};
  Dsmexec job(order);
  ASSERT_TRUE(job.shows("rank 1 has ended"));
  std::ofstream(go) << "now";
  const Ended end = job.wait();
  std::filesystem::remove(go);
  EXPECT_EQ(end.code(), 3) << text(end);
  EXPECT_EQ(count(end.out, "stdout] done\n"), 3U) << text(end);
  EXPECT_EQ(count(end.err, "dsmexec: rank 1 (localhost) failed: exit code 3\n"), 1U) << text(end);
}

TEST(LaunchOptions, TheTimeOfDayStandsInFrontOfEachLine) {
  Order order;
  order.arguments = {"-n", "1", "--timestamp", "@", "sh", "-c", "echo a; echo b >&2"};
  const Ended end = run(order);
  ASSERT_EQ(end.code(), 0) << text(end);
  EXPECT_EQ(end.out.substr(2, 1) + end.out.substr(5, 1) + end.out.substr(8, 1), "::.") << end.out;
  EXPECT_EQ(end.out.substr(12), " [Proc 0 : localhost : stdout] a\n");
  EXPECT_EQ(end.err.substr(12), " [Proc 0 : localhost : stderr] b\n");
}

TEST(LaunchOptions, ADryRunStartsNothingAndMakesNothing) {
  Order order;
  const std::string folder = ::testing::TempDir() + "dsm-dry-run-" + std::to_string(::getpid());
  order.machines = "localhost\nnowhere.invalid\n";
  order.arguments = {"--dry-run", "--output", folder, "@", "sh", "-c", "echo started"};
  Ended end = run(order);
  EXPECT_EQ(end.code(), 0) << text(end);
  EXPECT_NE(end.out.find("rank 0 on localhost: by fork\nrank 1 on nowhere.invalid: by ssh "), std::string::npos)
      << text(end);
  EXPECT_EQ(end.err, "");
  EXPECT_FALSE(std::filesystem::exists(folder));
  order.arguments = {"--dry-run", "@", "no-such-program"};
  end = run(order);
  EXPECT_EQ(end.code(), 127) << "what is wrong is found out";
}

TEST(LaunchOptions, AJobCanBeAskedAndEndedThroughAFifo) {
  Order order;
  order.arguments = {"-n", "2", "--control", "fifo", "--wdir", "/", "@", "sh", "-c", "echo up; exec sleep 1000"};
  const std::string folder = ::testing::TempDir() + "dsm-control-" + std::to_string(::getpid());
  std::filesystem::create_directory(folder);
  const std::string path = order.arguments[3] = folder + "/fifo";
  Dsmexec job(order);
  ASSERT_TRUE(job.shows("[Proc 0 : localhost : stdout] up"));
  const auto write = [&](const std::string& line) { ipc::write_record(ipc::open_fifo_for_writing(path).get(), line); };
  write("status\n");
  EXPECT_TRUE(job.shows(" s: running: ranks 0-1"));
  write("stop\n");
  EXPECT_TRUE(job.shows("no such order; there are status and abort"));
  const Ended second = run(order);
  EXPECT_EQ(second.code(), 125);
  EXPECT_NE(second.err.find("another job is controlled by"), std::string::npos) << text(second);
  write("abort\n");
  const Ended end = job.wait();
  EXPECT_EQ(end.code(), 125);
  EXPECT_NE(end.err.find("ended by 'abort' from " + path + "; dsmexec stopped ranks 0-1"), std::string::npos)
      << text(end);
  EXPECT_FALSE(std::filesystem::exists(path));
  std::filesystem::remove_all(folder);
}

TEST(LaunchOptions, TheFifoIsRemovedAlsoWhenASignalEndsTheJob) {
  Order order;
  const std::string path = ::testing::TempDir() + "dsm-control-fifo-" + std::to_string(::getpid());
  order.arguments = {"-n", "1", "--control", path, "@", "sh", "-c", "echo up; exec sleep 1000"};
  Dsmexec job(order);
  ASSERT_TRUE(job.shows("stdout] up"));
  ASSERT_TRUE(std::filesystem::exists(path));
  ::kill(job.pid(), SIGTERM);
  EXPECT_EQ(job.wait().signal(), SIGTERM);
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(LaunchOptions, DsmexecListensWhereItIsTold) {
  Order order;
  order.arguments = {"-n",    "2", "--port-range", "23000-23999", "--output",
                     "plain", "@", "sh",           "-c",          "echo port=$DSMEXEC_PORTNUM ports=$DSMEXEC_PORTS"};
  const Ended end = run(order);
  ASSERT_EQ(end.code(), 0) << text(end);
  EXPECT_EQ(count(end.out, "port=23"), 2U) << text(end);
  EXPECT_EQ(count(end.out, "ports=23000-23999\n"), 2U) << text(end);
}

TEST(LaunchOptions, PortsThatAreAllInUseAreNamed) {
  const ipc::Fd taken = ipc::listen_tcp("127.0.0.1", 0, 1);
  const std::string port = std::to_string(ipc::local_port(taken.get())), ports = port + "-" + port;
  Order order;
  order.arguments = {"-n", "1", "--port-range", ports, "@", "true"};
  const Ended end = run(order);
  EXPECT_EQ(end.code(), 125);
  EXPECT_EQ(end.err, "dsmexec: --port-range " + ports + ": none of these ports can be had at 127.0.0.1 (Address already in use); name others\n");
}

TEST(LaunchOptions, ASlurmJobIsNotEncryptedByHalves) {
  Order order;
  order.arguments = {"-n", "1", "--launcher", "slurm", "--encrypt", "@", "true"};
  order.environment = {"SLURM_JOB_ID=1"};
  const Ended end = run(order);
  EXPECT_EQ(end.code(), 125);
  EXPECT_EQ(end.err,
            "dsmexec: --encrypt: srun would carry the job's key, and Slurm need not encrypt that; say --launcher ssh, "
            "too\n");
}

}  // namespace
}  // namespace dsm::launch::testing
