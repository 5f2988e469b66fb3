// libdshm from the outside: under dshmrun, with a dsmd and agents of the test's own; both ways of hearing of faults.
//
// DSM_TEST_RUNS: how often the acts that race against something are run.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <regex>

#include "dsm/dshm/run_host.hpp"
#include "dsm/tests/job_bench.hpp"

namespace dsm::dshm {
namespace {

namespace fs = std::filesystem;
using daemon::testing::Ended;
using daemon::testing::Program;
using daemon::testing::program_path;
using dshm::testing::Host;
using dshm::testing::Words;
using launch::testing::content;
using launch::testing::runs;
using launch::testing::text;
using launch::testing::wait_until;
using ::testing::HasSubstr;

Words act(const std::string& name) { return {program_path("dshm_guest"), name}; }

void expect_well(const Ended& end) {
  EXPECT_EQ(end.code(), 0) << text(end);
  EXPECT_EQ(end.out, "well\n") << text(end);
  EXPECT_EQ(end.err, "");
}

// Why a pager does not do here; empty if it does.
std::string why_not(const std::string& pager) {
  const ipc::Fd fd(pager == "uffd" ? static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC)) : -1);
  return pager != "uffd" || fd ? "" : "userfaultfd needs root, or vm.unprivileged_userfaultfd=1";
}

class Dshm : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!why_not(GetParam()).empty()) GTEST_SKIP() << why_not(GetParam());
  }
  Host host{GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Pager, Dshm, ::testing::Values("uffd", "sigsegv"),
                         [](const auto& which) { return std::string(which.param); });

// ---- a program that checks what it gets; each act is true of the kernel, too ----

class Acts : public ::testing::TestWithParam<std::tuple<const char*, const char*>> {};
INSTANTIATE_TEST_SUITE_P(
    Each, Acts,
    ::testing::Combine(::testing::Values("uffd", "sigsegv"),
                       ::testing::Values("segments", "mappings", "read_only", "sets", "interrupted", "undone",
                                         "forks_in_wait", "spawns", "closes", "main_leaves", "handlers", "masks",
                                         "transfers", "stays_put")),
    [](const auto& which) { return std::string(std::get<0>(which.param)) + "_" + std::get<1>(which.param); });

TEST_P(Acts, GoWell) {
  if (const std::string why = why_not(std::get<0>(GetParam())); !why.empty()) GTEST_SKIP() << why;
  const Host host(std::get<0>(GetParam()));
  expect_well(host.run(act(std::get<1>(GetParam()))));
  host.expect_empty();
}

TEST_P(Dshm, ForksHaveWhatTheirParentsHad) {
  for (int i = 0; i < runs(2) && !HasFailure(); ++i) expect_well(host.run(act("forks")));
  host.expect_empty();
}

// libdshm.a gives all that libdshm.so has, though the program refers to little of it.
#ifndef __SANITIZE_ADDRESS__  // whose own write(2) is found before that of an archive
TEST_P(Dshm, GoesWellInAProgramThatIsLinkedWithIt) {
  Words environment = host.environment({"DSHM_SERVER=" + host.dsmd.at()});
  for (const std::string name : {"forks", "closes", "transfers"})
    expect_well(Program({program_path("dshm_guest_linked"), name}, environment).wait());
  host.expect_empty();
}
#endif

TEST_P(Dshm, WhoIsStartedWithAllSignalsBlockedMayTouch) {
  Words line{"env", "--block-signal"};
  for (const std::string& word : host.under(act("segments"))) line.push_back(word);
  expect_well(Program(line, host.environment()).wait());
  host.expect_empty();
}

TEST_P(Dshm, ForksAmongThreadsThatAreInCalls) {
  for (int i = 0; i < runs(3) && !HasFailure(); ++i) expect_well(host.run(act("forks_among_threads")));
  host.expect_empty();
}

TEST_P(Dshm, WhoBecomesAnotherUserStaysWithTheAgent) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become somebody else";
  expect_well(Program(act("users"), {}).wait());  // true of the kernel
  expect_well(host.run(act("users")));
  host.expect_empty();
}

TEST_P(Dshm, ManyAtOnceStartOneAgent) {
  for (int i = 0; i < runs(3) && !HasFailure(); ++i) {
    std::vector<std::unique_ptr<Program>> all;
    for (int j = 0; j < 8; ++j)
      all.push_back(std::make_unique<Program>(host.under(act("segments")), host.environment()));
    for (const auto& one : all) expect_well(one->wait());
  }
  host.expect_empty();
}

