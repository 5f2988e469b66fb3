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
#include "dsm/node/end_session.hpp"
#include "dsm/node/job.hpp"
#include "dsm/node/join.hpp"
#include "dsm/pager/disposition.hpp"
#include "dsm/pager/kind.hpp"
#include "dsm/pager/region.hpp"
#include "ipc/error.hpp"

int DSM_NODE_ID = 0;
int DSM_NODE_NUM = 1;

namespace {

using dsm::node::Job;
using dsm::node::Node;

enum class Phase { before, joined, finalized };
Phase phase = Phase::before;
// Leaked when the program ends without dsm_finalize: threads may still be using it then.
Job*& job = dsm::node::current_job;

std::unique_ptr<Job> make_job() {
  dsm::net::Mesh mesh = dsm::node::join();
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

// Why, on stderr, and as dsm_init says it. Who comes to dsmd may have no rank yet.
char* no_job(const char* why, int error) {
  const char* const rank = std::getenv("DSMEXEC_RANKID");
  if (rank == nullptr && dsm::node::wants_session()) {
    std::fprintf(stderr, "dsm: %s\n", why);
  } else {
    std::fprintf(stderr, "dsm: rank %s: %s\n", rank == nullptr ? "0" : rank, why);
  }
  errno = error;
  return nullptr;
}

// In a forked child there is no region, no service thread and no job: every call fails as before dsm_init.
void forget_in_child() {
  if (job != nullptr) job->node->close_in_child();
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

int dsm_join(const char* where, int members) {
  if (phase != Phase::before) return result(EALREADY);
  try {
    dsm::node::choose_session(where, members);
    return 0;
  } catch (const dsm::node::BadSession& e) {
    std::fprintf(stderr, "dsm: %s\n", e.what());
    return result(EINVAL);
  } catch (const std::bad_alloc&) {
    return result(ENOMEM);
  }
}

char* dsm_init(int, char**) {
  if (phase != Phase::before) {
    errno = EALREADY;
    return nullptr;
  }
  try {
    ipc::check(::pthread_atfork(nullptr, nullptr, forget_in_child) == 0 ? 0 : -1, "pthread_atfork");
    job = make_job().release();
  } catch (const dsm::node::BadSession& e) {
    return no_job(e.what(), EINVAL);
  } catch (const dsm::net::SessionOver& e) {
    dsm::node::end_session(e.rank, e.what());
  } catch (const std::system_error& e) {
    // A name that cannot be resolved has no errno.
    return no_job(e.what(), e.code().value() > 0 ? e.code().value() : EHOSTUNREACH);
  } catch (const std::bad_alloc&) {
    return no_job("no memory for the tables of the region; ask for a smaller one with --size", ENOMEM);
  } catch (const std::exception& e) {
    return no_job(e.what(), EPROTO);
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
