// writer, reader and fault_counter from outside: what is in the file, what happens when it goes away, and the signals that
// the kernel delivers.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "labs/common/observing.hpp"
#include "tracing.hpp"

namespace {

namespace fs = std::filesystem;
using ipc::testing::expect_error;
using ipc::testing::Outcome;
using ipc::testing::program_path;
using ipc::testing::read_text;
using ipc::testing::run;
using ipc::testing::run_traced;
using ipc::testing::SystemCall;
using ipc::testing::TempDir;
using ipc::testing::Traced;
using Lines = std::vector<std::string>;
using Numbers = std::array<int, 5>;

bool has_sanitizer() { return !ipc::testing::sanitizer().empty(); }

std::string line_of(const std::string& label, const Numbers& numbers) {
  std::string line = label;
  for (const int number : numbers) line += " " + std::to_string(number);
  return line;
}

// The first 20 bytes.
Numbers numbers_in(const std::string& path) {
  Numbers numbers{};
  const std::string bytes = read_text(path).substr(0, sizeof numbers);
  EXPECT_EQ(bytes.size(), sizeof numbers);
  std::memcpy(numbers.data(), bytes.data(), bytes.size());
  return numbers;
}

void put(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}
void put(const std::string& path, const Numbers& numbers) {
  put(path, std::string(reinterpret_cast<const char*>(numbers.data()), sizeof numbers));
}

constexpr Numbers some = {7, -1, 2147483647, 0, 1000};

Outcome run_as_ordinary_user(const std::string& program, const std::string& file) {
  const TempDir open_to_all;
  return run(ipc::testing::as_ordinary_user(open_to_all, {program, file}));
}

// ---- writer ----

TEST(Writer, StoresTheNumbersThatItPrints) {
  const TempDir folder;
  const Outcome outcome = run({"writer", folder.path("f")});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.err, Lines{});
  EXPECT_EQ(fs::file_size(folder.path("f")), sizeof(Numbers));
  EXPECT_EQ(outcome.out, Lines{line_of("wrote:", numbers_in(folder.path("f")))});
}

TEST(Writer, DrawsTheSameForTheSameSeedOnly) {
  const TempDir folder;
  const auto drawn = [&](std::vector<std::string> options) {
    options.insert(options.begin(), {"writer", folder.path("f")});
    return run(options).out;
  };
  EXPECT_EQ(drawn({"--seed", "1"}), drawn({"--seed", "1"}));
  EXPECT_NE(drawn({"--seed", "1"}), drawn({"--seed", "2"}));
  EXPECT_NE(drawn({}), drawn({}));
}

TEST(Writer, IsSeenThroughAMappingThatStandsAlready) {
  const TempDir folder;
  put(folder.path("f"), some);
  const ipc::Fd file(::open(folder.path("f").c_str(), O_RDONLY | O_CLOEXEC));
  const void* const seen = ::mmap(nullptr, sizeof some, PROT_READ, MAP_SHARED, file.get(), 0);
  ASSERT_NE(seen, MAP_FAILED);
  const Outcome outcome = run({"writer", folder.path("f")});
  Numbers now{};
  std::memcpy(now.data(), seen, sizeof now);
  EXPECT_EQ(outcome.out, Lines{line_of("wrote:", now)});
  ::munmap(const_cast<void*>(seen), sizeof some);
}

TEST(Writer, StoresThroughASharedMappingAndWritesNothing) {
  const TempDir folder;
  int shared = 0, writes_elsewhere = 0;
  std::uint64_t file = 0;
  const Traced outcome = run_traced({"writer", folder.path("f")}, [&](const SystemCall& call) {
    const auto& a = call.arguments;
    if (call.number == SYS_mmap && a[1] == sizeof(Numbers)) {
      EXPECT_EQ(a[2], static_cast<std::uint64_t>(PROT_READ | PROT_WRITE));
      EXPECT_EQ(a[3], static_cast<std::uint64_t>(MAP_SHARED));
      file = a[4];
      ++shared;
    }
    if ((call.number == SYS_write || call.number == SYS_pwrite64) && shared > 0 && a[0] == file) ++writes_elsewhere;
  });
  if (outcome.code == -1) GTEST_SKIP() << "no ptrace here";
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(shared, 1);
  EXPECT_EQ(writes_elsewhere, 0);
}

