// Ten thousand strangers, and all their tricks, at the port of a dsmd that serves sessions and System V programs meanwhile.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <fstream>

#include "dsm/tests/daemon_bench.hpp"
#include "dsm/tests/job_bench.hpp"
#include "dsm/tests/strangers_job.hpp"

namespace dsm::daemon::testing {
namespace {

using namespace launch::testing;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::size_t crowd = 10'000;
constexpr std::size_t needed = crowd + 1000;  // open files
constexpr std::size_t handshake = 72;         // bytes that a client says in it
constexpr double longest_s = 5 + 10;          // a handshake may take 5; the rest is for a machine that is busy
constexpr std::size_t memory_kib = 100'000;   // that so many may cost

// One of two players of a System V game: each takes the number that the other has left, and leaves the next one. Until
// there is a file beside the key's.
constexpr const char* player = R"(
  my $me = shift; my $last = $me - 2; $| = 1;
  my $set = semget(4711, 2, 01600) // die "semget: $!"; my $segment = shmget(4711, 8, 01600) // die "shmget: $!";
  sub add { semop($set, pack("s!3", $_[0], $_[1], 0)) or die "semop: $!" }
  add(0, 1) if $me == 0;
  for (my $over = 0; !$over;) {
    add($me, -1);
    shmread($segment, my $text, 0, 8) or die "shmread: $!";
    my $number = unpack("q", $text);
    die "$number follows $last" if $number >= 0 && $number != $last + 2;
    $last = $number;
    $over = $number < 0 || ($me == 0 && -e "$ENV{DSM_KEY_FILE}.enough");
    shmwrite($segment, pack("q", $over ? -1 : $number + 1), 0, 8) or die "shmwrite: $!";
    add(1 - $me, 1);
    print "plays\n" if $number % 32 == $me;
  }
  if ($me == 1) { shmctl($segment, 0, 0) or die "shmctl: $!"; semctl($set, 0, 0, 0) or die "semctl: $!" }
)";

std::unique_ptr<Program> dshm(const Dsmd& dsmd, const std::string& server, std::vector<std::string> line) {
  line[0] = line[0] == "perl" ? "perl" : program_path(line[0]);
  if (line[0] == "perl") line.insert(line.begin(), {program_path("dshmrun"), "-s", server});
  return std::make_unique<Program>(line, std::vector<std::string>{"DSM_KEY_FILE=" + dsmd.key_file()});
}

std::string objects(const Dsmd& dsmd, const std::string& host = "127.0.0.1") {
  const std::string at = host + ":" + std::to_string(dsmd.port());
  const Ended end = dshm(dsmd, at, {"dshmctl", "-s", at, "list"})->wait();
  EXPECT_EQ(end.code(), 0) << text(end);
  return end.out;
}

// A session of two, and two hosts with a System V program each: they work all the time.
class Customers {
 public:
  explicit Customers(const Dsmd& dsmd)
      : enough_(dsmd.key_file() + ".enough"), all_(dsmd.start_all(member("until-told"), "standing", 2)) {
    // By its name, a host is another one: it has an agent of its own.
    for (const std::string host : {"127.0.0.1:", "localhost:"}) {
      const std::string me = std::to_string(all_.size() - 2);
      all_.push_back(dshm(dsmd, host + std::to_string(dsmd.port()), {"perl", "-e", player, me}));
    }
  }
  void expect_to_go_on() {
    for (const auto& one : all_) {
      const std::size_t before = one->out().size();
      EXPECT_TRUE(wait_until([&] { return one->ended() || one->out().size() > before; }));
      EXPECT_FALSE(one->ended()) << one->out() << one->err();
    }
  }
  void expect_good_end() {
    std::ofstream{enough_};
    expect_all_well(all_);
  }

