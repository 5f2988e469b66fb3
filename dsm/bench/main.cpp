// dsm_bench: what a page fault costs, beside what the machine itself takes for its parts.
//
//   $ build/bin/dsm_bench
//   figure       regime          value      limit  ratio  samples  messages
//   read_miss    one_core     33.47 us   27.12 us   1.24    40960      2.00
//
// Starts one job for each figure and regime by the dsmexec beside it, itself as the program; rank 1 measures (rank.hpp).
#include <fcntl.h>
#include <sched.h>
#include <sys/wait.h>

#include <boost/program_options.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "dsm/bench/limits.hpp"
#include "dsm/bench/rank.hpp"
#include "dsm/bench/report.hpp"
#include "ipc/error.hpp"
#include "ipc/spawn.hpp"

namespace po = boost::program_options;

namespace {

struct Options {
  bench::Task task;
  bool rank = false, encrypt = false;
  std::string machine_file = "machine_file", output;
};

std::vector<int> allowed_cpus() {
  cpu_set_t set;
  ipc::check(::sched_getaffinity(0, sizeof set, &set), "sched_getaffinity");
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(static_cast<std::size_t>(cpu), &set)) cpus.push_back(cpu);
  }
  return cpus;
}

// What the program prints; throws if it fails.
std::string output_of(const std::vector<std::string>& arguments) {
  ipc::Pipe pipe = ipc::make_pipe();
  ipc::SpawnOptions options;
  options.arguments = arguments;
  options.standard_output = pipe.write.get();
  const ipc::Fd nothing(ipc::check(::open("/dev/null", O_RDONLY | O_CLOEXEC), "open /dev/null"));
  options.standard_input = nothing.get();  // dsmexec would read ours, which is meant for somebody else
  const pid_t pid = ipc::spawn(options);
  pipe.write.reset();
  std::string text;
  char buffer[4096];
  for (ssize_t got; (got = ipc::read_full(pipe.read.get(), buffer, sizeof buffer)) > 0;) {
    text.append(buffer, static_cast<std::size_t>(got));
  }
  int status = 0;
  ipc::check(::waitpid(pid, &status, 0), "waitpid");
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) throw std::runtime_error("the measuring job failed, see above");
  return text;
}

bench::Figure run_job(const Options& options, const std::string& figure, const std::string& regime, int home,
                      int here) {
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe");
  const std::string ranks = std::to_string(bench::ranks_for(figure));
  const bench::Task& task = options.task;
  std::vector<std::string> words = {
      (self.parent_path() / "dsmexec").string(), "-n", ranks, "--size", "64M", "--timeout", "120", "--output", "plain"};
  if (options.encrypt) words.emplace_back("--encrypt");
  const std::vector<std::string> line = {options.machine_file,
                                         self.string(),
                                         "--rank",
                                         "--figure",
                                         figure,
                                         "--regime",
                                         regime,
                                         "--cpu-home",
                                         std::to_string(home),
                                         "--cpu-here",
                                         std::to_string(here),
                                         "--blocks",
                                         std::to_string(task.blocks),
                                         "--block-size",
                                         std::to_string(task.block_size)};
  words.insert(words.end(), line.begin(), line.end());
  return bench::from_json(output_of(words));
}

int run_all(const Options& options) {
  const std::vector<int> cpus = allowed_cpus();
  std::vector<bench::Figure> figures;
  std::cout << bench::header() << std::endl;
  const auto add = [&](const std::string& name, const std::string& regime, int home, int here) {
    figures.push_back(run_job(options, name, regime, home, here));
    std::cout << bench::row(figures.back()) << std::endl;
  };
  for (const std::string& name : bench::figures()) {
    if (!options.task.figure.empty() && options.task.figure != name) continue;
    add(name, "one_core", cpus[0], cpus[0]);
    if (cpus.size() > 1) add(name, "two_cores", cpus[0], cpus[1]);
  }
  if (cpus.size() < 2) std::cerr << "dsm_bench: only one CPU here, so there is no regime two_cores\n";
  if (!options.output.empty()) {
    std::ofstream out(options.output);
    out << bench::file(figures);
    if (!out.flush()) ipc::throw_errno("write " + options.output);
  }
  return 0;
}

// False if only --help was asked for. Throws po::error on misuse.
bool parse(int argc, char** argv, Options& options) {
  po::options_description shown("usage: dsm_bench [options]"), hidden, all;
  shown.add_options()("help,h", "this text")                                                                          //
      ("output,o", po::value(&options.output), "write the figures there, as JSON")                                    //
      ("figure", po::value(&options.task.figure), "measure this one only: read_miss, write_miss, barrier_2")          //
      ("blocks", po::value(&options.task.blocks)->default_value(options.task.blocks), "blocks of samples")            //
      ("block-size", po::value(&options.task.block_size)->default_value(options.task.block_size), "samples in each")  //
      ("encrypt", po::bool_switch(&options.encrypt), "the jobs run with --encrypt; the limits are not encrypted")     //
      ("machine-file", po::value(&options.machine_file)->default_value(options.machine_file), "three local ranks");
  hidden.add_options()("rank", po::bool_switch(&options.rank), "")  //
      ("regime", po::value(&options.task.regime), "")               //
      ("cpu-home", po::value(&options.task.cpu_home), "")           //
      ("cpu-here", po::value(&options.task.cpu_here), "");
  all.add(shown).add(hidden);
  po::variables_map map;
  po::store(po::command_line_parser(argc, argv).options(all).positional({}).run(), map);
  po::notify(map);
  const bool known = options.task.figure.empty() || bench::ranks_for(options.task.figure) != 0;
  if (!known) throw po::error("there is no figure '" + options.task.figure + "'");
  if (options.task.blocks < 1 || options.task.blocks > 10'000) throw po::error("--blocks must be 1 to 10000");
  if (options.task.block_size < 1 || options.task.block_size > 4096) throw po::error("--block-size must be 1 to 4096");
  if (map.count("help") != 0) std::cout << shown;
  return map.count("help") == 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  try {
    if (!parse(argc, argv, options)) return 0;
  } catch (const po::error& error) {
    std::cerr << "dsm_bench: " << error.what() << "\n";
    return 2;
  }
  try {
    if (!options.rank) return run_all(options);
    bench::run_rank(options.task, argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "dsm_bench: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