TEST(Writer, MakesAShortFileLongEnoughAndKeepsTheRestOfALongOne) {
  const TempDir folder;
  put(folder.path("short"), "abc");
  EXPECT_EQ(run({"writer", folder.path("short")}).code, 0);
  EXPECT_EQ(fs::file_size(folder.path("short")), sizeof(Numbers));
  const std::string rest(5000, 'r');
  put(folder.path("long"), std::string(sizeof(Numbers), '-') + rest);
  const Outcome outcome = run({"writer", folder.path("long")});
  EXPECT_EQ(outcome.out, Lines{line_of("wrote:", numbers_in(folder.path("long")))});
  EXPECT_EQ(read_text(folder.path("long")).substr(sizeof(Numbers)), rest);
}

TEST(Writer, SaysClearlyWhatItCannotWriteTo) {
  const TempDir folder;
  expect_error(run({"writer", folder.path("no/f")}), "writer: open " + folder.path("no/f") + ": No such file");
  expect_error(run({"writer", folder.path()}), "writer: open " + folder.path() + ": Is a directory");
  ASSERT_EQ(::mkfifo(folder.path("fifo").c_str(), 0600), 0);
  expect_error(run({"writer", folder.path("fifo")}), "fifo: not a regular file");
  expect_error(run({"writer", "/dev/full"}), "/dev/full: not a regular file");
  expect_error(run({"writer", ""}), "writer: open ");
  ::chmod(folder.path().c_str(), 0755);
  put(folder.path("f"), some);
  ::chmod(folder.path("f").c_str(), 0444);
  expect_error(run_as_ordinary_user("writer", folder.path("f")), "f: Permission denied");
  EXPECT_EQ(numbers_in(folder.path("f")), some);
}

// A file that is one hole on a disk without room: it has its length, and still nothing can be stored in it.
TEST(Writer, OnAFullDiskSaysSoAndDoesNotDieOfSigbus) {
  const TempDir folder;
  const std::string script =
      "mount -t tmpfs -o size=4096 none . || exit 77; cd \"$PWD\"; "
      "head -c 4096 /dev/zero > filler; truncate -s 20 hole; \"$1\" hole";
  const Outcome outcome =
      run({"/usr/bin/unshare", "--map-root-user", "--mount", "/bin/sh", "-c", script, "sh", program_path("writer")});
  if (outcome.code == 77 ||
      (outcome.code == 1 && !outcome.err.empty() && outcome.err.front().rfind("unshare", 0) == 0)) {
    GTEST_SKIP() << "no file system may be mounted here";
  }
  expect_error(outcome, "writer: posix_fallocate hole: No space left on device");
}

TEST(Writer, SaysWhenNobodyTakesItsLine) {
  const TempDir folder;
  expect_error(run({"/bin/sh", "-c", "exec \"$1\" \"$2\" > /dev/full", "sh", program_path("writer"), folder.path("f")}),
               "writer: standard output: No space left on device");
}

// ---- reader ----

TEST(Reader, PrintsTheFirstTwentyBytes) {
  const TempDir folder;
  put(folder.path("f"), some);
  EXPECT_EQ(run({"reader", folder.path("f")}).out, Lines{line_of("read:", some)});
  std::ofstream(folder.path("f"), std::ios::app) << "more";
  EXPECT_EQ(run({"reader", folder.path("f")}).out, Lines{line_of("read:", some)});
}

