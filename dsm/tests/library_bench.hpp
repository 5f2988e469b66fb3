// dsm/tests/library_bench.hpp - what a user of libdsm does: compile a program against the header and a library, run it.
//
// A sanitizer's libraries are linked, too, where this build has one.
#pragma once
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "ipc/spawn.hpp"

namespace dsm::library::testing {

inline std::filesystem::path build_folder() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path();
}

inline std::string text_of(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// How this build was made.
inline std::vector<std::string> sanitizer_flags() {
  std::istringstream words(text_of(build_folder() / "flags"));
  std::vector<std::string> found;
  for (std::string word; words >> word;) {
    if (word.rfind("-fsanitize=", 0) == 0) found.push_back(word);
  }
  return found;
}

// A folder of its own, gone with it, and what is said in it.
class Bench : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "dsm-library-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

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

  // `compiler` with the usual warnings as errors and the header's folder, then what is to be linked.
  void compile(std::vector<std::string> compiler, const std::vector<std::string>& libraries) {
    compiler.insert(compiler.end(), {"-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", "-Idsm/include"});
    for (const auto& flag : sanitizer_flags()) compiler.push_back(flag);
    compiler.insert(compiler.end(), libraries.begin(), libraries.end());
    ASSERT_EQ(run(compiler), 0) << output();
  }
  [[nodiscard]] std::string path(const char* name) const { return (folder_ / name).string(); }

  std::filesystem::path folder_;
};

}  // namespace dsm::library::testing
