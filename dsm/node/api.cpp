// The C API of <dsm/dsm.h>: one job per process, made by dsm_init and unmade by dsm_finalize. (The rest of it: api_*.cpp.)
#include <dsm/dsm.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>

#include "dsm/net/mesh.hpp"
#include "dsm/node/job.hpp"
#include "dsm/pager/disposition.hpp"
#include "dsm/pager/kind.hpp"
#include "dsm/pager/region.hpp"
#include "ipc/error.hpp"
#include "ipc/spawn.hpp"

int DSM_NODE_ID = 0;
int DSM_NODE_NUM = 1;

namespace {

using dsm::node::Job;
using dsm::node::Node;

enum class Phase { before, joined, finalized };
Phase phase = Phase::before;
// Leaked when the program ends without dsm_finalize: threads may still be using it then.
Job*& job = dsm::node::current_job;

constexpr std::size_t lone_size = std::size_t{1} << 30U;  // of a job of one rank that nobody configured
constexpr int join_patience = 60;                         // seconds

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

dsm::net::JobKey take_key() {
  int fd = -1;
  if (!number_from(dsm::net::key_fd_variable, fd)) {
    throw std::runtime_error(
        "the job's key is missing: only a program that dsmexec started itself can join, and only once");
  }
  ::unsetenv(dsm::net::key_fd_variable);
  const ipc::Fd pipe(fd);
  dsm::net::JobKey key{};
  if (ipc::read_full(pipe.get(), key.data(), key.size()) != static_cast<ssize_t>(key.size())) {
    throw std::runtime_error("the job's key cannot be read from the descriptor that dsmexec passed on");
  }
  return key;
}

dsm::net::Mesh join_job() {
  int rank = 0;
  if (!number_from("DSMEXEC_RANKID", rank)) {
    dsm::net::Mesh alone;
    alone.welcome.size = lone_size;
    alone.welcome.page_size = static_cast<std::uint32_t>(::sysconf(_SC_PAGESIZE));
    return alone;
  }
  int port = 0;
  const char* host = std::getenv("DSMEXEC_HOSTNAME");
  if (host == nullptr || !number_from("DSMEXEC_PORTNUM", port) || port > 65535) {
    throw std::runtime_error("DSMEXEC_HOSTNAME or DSMEXEC_PORTNUM is missing; start the program with dsmexec");
  }
  const char* const text = std::getenv(dsm::net::ports_variable);
  const auto ports = text == nullptr ? dsm::net::PortRange{} : dsm::net::parse_ports(text);
  if (!ports) throw std::runtime_error(std::string(dsm::net::ports_variable) + "=" + text + " is no range of ports");
  int patience = join_patience;
  number_from(dsm::net::patience_variable, patience);
  return dsm::net::join({take_key(), std::getenv(dsm::net::encrypt_variable) != nullptr}, rank, host,
                        static_cast<std::uint16_t>(port), std::chrono::seconds(patience), *ports);
}

std::unique_ptr<Job> make_job() {
  dsm::net::Mesh mesh = join_job();
  const dsm::net::Welcome& welcome = mesh.welcome;
  const int ranks = mesh.links.empty() ? 1 : static_cast<int>(mesh.links.size());
  Node::Options options;
  if (!dsm::core::parse(welcome.protocol, options.protocol)) {
    throw std::runtime_error("this libdsm does not know the protocol '" + welcome.protocol + "'");
  }
  if (!dsm::core::parse(welcome.home, options.placement)) {
    throw std::runtime_error("this libdsm does not know the placement '" + welcome.home + "'");
  }
  dsm::pager::Kind kind{};
  if (!dsm::pager::parse(welcome.pager, kind)) {
    throw std::runtime_error("this libdsm does not know the pager '" + welcome.pager + "'");
  }
  options.page_size = welcome.page_size;
  options.patience.spin_us = welcome.spin_us;
  const std::size_t pages = welcome.size / welcome.page_size;  // of the application
  const std::size_t size = pages * options.page_size;
  const std::size_t own = dsm::node::OwnArea(nullptr, options.page_size, static_cast<std::size_t>(ranks)).size();
  options.pages = pages + 1 + own / options.page_size;  // and the one between them that is nobody's

  auto made = std::make_unique<Job>();
  made->publisher = std::make_unique<dsm::telemetry::Publisher>(
      static_cast<std::uint32_t>(mesh.rank), static_cast<std::uint32_t>(ranks), welcome.page_size, pages,
      welcome.protocol, options.placement == dsm::core::Placement::cyclic ? static_cast<std::uint32_t>(ranks) : 1U);
  made->node = std::make_unique<Node>(std::move(mesh), options, *made->publisher);
  made->pager = dsm::pager::make(kind, size, options.page_size, *made->node, own);
  static_assert(sizeof(dsm::node::Heap::Root) <= dsm::node::OwnArea::root_bytes);
  made->heap = std::make_unique<dsm::node::Heap>(*reinterpret_cast<dsm::node::Heap::Root*>(made->own().heap_root()),
                                                 made->pager->base(), size, options.page_size);
  made->node->start(*made->pager);
  return made;
}

// In a forked child there is no region, no service thread and no job: every call fails as before dsm_init.
void forget_in_child() {
  job = nullptr;
  DSM_NODE_ID = 0;
  DSM_NODE_NUM = 1;
}

// Where the region was, once dsm_finalize has unmapped it: who touches it there is told what is wrong, not only killed.
std::uintptr_t former_base = 0;
std::size_t former_size = 0;

void on_late_touch(int signo, siginfo_t* info, void* context) {
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  if (info->si_code != SEGV_MAPERR || address - former_base >= former_size) {
    return dsm::pager::forward(signo, info, context);
  }
  char rank[12];
  const char* const end = std::to_chars(rank, rank + sizeof rank, DSM_NODE_ID).ptr;
  dsm::pager::say({"dsm: rank ",
                   {rank, static_cast<std::size_t>(end - rank)},
                   ": the region was touched after dsm_finalize: the job is over for this process"});
  std::abort();
}

}  // namespace