TEST(Reader, SeesWhatStandsInAMappingAndIsNotYetWrittenBack) {
  const TempDir folder;
  put(folder.path("f"), Numbers{});
  const ipc::Fd file(::open(folder.path("f").c_str(), O_RDWR | O_CLOEXEC));
  void* const memory = ::mmap(nullptr, sizeof some, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  ASSERT_NE(memory, MAP_FAILED);
  std::memcpy(memory, some.data(), sizeof some);
  EXPECT_EQ(run({"reader", folder.path("f")}).out, Lines{line_of("read:", some)});
  ::munmap(memory, sizeof some);
}

TEST(Reader, SaysClearlyWhatItCannotRead) {
  const TempDir folder;
  expect_error(run({"reader", folder.path("f")}), "reader: open " + folder.path("f") + ": No such file");
  put(folder.path("f"), "");
  expect_error(run({"reader", folder.path("f")}), "f: too short, it has 0 bytes and 20 are needed");
  put(folder.path("f"), std::string(19, 'x'));
  expect_error(run({"reader", folder.path("f")}), "f: too short, it has 19 bytes and 20 are needed");
  expect_error(run({"reader", folder.path()}), "not a regular file");
  ASSERT_EQ(::mkfifo(folder.path("fifo").c_str(), 0600), 0);
  expect_error(run({"reader", folder.path("fifo")}), "fifo: not a regular file");
  expect_error(run({"reader", "/dev/zero"}), "/dev/zero: not a regular file");
}

TEST(Reader, WithoutPermissionSaysSo) {
  const TempDir folder;
  ::chmod(folder.path().c_str(), 0755);
  put(folder.path("f"), some);
  EXPECT_EQ(run_as_ordinary_user("reader", folder.path("f")).out, Lines{line_of("read:", some)});
  ::chmod(folder.path("f").c_str(), 0000);
  expect_error(run_as_ordinary_user("reader", folder.path("f")), "f: Permission denied");
}

// ---- a file that is made shorter meanwhile ----

// Does `deed` as soon as the program has mapped its 20 bytes.
Traced run_and_do_when_mapped(const std::vector<std::string>& arguments, const std::function<void()>& deed) {
  int mapped = 0;
  Traced outcome = run_traced(arguments, [&](const SystemCall& call) {
    if (call.number == SYS_mmap && call.arguments[1] == sizeof(Numbers) && call.result > 0 && mapped++ == 0) deed();
  });
  if (outcome.code != -1) {
    EXPECT_EQ(mapped, 1) << "it maps the file, once";
  }
  return outcome;
}

class Shrinking : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Programs, Shrinking, ::testing::Values("reader", "writer"));

TEST_P(Shrinking, WhileMappedIsAClearErrorAndNoSigbus) {
  const TempDir folder;
  const std::string file = folder.path("f");
  for (const off_t left : {0, 10, 19}) {
    put(file, some);
    const Traced outcome =
        run_and_do_when_mapped({GetParam(), file}, [&] { EXPECT_EQ(::truncate(file.c_str(), left), 0); });
    if (outcome.code == -1) GTEST_SKIP() << "no ptrace here";
    expect_error({outcome.code, outcome.out, outcome.err}, "f: was made shorter while it was mapped");
    EXPECT_EQ(outcome.faults, 0);
  }
}

// After its 1st, 2nd, 3rd ... system call: at no moment does it die.
TEST_P(Shrinking, AtAnyMomentEndsInAnErrorOrInTheRightNumbers) {
  const TempDir folder;
  const std::string file = folder.path("f");
  put(file, some);
  int calls = 0;
  ASSERT_TRUE(run_traced({GetParam(), file}, [&](const SystemCall&) { ++calls; }).code <= 0);
  if (calls == 0) GTEST_SKIP() << "no ptrace here";
  const int first = has_sanitizer() ? std::max(1, calls - 60) : 1;  // its own calls, by the hundred, come before ours
  int right = 0, errors = 0;
  for (int moment = first; moment <= calls; ++moment) {
    put(file, some);
    int call = 0;
    const Traced outcome = run_traced({GetParam(), file}, [&](const SystemCall&) {
      if (++call == moment) {
        EXPECT_EQ(::truncate(file.c_str(), 0), 0);
      }
    });
    EXPECT_EQ(outcome.faults, 0);
    if (outcome.code == 0) {
      ASSERT_EQ(outcome.out.size(), 1U);
      if (GetParam() == "reader") {
        EXPECT_EQ(outcome.out.front(), line_of("read:", some));
      }
      ++right;
    } else {
      expect_error({outcome.code, outcome.out, outcome.err}, "f: ");
      ++errors;
    }
  }
  EXPECT_GT(right, 0);
  EXPECT_GT(errors, 0);
}

TEST(Reader, KeepsAFileThatIsDeletedWhileItIsMapped) {
  const TempDir folder;
  put(folder.path("f"), some);
  const Traced outcome = run_and_do_when_mapped({"reader", folder.path("f")}, [&] {
    fs::remove(folder.path("f"));
    put(folder.path("f"), "");
  });
  if (outcome.code == -1) GTEST_SKIP() << "no ptrace here";
  EXPECT_EQ(outcome.out, Lines{line_of("read:", some)});
}