TEST(Dshm, TheActsAreTrueOfTheKernel) {
  for (const char* name : {"segments", "mappings", "read_only", "sets", "undone", "forks_in_wait", "main_leaves",
                           "handlers", "masks", "transfers"})
    expect_well(Program(act(name), {}).wait());
}

// ---- two agents: pages go to and fro, in the middle of instructions and of system calls ----

class Contention : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};
INSTANTIATE_TEST_SUITE_P(Pagers, Contention,
                         ::testing::Values(std::pair("uffd", "uffd"), std::pair("sigsegv", "sigsegv"),
                                           std::pair("uffd", "sigsegv")),
                         [](const auto& which) { return std::string(which.param.first) + "_" + which.param.second; });

TEST_P(Contention, NobodyLosesWhatHeHasWritten) {
  const auto [first, second] = GetParam();
  if (const std::string why = why_not(first); !why.empty()) GTEST_SKIP() << why;
  const Host host("");
  const Ended made = host.run({"perl", "-e", "print 'id: ', shmget(0, 20480, 0600), qq{\\n}"});
  std::smatch id;
  ASSERT_TRUE(std::regex_search(made.out, id, std::regex("id: ([0-9]+)"))) << text(made);
  // An agent is for one name of a server: two names, two agents.
  const std::string server = "localhost:" + std::to_string(host.dsmd.port());
  const std::string rounds = std::to_string(200 * runs(1));
  Program one(host.under({program_path("dshm_guest"), "contend", id[1], "0", rounds}),
              host.environment({"DSHM_PAGER=" + std::string(first)}));
  Program other({program_path("dshmrun"), "-s", server, program_path("dshm_guest"), "contend", id[1], "1", rounds},
                host.environment({"DSHM_PAGER=" + std::string(second)}));
  expect_well(one.wait());
  expect_well(other.wait());
  EXPECT_EQ(host.run({"ipcrm", "-m", id[1]}).code(), 0);
  host.expect_empty();
}

// ---- keys ----

TEST_P(Dshm, KeysOutsideTheFilterAreTheKernels) {
  expect_well(host.run(act("filters"), {"DSHM_KEYS=0x5e000000-0x5effffff"}));
}

TEST_P(Dshm, NoneLeavesEverythingToTheKernelAndStartsNothing) {
  Program one(host.under(act("segments")), host.environment({"DSHM_KEYS=none", "DSHM_AGENT=/nonexistent"}));
  expect_well(one.wait());
}

TEST_P(Dshm, AMalformedFilterIsSaidOnce) {
  const Ended end =
      host.run({"/bin/sh", "-c", "exec perl -e 'print shmget(0,1,0600)//0+$!, \" \" for 1..3'"}, {"DSHM_KEYS=1,x"});
  EXPECT_EQ(
      end.err,
      "dshm: DSHM_KEYS: 'x' is no key and no LOW-HIGH; keys are from 0 to 0xffffffff, decimal or with 0x; all, none "
      "or ranges with commas are needed: calls fail with EINVAL\n");
  EXPECT_EQ(end.out, "22 22 22 ");
}

// ---- programs of this machine ----

#ifndef __SANITIZE_ADDRESS__  // with which ipcmk does not start
TEST_P(Dshm, TheToolsOfTheMachineSeeAndRemoveOurs) {
  const Ended made = host.run({"ipcmk", "-M", "12345", "-p", "0640"});
  std::smatch id;
  ASSERT_TRUE(std::regex_search(made.out, id, std::regex("id: ([0-9]+)"))) << text(made);
  const Ended list = host.run({"ipcs", "-m"});
  EXPECT_THAT(list.out, HasSubstr("12345")) << text(list);
  EXPECT_THAT(list.out, HasSubstr("640"));
  EXPECT_THAT(host.run({"ipcs", "-m", "-i", id[1]}).out, HasSubstr("bytes=12345"));
  EXPECT_EQ(host.run({"ipcrm", "-m", id[1]}).code(), 0);
  EXPECT_THAT(host.run({"ipcs", "-m"}).out, Not(HasSubstr("12345")));
  const Ended set = host.run({"ipcmk", "-S", "17"});
  ASSERT_TRUE(std::regex_search(set.out, id, std::regex("id: ([0-9]+)"))) << text(set);
  EXPECT_THAT(host.run({"ipcs", "-s"}).out, HasSubstr(" 17 "));
  EXPECT_EQ(host.run({"ipcrm", "-s", id[1]}).code(), 0);
  EXPECT_EQ(host.run({"ipcrm", "-s", id[1]}).code(), 1);
  EXPECT_EQ(host.run({"ipcs"}).err, "");
}
#endif

