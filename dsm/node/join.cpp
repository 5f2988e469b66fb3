#include "dsm/node/join.hpp"

#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>

#include "dsm/net/key_file.hpp"
#include "ipc/spawn.hpp"

namespace dsm::node {
namespace {

constexpr std::size_t lone_size = std::size_t{1} << 30U;  // of a job of one rank that nobody configured
constexpr int join_patience = 60;                         // seconds

std::optional<net::SessionAddress> chosen;

// Reads a decimal number from the environment. False if the variable is not set.
bool number_from(const char* variable, int& out) {
  const char* text = std::getenv(variable);
  if (text == nullptr) return false;
  const char* end = text + std::strlen(text);
  const auto [rest, error] = std::from_chars(text, end, out);
  if (error != std::errc() || rest != end || out < 0) {
    throw std::runtime_error(std::string(variable) + "=" + text + " is not a number; start the program with dsmexec");
  }
  return true;
}

net::JobKey take_key() {
  int fd = -1;
  if (!number_from(net::key_fd_variable, fd)) {
    throw std::runtime_error(
        "the job's key is missing: only a program that dsmexec started itself can join, and only once");
  }
  ::unsetenv(net::key_fd_variable);
  const ipc::Fd pipe(fd);
  net::JobKey key{};
  if (ipc::read_full(pipe.get(), key.data(), key.size()) != static_cast<ssize_t>(key.size())) {
    throw std::runtime_error("the job's key cannot be read from the descriptor that dsmexec passed on");
  }
  return key;
}

bool started_by_dsmexec() { return std::getenv("DSMEXEC_RANKID") != nullptr; }

net::Mesh join_job() {
  int rank = 0, port = 0;
  number_from("DSMEXEC_RANKID", rank);
  const char* host = std::getenv("DSMEXEC_HOSTNAME");
  if (host == nullptr || !number_from("DSMEXEC_PORTNUM", port) || port > 65535) {
    throw std::runtime_error("DSMEXEC_HOSTNAME or DSMEXEC_PORTNUM is missing; start the program with dsmexec");
  }
  const char* const text = std::getenv(net::ports_variable);
  const auto ports = text == nullptr ? net::PortRange{} : net::parse_ports(text);
  if (!ports) throw std::runtime_error(std::string(net::ports_variable) + "=" + text + " is no range of ports");
  int patience = join_patience;
  number_from(net::patience_variable, patience);
  return net::join({take_key(), std::getenv(net::encrypt_variable) != nullptr}, rank, host,
                   static_cast<std::uint16_t>(port), std::chrono::seconds(patience), *ports);
}

net::SessionAddress session() {
  if (chosen) return *chosen;
  const std::string text = std::getenv(session_variable);
  std::string why;
  if (auto address = net::parse_session(text, why)) return *std::move(address);
  throw BadSession(std::string(session_variable) + "=" + text + ": " + why);
}

net::Mesh join_session() {
  const net::SessionAddress where = session();
  return net::join_session(net::read_key_file(net::usual_key_file()), where, std::chrono::seconds(join_patience));
}

net::Mesh alone() {
  net::Mesh mesh;
  mesh.welcome.size = lone_size;
  mesh.welcome.page_size = static_cast<std::uint32_t>(::sysconf(_SC_PAGESIZE));
  return mesh;
}

}  // namespace

void choose_session(const char* where, int members) {
  const std::string text = where == nullptr ? "" : where;
  std::string why;
  auto address = net::parse_session(text, members, why);
  if (!address) throw BadSession("dsm_join(\"" + text + "\", " + std::to_string(members) + "): " + why);
  chosen = *std::move(address);
}

bool wants_session() { return !started_by_dsmexec() && (chosen || std::getenv(session_variable) != nullptr); }

net::Mesh join() {
  if (started_by_dsmexec()) return join_job();
  return wants_session() ? join_session() : alone();
}

}  // namespace dsm::node
