// What a user of libdsm has: the header, two libraries, a C compiler, dsmexec.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "dsm/tests/library_bench.hpp"

namespace {

namespace fs = std::filesystem;
using dsm::library::testing::build_folder;

const char* const program = R"(
#include <dsm/dsm.h>
#include <stdio.h>

int main(int argc, char **argv) {
  int *counter = (int *)dsm_init(argc, argv);
  if (counter == NULL || dsm_lock(7) != 0) return 1;
  ++*counter;
  if (dsm_unlock(7) != 0 || dsm_barrier() != 0) return 2;
  printf("%d\n", *counter - DSM_NODE_NUM);
  dsm_finalize();
  return 0;
}
)";

// Every name of dsm.hpp, by every rank.
const char* const cxx_program = R"(
#include <dsm/dsm.hpp>
#include <stdexcept>
#include <thread>
#include <vector>

struct Shared {
  dsm::Mutex mutex;
  dsm::ConditionVariable changed;
  int turn, waiting;
  bool open;
};

bool fails_with(int error, void (*call)()) {
  try {
    call();
  } catch (const std::system_error& e) {
    return e.code().value() == error;
  }
  return false;
}

int throw_through_a_job(int argc, char** argv) {
  try {
    dsm::Job job(argc, argv);
    if (job.rank() == 1) throw std::runtime_error("caught outside");
    job.barrier();
  } catch (const std::runtime_error&) {
  }
  return 0;
}

int main(int argc, char** argv) {
  if (argc > 1) return throw_through_a_job(argc, argv);
  dsm::Job job(argc, argv);
  Shared& s = job.alloc<Shared>(1).front();
  const auto numbers = job.alloc<int>(5000);
  if (numbers.size() != 5000 || numbers[4999] != 0) return 1;
  numbers[static_cast<std::size_t>(job.rank())] = job.rank() + 1;

  for (int round = 0; round < 50; ++round) {  // each in its turn
    std::unique_lock lock(s.mutex);
    s.changed.wait(lock, [&] { return s.turn % job.size() == job.rank(); });
    ++s.turn;
    s.changed.notify_all();
  }
  {
    std::unique_lock lock(s.mutex);
    if (++s.waiting == job.size()) s.open = true, s.changed.notify_all();
    while (!s.open) s.changed.wait(lock);
  }
  dsm::Semaphore one("one at a time", 1);
  for (int i = 0; i < 50; ++i) {
    if (i % 2 == 0) {
      one.acquire();
    } else {
      while (!one.try_acquire()) std::this_thread::yield();
    }
    ++numbers[100];
    one.release();
  }
  job.barrier();
  if (numbers[100] != 50 * job.size() || s.turn != 50 * job.size() || numbers[2] != 3) return 2;

  job.barrier();
  if (job.rank() == 0) s.mutex.lock();
  job.barrier();
  if (s.mutex.try_lock()) return 3;
  job.barrier();
  if (job.rank() == 0) s.mutex.unlock();
  job.barrier();
  if (job.rank() == 2) {
    if (!s.mutex.try_lock()) return 4;
    s.mutex.unlock();
  }
  if (!fails_with(EINVAL, [] { static dsm::Mutex elsewhere; elsewhere.lock(); })) return 5;
  if (!fails_with(EINVAL, [] { dsm::Semaphore nameless("", 1); })) return 6;
  try {
    (void)job.alloc<double>(std::size_t{1} << 60U);
    return 7;
  } catch (const std::bad_alloc&) {
  }

  using Words = std::vector<dsm::String, dsm::Allocator<dsm::String>>;
  Words& words = *job.find_or_construct<Words>("words")(2, "of the constructor's");
  {
    const std::scoped_lock lock(s.mutex);
    words.emplace_back("too long for the string itself");
  }
  job.barrier();
  if (words.size() != 5 || words[1] != "of the constructor's" || words[4] != words[2]) return 8;
  try {
    job.find_or_construct<char>("words")();
    return 9;
  } catch (const dsm::Error&) {
  }
  if (!fails_with(EINVAL, [] { dsm::Constructor<char>("")(); })) return 10;
  try {
    (void)dsm::Allocator<double>().allocate(std::size_t{1} << 50U);
    return 11;
  } catch (const std::bad_alloc&) {
  }
  std::puts("0");
}
)";