TEST_P(Dshm, PerlReadsWhatAnotherPerlHasWritten) {
  const Ended end = host.shell(R"(
    id=$(perl -e '$id = shmget(0x1234, 100000, 01600) // die "$!"; shmwrite($id, "hello", 70000, 5) or die "$!"; print $id')
    perl -e 'shmread($ARGV[0], $text, 70000, 5) or die "$!"; print "$text\n";
             shmctl($ARGV[0], 0, 0) or die "$!"; print defined(shmget(0x1234, 0, 0)) ? "there" : $!+0, "\n"' "$id")");
  EXPECT_EQ(end.out, "hello\n2\n") << text(end);
  EXPECT_EQ(end.err, "");
}

TEST_P(Dshm, WhatWasPreloadedStaysPreloaded) {
  const Ended end = host.run({"/bin/sh", "-c", "echo $LD_PRELOAD; echo $DSHM_SERVER"}, {"LD_PRELOAD=libm.so.6"});
  EXPECT_THAT(end.out, HasSubstr("/libdshm.so:libm.so.6\n" + host.dsmd.at() + "\n")) << text(end);
}

TEST_P(Dshm, TheAgentInheritsNothing) {
  Program sleeper(
      host.under({"/bin/sh", "-c",
                  "exec 7</dev/null; exec perl -e '$|=1; shmget(0,1,0600)//die $!; print \"x\\n\"; sleep 60'"}),
      host.environment());
  ASSERT_TRUE(sleeper.shows("x"));
  const pid_t agent = host.agent();
  ASSERT_NE(agent, 0);
  EXPECT_EQ(::getsid(agent), agent);
  EXPECT_THAT(content("/proc/" + std::to_string(agent) + "/environ"), Not(HasSubstr("LD_PRELOAD")));
  for (const auto& entry : fs::directory_iterator("/proc/" + std::to_string(agent) + "/fd")) {
    std::error_code gone;
    const std::string file = fs::read_symlink(entry.path(), gone);
    const int number = std::stoi(entry.path().filename());
    EXPECT_TRUE(gone || (file == "/dev/null") == (number < 3)) << number << " " << file;
  }
  const std::string status = content("/proc/" + std::to_string(agent) + "/status");
  EXPECT_THAT(status, Not(HasSubstr("PPid:\t" + std::to_string(sleeper.pid()) + "\n")));
  sleeper.kill(SIGKILL);
  (void)sleeper.wait();
  host.expect_empty();
}

// ---- who may not have userfaultfd has the other way ----

TEST(DshmUnprivileged, NobodyNeedsNoPrivilege) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become somebody else; all other tests are run so already";
  const Host host("");
  constexpr uid_t nobody = 65534;
  const std::string folder = host.dsmd.folder() + "/nobody";
  fs::create_directory(folder);
  fs::permissions(host.dsmd.folder(), fs::perms::others_exec, fs::perm_options::add);
  fs::copy_file(host.dsmd.key_file(), folder + "/key");
  ASSERT_EQ(::chown(folder.c_str(), nobody, nobody) | ::chown((folder + "/key").c_str(), nobody, nobody), 0);
  for (const char* name : {"segments", "transfers", "forks", "closes"}) {
    Words line{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"};
    for (const std::string& word : host.under(act(name))) line.push_back(word);
    expect_well(Program(line, host.environment({"DSM_KEY_FILE=" + folder + "/key"})).wait());
  }
  EXPECT_TRUE(wait_until([&] { return Host::left(folder + "/key").empty(); }));
}

// ---- set-user-id programs take nothing from who starts them ----

#ifndef __SANITIZE_ADDRESS__  // whose options such a program does not take from the environment
class SetUserId : public ::testing::Test {
 protected:
  static constexpr uid_t owner = 65534, stranger = 65533;

  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root, to give programs away";
    struct statvfs where {};
    ASSERT_EQ(::statvfs(host.dsmd.folder().c_str(), &where), 0);
    if ((where.f_flag & ST_NOSUID) != 0) GTEST_SKIP() << "needs a temporary folder that is not mounted nosuid";
    if (::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1) GTEST_SKIP() << "needs leave to get new privileges";
    if (::getpwuid(owner) == nullptr) GTEST_SKIP() << "needs a user " << owner << ", who has a home";
    fs::permissions(host.dsmd.folder(), fs::perms::others_exec, fs::perm_options::add);
    fs::create_directory(folder);
    ASSERT_EQ(::chmod(folder.c_str(), 0755), 0);  // whatever the umask
    fs::copy_file(host.dsmd.key_file(), key);
    ASSERT_EQ(::chown(key.c_str(), owner, owner), 0);
  }
  std::string owned(const std::string& name) const {
    const std::string path = folder + "/" + name;
    fs::copy_file(program_path(name), path);
    EXPECT_EQ(::chown(path.c_str(), owner, owner) | ::chmod(path.c_str(), 06755), 0);
    return path;
  }
  // By a stranger, in whose environment there is all that a program needs.
  [[nodiscard]] Ended run(const Words& program) const {
    Words line{"setpriv", "--reuid=65533", "--regid=65533", "--clear-groups"};
    line.insert(line.end(), program.begin(), program.end());
    const std::string agent = program_path("dshm_agent");
    return Program(line, {"DSM_KEY_FILE=" + key, "DSHM_AGENT=" + agent,
                          "PATH=" + fs::path(agent).parent_path().string() + ":/usr/bin:/bin",
                          "DSHM_SERVER=" + host.dsmd.at()})
        .wait();
  }

  const Host host{""};
  const std::string folder = host.dsmd.folder() + "/owned", key = folder + "/key";
};

