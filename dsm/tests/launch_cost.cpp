// dsm_launch_bench: what it costs to start a job and see it through, beside what others take for the same, in turns.
//
//   $ dsm_launch_bench --runs 1000                     `true` on 2, 8 and 32 ranks here; beside mpiexec.hydra
//   $ dsm_launch_bench --machine-file HOSTS --ssh "ssh -F FILE"
//                                                      one rank, then four, on each machine; beside a bare ssh to each
//
// All are started by the same code, and are over when the last process is. The medians count: what else runs on this
// machine meets all in the same way. Exit code: 0; 1 if a run of dsmexec fails or hangs. `make bench-launch` runs both.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "ipc/error.hpp"
#include "ipc/signals.hpp"
#include "ipc/spawn.hpp"

namespace {

namespace po = boost::program_options;
using Clock = std::chrono::steady_clock;
using Words = std::vector<std::string>;

constexpr std::chrono::seconds hang{60};  // far beyond what any run takes

struct Entry {
  std::string name;
  std::vector<Words> commands;  // started together
  std::vector<double> times{};  // of good runs, in milliseconds
  int failed = 0;
};

Words split(const std::string& text) {
  std::istringstream in(text);
  Words words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

bool installed(const std::string& name) {
  const char* const path = std::getenv("PATH");
  std::istringstream folders(path != nullptr ? path : "/usr/bin:/bin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (::access((folder + "/" + name).c_str(), X_OK) == 0) return true;
  }
  return false;
}

std::string dsmexec() { return (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "dsmexec").string(); }

// Waits for the end of them all. False if one has failed. Throws if one hangs.
bool wait_for(std::map<pid_t, std::string> running) {
  const auto until = Clock::now() + hang;
  const sigset_t child = ipc::signal_set({SIGCHLD});
  bool good = true;
  for (;;) {
    int status = 0;
    for (pid_t pid = 0; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) {
      running.erase(pid);
      good = good && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }
    if (running.empty()) return good;
    const auto left = until - Clock::now();
    if (left <= Clock::duration::zero()) break;
    const timespec second{1, 0};
    if (::sigtimedwait(&child, nullptr, &second) == -1 && errno != EAGAIN && errno != EINTR)
      ipc::throw_errno("sigwait");
  }
  for (const auto& [pid, name] : running) ::kill(pid, SIGTERM);
  throw std::runtime_error(running.begin()->second + " hangs: it has not ended within a minute");
}

void run(Entry& entry, int nothing) {
  ipc::SpawnOptions options;
  options.standard_input = options.standard_output = nothing;
  options.parent_death_signal = SIGTERM;
  std::vector<ipc::Starting> begun;
  std::map<pid_t, std::string> running;
  const auto begin = Clock::now();
  for (const Words& command : entry.commands) {
    options.arguments = command;
    begun.push_back(ipc::begin_spawn(options));
  }
  for (const ipc::Starting& one : begun) running.emplace(ipc::finish_spawn(one, options), entry.name);
  const bool good = wait_for(std::move(running));
  const std::chrono::duration<double, std::milli> took = Clock::now() - begin;
  if (good) entry.times.push_back(took.count());
  entry.failed += good ? 0 : 1;
}

double quantile(std::vector<double> values, double part) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(part * static_cast<double>(values.size() - 1) + 0.5)];
}

double median(const Entry& entry) { return quantile(entry.times, 0.5); }

// In turns. False if one of dsmexec's has failed.
bool race(std::vector<Entry>& entries, int runs) {
  const ipc::Fd nothing(ipc::check(::open("/dev/null", O_RDWR | O_CLOEXEC), "open /dev/null"));
  for (Entry& entry : entries) run(entry, nothing.get());  // once for the caches
  for (Entry& entry : entries) entry.times.clear();
  bool good = true;
  for (int i = 0; i < runs; ++i) {
    for (Entry& entry : entries) run(entry, nothing.get());
  }
  for (const Entry& entry : entries) {
    std::printf("%-28s %6zu %9.2f %9.2f %9.2f %7d\n", entry.name.c_str(), entry.times.size(),
                quantile(entry.times, 0.25), median(entry), quantile(entry.times, 0.75), entry.failed);
    good = good && (entry.failed == 0 || entry.name.rfind("dsmexec", 0) != 0);
  }
  return good;
}

