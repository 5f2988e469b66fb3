// dispatcher, worker, request and watchdog as they are used, and misused; seen from outside.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "watchdog_bench.hpp"

namespace ipc::testing {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

// A dispatcher that is alone in its terminal.
class ALoneDispatcher : public ::testing::Test {
 protected:
  void start(std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"dispatcher", "--socket", socket_, "--beat-ms", "2000"});
    run_ = std::make_unique<Started>(more);
    ASSERT_EQ(run_->line(), "listening on " + socket_);
  }
  pid_t worker() {
    const auto children = children_of(run_->pid());
    return children.size() == 1 ? children.front() : 0;
  }
  void expect_clean_end(int code) {
    const pid_t worker_pid = worker();
    EXPECT_EQ(run_->wait(), code);
    EXPECT_THAT(run_->left_processes(), IsEmpty());
    EXPECT_FALSE(std::filesystem::exists(socket_));
    EXPECT_EQ(segments_of({run_->pid(), worker_pid}), 0U);
  }
  TempDir folder_;
  const std::string socket_ = folder_.path("s");
  std::unique_ptr<Started> run_;
};

TEST_F(ALoneDispatcher, HasTheWordsCounted) {
  start();
  for (const auto& [text, expected] : {std::pair{"to be or not to be", "words=6 bytes=18"},
                                       {"", "words=0 bytes=0"},
                                       {" \t\n", "words=0 bytes=3"},
                                       {"\n one\vtwo\ffour ", "words=3 bytes=15"},
                                       {"-5", "words=1 bytes=2"}}) {
    const Outcome outcome = run({"request", text, "--socket", socket_});
    EXPECT_EQ(outcome.code, 0);
    EXPECT_THAT(outcome.out, ElementsAre(expected));
    EXPECT_THAT(outcome.err, IsEmpty());
  }
  EXPECT_EQ(run({"request", "--socket", socket_, "--", "--help"}).out.front(), "words=1 bytes=6");
  EXPECT_EQ(ask(socket_, std::string("a\0b c", 5)), "words=2 bytes=5") << "a zero byte is a byte like others";
  run_->signal(SIGTERM);
  expect_clean_end(128 + SIGTERM);
}

TEST_F(ALoneDispatcher, SaysThatItsWorkerDiedAndEnds) {
  start();
  ASSERT_GT(worker(), 0);
  ::kill(worker(), SIGKILL);
  EXPECT_THAT(run_->error_line(), ::testing::Optional(std::string("dispatcher: the worker was killed by SIGKILL")));
  expect_clean_end(1);
}

TEST_F(ALoneDispatcher, LetsNobodyWaitForAWorkerThatHangs) {
  start();
  ASSERT_GT(worker(), 0);
  ::kill(worker(), SIGSTOP);
  const Outcome outcome = run({"request", "anybody there?", "--socket", socket_});
  EXPECT_EQ(outcome.code, 75);
  EXPECT_THAT(outcome.out, ElementsAre("error: try again"));
  EXPECT_THAT(run_->error_line(), ::testing::Optional(HasSubstr("was silent")));
  expect_clean_end(1);
}

TEST_F(ALoneDispatcher, TakesItsWorkerAlongWhenItIsKilled) {
  start();
  const pid_t its_worker = worker();
  run_->signal(SIGKILL);
  EXPECT_EQ(run_->wait(), 128 + SIGKILL);
  EXPECT_THAT(run_->left_processes(), IsEmpty());
  EXPECT_EQ(segments_of({run_->pid(), its_worker}), 0U);
  start();  // the path is stale: it is replaced
  EXPECT_EQ(ask(socket_, "one"), "words=1 bytes=3");
}

TEST_F(ALoneDispatcher, IsNotHeldUpByWhoIsSilentSlowOrMad) {
  start({"--timeout-ms", "600000"});
  std::vector<std::unique_ptr<Asker>> silent;
  for (int i = 0; i < 20; ++i) silent.push_back(std::make_unique<Asker>(socket_));
  Asker half_prefix(socket_), half_frame(socket_), garbage(socket_), dribbling(socket_);
  half_prefix.send_raw(std::string("\5\0", 2));
  half_frame.send_raw(std::string("\5\0\0\0ab", 6));
  garbage.send_raw("\xff\xff\xff\xff and so on");
  { const Asker leaves_at_once(socket_), leaves_after_asking(socket_, "one two"); }
  for (int i = 0; i < 3; ++i) EXPECT_EQ(ask(socket_, "one two three"), "words=3 bytes=13");
  EXPECT_EQ(garbage.answer(), "error: a text has at most 65536 bytes");
  for (const char byte : std::string("\3\0\0\0a b", 7)) dribbling.send_raw(std::string(1, byte));
  EXPECT_EQ(dribbling.answer(), "words=2 bytes=3");
  half_frame.send_raw("cde and more than was announced");
  EXPECT_EQ(half_frame.answer(), "words=1 bytes=5");
  const auto descriptors = open_descriptors(std::to_string(run_->pid())).size();
  silent.clear();
  EXPECT_TRUE(wait_until([&] { return open_descriptors(std::to_string(run_->pid())).size() <= descriptors - 20; }));
  EXPECT_LT(cpu_seconds(run_->pid()), 1.0);
}

