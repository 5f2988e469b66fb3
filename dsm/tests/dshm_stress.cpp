// dshm_stress - processes that share by System V calls, and verify what they see. Plain System V: it runs natively, and
// under dshmrun on many hosts.
//
//   $ dshm_stress count 4711 --members 2 --threads 2 --count 100000 & dshm_stress count 4711 --members 2 --threads 2 --count 100000
//   count: 400000 in all
#include "dsm/tests/dshm_stress.hpp"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/sem.h>
#include <unistd.h>

#include <csetjmp>
#include <functional>
#include <map>
#include <thread>
#include <vector>

#include "ipc/program.hpp"

namespace dshm_stress {
namespace {

void in_threads(int threads, const std::function<void()>& body) {
  std::vector<std::thread> all;
  for (int i = 0; i < threads; ++i) all.emplace_back(body);
  for (std::thread& one : all) one.join();
}

sigjmp_buf after_wild_pointer;
void on_sigsegv(int) { siglongjmp(after_wild_pointer, 1); }

// What a program may do that has never heard of the one whose pages it touches.
void be_rude() {
  ipc::check(::close_range(3, ~0U, 0), "close_range");
  struct sigaction mine {};
  mine.sa_handler = on_sigsegv;
  ipc::check(::sigaction(SIGSEGV, &mine, nullptr), "sigaction");
  void* const closed = ::mmap(nullptr, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  expect(closed != MAP_FAILED, "mmap");
  if (sigsetjmp(after_wild_pointer, 1) == 0) {
    *static_cast<volatile int*>(closed) = 1;
    throw std::runtime_error("a wild pointer went unnoticed");
  }
}

[[noreturn]] void wait_to_be_killed() {
  for (;;) ::pause();
}

}  // namespace

int count(const Options& options) {
  const Segment segment(options.key, 1);
  if (options.rude) be_rude();
  auto& counter = segment.at<std::atomic<std::uint64_t>>(0);
  meet(segment.control(), options.members);
  in_threads(options.threads, [&] {
    for (long i = 0; i < options.count; ++i) counter.fetch_add(1);
  });
  segment.control().phase.fetch_add(1);
  wait_for([&] { return segment.control().phase.load() == static_cast<std::uint32_t>(options.members); });
  const std::uint64_t all = counter.load();
  const auto want = static_cast<std::uint64_t>(options.count * options.threads * options.members);
  expect(all == want, "count: " + std::to_string(all) + " is " + std::to_string(want));
  ipc::say("count: " + std::to_string(all) + " in all");
  segment.leave(options.members);
  return 0;
}

int mutex(const Options& options) {
  struct Shared {
    pthread_mutex_t mutex;
    long counter;
  };
  const Segment segment(options.key, 1);
  auto& shared = segment.at<Shared>(0);
  if (segment.control().come.load() == 0 && segment.control().phase.fetch_add(1) == 0) {
    pthread_mutexattr_t attributes;
    ::pthread_mutexattr_init(&attributes);
    ::pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    expect(::pthread_mutex_init(&shared.mutex, &attributes) == 0, "pthread_mutex_init");
    segment.control().phase.store(1000);
  }
  wait_for([&] { return segment.control().phase.load() >= 1000; });
  meet(segment.control(), options.members);
  in_threads(options.threads, [&] {
    for (long i = 0; i < options.count; ++i) {
      ::pthread_mutex_lock(&shared.mutex);
      ++shared.counter;
      ::pthread_mutex_unlock(&shared.mutex);
    }
  });
  segment.control().stop.fetch_add(1);
  wait_for([&] { return segment.control().stop.load() == static_cast<std::uint32_t>(options.members); });
  const long want = options.count * options.threads * options.members;
  expect(shared.counter == want, "mutex: " + std::to_string(shared.counter) + " is " + std::to_string(want));
  ipc::say("mutex: " + std::to_string(want) + " in all");
  segment.leave(options.members);
  return 0;
}

int hold(const Options& options) {
  const int id = ipc::check(::shmget(options.key, page, IPC_CREAT | 0666), "shmget");
  for (long i = 0; i < options.count; ++i) {
    ipc::check(reinterpret_cast<std::intptr_t>(::shmat(id, nullptr, 0)), "shmat");
  }
  ipc::say("holds " + std::to_string(id));
  wait_to_be_killed();
}

int post(const Options& options) {
  const int id = ipc::check(::semget(options.key, 1, IPC_CREAT | 0666), "semget");
  sembuf add = {0, static_cast<short>(options.count), 0};
  ipc::check(::semop(id, &add, 1), "semop");
  ipc::say("set " + std::to_string(id));
  return 0;
}

int undo(const Options& options) {
  const int id = ipc::check(::semget(options.key, 1, IPC_CREAT | 0666), "semget");
  sembuf take = {0, -1, SEM_UNDO};
  ipc::check(::semop(id, &take, 1), "semop");
  ipc::say("took of " + std::to_string(id));
  wait_to_be_killed();
}

}  // namespace dshm_stress

int main(int argc, char** argv) {
  using namespace dshm_stress;
  static const std::map<std::string, int (*)(const Options&)> modes = {
      {"count", count},     {"mutex", mutex}, {"io", io},     {"forks", forks}, {"orphan", orphan}, {"hold", hold},
      {"records", records}, {"check", check}, {"stop", stop}, {"undo", undo},   {"post", post}};
  Options options;
  ipc::Program about{"dshm_stress MODE KEY [options]\nModes:", {}, {"MODE", "KEY"}};
  for (const auto& mode : modes) about.usage += " " + mode.first;
  ipc::add_number(about.options, "members", options.members, 1, 1000, "processes that meet");
  ipc::add_number(about.options, "threads", options.threads, 1, 1000, "of each");
  ipc::add_number(about.options, "count", options.count, 1L, 1000000000L, "how often");
  ipc::add_number(about.options, "slot", options.slot, 0, 7, "of a writer of records");
  about.options.add_options()("rude", ipc::po::bool_switch(&options.rude), "close all descriptors, take SIGSEGV");
  return ipc::run_program(argc, argv, about, [&](const ipc::po::variables_map& values) {
    options.key = static_cast<key_t>(ipc::whole_number(values["KEY"].as<std::string>()));
    const auto mode = modes.find(values["MODE"].as<std::string>());
    if (mode == modes.end()) throw ipc::UsageError("there is no such mode");
    return mode->second(options);
  });
}