Job* dsm::node::current_job = nullptr;

Job* dsm::node::job_for(const char* function) noexcept {
  if (job == nullptr && phase == Phase::finalized) {
    std::fprintf(stderr, "dsm: rank %d: %s after dsm_finalize: the job is over for this process\n", DSM_NODE_ID,
                 function);
    std::abort();
  }
  if (job == nullptr) errno = ENOTCONN;
  return job;
}

extern "C" {

using dsm::node::result;

char* dsm_init(int, char**) {
  if (phase != Phase::before) {
    errno = EALREADY;
    return nullptr;
  }
  const char* rank = std::getenv("DSMEXEC_RANKID");
  try {
    ipc::check(::pthread_atfork(nullptr, nullptr, forget_in_child) == 0 ? 0 : -1, "pthread_atfork");
    job = make_job().release();
  } catch (const std::system_error& e) {
    std::fprintf(stderr, "dsm: rank %s: %s\n", rank == nullptr ? "0" : rank, e.what());
    errno = e.code().value();
    return nullptr;
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "dsm: rank %s: no memory for the tables of the region; ask for a smaller one with --size\n",
                 rank == nullptr ? "0" : rank);
    errno = ENOMEM;
    return nullptr;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "dsm: rank %s: %s\n", rank == nullptr ? "0" : rank, e.what());
    errno = EPROTO;
    return nullptr;
  }
  phase = Phase::joined;
  DSM_NODE_ID = job->node->rank();
  DSM_NODE_NUM = job->node->ranks();
  using Report = dsm::net::Report;
  if (job->publisher->id() >= 0) job->node->tell({Report::Phase::telemetry, job->publisher->id()});
  job->node->tell({Report::Phase::running, 0});
  return job->pager->base();
}

void dsm_finalize(void) {
  if (dsm::node::job_for("dsm_finalize") == nullptr) return;
  job->node->finalize();
  job->node->tell({dsm::net::Report::Phase::finalized, 0});
  phase = Phase::finalized;
  former_base = reinterpret_cast<std::uintptr_t>(job->pager->base());
  former_size = job->pager->size();
  delete std::exchange(job, nullptr);
  dsm::pager::capture(&on_late_touch);
}

size_t dsm_size(void) { return job == nullptr ? 0 : job->pager->size(); }
size_t dsm_page_size(void) { return job == nullptr ? 0 : job->pager->page_size(); }

int dsm_stats(struct dsm_stats* out) {
  if (dsm::node::job_for("dsm_stats") == nullptr) return -1;
  if (out == nullptr) return result(EINVAL);
  const dsm::telemetry::Counters& c = job->publisher->counters();
  const auto get = [](const std::atomic<std::uint64_t>& counter) { return counter.load(std::memory_order_relaxed); };
  *out = {.read_faults = get(c.read_faults),
          .write_faults = get(c.write_faults),
          .messages = get(c.messages),
          .bytes_out = get(c.bytes_out),
          .bytes_in = get(c.bytes_in),
          .invalidations = get(c.invalidations),
          .recalls = get(c.recalls),
          .grants = get(c.grants),
          .wasted_grants = get(c.wasted_grants),
          .lock_waits = get(c.lock_waits),
          .barriers = get(c.barriers)};
  return 0;
}

}  // extern "C"
