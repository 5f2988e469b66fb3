// dsm/node/fake_cluster.hpp - several nodes in one process, connected by socket pairs, over a pager that is only a table.
// For node's tests: everything of a rank but mprotect and the handshake, so that ThreadSanitizer sees all of it.
#pragma once
#include <sys/socket.h>

#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "dsm/node/node.hpp"
#include "ipc/error.hpp"

namespace dsm::node::testing {

inline constexpr std::size_t page_bytes = 4096;

// The application's view and the alias are the same bytes; an access holds the page's mutex, so that lowering the
// protection waits for the "instruction" under way, as the hardware would.
class FakePager final : public pager::Pager {
 public:
  explicit FakePager(std::size_t pages, std::size_t runs = SIZE_MAX) : memory_(pages * page_bytes), pages_(pages), runs_max_(runs) {}
  [[nodiscard]] std::size_t page_size() const noexcept override { return page_bytes; }
  [[nodiscard]] std::size_t size() const noexcept override { return memory_.size(); }
  [[nodiscard]] char* base() const noexcept override { return nullptr; }
  [[nodiscard]] char* frame(core::Page page) const noexcept override {
    return const_cast<char*>(memory_.data()) + page * page_bytes;
  }
  void protect(core::Page page, core::Access allow) noexcept override {
    const std::scoped_lock lock(pages_[page].mutex);
    pages_[page].access = allow;
  }
  [[nodiscard]] std::size_t runs_max() const noexcept override { return runs_max_; }
  [[nodiscard]] std::size_t runs() {
    std::size_t count = 1;
    for (std::size_t page = 1; page < pages_.size(); ++page) {
      const std::scoped_lock lock(pages_[page - 1].mutex, pages_[page].mutex);
      count += pages_[page].access != pages_[page - 1].access ? 1 : 0;
    }
    return count;
  }
  // One instruction: runs `operation` on the page's bytes when it may, faulting as often as it takes.
  template <class Operation>
  void touch(pager::FaultSink& sink, core::Page page, core::Access want, const Operation& operation) {
    for (;;) {
      {
        const std::scoped_lock lock(pages_[page].mutex);
        if (pages_[page].access >= want) return operation(frame(page));
      }
      sink.on_fault(page, want, pager::site_of(::pthread_self(), reinterpret_cast<std::uintptr_t>(&sink)));
    }
  }

 private:
  struct Page {
    std::mutex mutex;
    core::Access access = core::Access::none;
  };
  std::vector<char> memory_;
  std::vector<Page> pages_;
  std::size_t runs_max_;
};

inline std::pair<std::unique_ptr<net::Channel>, std::unique_ptr<net::Channel>> channel_pair() {
  int fds[2];
  ipc::check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), "socketpair");
  return {std::make_unique<net::Channel>(ipc::Fd(fds[0]), page_bytes, 1024),
          std::make_unique<net::Channel>(ipc::Fd(fds[1]), page_bytes, 1024)};
}

class FakeCluster {
 public:
  struct Rank {
    std::unique_ptr<telemetry::Publisher> publisher;
    std::unique_ptr<FakePager> pager;
    std::unique_ptr<Node> node;
    template <class Operation>
    void touch(core::Page page, core::Access want, const Operation& operation) {
      pager->touch(*node, page, want, operation);
    }
    [[nodiscard]] std::uint64_t count(std::atomic<std::uint64_t> telemetry::Counters::*counter) const {
      return (publisher->counters().*counter).load();
    }
  };

  FakeCluster(std::size_t ranks, std::size_t pages, core::Protocol protocol, std::uint32_t lanes = 2, core::Micros hold = 100,
              std::size_t runs_max = SIZE_MAX, core::Placement placement = core::Placement::cyclic) {
    std::vector<net::Mesh> meshes(ranks);
    for (std::size_t i = 0; i < ranks; ++i) {
      meshes[i].rank = static_cast<int>(i);
      meshes[i].welcome.lanes = lanes;
      meshes[i].links.resize(ranks);
    }
    for (std::size_t i = 0; i < ranks; ++i) {
      for (std::size_t j = 0; j < ranks; ++j) {
        if (i < j) std::tie(meshes[i].links[j].service, meshes[j].links[i].service) = channel_pair();
        for (std::uint32_t lane = 0; i != j && lane < lanes; ++lane) {
          auto [caller, callee] = channel_pair();
          meshes[i].links[j].calls.push_back(std::move(caller));
          meshes[j].links[i].answers.push_back(std::move(callee));
        }
      }
    }
    ranks_.resize(ranks);
    for (std::size_t i = 0; i < ranks; ++i) {
      Rank& r = ranks_[i];
      r.publisher = std::make_unique<telemetry::Publisher>(static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(ranks), page_bytes, pages, core::name(protocol));
      r.pager = std::make_unique<FakePager>(pages, runs_max);
      const Node::Options options{.protocol = protocol, .placement = placement, .pages = pages, .page_size = page_bytes, .hold = hold};
      r.node = std::make_unique<Node>(std::move(meshes[i]), options, *r.publisher);
      r.node->start(*r.pager);
    }
  }
  ~FakeCluster() {
    everywhere([](Rank& r, std::size_t) { r.node->finalize(); });
  }

  [[nodiscard]] Rank& operator[](std::size_t i) { return ranks_[i]; }
  [[nodiscard]] std::size_t size() const { return ranks_.size(); }

  // Runs `work(rank, thread)` in `threads` threads of each rank, and waits for all.
  template <class Work>
  void everywhere(const Work& work, std::size_t threads = 1) {
    std::vector<std::thread> running;
    for (Rank& r : ranks_) {
      for (std::size_t t = 0; t < threads; ++t) running.emplace_back([&r, t, &work] { work(r, t); });
    }
    for (std::thread& t : running) t.join();
  }
  [[nodiscard]] std::uint64_t total(std::atomic<std::uint64_t> telemetry::Counters::*counter) const {
    std::uint64_t sum = 0;
    for (const Rank& r : ranks_) sum += r.count(counter);
    return sum;
  }

 private:
  std::vector<Rank> ranks_;
};

}  // namespace dsm::node::testing