TEST_F(SetUserId, ProgramsTakeNoKeyFileFromTheEnvironment) {
  const std::string no_key = "key file " + std::string(::getpwuid(owner)->pw_dir) + "/.config/dsm/key: it is not there";
  const std::string agent = owned("dshm_agent"), guest = owned("dshm_guest_linked");
  const Ended alone = run({agent, "--server", host.dsmd.at(), "--ready-fd", "1"});
  EXPECT_THAT(alone.out, HasSubstr(no_key)) << text(alone);
  for (const char* name : {"has_no_key", "has_no_key_as_owner"}) {
    const Ended end = run({guest, name});
    EXPECT_EQ(end.out, "well\n") << text(end);
    EXPECT_THAT(end.err, ::testing::MatchesRegex("dshm: " + no_key + "[^\n]*\n"));
  }
}

TEST_F(SetUserId, ProgramsTakeNoAgentThatAnybodyMayHavePutThere) {
  const std::string guest = owned("dshm_guest_linked");
  const auto expect_none = [&] {
    const Ended end = run({guest, "has_no_key"});
    EXPECT_EQ(end.out, "well\n") << text(end);
    EXPECT_EQ(end.err,
              "dshm: there is no dshm_agent beside the program or in ../bin (or others may write there); a set-user-id "
              "program looks nowhere else, not at DSHM_AGENT, not in PATH: put it there\n");
  };
  expect_none();
  const std::string agent = owned("dshm_agent");
  EXPECT_THAT(run({guest, "has_no_key"}).err, HasSubstr("key file"));
  ASSERT_EQ(::chown(agent.c_str(), stranger, stranger), 0);
  expect_none();
  ASSERT_EQ(::chown(agent.c_str(), owner, owner) | ::chown(folder.c_str(), stranger, stranger), 0);
  expect_none();
  ASSERT_EQ(::chown(folder.c_str(), 0, 0) | ::chmod(folder.c_str(), 01777), 0);
  expect_none();
}
#endif

// ---- the end ----

TEST(DshmEnds, WithoutDsmdThereIsOneLine) {
  const Host host("");
  const Ended end = Program({program_path("dshmrun"), "-s", "127.0.0.1:1", "perl", "-e",
                             "print shmget(0,1,0600)//0+$!, ' ' for 1..3; print semget(0,1,0600)//0+$!"},
                            host.environment())
                        .wait();
  EXPECT_EQ(end.out, "43 43 43 43") << "EIDRM";
  EXPECT_THAT(end.err, ::testing::MatchesRegex("dshm: [^\n]*127.0.0.1:1[^\n]*\n"));
  host.expect_empty();
}

