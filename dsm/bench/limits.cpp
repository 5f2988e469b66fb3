#include "dsm/bench/limits.hpp"

#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <numeric>
#include <random>
#include <stdexcept>

#include "ipc/error.hpp"
#include "ipc/mapping.hpp"
#include "ipc/signals.hpp"
#include "ipc/socket.hpp"
#include "ipc/spawn.hpp"

namespace bench {
namespace {

using Clock = std::chrono::steady_clock;

double microseconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::micro>(to - from).count();
}

void receive(int fd, void* to, std::size_t size) {
  const ssize_t got = ipc::read_full(fd, to, size);
  if (got < 0) ipc::throw_errno("read from the partner");
  if (static_cast<std::size_t>(got) != size) throw std::runtime_error("the partner has closed the connection");
}

void send(int fd, const void* from, std::size_t size) {
  if (ipc::write_full(fd, from, size) < 0) ipc::throw_errno("write to the partner");
}

// ---- the server: answers until end of file ----

void serve(int fd, std::uint32_t pages) {
  std::vector<char> memory(pages * page_bytes, 'p');
  std::array<char, message_bytes> request{}, header{};
  for (std::uint32_t next = 0;; next = (next + 1) % pages) {
    if (ipc::read_full(fd, request.data(), request.size()) != static_cast<ssize_t>(request.size())) return;
    iovec parts[2] = {{header.data(), header.size()}, {memory.data() + next * page_bytes, page_bytes}};
    const bool page = request[0] == static_cast<char>(Limits::What::page);
    if (::writev(fd, parts, page ? 2 : 1) < 0) return;
  }
}

// ---- the client ----

Samples ask(int fd, Limits::What what, std::size_t count) {
  std::array<char, message_bytes> request{};
  request[0] = static_cast<char>(what);
  std::array<char, message_bytes + page_bytes> answer{};
  const std::size_t size = message_bytes + (what == Limits::What::page ? page_bytes : 0);
  Samples samples;
  samples.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    const auto begin = Clock::now();
    send(fd, request.data(), request.size());
    receive(fd, answer.data(), size);
    samples.push_back(microseconds(begin, Clock::now()));
  }
  return samples;
}

int opened_protection = PROT_NONE;

void open_page(int, siginfo_t* info, void*) {
  const auto address = ipc::page_floor(reinterpret_cast<std::uintptr_t>(info->si_addr));
  if (ipc::protect(reinterpret_cast<void*>(address), page_bytes, opened_protection) != 0) ::_exit(1);
}

Samples take_faults(const ipc::TwoViews& views, const std::vector<std::uint32_t>& order, bool write) {
  opened_protection = write ? PROT_READ | PROT_WRITE : PROT_READ;
  const ipc::ScopedAction handler(SIGSEGV, open_page, 0, ipc::all_signals());
  ipc::check(ipc::protect(views.application.data(), views.application.size(), PROT_NONE) == 0 ? 0 : -1, "mprotect");
  Samples samples;
  samples.reserve(order.size());
  for (const std::uint32_t page : order) {
    volatile char* byte = views.application.data() + page * page_bytes;
    const auto begin = Clock::now();
    if (write) {
      *byte = 1;
    } else {
      static_cast<void>(*byte);
    }
    samples.push_back(microseconds(begin, Clock::now()));
  }
  return samples;
}

void run_client(int control, int server, const Pattern& pattern) {
  const auto order = pattern.order();
  const std::size_t bytes = pattern.count * pattern.stride * page_bytes;
  const ipc::TwoViews views = ipc::map_two_views(bytes, nullptr);
  std::memset(views.alias.data(), 1, bytes);
  Limits::What what{};
  while (ipc::read_full(control, &what, sizeof what) == sizeof what) {
    const bool local = what == Limits::What::read_fault || what == Limits::What::write_fault;
    const Samples samples =
        local ? take_faults(views, order, what == Limits::What::write_fault) : ask(server, what, pattern.count);
    send(control, samples.data(), samples.size() * sizeof samples[0]);
  }
}

// A child that goes when its parent goes; runs `body` and never returns into the parent's code.
template <class Body>
pid_t start(int cpu, const Body& body) {
  const pid_t parent = ::getpid();
  const pid_t pid = ipc::check(::fork(), "fork");
  if (pid != 0) return pid;
  int status = 1;
  try {
    ipc::check(::prctl(PR_SET_PDEATHSIG, SIGKILL), "prctl");
    if (::getppid() == parent) {
      pin(cpu);
      body();
      status = 0;
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench: limits: %s\n", error.what());
  }
  ::_exit(status);
}

struct Pair {
  ipc::Fd one, other;
};

Pair tcp_pair() {
  const ipc::Fd listener = ipc::listen_tcp("127.0.0.1", 0);
  Pair pair;
  pair.one = ipc::connect_tcp("127.0.0.1", ipc::local_port(listener.get()), 5000);
  ipc::set_nonblocking(listener.get(), false);
  pair.other = ipc::Fd(ipc::check(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC), "accept"));
  for (const int fd : {pair.one.get(), pair.other.get()}) {
    ipc::set_nodelay(fd);
    ipc::set_nonblocking(fd, false);
  }
  return pair;
}

Pair local_pair() {
  int ends[2];
  ipc::check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), "socketpair");
  return {ipc::Fd(ends[0]), ipc::Fd(ends[1])};
}

}  // namespace

std::vector<std::uint32_t> Pattern::order() const {
  std::vector<std::uint32_t> pages(count);
  std::iota(pages.begin(), pages.end(), 0U);
  std::shuffle(pages.begin(), pages.end(), std::mt19937(1));  // NOLINT: the same order every time is wanted
  for (auto& page : pages) page *= stride;
  return pages;
}

Limits::Limits(int client_cpu, int server_cpu, Pattern pattern) : pattern_(pattern) {
  Pair control = local_pair();
  client_ = start(client_cpu, [&] {
    control.one.reset();
    Pair connection = tcp_pair();
    const pid_t server = start(server_cpu, [&] {
      control.other.reset();
      connection.one.reset();
      serve(connection.other.get(), pattern.count);
    });
    connection.other.reset();
    run_client(control.other.get(), connection.one.get(), pattern);
    connection.one.reset();  // end of file for the server
    ::waitpid(server, nullptr, 0);
  });
  control_ = std::move(control.one);
}

Limits::~Limits() {
  control_.reset();  // end of file for the client
  ::waitpid(client_, nullptr, 0);
}

Samples Limits::measure(What what) {
  Samples samples(pattern_.count);
  send(control_.get(), &what, sizeof what);
  receive(control_.get(), samples.data(), samples.size() * sizeof samples[0]);
  return samples;
}

void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(cpu), &set);
  ipc::check(::sched_setaffinity(0, sizeof set, &set), "sched_setaffinity");
}

double median(Samples samples) {
  if (samples.empty()) return 0;
  const auto middle = samples.begin() + static_cast<std::ptrdiff_t>(samples.size() / 2);
  std::nth_element(samples.begin(), middle, samples.end());
  return *middle;
}

}  // namespace bench