 private:
  const std::string enough_;
  Programs all_;
};

// What a member of a session, and an agent, have said from their first byte to their last.
std::string said_by_member(Dsmd& dsmd) {
  Proxy proxy;
  proxy.lead_to(dsmd.port());
  proxy.let_welcome_through(true);
  std::vector<std::string> environment = dsmd.environment("recorded", 1);
  environment[0] = "DSM_SESSION=127.0.0.1:" + std::to_string(proxy.port()) + "/recorded:1";
  EXPECT_EQ(Program({program_path("hello")}, environment).wait().code(), 0);
  EXPECT_TRUE(dsmd.itself().shows("session 'recorded' has ended well"));
  EXPECT_GT(proxy.recorded().size(), handshake);
  return proxy.recorded();
}

void wait_until_hosts_have_gone(Dsmd& dsmd) {
  EXPECT_TRUE(wait_until([&] {
    return dsmd.said("(127.0.0.1) has come") &&
           count(dsmd.itself().err(), "(127.0.0.1) has come") == count(dsmd.itself().err(), "(127.0.0.1) has gone");
  })) << dsmd.itself().err();
}

std::string said_by_agent(Dsmd& dsmd) {
  Proxy proxy;
  proxy.lead_to(dsmd.port());
  proxy.let_welcome_through(true);
  const Ended end = dshm(dsmd, "127.0.0.1:" + std::to_string(proxy.port()),
                         {"perl", "-e", "print shmget(0x4712, 12345, 01600) // die $!"})
                        ->wait();
  EXPECT_EQ(end.code(), 0) << text(end);
  EXPECT_THAT(objects(dsmd), HasSubstr("12345"));
  EXPECT_EQ(dshm(dsmd, "", {"dshmctl", "-s", dsmd.at(), "rm", end.out})->wait().code(), 0);
  wait_until_hosts_have_gone(dsmd);
  EXPECT_GT(proxy.recorded().size(), handshake);
  return proxy.recorded();
}

std::size_t hard_limit() {
  rlimit limit{};
  EXPECT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  return limit.rlim_max;
}

// Descriptors that may be open at the same time for those who have not proved the key.
std::size_t room_for_strangers() { return std::min<std::size_t>(hard_limit() / 2, 16'384); }

// In KiB, at most till now.
std::size_t memory(pid_t pid) {
  const std::string status = content("/proc/" + std::to_string(pid) + "/status");
  const std::size_t at = status.find("VmHWM:");
  return at == std::string::npos ? 0 : std::stoul(status.substr(at + 6));
}

// They get in, and who has another key does not.
void expect_new_customers_to_be_served(Dsmd& dsmd, const Dsmd& other, const std::string& session) {
  expect_all_well(dsmd.start_all({program_path("hello")}, session, 2));
  EXPECT_THAT(objects(dsmd, "127.1"), HasSubstr("0x00001267")) << "by an agent that comes now";
  std::vector<std::string> environment = dsmd.environment(session, 2);
  environment[1] = "DSM_KEY_FILE=" + other.key_file();
  expect_one_line(Program({program_path("hello")}, environment).wait(), 1,
                  {"dsm: session '" + session + "': dsmd at " + dsmd.at() + " does not let this program in: ", "key"});
}

// Each kind has come, has said what it had to say, and has been turned away in good time: the silent ones, too.
void expect_refused(Strangers& strangers, std::uint16_t port) {
  for (std::size_t i = 0; i < kinds; ++i) {
    const auto kind = static_cast<Kind>(i);
    const std::size_t enough = kind == Kind::crowd ? crowd / 2 : 1;
    Met met;
    EXPECT_TRUE(wait_until([&] {
      met = strangers.met(port, kind);
      return met.turned_away >= enough && (met.proofs > 0 || !proves(kind));
    })) << name_of(kind);
    EXPECT_EQ(met.let_in, 0u) << name_of(kind);
    EXPECT_EQ(met.proofs > 0, proves(kind)) << name_of(kind);
    EXPECT_LT(met.longest_s, longest_s) << name_of(kind);
  }
}

void expect_few_lines(const std::string& log) {
  for (const char* why : {": no handshake within 5000 ms", ": wrong first bytes", ": closed before the handshake",
                          ": the peer does not have this job's key"})
    EXPECT_GE(count(log, why), 1u) << why;
  EXPECT_LT(count(log, "\n"), 300u);
  EXPECT_EQ(count(log, "comes for session 'recorded'"), 1u);
  for (const char* never : {"knows the key but", "said what no member says", "said no hello"})
    EXPECT_EQ(count(log, never), 0u) << never;
}

TEST(DaemonStrangers, TenThousandAndAllTheirTricksHarmNoCustomer) {
  if (hard_limit() < needed) GTEST_SKIP() << "needs a hard limit of " << needed << " open files: ulimit -Hn";
  make_room_for_strangers(needed);
  Dsmd dsmd, other;
  const std::string member_said = said_by_member(dsmd), agent_said = said_by_agent(dsmd);
  Customers customers(dsmd);
  customers.expect_to_go_on();
  const std::size_t descriptors = dsmd.descriptors(), room = room_for_strangers();
  const std::size_t memory_before = memory(dsmd.itself().pid());
  {
    Strangers strangers(said_by_member(other).substr(0, handshake), crowd);
    strangers.add_same_job(member_said);
    strangers.add_same_job(agent_said);
    strangers.visit(dsmd.port(), member_said.substr(handshake));
    EXPECT_TRUE(wait_until([&] { return dsmd.descriptors() > std::min(crowd, room) * 9 / 10; })) << strangers.table();
    expect_new_customers_to_be_served(dsmd, other, "among-them");
    customers.expect_to_go_on();
    EXPECT_LE(dsmd.descriptors(), room + descriptors + 50);
    expect_refused(strangers, dsmd.port());
    expect_new_customers_to_be_served(dsmd, other, "still-among-them");
    customers.expect_to_go_on();
    EXPECT_LT(memory(dsmd.itself().pid()), memory_before + memory_kib);
    std::fputs(strangers.table().c_str(), stdout);
  }
  expect_new_customers_to_be_served(dsmd, other, "after-them");
  customers.expect_to_go_on();
  EXPECT_TRUE(wait_until([&] { return dsmd.descriptors() == descriptors; })) << dsmd.descriptors();
  customers.expect_good_end();
  EXPECT_THAT(objects(dsmd), Not(HasSubstr("12345"))) << "what was replayed has been done again";
  dsmd.itself().kill(SIGTERM);
  const Ended end = dsmd.itself().wait();
  EXPECT_EQ(end.code(), 0);
  expect_few_lines(end.err);
}

}  // namespace
}  // namespace dsm::daemon::testing
