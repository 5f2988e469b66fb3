// dsm/dshm_agent/hosted_world.hpp - hosts with processes and threads, and a home, in one thread: what hosted_test.cpp
// walks at random. Used by that test only.
//
// Each process is fake, but what it may do with a page is kept by the fakes, not by Hosted: so that Hosted believes
// more than is so, or less, is found. A thread's instruction adds one to a word of a page; or it faults, and waits.
#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "dsm/dshm_agent/hosted.hpp"

namespace dsm::dshm_agent::testing {

struct Letter {  // between a host and the home
  core::Message message;
  PageBytes bytes;
};

class World;

class Host final : private Hands {
 public:
  Host(World& world, core::Node slot, Page pages, Micros hold);

  struct Thread {
    Page page = 0;
    int left = 0;  // instructions
    bool waits = false, writes = false;
  };
  struct Order {
    Page page = 0;
    Access access{};
    bool acknowledge = false;
  };
  struct Process {
    bool uffd = false, stopped = false;
    std::vector<Access> rights;  // by page
    std::vector<Thread> threads;
    std::deque<Order> orders;
    std::deque<Page> obeyed;  // to be acknowledged
  };

  void start(ProcessNumber number, bool uffd, std::size_t threads, int instructions);
  void kill(ProcessNumber number);
  // One step of one thread; true if it has added one.
  bool run(ProcessNumber number, std::size_t thread);
  void obey(ProcessNumber number);
  void acknowledge(ProcessNumber number);

  [[nodiscard]] Access most(Page page) const;  // of what its processes may
  [[nodiscard]] bool is_done() const;

  Hosted hosted;
  std::map<ProcessNumber, Process> processes;
  std::deque<Letter> to_home, from_home;

 private:
  void send(const core::Message& message, PageBytes bytes) override;
  [[nodiscard]] PageBytes read(Page page) override;
  void write(Page page, std::span<const std::uint8_t> bytes) override;
  void punch(Page page) override;
  void write_protect(ProcessNumber process, Page page) override;
  void map(const Toucher& toucher, Page page, Access access) override;
  void wake(const Toucher& toucher) override;
  void order(ProcessNumber process, Page page, Access access, bool acknowledge) override;

  void let_go(Process& process, Page page);

  World& world_;
  std::map<Page, PageBytes> frames_;

  friend class World;
};

class World {
 public:
  World(std::uint64_t seed, std::size_t hosts, Page pages, Micros hold);

  void step();  // one of all that can happen, at random
  // All that is under way arrives, all orders are obeyed, threads run on, until nothing can happen any more.
  [[nodiscard]] bool finish(std::size_t steps_max);
  void check();                         // one writer, or readers
  [[nodiscard]] std::uint64_t total();  // of all pages: what was added
  void require(bool holds, const std::string& what);

  std::mt19937_64 random;
  Micros now = 1;
  std::vector<std::unique_ptr<Host>> hosts;
  std::uint64_t added = 0;
  std::string failure;  // the first

 private:
  void deliver_to_home(Host& host, core::Node slot);
  void deliver_from_home(Host& host);
  void collect(Host& host, std::vector<std::function<void()>>& out);
  [[nodiscard]] std::vector<std::function<void()>> choices();

  Page pages_;
  core::Coherence home_;
  std::vector<PageBytes> store_;
};

}  // namespace dsm::dshm_agent::testing
