// dsmd - a standing daemon: programs that were started by hand join its sessions and share memory; and System V IPC
// across hosts.
//
//   $ dsmd &
//   dsmd: listens at 127.0.0.1:8080; the key file is /home/me/.config/dsm/key
//   $ DSM_SESSION=localhost:8080/pi:2 pi & DSM_SESSION=localhost:8080/pi:2 pi
//   pi is 3.141592653590
//
// It brings a session's members together, tells them of each other, and hears how they end; their pages travel between
// them, not by here. session.hpp has the rules, server.hpp the loop. And it is the home of System V segments and semaphores
// that programs under dshmrun share across hosts: sysv_home.hpp; those pages do come by here.
#include <fmt/format.h>
#include <malloc.h>
#include <sys/resource.h>

#include <cstdio>
#include <optional>
#include <stdexcept>
#include <system_error>

#include "dsm/daemon/server.hpp"
#include "dsm/net/address.hpp"
#include "dsm/net/key_file.hpp"

namespace dsm::daemon {
namespace {

// A descriptor for each member.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

// A table with an entry for each page of a segment is the kernel's zeros, always. By itself malloc would keep large ones
// for the next segment, and clear them: 10 ms in which nobody is heard.
void keep_no_tables() { (void)::mallopt(M_MMAP_THRESHOLD, 128 << 10); }

int serve(const Options& options) {
  keep_no_tables();
  raise_descriptor_limit();
  const std::string path = options.key.empty() ? net::usual_key_file() : options.key;
  const net::JobKey key = net::read_or_make_key_file(path);
  const auto at = [&](std::uint16_t port) { return net::Address{options.listen, port}.text(); };
  std::optional<Server> server;
  try {
    server.emplace(options, key);
  } catch (const std::system_error& error) {
    throw std::runtime_error(
        fmt::format("cannot listen at {}: {} (--listen names another address, --port another port)", at(options.port),
                    error.code().message()));
  }
  std::fputs(fmt::format("dsmd: listens at {}; the key file is {}\n", at(server->port()), path).c_str(), stderr);
  return server->run() ? 0 : 1;
}

}  // namespace
}  // namespace dsm::daemon

int main(int argc, char** argv) {
  ipc::Program about{
      "dsmd [options]\n"
      "Serves sessions: programs that were started by hand and share memory. They find it by\n"
      "DSM_SESSION=host:port/name:N in their environment, or by dsm_join.\n"
      "And is the home of System V shared memory and semaphores for programs that dshmrun starts,\n"
      "here and on other hosts: these last until they are removed, or dsmd ends.",
      ipc::po::options_description("options")};
  dsm::daemon::describe(about.options);
  return ipc::run_program(argc, argv, about, [](const ipc::po::variables_map& values) {
    if (values.count("version") == 0) return dsm::daemon::serve(dsm::daemon::read_options(values));
    ipc::say("dsmd 0.1");
    return 0;
  });
}