TEST_F(ALoneDispatcher, ShowsSilentClientsToTheDoor) {
  start({"--timeout-ms", "200"});
  // More than it takes at a time: those who come later have to wait until it has thrown the first ones out.
  std::vector<std::unique_ptr<Asker>> silent;
  std::thread crowd([&] {
    for (int i = 0; i < 300; ++i) silent.push_back(std::make_unique<Asker>(socket_));
  });
  crowd.join();
  EXPECT_EQ(ask(socket_, "at last"), "words=2 bytes=7");
  for (const auto& client : silent) ASSERT_EQ(client->answer(), "error: no text within 200 ms");
}

TEST_F(ALoneDispatcher, CanBeStoppedWhileNobodyReadsItsLine) {
  const FullPipe output;
  run_ = std::make_unique<Started>(into(output, {"dispatcher", "--socket", socket_}));
  ASSERT_TRUE(wait_until([&] { return worker() != 0; }));
  run_->signal(SIGTERM);
  expect_clean_end(128 + SIGTERM);
}

TEST_F(ALoneDispatcher, LosesNoFileDescriptorToItsClients) {
  start();
  ask(socket_, "one");
  const auto settled = open_descriptors(std::to_string(run_->pid())).size();
  for (int i = 0; i < 200; ++i) EXPECT_EQ(ask(socket_, "one"), "words=1 bytes=3");
  EXPECT_TRUE(wait_until([&] { return open_descriptors(std::to_string(run_->pid())).size() <= settled; }));
  EXPECT_EQ(status_field(std::to_string(run_->pid()), "Threads"), "1");
  EXPECT_EQ(status_field(std::to_string(worker()), "Threads"), "1");
}

TEST_F(ALoneDispatcher, ServesOnWhenDescriptorsRunOut) {
  const std::string script = "ulimit -n 20; exec \"$0\" --socket \"$1\"";
  run_ =
      std::make_unique<Started>(std::vector<std::string>{"/bin/sh", "-c", script, program_path("dispatcher"), socket_});
  ASSERT_EQ(run_->line(), "listening on " + socket_);
  {
    std::vector<std::unique_ptr<Asker>> silent;
    for (int i = 0; i < 30; ++i) silent.push_back(std::make_unique<Asker>(socket_));
    ASSERT_TRUE(wait_until([&] { return open_descriptors(std::to_string(run_->pid())).count(19) == 1; }));
  }
  EXPECT_EQ(ask(socket_, "one"), "words=1 bytes=3");
  EXPECT_LT(cpu_seconds(run_->pid()), 2.0);
}

// ---- all three ----

TEST(AWatchdog, StartsBothAndServes) {
  Watched watched;
  EXPECT_TRUE(watched.is_listening());
  EXPECT_THAT(children_of(watched.pid()), ElementsAre(watched.worker(), watched.dispatcher()));
  const Outcome outcome = run({"request", "to be or not to be", "--socket", watched.socket()});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.out, ElementsAre("words=6 bytes=18"));
  struct stat file {};
  ASSERT_EQ(::stat(watched.socket().c_str(), &file), 0);
  EXPECT_TRUE(S_ISSOCK(file.st_mode));
  EXPECT_EQ(file.st_mode & 0777U, 0600U);
  for (const pid_t pid : {watched.pid(), watched.worker(), watched.dispatcher()}) {
    EXPECT_EQ(status_field(std::to_string(pid), "Threads"), "1");
  }
  // Ctrl-C in a terminal goes to the watchdog's group only.
  EXPECT_EQ(::getpgid(watched.worker()), watched.worker());
  EXPECT_EQ(::getpgid(watched.dispatcher()), watched.dispatcher());
}

