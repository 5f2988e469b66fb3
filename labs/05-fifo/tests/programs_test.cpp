// send_rand and get_rand, seen from outside. The tests are the peer: they dribble, leave early, put things in the way.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <future>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "ipc/fifo.hpp"
#include "labs/common/observing.hpp"

namespace {

using ipc::Fd;
using ipc::testing::expect_error;
using ipc::testing::Outcome;
using ipc::testing::random_moments;
using ipc::testing::run;
using ipc::testing::Started;
using ipc::testing::TempDir;
using ipc::testing::wait_until;
using Lines = std::vector<std::string>;

// A name in /tmp that nobody else has; gone at the end, which the programs leave to us.
class Fifos : public ::testing::Test {
 protected:
  Fifos() { ::signal(SIGPIPE, SIG_IGN); }
  ~Fifos() override { std::filesystem::remove_all(path); }

  // Waits until the program waits in open(2) for the other side.
  static bool waits_in_open(const Started& program) {
    return wait_until([&] {
      std::istringstream call(ipc::testing::read_text("/proc/" + std::to_string(program.pid()) + "/syscall"));
      long number = -1;
      std::string descriptor;
      unsigned long file = 0, flags = 0;
      call >> number >> descriptor >> std::hex >> file >> flags;
      // The dynamic linker opens files, too, but none of them with O_NOFOLLOW.
      return number == SYS_openat && (flags & O_NOFOLLOW) != 0 && ipc::testing::state_of(program.pid()) == 'S';
    });
  }
  [[nodiscard]] bool fifo_is_there() const {
    struct stat status {};
    return ::lstat(path.c_str(), &status) == 0 && S_ISFIFO(status.st_mode);
  }
  // What get_rand says of such a stream.
  [[nodiscard]] Outcome outcome_of(std::string_view stream) const {
    ipc::make_fifo(path);
    Started reader({"get_rand", name});
    {
      const Fd fd = ipc::open_fifo_for_writing(path, 30'000);
      EXPECT_EQ(::write(fd.get(), stream.data(), stream.size()), static_cast<ssize_t>(stream.size()));
    }
    const int code = reader.wait();
    return {code, reader.lines(), reader.error_lines()};
  }

  const std::string name = "lab05-test-" + std::to_string(std::random_device{}());
  const std::string path = "/tmp/" + name;
};
using SendRand = Fifos;
using GetRand = Fifos;
using BothPrograms = Fifos;

double mean_in(const Outcome& outcome) {
  EXPECT_EQ(outcome.code, 0);
  return outcome.out.size() == 2 && outcome.out[1].rfind("mean: ", 0) == 0 ? std::stod(outcome.out[1].substr(6)) : NAN;
}

TEST_F(BothPrograms, MeetWhoeverComesFirstAndLeaveTheFifo) {
  for (const bool sender_first : {true, false}) {
    const Lines send = {"send_rand", name, "-n", "30"}, get = {"get_rand", name};
    Started first(sender_first ? send : get);
    ASSERT_TRUE(waits_in_open(first));
    Started second(sender_first ? get : send);
    EXPECT_EQ(first.wait(), 0);
    EXPECT_EQ(second.wait(), 0);
    Started& sender = sender_first ? first : second;
    Started& reader = sender_first ? second : first;
    EXPECT_EQ(sender.lines(), Lines{"sent 30 values"});
    EXPECT_EQ(reader.line(), "count: 30");
    EXPECT_EQ(reader.line().value_or("").rfind("mean: ", 0), 0U);
    EXPECT_TRUE(fifo_is_there()) << "neither unlinks: it cannot know that nobody else is coming";
    EXPECT_TRUE(std::filesystem::is_empty(sender.folder()));
    EXPECT_TRUE(std::filesystem::is_empty(reader.folder()));
  }
}

TEST_F(SendRand, SendsWhatTheSeedSaysBetweenZeroAndHundredWithBothEnds) {
  std::string streams[2];
  for (std::string& stream : streams) {
    Started sender({"send_rand", "--seed", "7", "--count", "20000", name});  // options before the name
    ASSERT_TRUE(waits_in_open(sender));
    const Fd fd = ipc::open_fifo_for_reading(path, 30'000);
    char piece[4096];
    for (ssize_t size = 0; (size = ::read(fd.get(), piece, sizeof piece)) > 0;) {
      stream.append(piece, static_cast<std::size_t>(size));
    }
    EXPECT_EQ(sender.wait(), 0);
    EXPECT_EQ(sender.lines(), Lines{"sent 20000 values"});
  }
  EXPECT_EQ(streams[0], streams[1]);
  std::istringstream values(streams[0]);
  std::set<int> seen;
  int count = 0;
  for (std::string value; std::getline(values, value, ';'); ++count) {
    ASSERT_EQ(value.find_first_not_of("0123456789"), std::string::npos) << value;
    seen.insert(std::stoi(value));
  }
  EXPECT_EQ(count, 20000);
  EXPECT_EQ(seen.size(), 101U);
  EXPECT_EQ(*seen.begin(), 0);
  EXPECT_EQ(*seen.rbegin(), 100);
  EXPECT_EQ(streams[0].back(), ';');
}

TEST_F(SendRand, SendsTenIfNotToldOtherwise) {
  Started sender({"send_rand", name});
  EXPECT_EQ(run({"get_rand", name}).out.at(0), "count: 10");
  EXPECT_EQ(sender.wait(), 0);
  EXPECT_EQ(sender.lines(), Lines{"sent 10 values"});
}

TEST_F(GetRand, HundredThousandValuesDribbledByteByByteHaveTheRightMean) {
  constexpr int count = 100'000;
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::int64_t sum = 0;
  std::string stream;
  for (int i = 0; i < count; ++i) {
    const int value = static_cast<int>(random() % 101);
    sum += value;
    stream += std::to_string(value) + (random() % 10 == 0 ? " \n" : ";");
  }
  Started reader({"get_rand", name});
  ASSERT_TRUE(waits_in_open(reader));
  {
    const Fd fd = ipc::open_fifo_for_writing(path, 30'000);
    for (std::size_t i = 0; i < stream.size(); ++i) {
      ASSERT_EQ(::write(fd.get(), &stream[i], 1), 1);
      if (i > 5000 && i + 5000 < stream.size()) continue;
      // Until it is read: so each of these bytes comes by a read() of its own, those inside a number, too.
      ASSERT_TRUE(wait_until([&] {
        for (int tries = 0; tries < 1000; ++tries) {
          int unread = 0;
          if (::ioctl(fd.get(), FIONREAD, &unread) == 0 && unread == 0) return true;
        }
        return false;
      }));
    }
  }
  ASSERT_EQ(reader.wait(), 0);
  char mean[64];
  std::snprintf(mean, sizeof mean, "mean: %.3f", static_cast<double>(sum) / count);
  EXPECT_EQ(reader.lines(), (Lines{"count: 100000", mean}));
}

TEST_F(GetRand, ReadsTwoSendersAtOnceToTheEndOfBoth) {
  double mean[2];
  for (int seed = 0; seed < 2; ++seed) {
    const Started sender({"send_rand", name, "-n", "50000", "--seed", std::to_string(seed)});
    mean[seed] = mean_in(run({"get_rand", name}));
  }
  // Both are there before the reader is, and more comes from each than fits into a pipe: so they send at the same time.
  Started one({"send_rand", name, "-n", "50000", "--seed", "0"}),
      two({"send_rand", name, "-n", "50000", "--seed", "1"});
  ASSERT_TRUE(waits_in_open(one));
  ASSERT_TRUE(waits_in_open(two));
  const Outcome both = run({"get_rand", name});
  EXPECT_EQ(both.out.at(0), "count: 100000");
  EXPECT_NEAR(mean_in(both), (mean[0] + mean[1]) / 2, 0.0011);
  EXPECT_EQ(one.wait(), 0);
  EXPECT_EQ(two.wait(), 0);
}

TEST_F(GetRand, TakesWhatAShellEchoes) {
  ipc::make_fifo(path);
  Started shell({"/bin/sh", "-c", "echo '1;2;3' > " + path});
  EXPECT_EQ(run({"get_rand", name}).out, (Lines{"count: 3", "mean: 2.000"}));
  EXPECT_EQ(shell.wait(), 0);
}

TEST_F(GetRand, SeparatesBySemicolonsAndWhiteSpaceOfAnyNumber) {
  EXPECT_EQ(outcome_of("1;2;3").out, (Lines{"count: 3", "mean: 2.000"})) << "the last one needs no separator";
  EXPECT_EQ(outcome_of("; \n;1\t\r\n;; 2 ;").out, (Lines{"count: 2", "mean: 1.500"}));
  EXPECT_EQ(outcome_of("-5 1000000").out, (Lines{"count: 2", "mean: 499997.500"}));
  EXPECT_EQ(outcome_of("1 1 2").out, (Lines{"count: 3", "mean: 1.333"}));
}

TEST_F(GetRand, AnEmptyStreamHasNoMean) {
  for (const char* stream : {"", ";;\n ;"}) expect_error(outcome_of(stream), "no value");
}

TEST_F(GetRand, WhatIsNoNumberIsAClearError) {
  expect_error(outcome_of("1;two;3"), "'two' is no whole number");
  expect_error(outcome_of("1;2.5"), "'2.5' is no whole number");
  expect_error(outcome_of("1;3x"), "'3x' is no whole number");
  expect_error(outcome_of("--5"), "no whole number");
  expect_error(outcome_of(std::string_view("\x1b[2J\0\n", 6)), "'?[2J?' is no whole number");
  expect_error(outcome_of("9223372036854775808"), "does not fit");
  expect_error(outcome_of("9223372036854775807;1"), "the sum does not fit");
}

TEST_F(GetRand, AWordThatIsTooLongIsRefusedAndNotCut) {
  const std::string zeros(63, '0');
  EXPECT_EQ(outcome_of(zeros + "7;1").out, (Lines{"count: 2", "mean: 4.000"})) << "64 characters are taken";
  expect_error(outcome_of(zeros + "07;1"), "is too long for a whole number");
  expect_error(outcome_of(zeros + "00xyz"), "is too long for a whole number");
  expect_error(outcome_of("1;" + zeros + "07"), "is too long for a whole number");
}

TEST_F(GetRand, AWordWithoutEndIsRefusedWhileItComes) {
  Started reader({"get_rand", name});
  ASSERT_TRUE(waits_in_open(reader));
  {
    const Fd fd = ipc::open_fifo_for_writing(path, 30'000);
    const std::string nines(60'000, '9');
    EXPECT_TRUE(wait_until([&] { return ::write(fd.get(), nines.data(), nines.size()) == -1; }));
    EXPECT_EQ(errno, EPIPE);
  }
  const int code = reader.wait();
  expect_error({code, reader.lines(), reader.error_lines()}, "too long");
}

TEST_F(SendRand, AReaderThatLeavesEarlyIsAClearError) {
  Started sender({"send_rand", name, "-n", "1000000"});
  ASSERT_TRUE(waits_in_open(sender));
  {
    const Fd fd = ipc::open_fifo_for_reading(path, 30'000);
    char some[10];
    ASSERT_GT(::read(fd.get(), some, sizeof some), 0);
  }
  const int code = sender.wait();
  expect_error({code, sender.lines(), sender.error_lines()}, "the reader has left");
}

TEST_F(BothPrograms, WhatIsInTheWayIsAClearErrorAndStaysAsItIs) {
  const std::vector<void (*)(const std::string&)> plants = {
      [](const std::string& at) { std::ofstream(at) << "precious"; },
      [](const std::string& at) { std::filesystem::create_directory(at); },
      [](const std::string& at) { std::filesystem::create_symlink("/nowhere", at); },
  };
  for (const auto& plant : plants) {
    plant(path);
    const auto before = std::filesystem::symlink_status(path).type();
    for (const char* program : {"send_rand", "get_rand"}) {
      expect_error(run({program, name}), path + " is in the way, and no FIFO");
    }
    EXPECT_EQ(std::filesystem::symlink_status(path).type(), before);
    std::filesystem::remove_all(path);
  }
}

TEST_F(BothPrograms, ALinkToSomebodysFifoIsNotFollowed) {
  const TempDir elsewhere;
  ipc::make_fifo(elsewhere.path("fifo"));
  std::filesystem::create_symlink(elsewhere.path("fifo"), path);
  for (const char* program : {"send_rand", "get_rand"}) expect_error(run({program, name}), "no FIFO");
}

TEST_F(BothPrograms, AnotherUsersFifoIsRefused) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can give a file away";
  ipc::make_fifo(path);
  ASSERT_EQ(::chown(path.c_str(), 65534, 65534), 0);
  for (const char* program : {"send_rand", "get_rand"}) {
    expect_error(run({program, name}), "belongs to another user");
  }
}

TEST_F(BothPrograms, ANameIsOneInTmp) {
  const Lines bad_names = {
      "", ".", "..", "../tmp/" + name, "/tmp/" + name, "sub/" + name, std::string(256, 'x'), "two\nlines"};
  for (const std::string& bad : bad_names) {
    for (const char* program : {"send_rand", "get_rand"}) {
      expect_error(run({program, bad}), "NAME ", 2);
    }
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(BothPrograms, MisuseIsOneLineAndExitTwo) {
  for (const Lines& arguments : std::vector<Lines>{{"send_rand"},
                                                   {"get_rand"},
                                                   {"send_rand", name, "-n", "0"},
                                                   {"send_rand", name, "-n", "-1"},
                                                   {"send_rand", name, "-n", "ten"},
                                                   {"send_rand", name, "-n"},
                                                   {"send_rand", name, "--no-such"},
                                                   {"send_rand", name, "--seed", "x"},
                                                   {"send_rand", name, "another"},
                                                   {"get_rand", name, "another"}}) {
    expect_error(run(arguments), "--help", 2);
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  for (const char* program : {"send_rand", "get_rand"}) {
    const Outcome help = run({program, "--help"});
    EXPECT_EQ(help.code, 0);
    EXPECT_EQ(help.out.at(0).rfind(std::string("usage: ") + program, 0), 0U);
  }
}

TEST_F(BothPrograms, AFullDiskOrAClosedPipeForTheResultIsAnError) {
  Started sender({"send_rand", name});
  sender.close_output();
  const Outcome reader =
      run({"/bin/sh", "-c", "exec \"$0\" " + name + " > /dev/full", ipc::testing::program_path("get_rand")});
  expect_error(reader, "standard output: No space left");
  EXPECT_EQ(sender.wait(), 1);
  EXPECT_EQ(sender.error_lines(), Lines{"send_rand: standard output: Broken pipe"});
}

// LAB_TEST_RUNS=200 for the full figure.
TEST_F(BothPrograms, ASignalAtAnyMomentLeavesNothingButTheFifo) {
  int round = 0;
  for (const ipc::testing::Moment& moment : random_moments({SIGTERM, SIGINT}, std::chrono::milliseconds(15), 40)) {
    // In turns: nobody reads; the reader is hit; the sender is hit.
    const int kind = round++ % 3;
    Started sender({"send_rand", name, "-n", "3000000"});
    std::optional<Started> reader;
    if (kind != 0) {
      reader.emplace(Lines{"get_rand", name});
    } else {
      ASSERT_TRUE(waits_in_open(sender));
    }
    Started& victim = kind == 1 ? *reader : sender;
    ::usleep(static_cast<useconds_t>(moment.delay.count()));
    victim.signal(moment.signo);
    ASSERT_EQ(victim.wait(), 128 + moment.signo) << round;
    Started& other = kind == 1 || !reader ? sender : *reader;
    other.signal(SIGTERM);  // it has lost its peer, or still waits for one
    other.wait();
    ASSERT_TRUE(sender.left_processes().empty());
    ASSERT_TRUE(std::filesystem::is_empty(sender.folder()));
    ASSERT_TRUE(fifo_is_there() || !std::filesystem::exists(path));
  }
}

TEST_F(BothPrograms, WaitWithoutWorking) {
  Started sender({"send_rand", name});
  ASSERT_TRUE(waits_in_open(sender));
  const double before = ipc::testing::cpu_seconds(sender.pid());
  EXPECT_FALSE(wait_until([&] { return sender.ended(); }, std::chrono::milliseconds(300)));
  EXPECT_LE(ipc::testing::cpu_seconds(sender.pid()) - before, 0.02);
}

TEST_F(BothPrograms, LeakNeitherMemoryNorDescriptors) {
  if (!ipc::testing::sanitizer().empty()) GTEST_SKIP() << "valgrind does not run a program with a sanitizer in it";
  const auto check = [](const Lines& arguments, int code) {
    const ipc::testing::Checked checked = ipc::testing::run_under_valgrind(arguments);
    EXPECT_EQ(checked.outcome.code, code);
    EXPECT_EQ(checked.complaints, Lines());
  };
  auto sender = std::async(std::launch::async, check, Lines{"send_rand", name, "-n", "500"}, 0);
  check({"get_rand", name}, 0);
  sender.get();
  // And on their way out of an error.
  auto reader = std::async(std::launch::async, check, Lines{"get_rand", name}, 1);
  ASSERT_TRUE(wait_until([&] { return fifo_is_there(); }));
  ipc::write_record(ipc::open_fifo_for_writing(path, 30'000).get(), "word;");
  reader.get();
  check({"send_rand", ".."}, 2);
}

}  // namespace
