// dsm/tests/strangers_proxy.hpp - one who sits between the ranks of a job and their rendezvous, or dsmd and those who come
// to it, records what is said there, and holds back what they are told, for as long as a test wants a job to stand still.
//
// A rank comes here because it was told this port instead (line_through). Thread-safety: any thread, but the destructor.
#pragma once
#include <atomic>
#include <cstdint>
#include <list>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "ipc/fd.hpp"

namespace dsm::launch::testing {

class Proxy {
 public:
  Proxy();
  Proxy(const Proxy&) = delete;
  ~Proxy();
  // A job's program and its words, so that its ranks find their rendezvous here.
  [[nodiscard]] std::vector<std::string> line_through(const std::vector<std::string>& line) const;
  [[nodiscard]] std::uint16_t port() const { return port_; }  // where this one is
  // Where the true rendezvous is: until this is said, nobody is let through.
  void lead_to(std::uint16_t port) { to_ = port; }
  // Whether the ranks may hear what follows the handshake: their Welcome.
  void let_welcome_through(bool yes) { open_ = yes; }
  // What the first rank has said till now, in its handshake and behind it; empty until it has said so much.
  [[nodiscard]] std::string recorded();
  [[nodiscard]] std::size_t joined();  // ranks that have

 private:
  struct Pair;
  void run(const std::stop_token& stop);
  bool carry(Pair& pair);  // false when one side has closed

  ipc::Fd listener_;
  std::uint16_t port_;
  std::atomic<std::uint16_t> to_{0};
  std::atomic<bool> open_{false};
  std::mutex mutex_;
  std::string recorded_;
  std::size_t joined_ = 0;
  std::list<Pair> pairs_;
  std::jthread thread_;
};

}  // namespace dsm::launch::testing
