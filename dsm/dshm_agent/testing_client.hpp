// dsm/dshm_agent/testing_client.hpp - a process that speaks to its agent by itself, without libdshm. Used by the
// agent's tests only; each client is a process of its own (testing_bench.hpp).
//
// It fails by throwing. One thread of the test's, and, without a userfaultfd, one that obeys orders.
#pragma once
#include <signal.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "dsm/dshm_agent/local.hpp"
#include "dsm/sysv/wire.hpp"
#include "ipc/fd.hpp"

namespace dsm::dshm_agent::testing {

enum class Pager { uffd, orders };

// One message, with the credentials that the kernel checks, and a descriptor or -1. Throws if it cannot be sent.
void send_frame(int fd, const sysv::Frame& frame, int descriptor = -1);
struct Came {
  sysv::Answer answer;
  ipc::Fd descriptor;
};
// Throws if the connection ends, or nothing comes for a minute.
[[nodiscard]] Came receive_answer(int fd);

class Caller {
 public:
  explicit Caller(const std::string& server);  // a call connection
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] Came ask(sysv::Question question, int descriptor = -1);
  void send(sysv::Question question, int descriptor = -1);

 private:
  ipc::Fd fd_;
  std::uint32_t last_ = 0;
};

class Client {
 public:
  // `service`: -1, or where a child of fork finds its own. `events`: what the userfaultfd is to tell beside faults.
  Client(const std::string& server, Pager pager, int service = -1, std::uint64_t events = 0);
  Client(const Client&) = delete;

  [[nodiscard]] Caller& caller() { return *caller_; }
  [[nodiscard]] const Lease& lease() const { return *lease_; }
  // shmget, shmat; throws std::system_error with the errno that came.
  [[nodiscard]] std::int32_t get(std::int32_t key, std::uint64_t size, std::int32_t flags);
  [[nodiscard]] volatile std::uint64_t* attach(std::int32_t id);
  // The two halves of it: the memfd comes; where it is mapped is said.
  [[nodiscard]] Came ask_attach(std::int32_t id);
  void say_mapped(std::int32_t id, const void* address, std::size_t size);
  void detach(const volatile std::uint64_t* address);
  void unmap(const volatile std::uint64_t* address, std::size_t first_page, std::size_t pages);
  [[nodiscard]] sysv::SegmentStat stat(std::int32_t id);
  [[nodiscard]] std::uint64_t attaches(std::int32_t id) { return stat(id).nattch; }
  void remove(std::int32_t id);
  // fork(2); in the child the attaches are closed until it has made a Client of its own, with what is returned as
  // service.
  struct Forked {
    pid_t pid = 0;
    int service = -1;
  };
  [[nodiscard]] Forked fork_child();
  void adopt(const Client& parent);  // in the child: the parent's attaches
  [[nodiscard]] bool over() const { return over_; }
  void close_service() { service_.reset(); }
  [[nodiscard]] int userfault() const { return userfault_.get(); }
  // Returns when the agent has closed the service connection; throws if it does not. REQUIRES: it has a userfaultfd.
  void await_end_of_service() const;

 private:
  struct Mapped {
    std::int32_t id = 0;
    char* address = nullptr;
    std::size_t size = 0;
  };
  static void on_segv(int signo, siginfo_t* info, void* context);
  static void* serve(void* self);
  void obey(const Order& order);
  [[nodiscard]] int protection() const;

  Pager pager_;
  std::string server_;
  ipc::Fd service_, userfault_;
  const Lease* lease_ = nullptr;
  std::unique_ptr<Caller> caller_;
  std::vector<Mapped> mapped_;
  std::atomic<std::uint32_t> obeyed_{0};
  std::atomic<bool> over_{false};
};

}  // namespace dsm::dshm_agent::testing
