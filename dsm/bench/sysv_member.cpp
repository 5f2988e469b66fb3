#include "dsm/bench/sysv_member.hpp"

#include <sched.h>
#include <sys/ipc.h>
#include <sys/shm.h>

#include <atomic>
#include <chrono>
#include <stdexcept>

#include "dsm/bench/limits.hpp"
#include "ipc/error.hpp"
#include "ipc/spawn.hpp"

namespace bench {
namespace {

using Clock = std::chrono::steady_clock;

double microseconds_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

char* attach(int id) {
  void* const memory = ::shmat(id, nullptr, 0);
  ipc::check(reinterpret_cast<std::intptr_t>(memory), "shmat");
  return static_cast<char*>(memory);
}

class Member {
 public:
  // The page before the block has the counter.
  Member(int number, int key, std::uint32_t pages) : number_(static_cast<std::uint64_t>(number)) {
    id_ = ipc::check(::shmget(key, (pages + 1) * page_bytes, IPC_CREAT | 0600), "shmget");
    own_id_ = ipc::check(::shmget(IPC_PRIVATE, page_bytes, 0600), "shmget");
    memory_ = attach(id_);
  }
  Member(const Member&) = delete;
  ~Member() { ::shmctl(own_id_, IPC_RMID, nullptr); }

  Samples obey(const SysvCommand& command) {
    switch (command.what) {
      case SysvCommand::Do::write:
        for (std::uint32_t page = 0; page < command.count; ++page) word(page) = command.stamp;
        return {};
      case SysvCommand::Do::renew:
        ipc::check(::shmdt(memory_), "shmdt");
        memory_ = attach(id_);
        return {};
      case SysvCommand::Do::fault:
        return take_faults(command);
      case SysvCommand::Do::counter:
        return hand_over(command.count);
      case SysvCommand::Do::attach:
        return attach_and_detach(command.count);
    }
    throw std::runtime_error("there is no such command");
  }

 private:
  [[nodiscard]] volatile std::uint64_t& word(std::uint32_t page) const {
    return *reinterpret_cast<volatile std::uint64_t*>(memory_ + (page + 1) * page_bytes);
  }

  [[nodiscard]] Samples take_faults(const SysvCommand& command) const {
    Samples samples;
    samples.reserve(command.count);
    for (const std::uint32_t page : Pattern{command.count, 1}.order()) {
      const volatile std::uint64_t& there = word(page);
      const auto begin = Clock::now();
      const std::uint64_t found = there;
      samples.push_back(microseconds_since(begin));
      if (found != command.stamp) throw std::runtime_error("a page has the wrong bytes");
    }
    return samples;
  }

  // Member n adds when the counter is n, modulo 2. Half of there and back is a sample.
  [[nodiscard]] Samples hand_over(std::uint32_t count) const {
    auto& counter = *reinterpret_cast<std::atomic<std::uint64_t>*>(memory_);
    Samples samples;
    samples.reserve(count);
    auto begin = Clock::now();
    for (std::uint32_t i = 0; i < count; ++i) {
      while (counter.load() % 2 != number_) ::sched_yield();
      counter.fetch_add(1);
      samples.push_back(microseconds_since(begin) / 2);
      begin = Clock::now();
    }
    return samples;
  }

  [[nodiscard]] Samples attach_and_detach(std::uint32_t count) const {
    Samples samples;
    samples.reserve(count);
    for (std::uint32_t i = 0; i < count; ++i) {
      const auto begin = Clock::now();
      ipc::check(::shmdt(attach(own_id_)), "shmdt");
      samples.push_back(microseconds_since(begin));
    }
    return samples;
  }

  std::uint64_t number_;
  int id_ = -1, own_id_ = -1;
  char* memory_ = nullptr;
};

}  // namespace

void run_sysv_member(int socket, int number, int key, std::uint32_t pages) {
  Member member(number, key, pages);
  SysvCommand command;
  while (ipc::read_full(socket, &command, sizeof command) == sizeof command) {
    const Samples samples = member.obey(command);
    const std::uint64_t size = samples.size();
    if (ipc::write_full(socket, &size, sizeof size) < 0 ||
        ipc::write_full(socket, samples.data(), size * sizeof samples[0]) < 0) {
      ipc::throw_errno("answer dshm_bench");
    }
  }
}

}  // namespace bench
