// What a user of libdsm has: the header, two libraries, a C compiler, dsmexec.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "ipc/spawn.hpp"

namespace {

namespace fs = std::filesystem;

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

fs::path build_folder() { return fs::read_symlink("/proc/self/exe").parent_path().parent_path(); }

std::string text_of(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// How this build was made, so that a sanitizer's libraries are linked, too.
std::vector<std::string> sanitizer_flags() {
  std::istringstream words(text_of(build_folder() / "flags"));
  std::vector<std::string> found;
  for (std::string word; words >> word;) {
    if (word.rfind("-fsanitize=", 0) == 0) found.push_back(word);
  }
  return found;
}

class Library : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "dsm-library-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    folder_ = name;
    std::ofstream(folder_ / "program.c") << program;
    std::ofstream(folder_ / "machines") << "localhost\nlocalhost\nlocalhost\n";
  }
  void TearDown() override { fs::remove_all(folder_); }

  // Exit code, or 128 + signal; everything it says is in folder_ / "output".
  int run(const std::vector<std::string>& arguments) {
    const ipc::Fd output(::open((folder_ / "output").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    const ipc::Fd nothing(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    ipc::SpawnOptions options;
    options.arguments = arguments;
    options.standard_input = nothing.get();
    options.standard_output = options.standard_error = output.get();
    const pid_t pid = ipc::spawn(options);
    int status = 0;
    EXPECT_EQ(::waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  [[nodiscard]] std::string output() const { return text_of(folder_ / "output"); }

  void compile(const std::vector<std::string>& compiler, const std::vector<std::string>& libraries) {
    std::vector<std::string> command = compiler;
    command.insert(command.end(), {"-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", "-Idsm/include"});
    for (const auto& flag : sanitizer_flags()) command.push_back(flag);
    command.insert(command.end(), {"-o", path("program"), path("program.c")});
    command.insert(command.end(), libraries.begin(), libraries.end());
    ASSERT_EQ(run(command), 0) << output();
  }
  void expect_a_working_job() {
    const std::string dsmexec = (build_folder() / "bin/dsmexec").string();
    ASSERT_EQ(run({dsmexec, "--output", "plain", path("machines"), path("program")}), 0) << output();
    EXPECT_EQ(output(), "0\n0\n0\n");
  }
  [[nodiscard]] std::string path(const char* name) const { return (folder_ / name).string(); }

  fs::path folder_;
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
