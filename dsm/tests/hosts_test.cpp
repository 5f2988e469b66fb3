// Jobs on several machines, as dsmexec starts them over ssh: what must work.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <set>
#include <sstream>

#include "dsm/net/frame.hpp"
#include "dsm/net/handshake.hpp"
#include "dsm/tests/hosts_bench.hpp"
#include "ipc/fd.hpp"

namespace dsm::launch::testing {
namespace {

using Words = std::vector<std::string>;

std::string some_text() {
  std::string all;
  for (int i = 0; i < 500; ++i) all += "The page, the FAULT; the handler's page.\n";
  return all;
}

TEST_F(Hosts, TheExamplesVerifyUnderEachProtocol) {
  std::vector<std::unique_ptr<HostFile>> files;
  for (const int host : {1, 2, 3, 4})
    files.push_back(std::make_unique<HostFile>(root(host) + "/root/words", some_text()));
  for (const char* protocol : {"msi", "migrate"}) {
    for (const Words& line :
         {Words{"demo"}, {"jacobi", "--size", "64", "--rounds", "20"}, {"word_count", "/root/words"}}) {
      const Ended r = run(on({1, 2, 3, 4}, {"-p", protocol, "--size", "64M"}, line));
      EXPECT_EQ(r.code(), 0) << protocol << text(r);
      EXPECT_TRUE(has_line(r.out, {"[Proc 0 : " + name(1) + " : stdout] " + line[0] + ": OK"})) << protocol << text(r);
      EXPECT_EQ(r.err, "") << protocol << line[0];
    }
  }
}

TEST_F(Hosts, OverIPv6) {
  if (v6(1).empty()) GTEST_SKIP() << "this kernel has no IPv6";
  const Ended r = run(on_machines(Words{v6(1), "[" + v6(2) + "]:22", v6(3)}, {"--size", "16M"}, {"hello"}));
  EXPECT_EQ(r.code(), 0) << text(r);
  for (const int rank : {0, 1, 2}) {
    const std::string line = "rank " + std::to_string(rank) + " of 3 was here";
    EXPECT_TRUE(has_line(r.out, {"[Proc 0 : " + v6(1) + " : stdout] ", line})) << text(r);
  }
  EXPECT_EQ(r.err, "");
}

// A round trip of 4 ms, and one frame of a hundred lost each way.
TEST_F(Hosts, OneHostIsFarAway) {
  const Said slow = hosts_sh({"slow", "3", "2000", "10", "--seed", "1"});
  if (slow.code == 77) GTEST_SKIP() << slow.text;
  ASSERT_EQ(slow.code, 0) << slow.text;
  for (const char* protocol : {"msi", "migrate"}) {
    const Ended r = run(on({1, 3, 2}, {"-p", protocol, "--size", "16M"}, {"dsm_stress", "rmw", "--rounds", "40"}));
    EXPECT_EQ(r.code(), 0) << protocol << text(r);
    EXPECT_TRUE(has_line(r.out, {"rmw: 3 ranks added"})) << protocol << text(r);
  }
  const Said quick = hosts_sh({"slow", "3", "0", "0"});
  EXPECT_EQ(quick.code, 0) << quick.text;
}

// As Debian has it: a machine's own name stands for 127.0.1.1 there.
TEST_F(Hosts, ThisMachineTakesPartAndItsNameIsALoopbackAddress) {
  const std::string own = shell("uname -n").text;
  Order order = on_machines(Words{"localhost", name(1), own.substr(0, own.find('\n')), name(2), name(3)},
                            {"--size", "16M"}, {"dsm_stress", "rmw", "--rounds", "100"});
  order.before = {
      "unshare", "--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\"", folder() + "/254.hosts"};
  const Ended r = run(order);
  EXPECT_EQ(r.code(), 0) << text(r);
  EXPECT_TRUE(has_line(r.out, {"[Proc 0 : localhost : stdout] rmw: 5 ranks added"})) << text(r);
  EXPECT_EQ(r.err, "");
}

// "127.0.1.1 castle.example.org castle": both are this machine; another castle is not.
TEST_F(Hosts, TheLongFormOfThisMachinesNameIsThisMachineIfItIsItsAddress) {
  const std::string said = shell("uname -n").text, own = said.substr(0, said.find_first_of(".\n"));
  const HostFile file(folder() + "/long.hosts", "127.0.0.1 localhost\n127.0.1.1 " + own + ".example.org " + own +
                                                    "\n192.0.2.1 " + own + ".example.net\n");
  Order order = on_machines(Words{own + ".example.org", own + ".example.net"}, {"--dry-run"}, {"true"});
  order.before = {"unshare", "--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\"", file.path()};
  const Ended r = run(order);
  EXPECT_EQ(r.code(), 0) << text(r);
  EXPECT_TRUE(has_line(r.out, {"rank 0 on " + own + ".example.org: by fork"})) << text(r);
  EXPECT_TRUE(has_line(r.out, {"rank 1 on " + own + ".example.net: by ssh"})) << text(r);
}

TEST_F(Hosts, AHostWithoutTheTreeNeedsSendAndGetsDsmexecAnyway) {
  const std::string far = name(without_tree);
  const std::string home = "host " + far + " has no folder " + build() + ": its ranks start in the home folder there";
  const Ended none = run(on({1, without_tree}, {"--size", "16M"}, {"hello"}));
  EXPECT_EQ(none.code(), 127) << text(none);
  EXPECT_TRUE(has_line(none.err, {"dsmexec: rank 1 (" + far + "): program 'hello' is not there", "--send"}))
      << text(none);
  EXPECT_EQ(none.out, "");

  const Ended sent = run(on({1, without_tree}, {"--size", "16M", "--send"}, {"hello"}));
  EXPECT_EQ(sent.code(), 0) << text(sent);
  EXPECT_TRUE(has_line(sent.out, {"rank 1 of 2 was here"})) << text(sent);
  EXPECT_TRUE(has_line(sent.err, {home})) << text(sent);
  EXPECT_EQ(sent.own_lines().size(), 1u) << text(sent);

  // What the host has itself is taken without --send.
  const Ended plain = run(on({without_tree}, {"--output", "plain"}, {"pwd"}));
  EXPECT_EQ(plain.code(), 0) << text(plain);
  EXPECT_EQ(plain.out, "/root\n");
  EXPECT_TRUE(has_line(plain.err, {home})) << text(plain);
}

// It prints what could be taken for an agent's words, too, and takes long.
TEST_F(Hosts, ANoisyLoginIsHarmlessUnlessItIsEndless) {
  {
    const HostFile noisy(root(1) + "/root/.bashrc",
                         "echo welcome; echo 'dsmexec 0123456789 ready'; printf 'dsmexec \\0\\377\\033[2J'\n"
                         "echo 'what a day' >&2; head -c 300000 /dev/zero | tr '\\0' x\n"
                         "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; printf 'no newline'\n");
    const Ended r = run(on({1, 2}, {"--size", "16M"}, {"hello"}));
    EXPECT_EQ(r.code(), 0) << text(r).substr(0, 4000);
    EXPECT_TRUE(has_line(r.out, {"rank 0 of 2 was here"})) << text(r).substr(0, 4000);
    EXPECT_EQ(r.err, "");
    const Ended bytes = run(on({1}, {"--output", "plain"}, {"echo", "all"}));
    EXPECT_EQ(bytes.out, "all\n");
  }
  const HostFile endless(root(1) + "/root/.bashrc", "yes\n");
  const Ended r = run(on({1, 2}, {}, {"true"}));
  EXPECT_EQ(r.code(), 125) << text(r).substr(0, 4000);
  ASSERT_EQ(r.own_lines().size(), 1u) << r.err.substr(0, 4000);
  EXPECT_TRUE(has_line(r.err, {name(1), "prints more than 1 MiB"})) << r.err.substr(0, 4000);
}

TEST_F(Hosts, ArgumentsArriveByteForByte) {
  const Ended r = run(on({1, without_tree}, {"--output", "plain", "--wdir", "/"},
                         {"sh", "-c", "for a; do printf '<%s>' \"$a\"; done; echo", "sh", "a b", "*", "it's", "$HOME",
                          "x;id", "", "--", "--help", "\xff", "\\\\", "a\nb", "!!", "`id`", "-n", "\t"}));
  EXPECT_EQ(r.code(), 0) << text(r);
  const std::string line = "<a b><*><it's><$HOME><x;id><><--><--help><\xff><\\\\><a\nb><!!><`id`><-n><\t>\n";
  // Lines of two ranks come whole, but in any order.
  const std::size_t second = line.find('\n') + 1;
  EXPECT_EQ(count(r.out, line.substr(0, second)), 2u) << r.out;
  EXPECT_EQ(count(r.out, line.substr(second)), 2u) << r.out;
  EXPECT_EQ(r.out.size(), 2 * line.size()) << r.out;
  EXPECT_EQ(r.err, "");
}

TEST_F(Hosts, EnvironmentAndFolder) {
  Order order =
      on({1, 2}, {"-x", "DSM_TEST_HERE", "-x", "DSM_TEST_GIVEN=a 'b' $c", "-x", "DSM_TEST_NOWHERE"},
         {"sh", "-c",
          "echo \"$DSM_TEST_HERE|$DSM_TEST_GIVEN|${DSM_TEST_NOWHERE-unset}|${DSM_TEST_NOT-unset}|$PWD|$(pwd)\""});
  order.arguments.insert(order.arguments.begin(), {"--output", "plain"});
  order.environment = {"DSM_TEST_HERE=x\xff y", "DSM_TEST_NOT=not asked for"};
  const Ended r = run(order);
  EXPECT_EQ(r.code(), 0) << text(r);
  const std::string line = "x\xff y|a 'b' $c|unset|unset|" + build() + "|" + build() + "\n";
  EXPECT_EQ(r.out, line + line);
  EXPECT_EQ(r.err, "");
}

TEST_F(Hosts, StandardInputGoesToRankZeroAndTheOthersSeeItsEnd) {
  Order order = on({2, 1, 3}, {}, {"wc", "-c"});
  order.input = std::string(99, 'x') + "\n";
  const Ended r = run(order);
  EXPECT_EQ(r.code(), 0) << text(r);
  EXPECT_TRUE(has_line(r.out, {"[Proc 0 : " + name(2) + " : stdout] 100"})) << text(r);
  EXPECT_EQ(count(r.out, "stdout] 0\n"), 2u) << text(r);
}

// It is there before the program is, and more of it than may be under way at one time.
TEST_F(Hosts, StandardInputWaitsForAProgramThatIsSent) {
  const HostFile program(::testing::TempDir() + "dsm-send-" + std::to_string(::getpid()), content("/usr/bin/wc"));
  ASSERT_EQ(::chmod(program.path().c_str(), 0700), 0);
  Order order = on({1, 2}, {"--send", "--stdin", "all"}, {program.path(), "-c"});
  order.input = std::string(200'000, 'x');
  const Ended r = run(order);
  EXPECT_EQ(r.code(), 0) << text(r);
  EXPECT_EQ(count(r.out, "stdout] 200000\n"), 2u) << text(r);
}

TEST_F(Hosts, LinesOfFourRanksAtOnceAreAllWholeAndTagged) {
  const Ended r = run(on({1, 2, 3, 4}, {}, {"sh", "-c", "seq -f \"$DSMEXEC_RANKID-%0208.0f\" 2000"}));
  ASSERT_EQ(r.code(), 0) << r.err;
  EXPECT_EQ(r.err, "");
  std::vector<int> next(4, 1);
  std::istringstream lines(r.out);
  for (std::string got; std::getline(lines, got);) {
    int rank = -1;
    ASSERT_EQ(std::sscanf(got.c_str(), "[Proc %d", &rank), 1) << got;
    ASSERT_TRUE(rank >= 0 && rank < 4) << got;
    std::ostringstream want;
    want << "[Proc " << rank << " : " << name(rank + 1) << " : stdout] " << rank << '-';
    want.width(208);
    want.fill('0');
    want << next[static_cast<std::size_t>(rank)]++;
    ASSERT_EQ(got, want.str());
  }
  EXPECT_EQ(next, std::vector<int>(4, 2001));
}

TEST_F(Hosts, AnOpenRendezvousIsReachedFromEveryHost) {
  const Ended r = run(on({1, 2, 3, 4}, {"--open-rendezvous"}, {"data_exchange"}));
  EXPECT_EQ(r.code(), 0) << text(r);
  for (const int rank : {0, 1, 2, 3}) {
    for (const int from : {0, 1, 2, 3}) {
      EXPECT_TRUE(has_line(r.out, {"rank " + std::to_string(rank) + " received from rank " + std::to_string(from) +
                                   ": rank " + std::to_string(from) + " of 4, pid "}))
          << text(r);
    }
  }
}

// ---- strangers ------------------------------------------------------------------------------------------------------

struct Door {
  std::string address;
  std::uint16_t port = 0;
  bool operator<(const Door& other) const { return std::tie(address, port) < std::tie(other.address, other.port); }
};

// The ports at which somebody listens in the network that process `pid` is in; of these inodes only, if any are given.
std::set<std::uint16_t> listening(pid_t pid, const std::set<std::string>& inodes) {
  std::set<std::uint16_t> ports;
  for (const char* family : {"tcp", "tcp6"}) {
    std::ifstream file("/proc/" + std::to_string(pid) + "/net/" + family);  // proc(5)
    for (std::string line; std::getline(file, line);) {
      std::istringstream words(line);
      std::vector<std::string> word;
      for (std::string w; words >> w;) word.push_back(w);
      if (word.size() < 10 || word[3] != "0A" || (!inodes.empty() && inodes.count(word[9]) == 0)) continue;
      ports.insert(static_cast<std::uint16_t>(std::stoul(word[1].substr(word[1].rfind(':') + 1), nullptr, 16)));
    }
  }
  return ports;
}

std::set<std::string> sockets_of(pid_t pid) {
  std::set<std::string> inodes;
  const Said links = shell("readlink /proc/" + std::to_string(pid) + "/fd/*");
  std::istringstream lines(links.text);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("socket:[", 0) == 0) inodes.insert(line.substr(8, line.size() - 9));
  }
  return inodes;
}

// Empty if nobody listens there any more.
ipc::Fd connected(const Door& door) {
  ipc::Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(door.port);
  EXPECT_EQ(::inet_pton(AF_INET, door.address.c_str(), &to.sin_addr), 1);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) fd.reset();
  return fd;
}

