// server and client, seen from outside. What clients do that they should not: bad_clients_test.cpp.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <future>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server_bench.hpp"

namespace {

using ipc::Fd;
using ipc::testing::descriptors_of;
using ipc::testing::expect_error;
using ipc::testing::has_descriptors;
using ipc::testing::hear_from;
using ipc::testing::is_heard;
using ipc::testing::Lines;
using ipc::testing::Outcome;
using ipc::testing::random_moments;
using ipc::testing::run;
using ipc::testing::say_to;
using ipc::testing::Server;
using ipc::testing::Started;
using ipc::testing::suspend;
using ipc::testing::wait_until;
using Client = Server;

TEST_F(Server, TellsTheSumToBothOfTwoClientsAndLeavesNothing) {
  Started server(server_with({}));
  wait_until_it_listens();
  EXPECT_TRUE(socket_is_there());
  Started one({"client", "40", "--socket", path}), two({"client", "--socket", path, "2"});
  EXPECT_EQ(one.wait(), 0);
  EXPECT_EQ(two.wait(), 0);
  EXPECT_EQ(server.wait(), 0);
  EXPECT_EQ(server.lines(), Lines{"Sum: 42"});
  EXPECT_EQ(one.lines(), Lines{"Result = 42"});
  EXPECT_EQ(two.lines(), Lines{"Result = 42"});
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  for (const Started* program : {&server, &one, &two}) EXPECT_TRUE(std::filesystem::is_empty(program->folder()));
}

TEST_F(Server, AddsNegativeNumbers) {
  Started server(server_with({"--rounds", "2"}));
  wait_until_it_listens();
  for (const Lines& second : {Lines{"client", "-5", "--socket", path}, Lines{"client", "--socket", path, "--", "-5"}}) {
    Started first({"client", "-7", "--socket", path});
    EXPECT_EQ(run(second).out, Lines{"Result = -12"});
    EXPECT_EQ(first.wait(), 0);
    EXPECT_EQ(server.line(), "Sum: -12");
  }
  EXPECT_EQ(server.wait(), 0);
}

TEST_F(Server, AThousandRoundsOfTwoClientsAtTheSameTimeCostNoDescriptor) {
  constexpr int rounds = 1000;
  Started server(server_with({"--rounds", std::to_string(rounds)}));
  wait_until_it_listens();
  std::size_t descriptors = 0;
  for (int round = 0; round < rounds; ++round) {
    // Both are connected before either speaks, and then both speak at once.
    const Fd one = connect(), two = connect();
    auto other = std::async(std::launch::async, [&] {
      say_to(two, std::to_string(-3 * round));
      return hear_from(two);
    });
    say_to(one, std::to_string(round));
    ASSERT_EQ(hear_from(one), std::to_string(-2 * round));
    ASSERT_EQ(other.get(), std::to_string(-2 * round));
    ASSERT_EQ(hear_from(one), "end");
    ASSERT_EQ(hear_from(two), "end");  // so both are closed there
    ASSERT_EQ(server.line(), "Sum: " + std::to_string(-2 * round));
    if (round + 1 == rounds) break;
    if (round == 0) descriptors = descriptors_of(server);
    ASSERT_EQ(descriptors_of(server), descriptors) << "after round " << round + 1;
  }
  EXPECT_EQ(server.wait(), 0);
  EXPECT_FALSE(socket_is_there());
}

TEST_F(Server, ManyPairsOfClientsAtTheSameTimeAreAllServed) {
  constexpr int pairs = 12;
  Started server(server_with({"--rounds", std::to_string(pairs), "--timeout-ms", "60000"}));
  wait_until_it_listens();
  std::vector<std::future<Outcome>> clients;
  for (int i = 0; i < 2 * pairs; ++i)
    clients.push_back(std::async(std::launch::async, [this] { return client("21"); }));
  for (auto& outcome : clients) EXPECT_EQ(outcome.get().out, Lines{"Result = 42"});
  EXPECT_EQ(server.wait(), 0);
  EXPECT_EQ(server.lines(), Lines(pairs, "Sum: 42"));
}

TEST_F(Server, AStalePathIsReplacedAndALiveOneIsNot) {
  {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    ASSERT_LT(path.size(), sizeof address.sun_path);
    path.copy(address.sun_path, path.size());
    const Fd gone(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(gone.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  expect_error(client("1"), "no server is there");
  Started server(server_with({}));
  wait_until_it_listens();
  expect_error(run(server_with({})), "Address already in use");
  EXPECT_TRUE(socket_is_there()) << "the second one has not removed it";
  Started other({"client", "1", "--socket", path});
  EXPECT_EQ(client("2").out, Lines{"Result = 3"});
  EXPECT_EQ(server.wait(), 0);
}

TEST_F(Server, APathThatIsTakenByAFileOrTooLongIsAClearError) {
  std::ofstream(path) << "precious";
  expect_error(run(server_with({})), "Address already in use");
  EXPECT_EQ(ipc::testing::read_text(path), "precious");
  const std::string long_path = "/tmp/" + std::string(103, 'x');
  ASSERT_EQ(long_path.size(), 108U);
  for (const Lines& program : {Lines{"server"}, Lines{"client", "1"}}) {
    Lines arguments = program;
    arguments.insert(arguments.end(), {"--socket", long_path});
    expect_error(run(arguments), "has 108 bytes");
    arguments.back() = "";
    EXPECT_NE(run(arguments).code, 0);
    arguments.back() = folder.path("no/where");
    EXPECT_EQ(run(arguments).code, 1);
  }
}

TEST_F(Server, MisuseIsOneLineAndExitTwo) {
  for (const Lines& arguments : std::vector<Lines>{{"server", "--rounds", "0"},
                                                   {"server", "--rounds", "x"},
                                                   {"server", "--timeout-ms", "0"},
                                                   {"server", "--timeout-ms", "-1"},
                                                   {"server", "extra"},
                                                   {"server", "--no-such"},
                                                   {"client"},
                                                   {"client", ""},
                                                   {"client", "1", "2"},
                                                   {"client", "1", "--no-such"}}) {
    expect_error(run(arguments), "--help", 2);
  }
  for (const char* program : {"server", "client"}) {
    const Outcome help = run({program, "--help"});
    EXPECT_EQ(help.code, 0);
    EXPECT_EQ(help.out.at(0).rfind(std::string("usage: ") + program, 0), 0U);
  }
}

TEST_F(Server, ItsUsualPathIsTheUsersOwn) {
  const std::string usual = "/tmp/ipc-lab6-" + std::to_string(::getuid()) + ".sock";
  for (const char* program : {"server", "client"}) {
    const Lines help = run({program, "--help"}).out;
    EXPECT_NE(std::find_if(help.begin(), help.end(),
                           [&](const std::string& line) { return line.find("(=" + usual + ")") != std::string::npos; }),
              help.end());
  }
}

// LAB_TEST_RUNS=200 for the full figure.
TEST_F(Server, ASignalAtAnyMomentLeavesNoSocket) {
  for (const ipc::testing::Moment& moment : random_moments({SIGTERM, SIGINT}, std::chrono::milliseconds(15), 40)) {
    Started server(server_with({"--rounds", "1000000"}));
    Started one({"client", "1", "--socket", path}), two({"client", "2", "--socket", path});
    Started lone({"client", "3", "--socket", path});
    ::usleep(static_cast<useconds_t>(moment.delay.count()));
    server.signal(moment.signo);
    ASSERT_EQ(server.wait(), 128 + moment.signo);
    ASSERT_TRUE(std::filesystem::is_empty(folder.path()));
    // No client is left to wait: it has its sum, or says why not.
    for (Started* client : {&one, &two, &lone}) {
      const int code = client->wait();
      ASSERT_TRUE(code == 0 || code == 1) << code;
      ASSERT_EQ(client->error_lines().size(), static_cast<std::size_t>(code));
    }
  }
}

TEST_F(Server, WaitsWithoutWorking) {
  Started server(server_with({}));
  const Fd silent = connect(), waiting = connect();
  say_to(waiting, "1");
  const double before = ipc::testing::cpu_seconds(server.pid());
  EXPECT_FALSE(wait_until([&] { return server.ended(); }, std::chrono::milliseconds(300)));
  EXPECT_LE(ipc::testing::cpu_seconds(server.pid()) - before, 0.02);
}

// Those who wait with a number, those who are silent, and those whom it has not even accepted.
TEST_F(Server, WhenItIsStoppedTellsAllWhoWait) {
  for (const int signo : {SIGTERM, SIGINT, SIGHUP}) {
    Started server(server_with({"--timeout-ms", "60000"}));
    const std::size_t alone = descriptors_alone(server);
    const Fd waiting = connect(), silent = connect();
    ASSERT_TRUE(has_descriptors(server, alone + 2));
    say_to(waiting, "1");
    ASSERT_TRUE(suspend(server));
    const Fd spoke = connect(), late = connect();
    say_to(spoke, "2");
    server.signal(signo);
    server.signal(SIGCONT);
    for (const Fd* fd : {&waiting, &silent, &spoke, &late}) {
      EXPECT_EQ(hear_from(*fd), "error: the server was stopped");
      EXPECT_EQ(hear_from(*fd), "end");
    }
    EXPECT_EQ(server.wait(), 128 + signo);
    EXPECT_FALSE(socket_is_there());
  }
}

// A server whose output is a full pipe, and two clients whose numbers it has read.
class FullOutput : public Server {
 protected:
  FullOutput() {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    out_ = Fd(ends[0]);
    ::fcntl(ends[1], F_SETFD, 0);  // the server is to inherit it
    Fd in(ends[1]);
    const std::string page(4096, '.');
    ipc::set_nonblocking(in.get());
    while (::write(in.get(), page.data(), page.size()) > 0) continue;
    ipc::set_nonblocking(in.get(), false);
    server.emplace(Lines{"/bin/sh", "-c", "exec \"$0\" --socket " + path + " >&" + std::to_string(in.get()),
                         ipc::testing::program_path("server")});
    one = connect(), two = connect(), silent = connect();
    say_to(one, "1"), say_to(two, "2");
    EXPECT_TRUE(is_heard(one) && is_heard(two));
    EXPECT_TRUE(wait_until([&] { return ipc::testing::state_of(server->pid()) == 'S'; }));
  }
  // All that comes out of the pipe.
  std::string output() {
    std::string text;
    char piece[4096];
    for (ssize_t size = 0; (size = ::read(out_.get(), piece, sizeof piece)) > 0;) {
      text.append(piece, static_cast<std::size_t>(size));
    }
    return text;
  }

  std::optional<Started> server;
  Fd one, two, silent;

 private:
  Fd out_;
};

TEST_F(FullOutput, DoesNotKeepTheServerFromBeingStopped) {
  server->signal(SIGTERM);
  EXPECT_EQ(server->wait(), 128 + SIGTERM);
  for (const Fd* fd : {&one, &two, &silent}) EXPECT_EQ(hear_from(*fd), "error: the server was stopped");
  EXPECT_FALSE(socket_is_there());
  EXPECT_EQ(output().find("Sum"), std::string::npos) << "told or printed, not both";
}

TEST_F(FullOutput, LosesNoSumWhenItIsReadAfterAll) {
  char nothing = 0;
  EXPECT_EQ(::recv(one.get(), &nothing, 1, MSG_DONTWAIT), -1) << "printed first, and then answered";
  const std::string all = output();
  EXPECT_EQ(all.substr(all.find_last_of('.') + 1), "Sum: 3\n");
  EXPECT_EQ(hear_from(one), "3");
  EXPECT_EQ(hear_from(two), "3");
  EXPECT_EQ(hear_from(silent), "error: the last round is over");
  EXPECT_EQ(server->wait(), 0);
}

TEST_F(Server, AFullDiskForTheResultIsAnErrorForAllAndLeavesNoSocket) {
  Started server(
      {"/bin/sh", "-c", "exec \"$0\" --socket " + path + " > /dev/full", ipc::testing::program_path("server")});
  const Fd one = connect(), two = connect();
  say_to(one, "1"), say_to(two, "2");
  EXPECT_EQ(server.wait(), 1);
  EXPECT_EQ(server.error_lines(), Lines{"server: standard output: No space left on device"});
  for (const Fd* fd : {&one, &two}) EXPECT_EQ(hear_from(*fd), "error: the server has failed");
  EXPECT_FALSE(socket_is_there());
}

TEST_F(Client, WithoutAServerSaysWhatToDo) {
  expect_error(client("1"), "no server is there; start one: server --socket " + path);
}

TEST_F(Client, PrintsTheServersErrorAndFails) {
  Started server(server_with({}));
  wait_until_it_listens();
  EXPECT_EQ(client("abc").err, Lines{"client: error: 'abc' is no whole number"});
  EXPECT_EQ(client("99999999999999999999").err,
            Lines{"client: error: '99999999999999999999' does not fit into 64 bits"});
  EXPECT_EQ(client("-99999999999999999999").code, 1);
  expect_error(client(std::string(100'000, '7')), "so long a record");
}

// A server of our own, which does what a server should not.
TEST_F(Client, AServerThatLeavesOrTalksNonsenseIsAClearError) {
  const ipc::UnixListener listener(path, SOCK_SEQPACKET);
  const auto against = [&](std::string_view answer) {
    Started client({"client", "1", "--socket", path});
    const Fd fd(::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC));
    EXPECT_EQ(hear_from(fd), "1") << "the number, and not one byte more";
    if (!answer.empty()) say_to(fd, answer);
    ::shutdown(fd.get(), SHUT_RDWR);
    const int code = client.wait();
    return Outcome{code, client.lines(), client.error_lines()};
  };
  EXPECT_EQ(against("7").out, Lines{"Result = 7"});
  expect_error(against(""), "the server left without an answer");
  expect_error(against("hello"), "'hello' is no whole number");
  expect_error(against("error: \x1b[31mred\nlines"), "error: ?[31mred?lines");
  expect_error(against(std::string(5000, '1')), "Message too long");
}

// It closes at once: what it said before counts, though the client's number is never read.
TEST_F(Client, HearsTheReasonOfAServerThatDoesNotListen) {
  const ipc::UnixListener listener(path, SOCK_SEQPACKET);
  Started client({"client", "1", "--socket", path});
  {
    const Fd fd(::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC));
    say_to(fd, "error: full");
    ASSERT_TRUE(wait_until([&] { return ipc::testing::state_of(client.pid()) == 'S' || client.ended(); }));
  }
  const int code = client.wait();
  expect_error({code, client.lines(), client.error_lines()}, "client: error: full");
}

TEST_F(Server, AndClientLeakNeitherMemoryNorDescriptors) {
  if (!ipc::testing::sanitizer().empty()) GTEST_SKIP() << "valgrind does not run a program with a sanitizer in it";
  const auto check = [](const Lines& arguments, int code) {
    const ipc::testing::Checked checked = ipc::testing::run_under_valgrind(arguments);
    EXPECT_EQ(checked.outcome.code, code);
    EXPECT_EQ(checked.complaints, Lines());
  };
  const auto start = [&](const Lines& arguments, int code) {
    return std::async(std::launch::async, check, arguments, code);
  };
  auto server = start(server_with({"--timeout-ms", "120000"}), 0);
  const Fd silent = connect();
  check({"client", "abc", "--socket", path}, 1);
  auto one = start({"client", "1", "--socket", path}, 0);
  check({"client", "2", "--socket", path}, 0);
  one.get();
  server.get();
  EXPECT_EQ(hear_from(silent), "error: the last round is over");
  check({"client", "2", "--socket", path}, 1);
  const auto stopped =
      ipc::testing::stop_under_valgrind(server_with({}), [&](const Started&) { return std::filesystem::exists(path); });
  EXPECT_EQ(stopped.complaints, Lines());
}

}  // namespace