// ---- fault_counter ----

TEST(FaultCounter, CountsOneFaultForEachPage) {
  for (const std::string pages : {"1", "2", "1000", "100000"}) {
    const Outcome outcome = run({"fault_counter", "--pages", pages});
    EXPECT_EQ(outcome.code, 0);
    ASSERT_FALSE(outcome.out.empty());
    EXPECT_EQ(outcome.out.front(), "faults: " + pages);
  }
}

TEST(FaultCounter, ShowsThatReadIntoAClosedPageReturnsEfault) {
  EXPECT_EQ(run({"fault_counter"}).out,
            (Lines{"faults: 10", "read(2) into a closed page: EFAULT", "read(2) into it after a touch: 1 byte"}));
}

// The kernel's own count: one SIGSEGV for each page and one for the touch at the end, none for the read() that failed.
TEST(FaultCounter, GetsAsManySignalsAsItSays) {
  int opened = 0, refused = 0;
  const Traced outcome = run_traced({"fault_counter", "--pages", "20"}, [&](const SystemCall& call) {
    if (call.number == SYS_read && call.result == -EFAULT) ++refused;
    if (call.number == SYS_mprotect && call.arguments[2] == (PROT_READ | PROT_WRITE) && call.result == 0) ++opened;
  });
  if (outcome.code == -1) GTEST_SKIP() << "no ptrace here";
  EXPECT_EQ(outcome.out.front(), "faults: 20");
  EXPECT_EQ(outcome.faults, 21);
  EXPECT_EQ(refused, 1);
  EXPECT_GE(opened, 21);
}

TEST(FaultCounter, WithoutMemoryForOneMorePageSaysSo) {
  if (has_sanitizer()) GTEST_SKIP() << "a sanitizer itself needs more than that";
  expect_error(run({"/usr/bin/prlimit", "--data=50000000", program_path("fault_counter"), "--pages", "100000"}),
               "fault_counter: mprotect: ");
}

// ---- all three ----

TEST(Programs, SayWhatIsWrongWithTheCommandLine) {
  expect_error(run({"writer"}), "writer: FILE is missing", 2);
  expect_error(run({"reader"}), "reader: FILE is missing", 2);
  expect_error(run({"reader", "a", "b"}), "reader: too many arguments", 2);
  expect_error(run({"writer", "a", "--sead", "1"}), "writer: unrecognised option '--sead'", 2);
  expect_error(run({"writer", "a", "--seed", "x"}), "--seed", 2);
  expect_error(run({"fault_counter", "9"}), "fault_counter: it takes options only", 2);
  for (const std::string pages : {"0", "-1", "x", "99999999999"}) {
    expect_error(run({"fault_counter", "--pages", pages}), "--pages", 2);
  }
}

TEST(Programs, ExplainThemselves) {
  for (const std::string program : {"writer", "reader", "fault_counter"}) {
    const Outcome outcome = run({program, "--help"});
    EXPECT_EQ(outcome.code, 0);
    EXPECT_EQ(outcome.err, Lines{});
    EXPECT_EQ(outcome.out.front().rfind("usage: " + program, 0), 0U);
  }
}

TEST(Programs, LeakNothingUnderValgrind) {
  if (has_sanitizer()) GTEST_SKIP() << "a sanitizer and valgrind do not go together";
  const TempDir folder;
  // It touches closed pages, and gives one to read(2): that is its purpose.
  std::ofstream(folder.path("on-purpose")) << "{\ntouch\nMemcheck:Addr1\n...\nfun:main\n}\n"
                                              "{\nread\nMemcheck:Param\nread(buf)\n...\nfun:main\n}\n";
  const std::vector<std::vector<std::string>> runs = {
      {"writer", folder.path("f")}, {"reader", folder.path("f")}, {"reader", folder.path("none")}, {"fault_counter"}};
  for (const auto& one : runs) {
    const auto checked = ipc::testing::run_under_valgrind(
        one, {.environment = {"VALGRIND_OPTS=--suppressions=" + folder.path("on-purpose")}});
    EXPECT_EQ(checked.outcome.code, one.back() == folder.path("none") ? 1 : 0) << one.front();
    EXPECT_EQ(checked.complaints, Lines{}) << one.front();
  }
}

}  // namespace