class Library : public dsm::library::testing::Bench {
 protected:
  void SetUp() override {
    Bench::SetUp();
    std::ofstream(folder_ / "program.c") << program;
    std::ofstream(folder_ / "machines") << "localhost\nlocalhost\nlocalhost\n";
  }
  void compile(const std::vector<std::string>& compiler, const std::vector<std::string>& libraries) {
    std::vector<std::string> command = compiler;
    command.insert(command.end(), {"-o", path("program"), path("program.c")});
    Bench::compile(command, libraries);
  }
  void expect_a_working_job() {
    const std::string dsmexec = (build_folder() / "bin/dsmexec").string();
    ASSERT_EQ(run({dsmexec, "--output", "plain", path("machines"), path("program")}), 0) << output();
    EXPECT_EQ(output(), "0\n0\n0\n");
  }
};

TEST_F(Library, a_c_program_runs_on_the_shared_one) {
  const std::string lib = (build_folder() / "lib").string();
  compile({"gcc", "-std=c99"}, {"-L" + lib, "-ldsm", "-Wl,-rpath," + lib});
  expect_a_working_job();
}

TEST_F(Library, a_cxx_program_runs_on_the_static_one) {
  compile({"g++", "-std=c++20"}, {(build_folder() / "lib/libdsm.a").string(), "-lsodium", "-lfmt", "-pthread"});
  expect_a_working_job();
}

TEST_F(Library, a_cxx_program_needs_nothing_but_dsmcxx) {
  const std::string dsmcxx = (build_folder() / "bin/dsmc++").string();
  std::ofstream(folder_ / "program.cpp") << cxx_program;
  ASSERT_EQ(run({dsmcxx, "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror", path("program.cpp"),
                 "-o", path("program")}),
            0)
      << output();
  expect_a_working_job();
  ASSERT_EQ(run({dsmcxx, "-c", path("program.cpp"), "-o", path("program.o")}), 0) << output();
  EXPECT_EQ(run({dsmcxx, "--show", path("program.o"), "-o", path("other")}), 0);
  EXPECT_NE(output().find("-ldsm"), std::string::npos);
  EXPECT_FALSE(fs::exists(path("other")));
  EXPECT_EQ(run({dsmcxx}), 2);
}

// The others do not wait for ever.
TEST_F(Library, an_exception_that_leaves_the_scope_of_a_job_ends_it) {
  std::ofstream(folder_ / "program.cpp") << cxx_program;
  ASSERT_EQ(run({(build_folder() / "bin/dsmc++").string(), path("program.cpp"), "-o", path("program")}), 0) << output();
  const std::string dsmexec = (build_folder() / "bin/dsmexec").string();
  EXPECT_EQ(run({dsmexec, path("machines"), path("program"), "throw"}), 128 + SIGABRT) << output();
  EXPECT_NE(output().find("dsm: rank 1: an exception leaves the scope of dsm::Job"), std::string::npos) << output();
  EXPECT_NE(output().find("rank 1 (localhost)"), std::string::npos) << output();
}

TEST_F(Library, the_shared_one_shows_its_interface_and_nothing_else) {
  ASSERT_EQ(run({"nm", "-D", "--defined-only", "--format=posix", (build_folder() / "lib/libdsm.so").string()}), 0);
  std::istringstream lines(output());
  const std::vector<std::string> in_front_of_libc = {"sigaction", "signal", "__sysv_signal", "pthread_sigmask",
                                                     "sigprocmask"};
  std::size_t ours = 0;
  for (std::string line; std::getline(lines, line);) {
    const std::string name = line.substr(0, line.find(' '));
    const bool interface = name.rfind("dsm_", 0) == 0 || name.rfind("DSM_", 0) == 0;
    ours += interface ? 1 : 0;
    EXPECT_TRUE(interface ||
                std::find(in_front_of_libc.begin(), in_front_of_libc.end(), name) != in_front_of_libc.end())
        << name;
  }
  EXPECT_GE(ours, 11U);
}

}  // namespace
