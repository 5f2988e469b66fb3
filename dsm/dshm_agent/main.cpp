// dshm_agent - the agent of System V IPC on one host: libdshm starts it, and it ends by itself.
//
//   $ dshm_agent --server localhost:8080 --ready-fd 3
//
// One for each user and server. On the descriptor it writes one line, and closes it: "ready" (it listens), "taken"
// (another one does), or what went wrong. It connects to dsmd before it is ready: so who is told "taken" finds one that
// serves.
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <system_error>

#include "dsm/dshm_agent/agent.hpp"
#include "dsm/net/key_file.hpp"
#include "ipc/program.hpp"
#include "ipc/socket.hpp"
#include "ipc/spawn.hpp"

namespace dsm::dshm_agent {
namespace {

// What it has from the program that started it, whose fellows it serves, too. As far as it may.
void shed_inheritance() {
  ::signal(SIGHUP, SIG_IGN);  // it may outlive the terminal of whoever started it
  // NOFILE: a descriptor or two for each process and segment.
  for (const auto resource : {RLIMIT_NOFILE, RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_AS}) {
    rlimit limit{};
    if (::getrlimit(resource, &limit) != 0) continue;
    limit.rlim_cur = limit.rlim_max;
    (void)::setrlimit(resource, &limit);
  }
  cpu_set_t all;  // the kernel takes of it those that there are, and that the cpuset allows
  std::memset(&all, 0xff, sizeof all);
  (void)::sched_setaffinity(0, sizeof all, &all);
}

void report(ipc::Fd& ready, const std::string& line) {
  const std::string text = line + "\n";
  (void)ipc::write_full(ready.get(), text.data(), text.size());  // who started us may have gone
  ready.reset();
}

// Nothing if another agent has the name.
ipc::Fd listen(const std::string& name) {
  try {
    return ipc::listen_abstract(name, SOCK_SEQPACKET, 128);
  } catch (const std::system_error& error) {
    if (error.code().value() != EADDRINUSE) throw;
    return {};
  }
}

int serve(const std::string& server, ipc::Fd ready) {
  try {
    shed_inheritance();
    if (const long page = ::sysconf(_SC_PAGESIZE); page != static_cast<long>(sysv::page_bytes)) {
      throw std::runtime_error("this machine has pages of " + std::to_string(page) +
                               " bytes; segments of dsmd's need " + std::to_string(sysv::page_bytes) +
                               " (getconf PAGESIZE)");
    }
    const net::JobKey key = net::read_key_file(net::usual_key_file());  // may be named from the folder we are in
    if (::chdir("/") != 0) throw std::system_error(errno, std::generic_category(), "chdir /");  // keeps none busy
    Upstream upstream(server, key);
    ipc::Fd listener = listen(agent_name(::geteuid(), server));
    if (!listener) {
      upstream.close(boot_ns() + 1'000'000'000);
      report(ready, "taken");
      return 0;
    }
    Agent agent(std::move(listener), std::move(upstream));
    report(ready, "ready");
    agent.run();
    return 0;
  } catch (const std::exception& error) {
    if (!ready) throw;
    report(ready, std::string("dshm_agent: ") + error.what());
    return 1;
  }
}

}  // namespace
}  // namespace dsm::dshm_agent

int main(int argc, char** argv) {
  ipc::Program about{
      "dshm_agent --server HOST:PORT --ready-fd N\nServes this user's processes on this host that use System V IPC of "
      "that "
      "dsmd.\nlibdshm starts it when it is needed; it ends when the last process has left.",
      ipc::po::options_description("options")};
  auto add = about.options.add_options();
  add("server", ipc::po::value<std::string>()->value_name("HOST:PORT")->required(), "where dsmd is");
  int ready_fd = 1;
  ipc::add_number(about.options, "ready-fd", ready_fd, 0, 1 << 20, "where to say that it listens");
  return ipc::run_program(argc, argv, about, [&](const ipc::po::variables_map& values) {
    return dsm::dshm_agent::serve(values["server"].as<std::string>(), ipc::Fd(ready_fd));
  });
}
