// The whole of it, small: a job for each figure, and the number of messages that each of them must take.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "ipc/spawn.hpp"

namespace {

namespace fs = std::filesystem;

class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "dsm-bench-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path_ = name;
  }
  ~Folder() { fs::remove_all(path_); }
  [[nodiscard]] std::string operator/(const char* name) const { return (path_ / name).string(); }

 private:
  fs::path path_;
};

int run(const std::vector<std::string>& arguments) {
  const ipc::Fd nothing(::open("/dev/null", O_RDWR | O_CLOEXEC));
  ipc::SpawnOptions options;
  options.arguments = arguments;
  options.standard_input = options.standard_output = nothing.get();
  const pid_t pid = ipc::spawn(options);
  int status = 0;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::string program() { return (fs::read_symlink("/proc/self/exe").parent_path() / "../bin/dsm_bench").string(); }

TEST(Bench, every_sample_of_every_figure_takes_two_messages) {
  const Folder folder;
  const std::string machines = folder / "machines", figures = folder / "figures.json";
  std::ofstream(machines) << "localhost\nlocalhost\nlocalhost\n";
  ASSERT_EQ(run({program(), "--blocks", "2", "--block-size", "16", "--machine-file", machines, "-o", figures}), 0);
  const auto list = nlohmann::json::parse(std::ifstream(figures)).at("figures");
  const std::size_t regimes = list.size() / 3;
  ASSERT_EQ(list.size(), 3 * regimes);
  ASSERT_GE(regimes, 1U);
  for (const auto& figure : list) {
    SCOPED_TRACE(figure.dump());
    EXPECT_EQ(figure.at("messages").get<double>(), 2);
    EXPECT_EQ(figure.at("n").get<int>(), 32);
    EXPECT_GT(figure.at("limit").get<double>(), 0);
    // A message that waits for a delayed acknowledgement costs 40 ms.
    EXPECT_LT(figure.at("value").get<double>(), 20'000);
  }
}

TEST(Bench, misuse_is_one_line_and_exit_2) {
  EXPECT_EQ(run({program(), "--figure", "no_such_figure"}), 2);
  EXPECT_EQ(run({program(), "--blocks", "0"}), 2);
}

}  // namespace
