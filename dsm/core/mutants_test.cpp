// The tests are tested: each seeded bug (mutants/*.mutant) must be found by every test that is named to find it, and the
// sound core must pass all of them. Make has built the programs and written the list, see module.mk.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <ostream>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

extern char** environ;

namespace {

struct Claim {
  std::string mutant, killer;
};

void PrintTo(const Claim& claim, std::ostream* out) { *out << claim.mutant << ", killed by " << claim.killer; }

std::string build_folder() {
  std::array<char, 4096> path{};
  const ssize_t size = ::readlink("/proc/self/exe", path.data(), path.size());
  if (size <= 0) throw std::system_error(errno, std::system_category(), "readlink /proc/self/exe");
  const std::string self(path.data(), static_cast<std::size_t>(size));
  return self.substr(0, self.rfind("/tests/"));
}

std::vector<Claim> claims() {
  std::ifstream list(build_folder() + "/mutants/list");
  std::vector<Claim> out;
  for (Claim claim; list >> claim.mutant >> claim.killer;) out.push_back(claim);
  return out;
}

struct Outcome {
  int status = 0;
  std::string output;
};

// Runs one test of a runner to its end. The runners are bounded in processor time (main's limit is inherited).
Outcome run(const std::string& program, const std::string& filter) {
  const int out = ::memfd_create("output", MFD_CLOEXEC);
  if (out < 0) throw std::system_error(errno, std::system_category(), "memfd_create");
  posix_spawn_file_actions_t files;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawn_file_actions_adddup2(&files, out, 1);
  ::posix_spawn_file_actions_adddup2(&files, out, 2);
  std::string name = program, option = "--gtest_filter=" + filter;
  std::array<char*, 3> argv = {name.data(), option.data(), nullptr};
  pid_t child = 0;
  const int failed = ::posix_spawn(&child, program.c_str(), &files, nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&files);
  if (failed != 0) throw std::system_error(failed, std::system_category(), "posix_spawn " + program);
  Outcome result;
  while (::waitpid(child, &result.status, 0) < 0) {
    if (errno != EINTR) throw std::system_error(errno, std::system_category(), "waitpid");
  }
  result.output.resize(static_cast<std::size_t>(::lseek(out, 0, SEEK_END)));
  const ssize_t got = ::pread(out, result.output.data(), result.output.size(), 0);
  result.output.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
  ::close(out);
  return result;
}

class Mutant : public testing::TestWithParam<Claim> {
 protected:
  static void SetUpTestSuite() {
    ::unsetenv("GTEST_OUTPUT");  // ours, not the runners'
    rlimit cpu{};
    ::getrlimit(RLIMIT_CPU, &cpu);
    cpu.rlim_cur = 200;  // seconds; a mutant that never ends is not one that is found
    ::setrlimit(RLIMIT_CPU, &cpu);
  }
};

TEST_P(Mutant, IsKilledAndTheSoundCoreIsNot) {
  const auto& [mutant, killer] = GetParam();
  const std::string folder = build_folder() + "/mutants/";
  static std::set<std::string> passed;  // many mutants have one killer
  if (!passed.contains(killer)) {
    const Outcome sound = run(folder + "sound", killer);
    ASSERT_TRUE(WIFEXITED(sound.status) && WEXITSTATUS(sound.status) == 0) << sound.output;
    ASSERT_NE(sound.output.find("[  PASSED  ] 1 test."), std::string::npos) << "no test has this name\n"
                                                                            << sound.output;
    passed.insert(killer);
  }
  const Outcome mutated = run(folder + mutant + "/runner", killer);
  EXPECT_TRUE(WIFEXITED(mutated.status) && WEXITSTATUS(mutated.status) == 1) << mutated.output;
  EXPECT_NE(mutated.output.find("[  FAILED  ] " + killer), std::string::npos) << mutated.output;
}

std::string test_name(const testing::TestParamInfo<Claim>& param) {
  std::string name = param.param.mutant + "_" + param.param.killer;
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  }
  return name;
}

INSTANTIATE_TEST_SUITE_P(Core, Mutant, testing::ValuesIn(claims()), test_name);

TEST(Mutants, AreAllThere) { EXPECT_GE(claims().size(), 10U); }

}  // namespace
