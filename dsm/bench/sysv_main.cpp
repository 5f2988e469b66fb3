// dshm_bench: what a fault through the agent costs, a counter that changes hands between two hosts, an attach and detach;
// each beside one round trip over TCP on this machine: with a page, for an attach without.
//
//   $ build/bin/dshm_bench
//   figure       regime          value      limit  ratio  samples  messages
//   sysv_fault   uffd        105.98 us   53.57 us   1.95     1280         -
//
// Two "hosts" on one machine: dsmd under two names has two agents. Host 0, its agent and the limits' client run on one CPU;
// dsmd, host 1 and the limits' server on another, if there is one.
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "dsm/bench/limits.hpp"
#include "dsm/bench/report.hpp"
#include "dsm/bench/sysv_member.hpp"
#include "dsm/dshm/userfault.hpp"
#include "ipc/error.hpp"
#include "ipc/program.hpp"
#include "ipc/spawn.hpp"

namespace {

namespace fs = std::filesystem;
using bench::Samples;
using bench::SysvCommand;
using Do = bench::SysvCommand::Do;

constexpr int command_fd = 3;
constexpr int key = 0x62656e63;  // of a dsmd that nobody else knows

struct Options {
  std::string output;
  std::uint32_t blocks = 20, block_size = 64;
  int member = -1;
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

std::string program(const char* name) { return (fs::read_symlink("/proc/self/exe").parent_path() / name).string(); }

// Ours, but for what is said here, and what is for the libdshm of others.
std::vector<std::string> environment(const std::vector<std::string>& more) {
  std::vector<std::string> all = more;
  for (char** each = environ; *each != nullptr; ++each) {
    const std::string text = *each;
    if (text.rfind("DSHM_", 0) != 0 && text.rfind("DSM_", 0) != 0) all.push_back(text);
  }
  return all;
}

class Folder {
 public:
  Folder() : path_((fs::temp_directory_path() / "dshm-bench-XXXXXX").string()) {
    if (::mkdtemp(path_.data()) == nullptr) ipc::throw_errno("mkdtemp " + path_);
  }
  Folder(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  [[nodiscard]] std::string key_file() const { return path_ + "/key"; }

 private:
  std::string path_;
};

// A program that is waited for in the end, after `signo` if that is not 0.
class Running {
 public:
  Running(const ipc::SpawnOptions& options, int signo) : pid_(ipc::spawn(options)), signo_(signo) {}
  Running(const Running&) = delete;
  ~Running() {
    if (signo_ != 0) ::kill(pid_, signo_);
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }

 private:
  pid_t pid_;
  int signo_;
};

class Dsmd {
 public:
  explicit Dsmd(const Folder& folder) : pipe_(ipc::make_pipe()), running_(options(folder), SIGTERM) {
    pipe_.write.reset();
    std::string said;
    char byte = 0;
    while (ipc::read_full(pipe_.read.get(), &byte, 1) == 1 && byte != '\n') said += byte;
    const std::string before = "dsmd: listens at 127.0.0.1:";
    if (said.rfind(before, 0) != 0) throw std::runtime_error("dsmd does not start: " + said);
    port_ = std::to_string(std::stoi(said.substr(before.size())));
  }
  [[nodiscard]] const std::string& port() const { return port_; }

 private:
  [[nodiscard]] ipc::SpawnOptions options(const Folder& folder) const {
    ipc::SpawnOptions options;
    options.arguments = {program("dsmd"), "--port", "0", "--key", folder.key_file()};
    options.environment = environment({});
    options.standard_error = pipe_.write.get();
    options.parent_death_signal = SIGTERM;
    return options;
  }
  ipc::Pipe pipe_;
  Running running_;
  std::string port_;
};

class Member {
 public:
  Member(const Options& o, int number, const Dsmd& dsmd, const Folder& folder, const std::string& pager) {
    int ends[2];
    ipc::check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), "socketpair");
    socket_ = ipc::Fd(ends[0]);
    const ipc::Fd other(ends[1]);
    ipc::SpawnOptions options;
    options.arguments = {program("dshmrun"),
                         "-s",
                         (number == 0 ? "127.0.0.1:" : "localhost:") + dsmd.port(),
                         program("dshm_bench"),
                         "--member",
                         std::to_string(number),
                         "--block-size",
                         std::to_string(o.block_size)};
    options.environment = environment({"DSHM_PAGER=" + pager, "DSM_KEY_FILE=" + folder.key_file()});
    options.descriptors = {{other.get(), command_fd}};
    running_.emplace(options, 0);
  }
  Member(const Member&) = delete;
  ~Member() { socket_.reset(); }  // which ends it, and then it is waited for