// Knocks in every wrong way, and leaves the connections open.
std::vector<ipc::Fd> knock(const Door& door) {
  const std::string magic(reinterpret_cast<const char*>(net::handshake_magic.data()), net::handshake_magic.size());
  net::FrameHeader huge{};
  huge.kind = static_cast<std::uint8_t>(net::FrameKind::control);
  huge.length = 0xffffffffu;
  std::vector<ipc::Fd> strangers;
  for (const std::string& words : {std::string(), std::string("GET / HTTP/1.0\r\n\r\n"), std::string(100'000, 'x'),
                                   magic, magic + std::string(10, 'n'), magic + std::string(200, '\xff'),
                                   std::string(reinterpret_cast<const char*>(&huge), sizeof huge)}) {
    ipc::Fd one = connected(door);
    if (!one) break;
    (void)::send(one.get(), words.data(), words.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    strangers.push_back(std::move(one));
  }
  return strangers;
}

TEST_F(Hosts, StrangersOnEveryPortOfARunningJobDoNotHarmIt) {
  const HostFile gate(root(1) + "/root/gate");
  ASSERT_EQ(::mkfifo(gate.path().c_str(), 0600), 0);
  Dsmexec job(on({1, 2, 3, 4}, {"--size", "16M"},
                 {"sh", "-c", "[ $DSMEXEC_RANKID != 0 ] || read -r nothing </root/gate; exec \"$0\" rmw --rounds 2000",
                  build() + "/bin/dsm_stress"}));
  // Rank 0 waits at the gate, and for it the others, which listen already.
  ipc::Fd key;
  ASSERT_TRUE(wait_until([&] {
    key = ipc::Fd(::open(gate.path().c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
    return static_cast<bool>(key);
  }));
  std::set<Door> doors;
  const auto look = [&] {
    const std::set<std::string> own = sockets_of(job.pid());
    for (const std::uint16_t port : listening(::getpid(), own)) doors.insert({master(), port});
    std::set<std::string> seen;
    for (const int host : {1, 2, 3, 4}) {
      const std::string path = root(host);
      for (const std::uint16_t port : listening(std::stoi(path.substr(6)), {})) {
        if (port != 22) doors.insert({v4(host), port});
      }
    }
    for (const Door& door : doors) seen.insert(door.address);
    return seen;
  };
  const std::set<std::string> others = {master(), v4(2), v4(3), v4(4)};
  ASSERT_TRUE(wait_until([&] {
    const std::set<std::string> seen = look();
    return std::includes(seen.begin(), seen.end(), others.begin(), others.end());
  }));
  std::vector<ipc::Fd> strangers;
  const auto knock_at_all = [&] {
    for (const Door& door : doors) {
      for (ipc::Fd& one : knock(door)) strangers.push_back(std::move(one));
    }
  };
  for (int i = 0; i < 5; ++i) knock_at_all();
  EXPECT_GE(strangers.size(), doors.size() * 35);
  key.reset();
  for (int i = 0; i < 20 && !job.left().empty(); ++i) {
    look();
    knock_at_all();
  }
  const Ended r = job.wait();
  EXPECT_EQ(r.code(), 0) << text(r);
  EXPECT_TRUE(has_line(r.out, {"rmw: 4 ranks added"})) << text(r);
}

}  // namespace
}  // namespace dsm::launch::testing
