// dsm/bench/testing.hpp - what the tests of dsm_bench and dshm_bench share: a folder, and the program's end.
#pragma once
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include "ipc/spawn.hpp"

namespace bench::testing {

class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "dsm-bench-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path_ = name;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] std::string operator/(const char* name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

// Its exit code, 128 + n: signal n. `more`: of its environment, "NAME=value".
inline int run(const std::vector<std::string>& arguments, const std::vector<std::string>& more = {}) {
  const ipc::Fd nothing(::open("/dev/null", O_RDWR | O_CLOEXEC));
  ipc::SpawnOptions options;
  options.arguments = arguments;
  options.environment = more;
  for (char** each = environ; *each != nullptr; ++each) options.environment->emplace_back(*each);
  options.standard_input = options.standard_output = nothing.get();
  const pid_t pid = ipc::spawn(options);
  int status = 0;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

inline std::string program(const char* name) {
  return (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "../bin" / name).string();
}

}  // namespace bench::testing