  void tell(const SysvCommand& command) const {
    if (ipc::write_full(socket_.get(), &command, sizeof command) < 0) ipc::throw_errno("tell a member");
  }
  [[nodiscard]] Samples answer() const {
    std::uint64_t size = 0;
    if (!read(&size, sizeof size)) throw std::runtime_error("a member has gone, see above");
    Samples samples(size);
    if (!read(samples.data(), size * sizeof samples[0])) throw std::runtime_error("a member has gone, see above");
    return samples;
  }
  [[nodiscard]] Samples ask(const SysvCommand& command) const {
    tell(command);
    return answer();
  }

 private:
  [[nodiscard]] bool read(void* to, std::size_t size) const {
    return ipc::read_full(socket_.get(), to, size) == static_cast<ssize_t>(size);
  }
  std::optional<Running> running_;
  ipc::Fd socket_;
};

// The two hosts of one regime.
struct Pair {
  const Member &zero, &one;
};

Samples block_of(const Pair& hosts, Do what, std::uint32_t count, std::uint64_t stamp) {
  const SysvCommand command{what, count, stamp};
  if (what == Do::fault) {
    static_cast<void>(hosts.one.ask({Do::write, count, stamp}));
    static_cast<void>(hosts.one.ask({Do::renew}));  // all it has written is with dsmd now
    static_cast<void>(hosts.zero.ask({Do::renew}));
  }
  if (what == Do::counter) hosts.one.tell(command);
  Samples samples = hosts.zero.ask(command);
  if (what == Do::counter) static_cast<void>(hosts.one.answer());
  return samples;
}

bench::Figure measure(const Options& o, const Pair& hosts, bench::Limits& limits, Do what, const char* name,
                      const std::string& regime) {
  const auto limit = what == Do::attach ? bench::Limits::What::echo : bench::Limits::What::page;
  Samples values, beside, ratios;
  // Block 0 warms up both sides, and is then forgotten.
  for (std::uint32_t block = 0; block <= o.blocks; ++block) {
    const Samples here = block_of(hosts, what, o.block_size, 1000 + block), there = limits.measure(limit);
    if (here.size() != o.block_size) throw std::runtime_error("a member has not taken its samples");
    if (block == 0) continue;
    values.insert(values.end(), here.begin(), here.end());
    beside.insert(beside.end(), there.begin(), there.end());
    ratios.push_back(bench::median(here) / bench::median(there));
  }
  return {name, regime, "us", bench::median(values), bench::median(beside), bench::median(ratios), values.size(), 0};
}

std::vector<bench::Figure> run_regime(const Options& o, const std::string& pager, const std::vector<int>& cpus,
                                      bench::Limits& limits) {
  const Folder folder;
  bench::pin(cpus.front());
  const Dsmd dsmd(folder);
  const Member one(o, 1, dsmd, folder, pager);  // and its agent, which it starts
  static_cast<void>(one.ask({Do::renew}));
  bench::pin(cpus.back());
  const Member zero(o, 0, dsmd, folder, pager);
  std::vector<bench::Figure> figures;
  for (const auto& [what, name] : {std::pair{Do::fault, "sysv_fault"}, std::pair{Do::counter, "sysv_counter"},
                                   std::pair{Do::attach, "sysv_attach"}}) {
    figures.push_back(measure(o, {zero, one}, limits, what, name, pager));
    std::cout << bench::row(figures.back()) << std::endl;
  }
  return figures;
}

int run_all(const Options& o) {
  const std::vector<int> cpus = allowed_cpus();
  bench::Limits limits(cpus.back(), cpus.front(), {o.block_size, 1});
  const bool uffd = ipc::Fd(dsm::dshm::open_userfault()).get() >= 0;
  std::vector<bench::Figure> figures;
  std::cout << bench::header() << std::endl;
  for (const std::string pager : {"uffd", "sigsegv"}) {
    if (pager == "uffd" && !uffd) continue;
    const auto more = run_regime(o, pager, cpus, limits);
    figures.insert(figures.end(), more.begin(), more.end());
  }
  if (!uffd) std::cerr << "dshm_bench: userfaultfd is not allowed here, so there is no regime uffd; be root\n";
  if (!o.output.empty()) {
    std::ofstream out(o.output);
    out << bench::file(figures);
    if (!out.flush()) ipc::throw_errno("write " + o.output);
  }
  return 0;
}

int run(int argc, char** argv) {
  Options o;
  ipc::Program about;
  about.usage = "dshm_bench [options]\nMeasures System V segments between two hosts.";
  about.options.add_options()("output,o", ipc::po::value(&o.output), "write the figures there, as JSON");
  ipc::add_number(about.options, "blocks", o.blocks, 1U, 10'000U, "blocks of samples");
  ipc::add_number(about.options, "block-size", o.block_size, 1U, 4096U, "samples in each");
  ipc::add_number(about.options, "member", o.member, -1, 1, "0 or 1: be that host's process, as dshm_bench starts it");
  return ipc::run_program(argc, argv, about, [&](const auto&) {
    if (o.member < 0) return run_all(o);
    bench::run_sysv_member(command_fd, o.member, key, o.block_size);
    return 0;
  });
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "dshm_bench: %s\n", error.what());
    return 1;
  }
}