TEST(DshmEnds, AnUnknownPagerIsNamed) {
  const Host host("none");
  const Ended end = host.run({"perl", "-e", "print shmget(0,1,0600)//0+$!"});
  EXPECT_EQ(end.out, "43");
  EXPECT_EQ(end.err, "dshm: DSHM_PAGER is neither uffd nor sigsegv; unset it, or name one\n");
}

TEST(DshmEnds, WithoutAnAgentThereIsOneLine) {
  const Host host("");
  const Ended end = host.run({"perl", "-e", "print shmget(0,1,0600)//0+$!, ' ' for 1..3"}, {"DSHM_AGENT=/nonexistent"});
  EXPECT_EQ(end.out, "43 43 43 ");
  EXPECT_EQ(end.err, "dshm: cannot start the agent /nonexistent: No such file or directory\n");
}

// A guest that has touched two pages of four, and goes on when told.
class Waiting {
 public:
  explicit Waiting(const Host& host, bool calls = false)
      : fifo_(host.dsmd.folder() + "/go"), guest_(host.under(words(calls)), host.environment()) {
    ::mkfifo(fifo_.c_str(), 0600);
    EXPECT_TRUE(guest_.shows("ready"));
  }
  // '0': touch a page that was here; '3': one that was not.
  Ended go(char page) {
    std::ofstream(fifo_) << page << std::flush;
    return guest_.wait();
  }
  Program& guest() { return guest_; }

 private:
  [[nodiscard]] Words words(bool calls) const {
    Words all = act("end");
    all.push_back(fifo_);
    if (calls) all.emplace_back("calls");
    return all;
  }
  const std::string fifo_;
  Program guest_;
};

void expect_bus_error(const Ended& end, const std::string& part) {
  EXPECT_EQ(end.signal(), SIGBUS) << text(end);
  EXPECT_EQ(std::count(end.err.begin(), end.err.end(), '\n'), 1) << end.err;
  EXPECT_THAT(end.err, HasSubstr(part));
}

TEST_P(Dshm, TheAgentsEndIsABusError) {
  for (const char page : {'0', '3'}) {
    Waiting waiting(host);
    ASSERT_EQ(::kill(host.agent(), SIGKILL), 0);
    ASSERT_TRUE(waiting.guest().shows("dshm: the agent of this host has ended"));
    expect_bus_error(waiting.go(page), "raise SIGBUS, calls fail with EIDRM");
  }
  host.expect_empty();
}

TEST_P(Dshm, DsmdsEndIsABusError) {
  Waiting waiting(host);
  host.dsmd.itself().kill(SIGKILL);
  ASSERT_TRUE(waiting.guest().shows("dshm: dsmd at "));
  expect_bus_error(waiting.go('0'), "has gone");
  host.expect_empty();
}

TEST_P(Dshm, AStoppedAgentsLeaseEnds) {
  Waiting waiting(host);
  const pid_t agent = host.agent();
  ASSERT_EQ(::kill(agent, SIGSTOP), 0);
  ASSERT_TRUE(waiting.guest().shows("has not been heard of for too long"));
  expect_bus_error(waiting.go('3'), "raise SIGBUS");
  ASSERT_EQ(::kill(agent, SIGCONT), 0);
  host.expect_empty();
}

TEST_P(Dshm, WhoSleepsForAPageIsWokenByTheEnd) {
  Waiting waiting(host);
  const pid_t agent = host.agent();
  ASSERT_EQ(::kill(agent, SIGSTOP), 0);
  expect_bus_error(waiting.go('3'), "has not been heard of for too long");
  ASSERT_EQ(::kill(agent, SIGCONT), 0);
  host.expect_empty();
}

TEST_P(Dshm, CallsAfterTheEndFailButNobodyDies) {
  Waiting waiting(host, true);
  ASSERT_EQ(::kill(host.agent(), SIGKILL), 0);
  ASSERT_TRUE(waiting.guest().shows("the agent of this host has ended"));
  const Ended end = waiting.go('0');
  EXPECT_EQ(end.code(), 0) << text(end);
  EXPECT_EQ(end.out, "ready\nwell\n");
}

}  // namespace
}  // namespace dsm::dshm