void compare(const Entry& ours, const Entry& theirs, double limit) {
  const double ratio = median(theirs) > 0 ? median(ours) / median(theirs) : 0;
  std::printf("  %s : %s = %.3f, limit %.2f, %s\n", ours.name.c_str(), theirs.name.c_str(), ratio, limit,
              ratio <= limit ? "kept" : "NOT KEPT");
  std::fflush(stdout);
}

void print_head(const char* what) {
  std::printf("%-28s %6s %9s %9s %9s %7s\n", what, "n", "quartile", "median", "quartile", "failed");
}

bool here(const std::string& machine_file, int runs) {
  const bool hydra = installed("mpiexec.hydra");
  if (!hydra) std::puts("mpiexec.hydra is skipped: it is not installed (make deps-bench)");
  print_head("here, ms");
  bool good = true;
  for (const int ranks : {2, 8, 32}) {
    const std::string n = std::to_string(ranks);
    std::vector<Entry> entries = {{"dsmexec, " + n + " ranks", {{dsmexec(), "-n", n, machine_file, "true"}}}};
    if (hydra) entries.push_back({"mpiexec.hydra, " + n + " ranks", {{"mpiexec.hydra", "-n", n, "true"}}});
    good = race(entries, runs) && good;
    if (hydra) compare(entries[0], entries[1], 1.0);
  }
  return good;
}

bool there(const std::string& machine_file, const std::string& ssh, int runs) {
  std::ifstream file(machine_file);
  std::vector<Words> bare;
  for (std::string host; std::getline(file, host);) {
    bare.push_back(split(ssh));
    bare.back().insert(bare.back().end(), {host, "true"});
  }
  const auto job = [&](std::size_t ranks) {
    const std::string n = std::to_string(ranks);
    return Entry{"dsmexec, " + n + " ranks", {{dsmexec(), "-n", n, "--ssh", ssh, machine_file, "true"}}};
  };
  const std::string count = std::to_string(bare.size());
  std::vector<Entry> entries = {job(bare.size()), job(4 * bare.size()), {"slowest of " + count + " bare ssh", bare}};
  print_head("over ssh, ms");
  const bool good = race(entries, runs);
  compare(entries[1], entries[0], 1.10);
  compare(entries[0], entries[2], 1.15);
  compare(entries[1], entries[2], 1.15);
  return good;
}

int measure(int argc, char** argv) {
  po::options_description known("dsm_launch_bench [options]");
  known.add_options()("help,h", "this list")("runs", po::value<int>()->default_value(100), "of each, in turns")(
      "machine-file", po::value<std::string>()->default_value("machine_file"), "of dsmexec")(
      "ssh", po::value<std::string>(), "measure over ssh, by this command: machines and options are parted by blanks");
  po::variables_map said;
  po::store(po::parse_command_line(argc, argv, known), said);
  po::notify(said);
  if (said.count("help") != 0) {
    std::cout << known;
    return 0;
  }
  const int runs = said["runs"].as<int>();
  if (runs < 1 || runs > 100'000) throw std::runtime_error("--runs: 1 to 100000 is needed");
  const auto file = said["machine-file"].as<std::string>();
  if (!std::ifstream(file)) throw std::runtime_error("--machine-file " + file + ": cannot be read");
  // For sigtimedwait: what is not blocked is not kept.
  const sigset_t child = ipc::signal_set({SIGCHLD});
  ::sigprocmask(SIG_BLOCK, &child, nullptr);
  return (said.count("ssh") != 0 ? there(file, said["ssh"].as<std::string>(), runs) : here(file, runs)) ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return measure(argc, argv);
  } catch (const std::exception& error) {
    std::fflush(stdout);
    std::cerr << "dsm_launch_bench: " << error.what() << '\n';
    return 1;
  }
}