TEST(AWatchdog, MixesNoTextsOf64KiBFromEightClientsAtOnce) {
  Watched watched;
  std::vector<std::thread> clients;
  std::vector<std::string> wrong(8);
  for (std::size_t i = 0; i < wrong.size(); ++i) {
    clients.emplace_back([&, i] {
      for (std::size_t round = 0; round < 25 && wrong[i].empty(); ++round) {
        const std::size_t words = 1000 * (i + 1) + round;
        const std::string answer = ask(watched.socket(), text_of(words, 65536));
        if (answer != count_of(words, 65536)) wrong[i] = answer;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_THAT(wrong, ::testing::Each(IsEmpty()));
}

TEST(AWatchdog, AnswersEightRequestsOf64KiBAtOnce) {
  Watched watched;
  std::vector<std::unique_ptr<Started>> requests;
  for (std::size_t i = 1; i <= 8; ++i) {
    requests.push_back(std::make_unique<Started>(
        std::vector<std::string>{"request", "--socket", watched.socket(), text_of(i, 65536)}));
  }
  for (std::size_t i = 1; i <= 8; ++i) {
    EXPECT_EQ(requests[i - 1]->line(), count_of(i, 65536));
    EXPECT_EQ(requests[i - 1]->wait(), 0);
  }
}

TEST(AWatchdog, EndsTheDispatcherThenTheWorkerThenItself) {
  for (const int signo : {SIGTERM, SIGINT, SIGHUP}) {
    Watched watched({"--beat-ms", "2000"});
    ASSERT_EQ(ask(watched.socket(), "one"), "words=1 bytes=3");
    // A worker that is stopped hears no SIGTERM: time to look.
    ASSERT_TRUE(watched.hit("worker", SIGSTOP));
    ASSERT_TRUE(wait_until([&] { return state_of(watched.worker()) == 'T'; }));
    watched.run().signal(signo);
    ASSERT_TRUE(wait_until([&] { return !exists(watched.dispatcher()); }));
    EXPECT_TRUE(is_alive(watched.worker()));
    EXPECT_TRUE(is_alive(watched.pid()));
    EXPECT_EQ(watched.line(), "dispatcher " + std::to_string(watched.dispatcher()) + " ended");
    EXPECT_EQ(watched.line(), "worker " + std::to_string(watched.worker()) + " ended");
    EXPECT_EQ(watched.line(), std::nullopt);
    EXPECT_EQ(watched.run().wait(), 128 + signo);
    EXPECT_FALSE(exists(watched.worker()));
    EXPECT_FALSE(std::filesystem::exists(watched.socket()));
    EXPECT_EQ(segments_of({watched.pid(), watched.worker(), watched.dispatcher()}), 0U);
    EXPECT_THAT(watched.run().error_lines(), IsEmpty());
  }
}

TEST(AWatchdog, TakesItsChildrenAlongWhenItIsKilled) {
  Watched watched;
  ASSERT_EQ(ask(watched.socket(), "one"), "words=1 bytes=3");
  watched.run().signal(SIGKILL);
  EXPECT_EQ(watched.run().wait(), 128 + SIGKILL);
  EXPECT_THAT(watched.run().left_processes(), IsEmpty());
  EXPECT_EQ(segments_of({watched.pid(), watched.worker(), watched.dispatcher()}), 0U);
  // What it could not clear away is in nobody's way.
  Started next({"watchdog", "--socket", watched.socket()});
  EXPECT_EQ(next.line(), "listening on " + watched.socket());
  EXPECT_EQ(ask(watched.socket(), "one"), "words=1 bytes=3");
}

TEST(AWatchdog, GivesUpOnAWorkerThatDiesAtItsStart) {
  for (const bool hangs : {false, true}) {
    const TempDir folder;
    std::string worker = "/bin/false";
    if (hangs) {
      worker = folder.path("worker");
      std::ofstream(worker) << "#!/bin/sh\nexec sleep 1000\n";
      ASSERT_EQ(::chmod(worker.c_str(), 0700), 0);
    }
    const auto begin = Clock::now();
    const Outcome outcome = run({"watchdog", "--socket", folder.path("s"), "--worker", worker, "--beat-ms", "50"});
    const auto taken = Clock::now() - begin;
    EXPECT_EQ(outcome.code, 1);
    EXPECT_THAT(outcome.err,
                ElementsAre(StartsWith("watchdog: giving up: the worker died at its start 6 times in a row")));
    int starts = 0;
    for (const std::string& line : outcome.out)
      starts += line.rfind("worker ", 0) == 0 && line.find(" started") != line.npos;
    EXPECT_EQ(starts, 6);
    EXPECT_GE(taken, (1 + 2 + 4 + 8 + 16) * 50ms) << "later and later";
    EXPECT_FALSE(std::filesystem::exists(folder.path("s")));
  }
  const TempDir folder;
  const Outcome none = run({"watchdog", "--socket", folder.path("s"), "--worker", "/bin/false", "--max-restarts", "0"});
  EXPECT_EQ(none.code, 1);
  EXPECT_THAT(none.err, ElementsAre(HasSubstr("1 times in a row; at last it exited with code 1")));
}

TEST(AWatchdog, LeavesNothingWhenNobodyReadsItsLines) {
  Watched watched;
  watched.run().close_output();
  ASSERT_TRUE(watched.hit("worker", SIGKILL));
  EXPECT_EQ(watched.run().wait(), 1);
  EXPECT_THAT(watched.run().error_lines(), ElementsAre(HasSubstr("standard output")));
  EXPECT_THAT(watched.run().left_processes(), IsEmpty());
  EXPECT_FALSE(std::filesystem::exists(watched.socket()));
}

TEST(AWatchdog, HasNeitherZombiesNorManyDescriptorsAndIsIdle) {
  Watched watched;
  const auto count = [](pid_t pid) { return open_descriptors(std::to_string(pid)).size(); };
  const auto own = count(watched.pid());
  for (const char* name : {"worker", "worker", "worker", "dispatcher", "dispatcher", "dispatcher", "worker"}) {
    ASSERT_TRUE(watched.hit(name, SIGKILL));
    ASSERT_TRUE(watched.next_start(name));
    ASSERT_EQ(ask(watched.socket(), "one"), "words=1 bytes=3");
  }
  // 0, 1, 2, the socketpair's end, the two pipes; and the dispatcher's listening socket and signalfd.
  EXPECT_TRUE(wait_until([&] { return count(watched.worker()) == 6; })) << count(watched.worker());
  EXPECT_TRUE(wait_until([&] { return count(watched.dispatcher()) == 8; })) << count(watched.dispatcher());
  EXPECT_EQ(count(watched.pid()), own);
  EXPECT_THAT(children_of(watched.pid()), ::testing::SizeIs(2));
  // None of the three turns in circles.
  const auto used = [&] {
    return cpu_seconds(watched.pid()) + cpu_seconds(watched.worker()) + cpu_seconds(watched.dispatcher());
  };
  const double busy = used();
  std::this_thread::sleep_for(1s);
  EXPECT_LT(used() - busy, 0.2);
}

// ---- misuse ----

void expect_one_line(const std::vector<std::string>& command, int code, const std::string& what) {
  const Outcome outcome = run(command);
  EXPECT_EQ(outcome.code, code) << command.front();
  EXPECT_THAT(outcome.err, ElementsAre(::testing::AllOf(StartsWith(command.front() + ": "), HasSubstr(what))));
  EXPECT_THAT(outcome.out, IsEmpty());
}

TEST(TheSynthesis, TellsWhatIsWrongInOneLine) {
  const TempDir folder;
  const std::string path = folder.path("s");
  const std::string long_path = "/tmp/" + std::string(103, 'x');
  for (const char* program : {"watchdog", "dispatcher"}) {
    expect_one_line({program, "--socket", long_path}, 1, "108 bytes");
    expect_one_line({program, "--socket", folder.path("no/s")}, 1, "No such file");
    expect_one_line({program, "--socket", ""}, 1, "socket path");
    expect_one_line({program, "--beat-ms", "19"}, 2, "--beat-ms 19");
    expect_one_line({program, "--beat-ms", "soon"}, 2, "soon");
    expect_one_line({program, "--oops"}, 2, "oops");
    expect_one_line({program, "something"}, 2, "options only");
  }
  expect_one_line({"watchdog", "--max-restarts", "-1"}, 2, "--max-restarts -1");
  expect_one_line({"dispatcher", "--socket", path, "--worker", "/nowhere"}, 1, "execve /nowhere: No such file");
  expect_one_line({"dispatcher", "--supervised"}, 1, "not started by hand");
  expect_one_line({"worker"}, 1, "not started by hand");
  expect_one_line({"worker", "text"}, 2, "options only");
  expect_one_line({"request"}, 2, "TEXT is missing");
  expect_one_line({"request", "one", "two"}, 2, "too many arguments");
  const std::string nobody_there = path + ": no server is there; start one: watchdog --socket " + path;
  expect_one_line({"request", "text", "--socket", path}, 1, nobody_there);
  expect_one_line({"request", "text", "--socket", long_path}, 1, "108 bytes");
  expect_one_line({"request", text_of(1, 65537), "--socket", path}, 2, "TEXT has 65537 bytes, at most 65536");
  const Outcome no_worker = run({"watchdog", "--socket", path, "--worker", "/nowhere"});
  EXPECT_EQ(no_worker.code, 1);
  EXPECT_THAT(no_worker.err, ElementsAre("watchdog: execve /nowhere: No such file or directory"));
  std::ofstream(path) << "precious";
  expect_one_line({"watchdog", "--socket", path}, 1, "Address already in use");
  EXPECT_EQ(read_text(path), "precious");
  for (const char* program : {"watchdog", "dispatcher", "worker", "request"}) {
    const Outcome help = run({program, "--help"});
    EXPECT_EQ(help.code, 0);
    EXPECT_THAT(help.out.front(), StartsWith(std::string("usage: ") + program));
  }
}

TEST(ARequest, TellsAnErrorOfTheServerOnStandardErrorAndOnlyTryAgainAsItsAnswer) {
  for (const auto& [said, code, out, err] :
       {std::tuple{"error: a text has at most 5 bytes", 1, "", "request: error: a text has at most 5 bytes"},
        {"error: try again", 75, "error: try again", ""},
        {"words=1 bytes=4", 0, "words=1 bytes=4", ""}}) {
    const TempDir folder;
    const UnixListener listener(folder.path("s"), SOCK_STREAM);
    Started request({"request", "text", "--socket", folder.path("s")});
    pollfd wait{listener.fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&wait, 1, 30'000), 1);
    const Fd client(::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC));
    std::array<char, 64> text;
    ASSERT_EQ(receive_frame(client.get(), std::as_writable_bytes(std::span(text))).bytes, 4U);
    static_cast<void>(send_frame(client.get(), std::as_bytes(std::span(std::string_view(said)))));
    EXPECT_EQ(request.wait(), code);
    EXPECT_EQ(request.line().value_or(""), out);
    EXPECT_EQ(request.error_line().value_or(""), err);
  }
}

TEST(TheSynthesis, LeavesALiveSocketToItsOwner) {
  Watched watched;
  const std::string identity = watched.socket_identity();
  expect_one_line({"watchdog", "--socket", watched.socket()}, 1, "Address already in use");
  expect_one_line({"dispatcher", "--socket", watched.socket()}, 1, "Address already in use");
  EXPECT_EQ(watched.socket_identity(), identity);
  EXPECT_EQ(ask(watched.socket(), "one"), "words=1 bytes=3");
}

// ---- under valgrind ----

TEST(TheSynthesis, LosesNoMemoryAndNoDescriptorUnderValgrind) {
  if (!sanitizer().empty()) GTEST_SKIP() << "two checkers of memory do not go together";
  const TempDir folder, logs;
  const std::string socket = folder.path("s");
  // They take seconds to start, so the beat is slow.
  Started watchdog({"/usr/bin/valgrind", "--trace-children=yes", "--leak-check=full", "--track-fds=yes",
                    "--errors-for-leak-kinds=definite", "--log-file=" + logs.path("%p"), program_path("watchdog"),
                    "--socket", socket, "--beat-ms", "6000"});
  ASSERT_EQ(watchdog.line(), "listening on " + socket);
  ASSERT_TRUE(watchdog.line() && watchdog.line());
  EXPECT_EQ(ask(socket, text_of(1000, 65536)), count_of(1000, 65536));
  const auto children = children_of(watchdog.pid());
  ASSERT_EQ(children.size(), 2U);
  ::kill(children.front(), SIGKILL);
  ASSERT_TRUE(watchdog.line() && watchdog.line());
  EXPECT_EQ(ask(socket, "one"), "words=1 bytes=3");
  watchdog.signal(SIGTERM);
  EXPECT_EQ(watchdog.wait(), 128 + SIGTERM);
  EXPECT_THAT(valgrind_complaints(logs.path()), IsEmpty());
  EXPECT_THAT(run_under_valgrind({"request", "one", "--socket", socket}).complaints, IsEmpty());
  EXPECT_THAT(stop_under_valgrind({"dispatcher", "--socket", folder.path("alone")}).complaints, IsEmpty());
}

}  // namespace
}  // namespace ipc::testing
