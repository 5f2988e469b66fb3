// dsmexec - starts a program on many machines and sees it through (interfaces of the pieces: launch/*.hpp).
//
//   $ dsmexec -n 2 machine_file echo hello
//   [Proc 0 : localhost : stdout] hello
//   [Proc 1 : localhost : stdout] hello
#include <fcntl.h>
#include <fmt/format.h>
#include <pwd.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "dsm/launch/agent.hpp"
#include "dsm/launch/dry_run.hpp"
#include "dsm/launch/guard.hpp"
#include "dsm/launch/machine_file.hpp"
#include "dsm/launch/options.hpp"
#include "dsm/launch/program.hpp"
#include "dsm/launch/runner.hpp"
#include "dsm/launch/slurm.hpp"
#include "dsm/launch/srun.hpp"
#include "dsm/launch/ssh.hpp"

namespace dsm::launch {
namespace {

// Why the job cannot be started, and the exit code that says so.
struct Refused {
  int code;
  std::string why;
};

std::string user_name() {
  const passwd* entry = ::getpwuid(::geteuid());
  return entry != nullptr ? entry->pw_name : std::to_string(::geteuid());
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

bool is_folder(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_directory(path, error);
}

// The folder of --output DIR is made if it is not there; its parent is not.
void make_output_folder(const std::string& output) {
  if (output == "tag" || output == "plain" || is_folder(output)) return;
  if (::mkdir(output.c_str(), 0777) != 0) {
    throw Refused{exit_trouble, fmt::format("--output {}: cannot make this folder: {}", output, std::strerror(errno))};
  }
}

// For measurements: how long waiting threads of ranks spin, in microseconds.
std::optional<std::uint32_t> forced_spin() {
  const std::string text = environment("DSMEXEC_SPIN_US");
  if (text.empty()) return std::nullopt;
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > 1'000'000) {
    throw Refused{exit_trouble, fmt::format("DSMEXEC_SPIN_US={}: microseconds from 0 to 1000000 are needed", text)};
  }
  return value;
}

std::shared_ptr<const Remote> remote_for(const Options& options) {
  if (options.launcher == Launcher::slurm && options.encrypt) {
    throw Refused{exit_trouble,
                  "--encrypt: srun would carry the job's key, and Slurm need not encrypt that; say "
                  "--launcher ssh, too"};
  }
  if (options.launcher == Launcher::slurm) return std::make_shared<Srun>(slurm_job("--launcher slurm"));
  return std::make_shared<Ssh>(options.ssh);
}

void require_rank(const char* option, int rank, std::size_t ranks) {
  if (rank < static_cast<int>(ranks)) return;
  throw Refused{exit_trouble, fmt::format("{} {}: the job has {}", option, rank,
                                          ranks == 1 ? "one rank, 0" : fmt::format("ranks 0 to {}", ranks - 1))};
}

Runner::Plan make_plan(Options options) {
  const bool listed = options.machine_file == "-";
  const auto machines = listed ? slurm_machines() : read_machine_file(options.machine_file);
  const int ranks = options.ranks != 0 ? options.ranks : slots_of(machines);
  if (ranks > max_job_ranks) {
    throw Refused{exit_trouble, fmt::format("{} stands for {} ranks, more than {}: say -n", options.machine_file, ranks,
                                            max_job_ranks)};
  }
  const auto placed = place(machines, ranks);
  Runner::Plan plan;
  plan.remote = remote_for(options);
  for (const Machine& machine : placed) plan.hosts.push_back(machine.host);
  const Self self{own_names(machines), user_name()};
  plan.sites = sites_of(placed, options.launcher, self, options.machine_file);
  // On other machines only they know what is there.
  const bool here = std::any_of(plan.sites.begin(), plan.sites.end(), [](const Site& site) { return site.local; });
  const auto is_other = [&self](const Site& site) { return !is_this_machine(site.machine.host, self.names); };
  if (is_this_machine(options.interface, {}) && std::any_of(plan.sites.begin(), plan.sites.end(), is_other)) {
    throw Refused{exit_trouble,
                  fmt::format("--iface {}: the other machines cannot reach this one there; name an address "
                              "that they can connect to",
                              options.interface)};
  }
  if (here && !options.wdir.empty() && !is_folder(options.wdir)) {
    throw Refused{exit_trouble, fmt::format("--wdir {}: there is no such folder", options.wdir)};
  }
  require_rank("--debug-rank", options.debugged, plan.hosts.size());
  require_rank("--stdin", options.input, plan.hosts.size());
  plan.spin_us = forced_spin();
  const char* path = std::getenv("PATH");
  const Program program =
      find_program(options.program, options.wdir, own_folder(), path != nullptr ? path : "/usr/bin:/bin");
  const bool theirs = !here && !options.send && options.program.find('/') != std::string::npos;
  if (program.code != 0 && !theirs) throw Refused{program.code, program.why};
  plan.program = theirs ? options.program : program.path;
  if (!options.dry_run) make_output_folder(options.output);
  plan.options = std::move(options);
  return plan;
}

// A standard descriptor that was closed would be taken by the next open(). Each gets one on which its own use fails.
void fill_standard_descriptors() {
  for (const int fd : {0, 1, 2}) {
    if (::fcntl(fd, F_GETFD) == -1) (void)!::open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
  }
}

int complain(int code, const std::string& why) {
  std::fputs(fmt::format("dsmexec: {}\n", why).c_str(), stderr);
  return code;
}

int print(const std::string& text) {
  if (std::fputs(text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0) return 0;
  return complain(exit_trouble, fmt::format("cannot write standard output: {}", std::strerror(errno)));
}

[[noreturn]] void die_of(int signo) {
  ::signal(signo, SIG_DFL);
  const sigset_t set = ipc::signal_set({signo});
  ::raise(signo);
  ::sigprocmask(SIG_UNBLOCK, &set, nullptr);
  ::_exit(128 + signo);
}

// What dsmexec is started as on a job's machines, by itself.
std::optional<int> serve_job(const std::vector<std::string>& arguments) {
  const std::string first = arguments.empty() ? "" : arguments.front();
  const std::size_t count = arguments.size();
  if (first == "--agent" && (count == 1 || (count == 2 && arguments[1] == "remote"))) return agent_main(count == 2);
  if (first == "--guard" && count == 2) return guard_main(arguments[1], std::nullopt);
  if (first == "--guard" && count == 4) return guard_main(arguments[1], CopyScript{arguments[2], arguments[3]});
  if (first == "--hash" && count == 1) return print(own_identity() + "\n");
  return std::nullopt;
}

int run(const std::vector<std::string>& arguments) {
  Options options = parse_options(arguments);
  if (options.version) return print(version_text());
  if (options.help || options.help_all) return print(help_text(options.help_all));
  Runner::Plan plan = make_plan(std::move(options));
  if (plan.options.dry_run) return print(describe(plan));
  Runner runner(std::move(plan));
  const int code = runner.run();
  if (runner.die_of() != 0) die_of(runner.die_of());
  return code;
}

}  // namespace
}  // namespace dsm::launch

int main(int argc, char** argv) {
  using namespace dsm::launch;
  fill_standard_descriptors();
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  try {
    const std::optional<int> served = serve_job(arguments);
    return served ? *served : run(arguments);
  } catch (const Refused& refused) {
    return complain(refused.code, refused.why);
  } catch (const std::exception& error) {  // misuse among them: its text is one line
    return complain(exit_trouble, error.what());
  }
}
